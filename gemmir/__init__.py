"""gemmir lowers one GEMM through one compiler pipeline to many machines.

import gemmir
    gemm = gemmir.Gemm(m=1024, n=768, k=3072, epilogue="bias+gelu")
    lowered = gemmir.lower(gemm)            # lowered.stages, lowered.artifact, lowered.explain()
    kernel = gemmir.compile(gemm)           # c = kernel(a, b, bias)

The first use of any of its names imports the whole way to the IR, so that the first compile is as
quick as the next; a backend is imported when it is first used. `import gemmir` alone imports
nothing, as the command line does where it is only asked for help.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
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

if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """A public name, with which all others come, or a module of this package."""
        if name in __all__:
            front = _import_module("gemmir.front")
            globals().update({known: getattr(front, known) for known in __all__})
            return globals()[name]
        if not name.startswith("__"):
            try:
                return _import_module(f"gemmir.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"gemmir.{name}":
                    raise
        raise AttributeError(f"module 'gemmir' has no attribute {name!r}")

    def __dir__() -> list[str]:
        """All names, also before they are imported."""
        return sorted({*globals(), *__all__})
