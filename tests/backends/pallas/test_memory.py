"""The emitted kernel in the interpreter that has memories: HBM, VMEM and copies between them.

A read beyond a buffer is an error there, what nobody has written is NaN, copies land when they
begin or when they are waited for, and accesses that no semaphore orders are races.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import pytest

from gemmir import Gemm
from gemmir.machine.tpu import V5E
from tests.backends.pallas.interpreted import emitted, interpreted, whole_numbers

TO_VMEM: Final = {name: f"promote{{operand={name} to=vmem}}" for name in "abc"}
A: Final = TO_VMEM["a"]
B: Final = TO_VMEM["b"]
C: Final = TO_VMEM["c"]
F: Final = "fuse-epilogue"
MXU: Final = "vectorize{with=mxu}"


def grid(loops: str, sizes: str) -> str:
    return f"tile{{loops={loops} sizes={sizes} over=grid}}"


def pipeline(loop: str) -> str:
    return f"pipeline{{loop={loop} stages=2 with=dma}}"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem and the passes for it.

    A C that is read is cut into whole blocks: JAX 0.10.2 does not cut what it pads of an array that
    is an input and an output.
    """

    gemm: Gemm
    schedule: tuple[str, ...]


CASES: Final = {
    "slices": Case(
        gemm=Gemm(m=40, n=48, k=56, dtype="bf16", epilogue="bias+residual"),
        schedule=(
            *(grid("m,n", "16,32"), C, "tile{loops=k sizes=16}", A, B, F),
            *(pipeline("k"), MXU),
        ),
    ),
    "in place": Case(
        gemm=Gemm(m=32, n=64, k=40, dtype="bf16", trans_b=True, alpha=2, beta=3, epilogue="relu"),
        schedule=(
            *(grid("m,n", "16,32"), C, "tile{loops=k sizes=16}", B, A, F),
            *(pipeline("k"), "tile{loops=m sizes=8}", MXU),
        ),
    ),
    "batch": Case(
        gemm=Gemm(m=20, n=30, k=9, trans_a=True, trans_b=True, batch=2, batch_stride_b=0),
        schedule=(grid("batch,n,m", "1,16,8"), C, A, B, pipeline("m"), MXU),
    ),
    "whole operand": Case(
        gemm=Gemm(m=32, n=40, k=32, dtype="i8"),
        schedule=(
            *(A, grid("n,m", "16,16"), C, "tile{loops=k sizes=16}", B, pipeline("k")),
            *("tile{loops=n,k sizes=8,4}", MXU),
        ),
    ),
    "parts": Case(
        gemm=Gemm(m=24, n=40, k=20, dtype="bf16x3", epilogue="bias"),
        schedule=(
            *(grid("m,n", "16,32"), A, B, F, pipeline("n"), "tile{loops=n,m sizes=8,8}"),
            *(C, F, MXU),
        ),
    ),
    "one step": Case(
        gemm=Gemm(m=5, n=7, k=3, dtype="e4m3", out="bf16"),
        schedule=(grid("m,n", "8,8"), C, A, B, pipeline("n"), MXU),
    ),
}

COPIES: Final = ("eager", "on_wait")


def memories(**options: Any) -> Any:
    """The argument `interpret` for memories with the strictest rules."""
    tpu = import_module("jax.experimental.pallas.tpu")
    return tpu.InterpretParams(
        detect_races=True, out_of_bounds_reads="raise", uninitialized_memory="nan", **options
    )


def races_found() -> bool:
    """Whether the last run had a race. JAX says so to itself and on the console only."""
    module: Any = import_module("jax._src.pallas.mosaic.interpret.interpret_pallas_call")
    return module.races.races_found


@pytest.mark.parametrize("copies", COPIES)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_no_races_and_nothing_undefined(case: Case, copies: str) -> None:
    values = whole_numbers(case.gemm)
    artifact, expected = emitted(case.gemm, ",".join(case.schedule), V5E, values)
    how = memories(dma_execution_mode=copies, random_seed=7)
    np.testing.assert_array_equal(interpreted(artifact, how=how)(values), expected)
    assert not races_found()


RACING: Final = """
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu


def _kernel(a_ref, c_ref, block, semaphore):
    copy = pltpu.make_async_copy(a_ref, block, semaphore)
    copy.start()
    c_ref[...] = block[...]
    copy.wait()


def gemm(a, b, *, interpret=False):
    return pl.pallas_call(
        _kernel,
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)],
        out_shape=jax.ShapeDtypeStruct((8, 8), jnp.float32),
        scratch_shapes=[pltpu.VMEM((8, 8), jnp.float32), pltpu.SemaphoreType.DMA],
        interpret=interpret,
    )(a)
"""
"""Reads the target of a copy before it has waited for it."""


def test_a_race_is_found() -> None:
    gemm = Gemm(m=8, n=8, k=8)
    artifact, _ = emitted(gemm, ",".join(CASES["one step"].schedule), V5E)
    how = memories(dma_execution_mode="eager")
    interpreted(artifact, text=RACING, how=how)(whole_numbers(gemm))
    assert races_found()
    late = memories(dma_execution_mode="on_wait")
    assert np.isnan(interpreted(artifact, text=RACING, how=late)(whole_numbers(gemm))).all()
