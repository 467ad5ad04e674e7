"""gemmir lowers one GEMM through one compiler pipeline to many machines.

import gemmir
    gemm = gemmir.Gemm(m=1024, n=768, k=3072, epilogue="bias+gelu")
    lowered = gemmir.lower(gemm)            # lowered.stages, lowered.artifact, lowered.explain()
    kernel = gemmir.compile(gemm)           # c = kernel(a, b, bias)

Importing gemmir imports the whole way to the IR, so that the first compile is as quick as the next;
a backend is imported when it is first used.
"""

from gemmir.compiler import Lowered, compile, lower, lower_text
from gemmir.errors import GemmirError
from gemmir.gemm import Gemm
from gemmir.int4 import pack_int4, unpack_int4
from gemmir.kernel import Kernel
from gemmir.multiply import matmul
from gemmir.schedule import PassPipeline, Schedule
from gemmir.sharded import sharded_matmul
from gemmir.sizes import ANY

__all__ = [
    "ANY",
    "Gemm",
    "GemmirError",
    "Kernel",
    "Lowered",
    "PassPipeline",
    "Schedule",
    "compile",
    "lower",
    "lower_text",
    "matmul",
    "pack_int4",
    "sharded_matmul",
    "unpack_int4",
]
