"""What xDSL's own tools see of gemmir: its dialects and its passes.

After installation, `xdsl-opt FILE.mlir -p 'gemmir-tile{loops=m,n sizes=64,64}'` works. The table of
passes is the folder `gemmir.passes`; nothing of it is imported before it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from xdsl.ir import Dialect
from xdsl.passes import ModulePass
from xdsl.universe import Universe

from gemmir.passes import PREFIX, pass_class, pass_names

__all__ = ["GEMMIR_UNIVERSE"]


def _gemmir() -> Dialect:
    from gemmir.ir.dialect import GEMMIR

    return GEMMIR


def _amx() -> Dialect:
    from gemmir.ir.amx import AMX

    return AMX


def _nvgpu() -> Dialect:
    from gemmir.ir.nvgpu import NVGPU

    return NVGPU


def _pallas() -> Dialect:
    from gemmir.ir.pallas import PALLAS

    return PALLAS


def _passes() -> dict[str, Callable[[], type[ModulePass]]]:
    return {PREFIX + name: partial(pass_class, name) for name in pass_names()}


GEMMIR_UNIVERSE = Universe(
    all_dialects={"gemmir": _gemmir, "amx": _amx, "nvgpu": _nvgpu, "pallas": _pallas},
    all_passes=_passes(),
)
"""The entry point `gemmir` of the group `xdsl.universe`."""
