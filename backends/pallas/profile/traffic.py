"""The bytes that the blocks of Pallas kernels move, from their grids and index maps.

    for each step of the grid, the last dimension innermost:
        an operand whose block is another one than in the step before is fetched
        a result whose block is another one in the next step is written

That is what Pallas does. Blocks that reach past the edge of their array move what is inside it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAX_STEPS: Final = 1 << 22
"""Grids of more steps are not walked."""


def calls(jaxpr: Any) -> list[dict[str, Any]]:
    """Every `pallas_call` in `jaxpr` as plain values: its grid, and what each block moves.

    `blocks` is None where it depends on values that are not known before the call, or where the
    kernel copies by itself.
    """
    return [_call(equation.params["grid_mapping"]) for equation in _pallas_calls(jaxpr)]


def _pallas_calls(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if equation.primitive.name == "pallas_call":
            yield equation
            continue
        for value in equation.params.values():
            if hasattr(value, "eqns"):
                yield from _pallas_calls(value)


def _call(mapping: Any) -> dict[str, Any]:
    grid = [int(n) for n in mapping.grid]
    blocks: list[dict[str, Any]] | None = None
    if mapping.num_index_operands == 0 and math.prod(grid) <= MAX_STEPS:
        steps = [axis.ravel() for axis in np.indices(grid, dtype=np.int32)]
        moved = [_moved(block, steps) for block in mapping.block_mappings]
        blocks = [entry for entry in moved if entry is not None]
        blocks = blocks if len(blocks) == len(moved) else None
    return {"grid": grid, "blocks": blocks}


def _moved(block: Any, steps: list[npt.NDArray[np.int32]]) -> dict[str, Any] | None:
    """How often the block of one array changes, the bytes of all and of the first."""
    jax: Any = import_module("jax")
    core: Any = import_module("jax.extend.core")
    if "any" in str(block.block_aval) or "hbm" in str(block.block_aval).lower():
        return None
    index_map: Any = core.jaxpr_as_fun(block.index_map_jaxpr)
    constant = [np.zeros(1, np.int32)]
    found: Any = jax.vmap(index_map)(*(steps or constant))
    indices = np.stack([np.asarray(index) for index in found], axis=1)
    changed = np.r_[True, (indices[1:] != indices[:-1]).any(axis=1)]
    array: Any = block.array_aval
    elements = np.ones(int(changed.sum()), np.int64)
    for size, extent, index in zip(block.block_shape, array.shape, indices[changed].T, strict=True):
        elements *= _inside(size, int(extent), index)
    total = elements * int(array.dtype.itemsize)
    return {"copies": len(total), "bytes": int(total.sum()), "first_bytes": int(total[0])}


def _inside(size: Any, extent: int, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """How much of each block, along one dimension, lies inside of the array."""
    width = int(getattr(size, "block_size", 1) or 1)
    first = index * width if type(size).__name__ == "Blocked" else index
    return np.clip(extent - first, 0, width)
