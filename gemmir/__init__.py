"""gemmir lowers one GEMM through one compiler pipeline to many machines.

import gemmir
    gemm = gemmir.Gemm(m=1024, n=768, k=3072, epilogue="bias+gelu")
    lowered = gemmir.lower(gemm)            # lowered.stages, lowered.artifact, lowered.explain()
    kernel = gemmir.compile(gemm)           # c = kernel(a, b, bias)
"""

from gemmir.compiler import Lowered, compile, lower, lower_text
from gemmir.errors import GemmirError
from gemmir.gemm import Gemm
from gemmir.kernel import Kernel
from gemmir.matmul import matmul
from gemmir.schedule import PassPipeline, Schedule

__all__ = [
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
]
