"""The amx dialect: a tile is an array of its rows, as they lie in a register."""

from __future__ import annotations

from typing import Final

import numpy as np

from gemmir.evaluate.frame import Frame, Meanings, Step
from gemmir.evaluate.values import Array, dtype_of
from gemmir.evaluate.view import View
from gemmir.ir.amx import (
    TileLoadOp,
    TileMulFOp,
    TileMulIOp,
    TileStoreOp,
    TileZeroOp,
    group_of,
    tile_type,
)


def _zero(frame: Frame, op: TileZeroOp) -> Step:
    tile = tile_type(op.result)
    zeros: Array = np.zeros(tile.shape, dtype_of(tile.element_type))
    return lambda: (zeros,)


def _load(frame: Frame, op: TileLoadOp) -> Step:
    (rows, columns), group = tile_type(op.result).shape, group_of(op.source)

    def step(source: View, *indices: int) -> tuple[Array]:
        found = source.read(indices, (rows * group, columns // group))
        words = found.reshape(rows, group, columns // group).swapaxes(1, 2)
        return (words.reshape(rows, columns),)

    return step


def _store(frame: Frame, op: TileStoreOp) -> Step:
    def step(target: View, row: int, column: int, tile: Array) -> tuple[()]:
        target.write((row, column), tile)
        return ()

    return step


def _words(tile: Array, depth: int) -> Array:
    """A tile as words of `depth` elements: rows, words of each, elements of a word."""
    return tile.reshape(tile.shape[0], -1, depth)


def _mulf(frame: Frame, op: TileMulFOp) -> Step:
    """As the manual has it: two sums, of even and of odd places, added at the end."""
    depth, least = op.depth, np.finfo(np.float32).tiny

    def normal(x: Array) -> Array:
        return np.where(np.abs(x) < least, np.float32(0), x)

    def step(lhs: Array, rhs: Array, acc: Array) -> tuple[Array]:
        x, y = (normal(_words(tile.astype(np.float32), depth)) for tile in (lhs, rhs))
        total: Array = np.zeros((*acc.shape, depth), np.float32)
        for word in range(x.shape[1]):
            total = normal(total + x[:, word, None] * y[None, word])
        pair = normal(total[..., 0] + total[..., 1])
        return (normal(normal(acc) + pair),)

    return step


def _muli(frame: Frame, op: TileMulIOp) -> Step:
    depth = op.depth

    def step(lhs: Array, rhs: Array, acc: Array) -> tuple[Array]:
        x, y = (_words(tile.astype(np.int32), depth) for tile in (lhs, rhs))
        return (acc + np.einsum("mkd,knd->mn", x, y, dtype=np.int32),)

    return step


MEANINGS: Final[Meanings] = {
    TileLoadOp: _load,
    TileMulFOp: _mulf,
    TileMulIOp: _muli,
    TileStoreOp: _store,
    TileZeroOp: _zero,
}
