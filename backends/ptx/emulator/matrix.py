"""mma, ldmatrix and stmatrix: PTX ISA, section "Warp-level Matrix Instructions".

All lanes of a warp take part. Products are exact; their sum and the accumulator are rounded to the
accumulator's type once, which is more exact than the tensor cores promise to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import ml_dtypes
import numpy as np

from gemmir.backends.ptx.emulator import fragments
from gemmir.backends.ptx.emulator.access import count_access
from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.marks import Stamp
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Read,
    Scope,
    names_in,
    refuse,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import BF16, WIDTHS, Array, bits_of

FACTORS: Final[Mapping[str, np.dtype[Any]]] = {
    "f16": np.dtype(np.float16),
    "bf16": BF16,
    "tf32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "s8": np.dtype(np.int8),
    "u8": np.dtype(np.uint8),
    "e4m3": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
}
"""The element types of A and B."""

SUMS: Final[Mapping[str, np.dtype[Any]]] = {
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "s32": np.dtype(np.int32),
}
"""The element types of C and D."""

TF32_BITS: Final = np.uint32(0xFFFFE000)
"""The bits of a .b32 register that count as tf32."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What may be multiplied together: types of A and B, with the shapes and sums for them."""

    factors: tuple[str, ...]
    mixed: bool
    shapes: tuple[tuple[int, int], ...]
    sums: tuple[str, ...]


KINDS: Final = (
    Kind(("f16",), False, ((16, 8), (16, 16)), ("f32", "f16")),
    Kind(("bf16",), False, ((16, 8), (16, 16)), ("f32",)),
    Kind(("tf32",), False, ((16, 4), (16, 8)), ("f32",)),
    Kind(("f64",), False, ((8, 4), (16, 4), (16, 8), (16, 16)), ("f64",)),
    Kind(("s8", "u8"), True, ((8, 16), (16, 16), (16, 32)), ("s32",)),
    Kind(("e4m3", "e5m2"), True, ((16, 16), (16, 32)), ("f32", "f16")),
)
"""The forms of mma.sync that are known here, with m and k of their shapes; n is 8."""

_SHAPE: Final = re.compile(r"m(\d+)n8k(\d+)")


@dataclass(frozen=True, slots=True)
class Product:
    """One form of mma."""

    rows: int
    depth: int
    a: str
    b: str
    c: str
    d: str
    saturates: bool


def _product_of(i: Instruction) -> Product:
    words = list(i.name)
    saturates = "satfinite" in words
    if saturates:
        words.remove("satfinite")
    shape = _SHAPE.fullmatch(words[3]) if len(words) == 10 else None
    if shape is None or words[1:3] != ["sync", "aligned"] or words[4:6] != ["row", "col"]:
        raise refuse(i)
    rows, depth = map(int, shape.groups())
    d, a, b, c = words[6:]
    found = [k for k in KINDS if a in k.factors and b in k.factors and (a == b or k.mixed)]
    fits = found and (rows, depth) in found[0].shapes and c == d and d in found[0].sums
    if not fits or (saturates and d != "s32"):
        raise refuse(i)
    return Product(rows, depth, a, b, c, d, saturates)


