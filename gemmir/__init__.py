"""gemmir lowers one GEMM through one compiler pipeline to many machines.

import gemmir
    gemm = gemmir.Gemm(m=1024, n=768, k=3072, epilogue="bias+gelu")
    lowered = gemmir.lower(gemm)            # lowered.stages, lowered.artifact, lowered.explain()
    kernel = gemmir.compile(gemm)           # c = kernel(a, b, bias)

Each name is imported when it is first used, so that `gemmir --help` need not load a compiler.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from gemmir.compiler import Lowered, compile, lower, lower_text
    from gemmir.errors import GemmirError
    from gemmir.gemm import Gemm
    from gemmir.kernel import Kernel
    from gemmir.multiply import matmul
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

_HOMES: Final = {
    "Gemm": "gemmir.gemm",
    "GemmirError": "gemmir.errors",
    "Kernel": "gemmir.kernel",
    "Lowered": "gemmir.compiler",
    "PassPipeline": "gemmir.schedule",
    "Schedule": "gemmir.schedule",
    "compile": "gemmir.compiler",
    "lower": "gemmir.compiler",
    "lower_text": "gemmir.compiler",
    "matmul": "gemmir.multiply",
}
"""The module that each public name is imported from."""


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gemmir' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
