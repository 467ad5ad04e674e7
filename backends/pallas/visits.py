"""Emitters of a grouped GEMM: which step visits which product and tile, and masks of its rows.

What `gemmir.visits` makes is found by a function of its own, from the offsets that are known when
the kernel runs. Its numbers are prefetched: index maps and kernel read them from SMEM.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.dialects import memref, vector

from gemmir.backends.pallas.arithmetic import listed
from gemmir.backends.pallas.emitter import CONDITION, SUM, Emitter, Expr, Table, shape_of
from gemmir.errors import BackendError
from gemmir.ir.dialect import VisitsOp, memref_type
from gemmir.ir.index import constant_of

_FUNCTION: Final = '''\
def {name}(offsets):
    """Which rows of which tile of {size} belong to which product, a column for each step.

    Rows: the product; the tile; the first and one past the last of its rows that are the product's;
    whether the first visit of the tile leaves rows of it out, and the last tile for which that was
    so. Steps that are not needed have no rows.
    """
    begin, end = offsets[:-1], offsets[1:]
    first = begin // {size}
    tiles = jnp.where(begin < end, (end + {most}) // {size} - first, 0)
    past = jnp.cumsum(tiles, dtype=jnp.int32)
    step = jnp.arange({steps}, dtype=jnp.int32)
    visit = jnp.minimum(step, jnp.maximum(past[-1] - 1, 0))
    product = jnp.sum(past <= visit[:, None], axis=1, dtype=jnp.int32)
    product = jnp.minimum(product, {last})
    tile = first[product] + visit - (past - tiles)[product]
    is_there = step < past[-1]
    start = jnp.where(is_there, jnp.maximum(begin[product] - tile * {size}, 0), 0)
    stop = jnp.where(is_there, jnp.minimum(end[product] - tile * {size}, {size}), 0)
    is_whole = (start == 0) & (stop == jnp.minimum({rows} - tile * {size}, {size}))
    takes_old = ((step == 0) | (tile != jnp.roll(tile, 1))) & ~is_whole
    old = lax.cummax(jnp.where(takes_old | (step == 0), tile, 0))
    return jnp.stack([product, tile, start, stop, takes_old.astype(jnp.int32), old])

'''


def visits_function(name: str, op: VisitsOp) -> str:
    """A function that makes of offsets what `op` does."""
    (bounds,) = memref_type(op.offsets).get_shape()
    return _FUNCTION.format(
        name=name,
        rows=op.rows.value.data,
        size=op.tile,
        most=op.tile - 1,
        steps=memref_type(op.result).get_shape()[1],
        last=bounds - 2,
    )


def _load(e: Emitter, op: memref.LoadOp) -> None:
    """A number that was prefetched, which nothing changes."""
    table = e.values.get(op.memref)
    if not isinstance(table, Expr):
        raise BackendError(
            "GEM0478", f"one element of {op.memref.type}", "read whole blocks as vectors"
        )
    e.define(op, op.indices, lambda x: Expr(text=f"{table.text}[{listed(x)}]"))


def _mask(e: Emitter, op: vector.CreateMaskOp) -> None:
    """The elements before an end along one axis, and all along the others."""
    shape = shape_of(op.mask_vector)
    cut = [n for n, end in enumerate(op.mask_dim_sizes) if constant_of(end) != shape[n]]
    if len(cut) != 1:
        raise BackendError(
            "GEM0479", f"a mask that is cut along {len(cut)} axes", "cut it along one"
        )
    (axis,) = cut
    iota = f"lax.broadcasted_iota(jnp.int32, {shape}, {axis})"
    rows, columns = shape

    def make(x: Sequence[Expr]) -> Expr:
        text = f"{iota} < {x[0].within(SUM)}"
        return Expr(text=text, level=CONDITION, shape=(rows, columns))

    e.define(op, (op.mask_dim_sizes[axis],), make)


VISITS: Final[Table] = {
    memref.LoadOp.name: _load,
    vector.CreateMaskOp.name: _mask,
}