def _mma(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 4)
    form = _product_of(i)
    width = FACTORS[form.a].itemsize
    packed = max(4 // width, 1)
    registers = "b64" if form.a == "f64" else "b32"
    a = _matrix(scope, i.operands[1], registers, form.rows * form.depth, FACTORS[form.a])
    b = _matrix(scope, i.operands[2], registers, form.depth * 8, FACTORS[form.b])
    c = _matrix(scope, i.operands[3], registers, form.rows * 8, SUMS[form.c])
    writes = _targets(scope, i.operands[0], registers, form.rows * 8, SUMS[form.d])
    of_a = fragments.places_of_a(form.rows, form.depth, packed)
    of_b = fragments.places_of_b(form.depth, packed)
    of_c = fragments.places_of_c(form.rows)
    lanes = fragments.elements_of_c(form.rows)
    cut = form.a == "tf32"
    finish = _finish(form)
    word = bits_of(WIDTHS[registers])

    def run(block: Block, group: Group) -> None:
        warps = group.require_warps()
        left = widened(a(block, group).reshape(warps, -1)[:, of_a], cut)
        right = widened(b(block, group).reshape(warps, -1)[:, of_b], cut)
        added = c(block, group).reshape(warps, -1)[:, of_c].astype(np.float64)
        total = finish(left @ right + added)
        each = total.reshape(warps, -1)[:, lanes].reshape(warps * WARP, -1)
        words = np.ascontiguousarray(each).view(word).T.copy()
        for row, write in zip(words, writes, strict=True):
            write(block, group, row)

    return run


def widened(values: Array, cut: bool) -> Array:
    """Values in f64; with `cut` only the bits of f32 that count as tf32."""
    if cut:
        values = (np.ascontiguousarray(values).view(np.uint32) & TF32_BITS).view(np.float32)
    return values.astype(np.float64)


def _finish(form: Product) -> Callable[[Array], Array]:
    """Rounds exact sums; those of integers wrap around, or stop at the ends."""
    dtype = SUMS[form.d]
    if form.d != "s32":
        return lambda total: total.astype(dtype)
    if form.saturates:
        return lambda total: np.clip(total, -(2.0**31), 2.0**31 - 1).astype(dtype)
    return lambda total: total.astype(np.int64).astype(dtype)


def _registers(operand: str, kind: str, elements: int, dtype: np.dtype[Any]) -> list[str]:
    names = names_in(operand)
    needed = elements // WARP * dtype.itemsize // (8 if kind == "b64" else 4)
    if len(names) != needed:
        raise FaultError("GEM1001", f"{operand} is not {needed} registers")
    return names


def _matrix(
    scope: Scope, operand: str, kind: str, elements: int, dtype: np.dtype[Any]
) -> Callable[[Block, Group], Array]:
    """Reads the elements that each thread holds of a matrix, a row a thread."""
    reads: list[Read] = [
        scope.source(name, kind) for name in _registers(operand, kind, elements, dtype)
    ]

    def read(block: Block, group: Group) -> Array:
        return np.array([one(block, group) for one in reads]).T.copy().view(dtype)

    return read


def _targets(
    scope: Scope, operand: str, kind: str, elements: int, dtype: np.dtype[Any]
) -> list[Callable[[Block, Group, Array], None]]:
    return [scope.target(name, kind) for name in _registers(operand, kind, elements, dtype)]


@dataclass(frozen=True, slots=True)
class Tiles:
    """What ldmatrix and stmatrix move: matrices of 8 rows of 16 bytes."""

    count: int
    transposed: bool


def _tiles_of(i: Instruction) -> Tiles:
    words = list(i.name[1:])
    transposed = "trans" in words
    if transposed and words.pop(4) != "trans":
        raise refuse(i)
    fits = len(words) == 6 and words[:3] == ["sync", "aligned", "m8n8"] and words[5] == "b16"
    if not fits or words[3] not in ("x1", "x2", "x4") or words[4] not in ("shared", "shared::cta"):
        raise refuse(i)
    return Tiles(int(words[3][1:]), transposed)


def _rows(
    block: Block, group: Group, place: int, addresses: Array, tiles: Tiles
) -> tuple[int, Array, Stamp]:
    """How many warps, the rows that 8 lanes for each matrix address, and in whose name."""
    warps = group.require_warps()
    own = addresses.reshape(warps, WARP)[:, : 8 * tiles.count].ravel()
    lanes = group.lanes.reshape(warps, WARP)[:, : 8 * tiles.count].ravel()
    rows = block.shared.rows(own, 16)
    users = Group(lanes, False)
    count_access(block, "shared", place, own, 16, users)
    return warps, rows, block.stamp(users)


def _ldmatrix(scope: Scope, i: Instruction, place: int) -> Action:
    """A lane gets two adjacent elements of row lane / 4 of each matrix, or of its transpose."""
    require_operands(i, 2)
    tiles, address = _tiles_of(i), scope.address(i.operands[1])
    writes = _targets(scope, i.operands[0], "b32", 64 * tiles.count, np.dtype(np.uint16))

    def run(block: Block, group: Group) -> None:
        warps, rows, stamp = _rows(block, group, place, address(block, group), tiles)
        found = block.shared.load(rows, 16, stamp).view(np.uint16)
        found = found.reshape(warps, tiles.count, 8, 8)
        if tiles.transposed:
            found = np.ascontiguousarray(found.swapaxes(2, 3))
        words = found.view(np.uint32).reshape(warps, tiles.count, WARP)
        for row, write in zip(words.swapaxes(0, 1).copy(), writes, strict=True):
            write(block, group, row.ravel())

    return run


def _stmatrix(scope: Scope, i: Instruction, place: int) -> Action:
    """The way back of ldmatrix."""
    require_operands(i, 2)
    tiles, address = _tiles_of(i), scope.address(i.operands[0])
    names = _registers(i.operands[1], "b32", 64 * tiles.count, np.dtype(np.uint16))
    reads = [scope.source(name, "b32") for name in names]

    def run(block: Block, group: Group) -> None:
        warps, rows, stamp = _rows(block, group, place, address(block, group), tiles)
        words = np.stack([read(block, group).reshape(warps, WARP) for read in reads], axis=1)
        values = words.view(np.uint16).reshape(warps, tiles.count, 8, 8)
        if tiles.transposed:
            values = np.ascontiguousarray(values.swapaxes(2, 3))
        block.shared.store(rows, values.reshape(-1, 8).view(np.uint8), stamp)

    return run


MATRICES: Final[Mapping[str, Decode]] = {
    "ldmatrix": _ldmatrix,
    "mma": _mma,
    "stmatrix": _stmatrix,
}
