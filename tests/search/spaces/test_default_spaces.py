"""Spaces around default schedules: the default is their first point, and most points lower."""

from __future__ import annotations

from typing import Any, Final

import hypothesis.strategies as st
import pytest
from hypothesis import given

from gemmir import ANY, Gemm
from gemmir.errors import ScheduleError
from gemmir.machine import machine_for
from gemmir.schedule import default_schedule
from gemmir.search.spaces import default_space
from tests.strategies import examples

V3: Final = "cpu:x86-64-v3"
V4: Final = "cpu:x86-64-v4"
A100: Final = "cuda:sm_80"
H200: Final = "cuda:sm_90a"
V5E: Final = "tpu:v5e"

CASES: Final[dict[str, tuple[str, dict[str, Any], int]]] = {
    "direct": (V3, {"m": 50, "n": 50, "k": 50}, 1),
    "direct, masks": ("cpu:znver3", {"m": 124, "n": 37, "k": 27}, 1),
    "direct, k cut": (V4, {"m": 512, "n": 512, "k": 512}, 1),
    "lanes along k": (V3, {"m": 4096, "n": 4, "k": 4096}, 1),
    "lanes along k, near": ("cpu:znver5", {"m": 300, "n": 7, "k": 64}, 1),
    "transposed": (V4, {"m": 12, "n": 100, "k": 1000, "trans_b": True}, 1),
    "transposed, copied": (
        V4,
        {"m": 4, "n": 256, "k": 256, "trans_a": True, "trans_b": True},
        1,
    ),
    "lanes along k, asked for": ("cpu:znver5", {"m": 4096, "n": 6, "k": 2560}, 1),
    "narrow": (V3, {"m": 4096, "n": 48, "k": 4096}, 1),
    "outer": (V3, {"m": 1000, "n": 1000, "k": 16}, 1),
    "outer, asked for": ("cpu:znver5", {"m": 2048, "n": 2048, "k": 64}, 1),
    "deep": (V3, {"m": 64, "n": 64, "k": 65536}, 1),
    "deep, asked for": ("cpu:znver5", {"m": 64, "n": 64, "k": 65536}, 1),
    "down": (V3, {"m": 32, "n": 64, "k": 512, "trans_a": True}, 1),
    "packed": (V3, {"m": 1000, "n": 1000, "k": 1024}, 1),
    "packed by first rows": ("cpu:znver5", {"m": 256, "n": 1024, "k": 1024}, 1),
    "packed both": (V3, {"m": 1024, "n": 1024, "k": 1024, "trans_a": True}, 1),
    "streamed": (V3, {"m": 64, "n": 4096, "k": 4096}, 1),
    "streamed, few rows": (V3, {"m": 8, "n": 4096, "k": 4096}, 1),
    "sliced": (V4, {"m": 64, "n": 4100, "k": 4096}, 1),
    "dot": ("cpu:znver4", {"m": 512, "n": 512, "k": 512, "dtype": "u8", "dtype_b": "i8"}, 1),
    "tiles": ("cpu:sapphirerapids", {"m": 512, "n": 500, "k": 512, "dtype": "bf16"}, 1),
    "tiles, few rows": ("cpu:sapphirerapids", {"m": 16, "n": 512, "k": 512, "dtype": "i8"}, 1),
    "i16": (V3, {"m": 512, "n": 512, "k": 512, "dtype": "i8"}, 1),
    "widened": (V3, {"m": 4, "n": 512, "k": 512, "dtype": "bf16"}, 1),
    "stored": (V4, {"m": 4, "n": 512, "k": 512, "dtype": "f16", "trans_b": True}, 1),
    "weights": (V4, {"m": 16, "n": 512, "k": 512, "dtype_b": "i8", "weight_group": 128}, 1),
    "packed weights": (V4, {"m": 256, "n": 512, "k": 512, "dtype_b": "i4", "weight_group": 128}, 1),
    "scaled": (V4, {"m": 256, "n": 512, "k": 512, "scale_block": 128}, 1),
    "groups": (V4, {"m": 256, "n": 512, "k": 512, "groups": 4}, 1),
    "batch": (V4, {"m": 48, "n": 48, "k": 48, "batch": 8, "epilogue": "bias+gelu"}, 1),
    "both transposed": (V4, {"m": 256, "n": 256, "k": 256, "trans_a": True, "trans_b": True}, 1),
    "threads": (V3, {"m": 1024, "n": 1000, "k": 1024}, 2),
    "mma": (A100, {"m": 4096, "n": 4096, "k": 4096, "dtype": "bf16"}, 1),
    "mma of i8": (A100, {"m": 1024, "n": 1024, "k": 4096, "dtype": "i8"}, 1),
    "mma with split k": (A100, {"m": 16, "n": 4096, "k": 4096, "dtype": "bf16"}, 1),
    "mma of groups": (A100, {"m": 4096, "n": 2048, "k": 2048, "groups": 8, "dtype": "bf16"}, 1),
    "threads of a GPU": (A100, {"m": 4096, "n": 4096, "k": 4096}, 1),
    "few threads": (A100, {"m": 100, "n": 20, "k": 24}, 1),
    "no asynchronous copies": ("cuda:sm_75", {"m": 512, "n": 512, "k": 512, "dtype": "f16"}, 1),
    "warpgroups": (H200, {"m": 4096, "n": 4096, "k": 4096, "dtype": "bf16", "out": "bf16"}, 1),
    "warpgroups, few rows": (
        H200,
        {"m": 16, "n": 14336, "k": 4096, "dtype": "bf16", "trans_b": True},
        1,
    ),
    "warpgroups, split k": (H200, {"m": 512, "n": 512, "k": 4096, "dtype": "bf16"}, 1),
    "warpgroups of groups": (
        H200,
        {"m": 4096, "n": 2048, "k": 2048, "groups": 8, "dtype": "bf16"},
        1,
    ),
    "warpgroups, short sums": (
        H200,
        {"m": 4096, "n": 100, "k": 512, "dtype": "bf16", "trans_b": True},
        1,
    ),
    "i16, short sums": (
        "cpu:znver5",
        {"m": 17, "n": 129, "k": 3, "dtype": "u8", "trans_a": True},
        1,
    ),
    "grid": (V5E, {"m": 4096, "n": 4096, "k": 4096, "dtype": "bf16", "out": "bf16"}, 1),
    "grid over k": (V5E, {"m": 2048, "n": 4096, "k": 131072, "dtype": "bf16", "out": "bf16"}, 1),
    "grid of a batch": (V5E, {"m": 512, "n": 512, "k": 512, "dtype": "bf16", "batch": 8}, 1),
    "grid of groups": (V5E, {"m": 4096, "n": 2048, "k": 2048, "groups": 8, "dtype": "bf16"}, 1),
}
"""A problem for each class of default schedules, with its target and threads."""

