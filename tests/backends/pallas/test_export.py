"""Kernels as Pallas lowers them for a TPU, without one: blocks and operations that a TPU has."""

from __future__ import annotations

from dataclasses import replace

import pytest

import gemmir
from gemmir import Gemm
from gemmir.backends.pallas.export import stablehlo
from gemmir.backends.pallas.load import load
from gemmir.dtypes import PRODUCTS
from gemmir.errors import BackendError
from gemmir.machine import TpuMachine
from gemmir.machine.tpu import SHIPPED_TPUS, V5E
from tests.backends.pallas.texts import READ_A, WRITE, emitted, module


@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_default_schedules(machine: TpuMachine) -> None:
    """Ragged edges, transposes, an epilogue, and a k in slices where k is long."""
    for dtype in machine.mxu_dtypes:
        steps = "bias+relu" if PRODUCTS[dtype].element.is_integer else "bias+gelu+residual"
        gemm = Gemm(m=1000, n=771, k=3001, dtype=dtype, trans_b=True, beta=1.0, epilogue=steps)
        for problem in (gemm, replace(gemm, batch=2, batch_stride_b=0, trans_a=True, k=96)):
            text = stablehlo(gemmir.lower(problem, machine.target).artifact)
            assert "@tpu_custom_call" in text and "output_operand_alias" in text


@pytest.mark.parametrize("dtype", V5E.mxu_dtypes)
@pytest.mark.parametrize("trans_b", [False, True])
def test_one_row_or_column(dtype: str, trans_b: bool) -> None:
    for m, n in ((130, 1), (1, 130), (1, 1)):
        gemm = Gemm(m=m, n=n, k=1000, dtype=dtype, trans_b=trans_b)
        assert "@tpu_custom_call" in stablehlo(gemmir.lower(gemm, V5E.target).artifact)


def test_an_operand_is_not_transposed_outside_the_kernel() -> None:
    gemm = Gemm(m=256, n=256, k=256, dtype="bf16", trans_a=True, trans_b=True)
    text = stablehlo(gemmir.lower(gemm, "tpu:v5e").artifact)
    assert "stablehlo.transpose" not in text and "stablehlo.reshape" not in text


def test_the_text_is_the_same_each_time() -> None:
    artifact = emitted(module())
    assert stablehlo(artifact) == stablehlo(artifact)
    assert "loc(" not in stablehlo(artifact)


def test_a_block_that_no_tpu_has_is_refused() -> None:
    text = module(
        READ_A.replace("64x256", "64x100"),
        "%product = arith.constant dense<1.0> : vector<64x128xf32>",
        WRITE,
        "vector.transfer_write %left, %a_block[%c0, %c0] {in_bounds = [true, true]}"
        " : vector<64x100xf32>, memref<64x100xf32, #gemmir.space<vmem>>",
        block="[64, 100]",
        a_block="memref<64x100xf32, #gemmir.space<vmem>>",
    )
    with pytest.raises(BackendError) as caught:
        stablehlo(emitted(text))
    assert caught.value.code == "GEM0477"
    assert "100" in str(caught.value)


def test_a_file_of_another_kind_is_not_loaded() -> None:
    artifact = emitted(module())
    for text in ("import nowhere_at_all", "x = (", "def other(): pass", "raise NameError"):
        with pytest.raises(BackendError) as caught:
            load(text.encode(), artifact.signature)
        assert caught.value.code == "GEM0473"
