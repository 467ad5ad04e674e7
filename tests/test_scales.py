"""Scales of A and B: what they mean on every target, and what is refused."""

from typing import Any, Final

import numpy as np
import pytest

from gemmir import Gemm
from gemmir.check import check
from gemmir.errors import CallError, ProblemError
from gemmir.evaluate import evaluate
from gemmir.ir.build import build
from gemmir.ir.problem import problem_of
from gemmir.sharded.arguments import extras_of
from tests.strategies import arrays_for

SCALED: Final = {
    "cpu": Gemm(m=9, n=20, k=17, epilogue="scale+bias+gelu"),
    "f64": Gemm(m=9, n=20, k=17, dtype="f64", beta=0.5, epilogue="residual+scale"),
    "batch": Gemm(m=9, n=20, k=17, batch=3, batch_stride_b=0, epilogue="scale+relu"),
    "groups": Gemm(m=19, n=20, k=17, groups=3, epilogue="bias+scale"),
    "bf16": Gemm(m=33, n=40, k=64, dtype="bf16", out="bf16", epilogue="scale+bias"),
    "e4m3": Gemm(m=33, n=40, k=64, dtype="e4m3", out="bf16", trans_b=True, epilogue="scale"),
    "e5m2": Gemm(m=33, n=40, k=64, dtype="e5m2", trans_b=True, epilogue="scale+bias+relu"),
}


def targets(gemm: Gemm) -> list[str]:
    """Those that have the product, cheap ones first."""
    plain = ["cpu"] if gemm.product.element.item_bytes >= 4 else []
    few = [] if gemm.dtype == "f64" or gemm.k % 2 else ["tpu:v6e"]
    return [*plain, *few, "cuda:sm_90a"]


@pytest.mark.parametrize("name", SCALED)
def test_every_stage_on_every_target(name: str) -> None:
    for target in targets(SCALED[name]):
        check(SCALED[name], target=target).require_ok()


def test_scales_are_of_the_type_of_the_sum() -> None:
    gemm = SCALED["e4m3"]
    found = {o.name: (o.shape, o.dtype, o.access) for o in gemm.operands}
    assert list(found) == ["a", "b", "scale_a", "scale_b", "c"]
    assert found["scale_a"] == found["scale_b"] == ((1,), "f32", "read")
    assert problem_of(build(gemm)).epilogue == "scale"


@pytest.mark.parametrize("scales", [(2.0, 0.25), (-3.0, 0.0), (1e-30, 1e-30), (1e-20, 1e-25)])
def test_a_product_of_scales_that_underflows_is_within_the_bound(
    scales: tuple[float, float],
) -> None:
    gemm = Gemm(m=3, n=5, k=7, epilogue="scale")
    arrays = arrays_for(gemm)
    arrays["scale_a"][:], arrays["scale_b"][:] = scales
    expected, bound = gemm.reference(arrays), gemm.error_bound(arrays)
    plain = arrays["a"].astype(np.float64) @ arrays["b"].astype(np.float64)
    wide = [arrays[name].astype(np.float64)[0] for name in ("scale_a", "scale_b")]
    np.testing.assert_allclose(expected, plain * wide[0] * wide[1], rtol=1e-12)
    evaluate(build(gemm), list(arrays.values()))
    assert (np.abs(arrays["c"] - expected) <= bound).all()
    assert (bound <= 1e-4 * np.abs(plain) * abs(wide[0] * wide[1]) + 1e-35).all()


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("GEM0107", {"epilogue": "scale+relu+scale"}),
        ("GEM0113", {"dtype": "i8", "epilogue": "scale"}),
    ],
)
def test_what_is_refused(code: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(ProblemError) as raised:
        Gemm(m=2, n=2, k=2, **wrong)
    assert raised.value.code == code


def test_sharded_products_have_no_scales() -> None:
    with pytest.raises(CallError) as raised:
        extras_of(Gemm(m=2, n=2, k=2, epilogue="scale"), {}, {})
    assert raised.value.code == "GEM0558"