LARGE: Final = {
    name
    for name in CASES
    if name
    not in {
        "lanes along k",
        "lanes along k, near",
        "lanes along k, asked for",
        "scaled",
        "grid of a batch",
    }
}
"""Those of which a tuner has hundreds of points, and not only dozens."""


@pytest.mark.parametrize("name", CASES)
def test_the_first_point_is_the_default_schedule(name: str) -> None:
    target, fields, threads = CASES[name]
    gemm = Gemm(**fields)
    space = default_space(gemm, target, threads).bind(gemm, target)
    assert space.schedule(space.first) == default_schedule(gemm, machine_for(target), threads)
    assert space.refusal(space.first) is None
    assert (120 if name in LARGE else 50) <= space.size <= 400_000


@pytest.mark.parametrize("name", CASES)
def test_what_the_rules_allow_lowers(name: str) -> None:
    """Rules and sizes say nearly all that the passes would: two points by chance."""
    target, fields, threads = CASES[name]
    gemm = Gemm(**fields)
    space = default_space(gemm, target, threads).bind(gemm, target)
    drawn = space.sample(2, seed=7, lower=False)
    refused = [refusal for point in drawn if (refusal := space.refusal(point)) is not None]
    assert len(refused) <= 1, refused


@examples(0.5)
@given(
    m=st.integers(1, 300),
    n=st.integers(1, 300),
    k=st.integers(1, 300),
    trans=st.tuples(st.booleans(), st.booleans()),
    epilogue=st.sampled_from(["", "bias", "relu"]),
    beta=st.sampled_from([0.0, 1.0]),
    target=st.sampled_from([V3, V4, A100, V5E]),
)
def test_every_problem_has_a_space_with_its_default(
    m: int, n: int, k: int, trans: tuple[bool, bool], epilogue: str, beta: float, target: str
) -> None:
    gemm = Gemm(m=m, n=n, k=k, trans_a=trans[0], trans_b=trans[1], epilogue=epilogue, beta=beta)
    space = default_space(gemm, target).bind(gemm, target)
    assert space.schedule(space.first) == default_schedule(gemm, machine_for(target))
    assert space.refusal(space.first, lower=False) is None


def test_where_there_is_nothing_to_multiply_there_is_one_point() -> None:
    gemm = Gemm(m=8, n=8, k=0)
    assert default_space(gemm, V3).bind(gemm, V3).size == 1


def test_sizes_must_be_known() -> None:
    with pytest.raises(ScheduleError, match="GEM1409: m of the problem are known in a call only"):
        default_space(Gemm(m=ANY, n=8, k=8), V3)
