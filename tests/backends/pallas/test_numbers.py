"""Kernels for a TPU, in Pallas's interpreter: every number is within its a-priori bound."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.arrays import make_operands
from gemmir.backends.pallas.run import run_pallas
from gemmir.check import check
from gemmir.machine.tpu import V5E
from gemmir.reference import reference_of_gemm

SLICES: Final = (
    "tile{{loops={loops} sizes={sizes}128,128 over=grid}},promote{{operand=c to=vmem}},"
    "tile{{loops=k sizes=128}},promote{{operand=a to=vmem}},promote{{operand=b to=vmem}},"
    "{fuse}pipeline{{loop=k stages=2 with=dma}},{inside}vectorize{{with=mxu}}"
)
"""Blocks of 128 of every dimension: ragged edges, and a sum in VMEM over several steps."""


def slices(gemm: Gemm, inside: str = "") -> str:
    return SLICES.format(
        loops="m,n" if gemm.batch is None else "batch,m,n",
        sizes="" if gemm.batch is None else "1,",
        fuse="fuse-epilogue," if gemm.steps else "",
        inside=inside,
    )


def require_right(gemm: Gemm, schedule: str | None) -> None:
    """What the kernel of `gemm` computes is within the bound, and so it is for Pallas on a TPU."""
    artifact = gemmir.lower(gemm, "tpu:v5e", schedule).artifact
    operands = make_operands(artifact.signature)
    reference = reference_of_gemm(gemm, operands)
    run_pallas(artifact, artifact.text, operands.arrays)
    compared = reference.compare(operands.output)
    assert compared.first_wrong is None, f"{compared.first_wrong}\n{artifact.text}"


@pytest.mark.parametrize("dtype", V5E.mxu_dtypes)
@pytest.mark.parametrize("trans", ["", "a", "b", "ab"])
def test_types_and_transposes(dtype: str, trans: str) -> None:
    gemm = Gemm(
        m=130, n=200, k=300, dtype=dtype, trans_a="a" in trans, trans_b="b" in trans, alpha=3.0
    )
    require_right(gemm, slices(gemm))


@pytest.mark.parametrize("dtype,out", [("bf16", "bf16"), ("bf16", "f32"), ("f32", "f32")])
@pytest.mark.parametrize(
    "epilogue", ["bias", "gelu", "bias+silu", "bias+relu+residual", "residual+gelu+bias"]
)
def test_epilogues(dtype: str, out: str, epilogue: str) -> None:
    gemm = Gemm(m=130, n=140, k=200, dtype=dtype, out=out, epilogue=epilogue, beta=-0.5)
    require_right(gemm, slices(gemm))


@pytest.mark.parametrize("beta", [0.0, 2.0])
def test_integers_wrap(beta: float) -> None:
    gemm = Gemm(m=40, n=130, k=200, dtype="i8", alpha=-3, beta=beta, epilogue="bias+relu+residual")
    require_right(gemm, slices(gemm))


SHARED: Final[list[dict[str, Any]]] = [
    {},
    {"batch_stride_b": 0},
    {"batch_stride_a": 0, "trans_a": True},
    {"batch_stride_a": 0, "batch_stride_b": 0, "trans_b": True},
]


@pytest.mark.parametrize("fields", SHARED, ids=lambda f: "+".join(f) or "own")
@pytest.mark.parametrize("steps", ["", "bias+residual"])
def test_batches(fields: dict[str, Any], steps: str) -> None:
    gemm = Gemm(m=40, n=130, k=200, batch=3, dtype="bf16", epilogue=steps, beta=0.5, **fields)
    require_right(gemm, slices(gemm) if steps else None)


@pytest.mark.parametrize("m,n,k", [(1, 1, 1), (1, 300, 7), (300, 1, 7), (7, 9, 1), (3, 130, 257)])
@pytest.mark.parametrize("trans", [False, True])
def test_edges(m: int, n: int, k: int, trans: bool) -> None:
    gemm = Gemm(m=m, n=n, k=k, dtype="bf16", trans_a=trans, trans_b=trans, epilogue="bias")
    require_right(gemm, slices(gemm))
    require_right(gemm, None)


@pytest.mark.parametrize("m,n,k", [(0, 5, 5), (5, 0, 5), (5, 5, 0)])
@pytest.mark.parametrize("beta", [0.0, 0.5])
def test_nothing_to_multiply(m: int, n: int, k: int, beta: float) -> None:
    require_right(Gemm(m=m, n=n, k=k, beta=beta, epilogue="bias"), None)
    require_right(Gemm(m=m, n=n, k=k, beta=beta, batch=2), None)


@pytest.mark.parametrize("trans", [False, True])
@pytest.mark.parametrize("inside", ["tile{loops=k sizes=32},", "tile{loops=m,n,k sizes=64,64,32},"])
def test_parts_of_blocks(trans: bool, inside: str) -> None:
    gemm = Gemm(m=256, n=128, k=256, dtype="bf16", trans_a=trans, trans_b=trans, epilogue="gelu")
    require_right(gemm, slices(gemm, inside))


def test_a_whole_operand() -> None:
    gemm = Gemm(m=256, n=256, k=200, dtype="bf16")
    schedule = (
        "promote{operand=b to=vmem},tile{loops=m,n sizes=128,128 over=grid},"
        "promote{operand=c to=vmem},promote{operand=a to=vmem},"
        "pipeline{loop=n stages=2 with=dma},vectorize{with=mxu}"
    )
    assert (
        "pl.BlockSpec(memory_space=pltpu.VMEM)"
        in gemmir.lower(gemm, "tpu:v5e", schedule).artifact.text
    )
    require_right(gemm, schedule)


def test_check_runs_the_kernel_and_finds_what_is_wrong_with_it() -> None:
    gemm = Gemm(m=20, n=140, k=130, dtype="bf16", epilogue="bias")
    text = gemmir.lower(gemm, "tpu:v5e", slices(gemm)).artifact.text
    right = check(gemm, target="tpu:v5e", schedule=slices(gemm))
    assert right.ok and right.rows[-1].name == "pallas"
    for old, new in (
        ("jnp.where(p == 0, 0.0,", "jnp.where(p == 1, 0.0,"),
        ("< size, a_ref[...], 0.0)", "<= size, a_ref[...], 0.0)"),
        ("lambda i, j, p: (0, j)", "lambda i, j, p: (0, 0)"),
        ("bias_ref[...]", "(bias_ref[...] * 1.01)"),
    ):
        assert old in text
        wrong = check(gemm, target="tpu:v5e", schedule=slices(gemm), pallas=text.replace(old, new))
        assert wrong.first_wrong is not None and wrong.first_wrong.name == "pallas"


def test_no_array_but_the_output_is_written() -> None:
    gemm = Gemm(m=40, n=130, k=64, dtype="bf16", beta=1.0)
    artifact = gemmir.lower(gemm, "tpu:v5e").artifact
    operands = make_operands(artifact.signature)
    before = operands.copy()
    run_pallas(artifact, artifact.text, operands.arrays)
    assert operands.damage(before) == ""
    assert not np.array_equal(operands.output, before.output)


def test_parts_of_slices_of_which_the_last_are_not_there() -> None:
    """k = 300 in blocks of 256, of which the second has 44: in it one part of two is made."""
    gemm = Gemm(m=40, n=130, k=300, dtype="bf16", trans_b=True, epilogue="bias")
    schedule = slices(gemm, "tile{loops=k sizes=128},").replace(
        "tile{loops=k sizes=128},promote{operand=a", "tile{loops=k sizes=256},promote{operand=a"
    )
    assert "@pl.when(p_2 < size)" in gemmir.lower(gemm, "tpu:v5e", schedule).artifact.text
    require_right(gemm, schedule)
