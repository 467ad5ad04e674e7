"""Kernels as Pallas lowers them for a TPU, without one: blocks and operations that a TPU has."""

from __future__ import annotations

import pytest

import gemmir
from gemmir import Gemm
from gemmir.backends.pallas.export import stablehlo
from gemmir.backends.pallas.load import load
from gemmir.errors import BackendError
from tests.backends.pallas.texts import READ_A, WRITE, emitted, module


def test_the_old_c_is_changed_in_place() -> None:
    gemm = Gemm(m=1000, n=771, k=96, batch=2, batch_stride_b=0, dtype="bf16", beta=1.0)
    text = stablehlo(gemmir.lower(gemm, "tpu:v5e").artifact)
    assert "@tpu_custom_call" in text and "output_operand_alias" in text


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
