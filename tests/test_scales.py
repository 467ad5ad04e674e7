"""Scales of A and B: what they mean on every target, and what is refused."""

from typing import Any, Final

import numpy as np
import pytest

import gemmir
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


def test_what_is_said_of_a_sum_in_two_levels() -> None:
    gemm = Gemm(m=64, n=64, k=512, dtype="e4m3", out="bf16", trans_b=True, scale_block=128)
    found = gemmir.lower(gemm, target="cuda:sm_90a").explain()
    assert "scale_block=128" in found
    assert "512 products in the order of k, 32 at once, from zero" in found
    assert "every 128 of them for themselves" in found


SCALED_BLOCKS: Final = {
    "cpu": Gemm(m=33, n=200, k=300, scale_block=128, epilogue="bias+gelu"),
    "small": Gemm(m=3, n=5, k=30, scale_block=128, beta=0.5),
    "f64": Gemm(m=33, n=40, k=50, dtype="f64", scale_block=32, trans_a=True, trans_b=True),
}
GPU_BLOCKS: Final = {
    "simt": (Gemm(m=33, n=140, k=300, scale_block=128), "cuda:sm_80"),
    "mma": (Gemm(m=33, n=40, k=64, dtype="bf16", out="f16", scale_block=16), "cuda:sm_80"),
    "one slice": (Gemm(m=5, n=9, k=14, dtype="bf16", out="f16", scale_block=128), "cuda:sm_80"),
    "wgmma": (
        Gemm(m=133, n=240, k=304, dtype="e4m3", trans_b=True, scale_block=128, epilogue="bias"),
        "cuda:sm_90a",
    ),
    "short": (
        Gemm(m=33, n=40, k=300, dtype="e5m2", out="bf16", trans_b=True, scale_block=16),
        "cuda:sm_90a",
    ),
}


@pytest.mark.parametrize("name", SCALED_BLOCKS)
def test_scales_of_blocks_on_a_cpu(name: str) -> None:
    check(SCALED_BLOCKS[name], target="cpu").require_ok()


@pytest.mark.parametrize("name", GPU_BLOCKS)
def test_scales_of_blocks_on_a_gpu(name: str) -> None:
    gemm, target = GPU_BLOCKS[name]
    check(gemm, target=target).require_ok()


def test_scales_of_blocks_lie_as_their_operands() -> None:
    for trans_a, trans_b in ((False, True), (True, False)):
        gemm = Gemm(m=5, n=40, k=50, scale_block=16, trans_a=trans_a, trans_b=trans_b)
        shapes = {o.name: o.shape for o in gemm.operands}
        assert list(shapes) == ["a", "b", "scale_a", "scale_b", "c"]
        assert shapes["scale_a"] == ((4, 5) if trans_a else (5, 4))
        assert shapes["scale_b"] == ((3, 4) if trans_b else (4, 3))
        assert problem_of(build(gemm)) == gemm
        arrays = arrays_for(gemm)
        a, b, of_a, of_b = (arrays[n].astype(np.float64) for n in list(shapes)[:4])
        a, of_a = (a.T, of_a.T) if trans_a else (a, of_a)
        b, of_b = (b.T, of_b.T) if trans_b else (b, of_b)
        expected = np.zeros((5, 40))
        for i, j, p in np.ndindex(5, 40, 50):
            factor = of_a[i, p // 16] * of_b[p // 16, j // 16]
            expected[i, j] += a[i, p] * b[p, j] * factor
        np.testing.assert_allclose(gemm.reference(arrays), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("GEM0131", {"scale_block": 100}),
        ("GEM0131", {"scale_block": 8}),
        ("GEM0131", {"scale_block": "block"}),
        ("GEM0132", {"scale_block": 128, "dtype": "i8"}),
        ("GEM0133", {"scale_block": 128, "batch": 2}),
        ("GEM0133", {"scale_block": 128, "groups": 2}),
        ("GEM0134", {"scale_block": 128, "epilogue": "relu+scale"}),
        ("GEM0135", {"scale_block": 128, "k": 0}),
    ],
)
def test_scales_of_blocks_that_are_refused(code: str, wrong: dict[str, Any]) -> None:
    sizes: dict[str, Any] = {"m": 2, "n": 2, "k": 2}
    with pytest.raises(ProblemError) as raised:
        Gemm(**sizes | wrong)
    assert raised.value.code == code
    assert raised.value.hint
