"""What `import gemmir` shows, imported when it is first used."""

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
