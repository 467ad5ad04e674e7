"""XLA's own product as text: it computes the problem that a kernel is compared for."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import numpy as np
import pytest

from gemmir.gemm import Gemm
from gemmir.xla_dot import FUNCTION, xla_dot
from tests.strategies import arrays_for, furthest

pytest.importorskip("jax")

PROBLEMS: Final = (
    Gemm(m=24, n=40, k=16),
    Gemm(m=24, n=40, k=16, trans_a=True, trans_b=True),
    Gemm(m=9, n=17, k=33, alpha=1.5, beta=-0.5, epilogue="bias+gelu"),
    Gemm(m=9, n=17, k=33, epilogue="silu+residual"),
    Gemm(m=9, n=17, k=33, epilogue="scale+bias"),
    Gemm(m=8, n=16, k=24, dtype="bf16", out="bf16", epilogue="bias+relu"),
    Gemm(m=8, n=16, k=24, dtype="e4m3", epilogue="relu"),
    Gemm(m=8, n=16, k=24, dtype="i8", alpha=3, beta=2, epilogue="bias"),
    Gemm(m=6, n=10, k=8, batch=3, epilogue="residual"),
    Gemm(m=6, n=10, k=8, batch=3, trans_a=True, batch_stride_a=0),
    Gemm(m=6, n=10, k=8, batch=3, trans_b=True, batch_stride_b=0),
    Gemm(m=6, n=10, k=8, batch=3, batch_stride_a=0, batch_stride_b=0, beta=1.0),
)


def computed(gemm: Gemm, arrays: dict[str, Any]) -> Any:
    names: dict[str, Any] = {}
    exec(xla_dot(gemm), names)
    jax: Any = import_module("jax")
    read = [np.array(arrays[o.name]) for o in gemm.operands if o.access != "write"]
    return np.asarray(jax.jit(names[FUNCTION])(*read))


@pytest.mark.parametrize("gemm", PROBLEMS, ids=str)
def test_it_computes_the_problem(gemm: Gemm) -> None:
    arrays = arrays_for(gemm)
    found = computed(gemm, arrays)
    assert found.shape == gemm.operands[-1].shape
    assert found.dtype == gemm.result.numpy
    assert furthest(gemm, arrays, found) <= 1


def test_precision_of_f32() -> None:
    """As many products of bf16 as the kernel makes: with fewer XLA would do less work."""
    assert "Precision.HIGHEST" in xla_dot(Gemm(m=8, n=8, k=8))
    assert "precision" not in xla_dot(Gemm(m=8, n=8, k=8, dtype="bf16"))


def test_nothing_is_transposed_before() -> None:
    assert "transpose" not in xla_dot(Gemm(m=8, n=8, k=8, trans_a=True, trans_b=True, batch=2))
