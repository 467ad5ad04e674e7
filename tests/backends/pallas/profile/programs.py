"""Programs for the tests: a Pallas kernel with and without a loop over k, and XLA's product."""

from __future__ import annotations

import importlib.util
from typing import Final

import pytest

from gemmir.backends.pallas.profile import Array, Program

needs_libtpu: Final = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("jax", "libtpu")),
    reason="jax or libtpu is not installed: pip install gemmir[tpu-aot]",
)

KERNEL: Final = """
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu


def _step(a, b, c, total):
    product = jnp.dot(a[...], b[...], preferred_element_type=jnp.float32)
    total[...] = jnp.where(pl.program_id(2) == 0, 0.0, total[...]) + product

    @pl.when(pl.program_id(2) == pl.num_programs(2) - 1)
    def _():
        c[...] = total[...].astype(c.dtype)


def kernel(a, b):
    (m, k), n = a.shape, b.shape[1]
    return pl.pallas_call(
        _step,
        grid=(pl.cdiv(m, {bm}), pl.cdiv(n, {bn}), pl.cdiv(k, {bk})),
        in_specs=[
            pl.BlockSpec(({bm}, {bk}), lambda i, j, l: (i, l)),
            pl.BlockSpec(({bk}, {bn}), lambda i, j, l: (l, j)),
        ],
        out_specs=pl.BlockSpec(({bm}, {bn}), lambda i, j, l: (i, j)),
        out_shape=jax.ShapeDtypeStruct((m, n), a.dtype),
        scratch_shapes=[pltpu.VMEM(({bm}, {bn}), jnp.float32)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes={vmem},
        ),
    )(a, b)
"""

DOT: Final = """
import jax.numpy as jnp


def dot(a, b):
    return jnp.dot(a, b, preferred_element_type=jnp.float32).astype(jnp.bfloat16)
"""


def kernel(
    m: int, n: int, k: int, *, blocks: tuple[int, int, int], vmem: int = 16 << 20
) -> Program:
    """A product of bf16 by a Pallas kernel with blocks of bm, bn and bk."""
    bm, bn, bk = blocks
    text = KERNEL.format(bm=bm, bn=bn, bk=bk, vmem=vmem)
    return Program(text=text, function="kernel", arguments=_matrices(m, n, k))


def dot(m: int, n: int, k: int) -> Program:
    """A product of bf16 by XLA."""
    return Program(text=DOT, function="dot", arguments=_matrices(m, n, k))


def _matrices(m: int, n: int, k: int) -> tuple[Array, Array]:
    return Array(shape=(m, k), dtype="bfloat16"), Array(shape=(k, n), dtype="bfloat16")
