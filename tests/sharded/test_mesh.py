"""Products on a mesh of eight virtual devices, whose kernels are interpreted, against float64.

Every ratio is the largest error beside the a-priori bound of the whole product: sharding may change
the order of a sum and not how often it is rounded.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.sharded.conftest import Ask, Found

Specs = tuple[list[Any], list[Any], list[Any]]

SHAPE: Final = {"rows": [16], "k": 32, "n": 24}

RULES: Final[dict[str, Specs]] = {
    "rows": (["d"], [], ["d"]),
    "columns": ([], [None, "d"], [None, "d"]),
    "gather x by rows": (["d"], [None, "d"], [None, "d"]),
    "gather x along k": ([None, "d"], [None, "d"], [None, "d"]),
    "gather w by columns": (["d"], [None, "d"], ["d"]),
    "gather w along k": (["d"], ["d"], ["d"]),
    "reduce": ([None, "d"], ["d"], []),
    "scatter rows": ([None, "d"], ["d"], ["d"]),
    "scatter columns": ([None, "d"], ["d"], [None, "d"]),
}
"""What one axis can ask for."""

TOGETHER: Final[dict[str, Specs]] = {
    "gather w while rows are added up": (["e", "d"], ["d", "e"], ["e"]),
    "gather w along k and x by rows": ([["e", "d"]], ["e", "d"], ["e", "d"]),
    "gather x both ways": (["e", "d"], [None, ["e", "d"]], [None, ["e", "d"]]),
    "scatter both ways": ([None, ["e", "d"]], [["e", "d"]], ["e", "d"]),
    "reduce and scatter": ([None, ["e", "d"]], [["e", "d"]], [None, "d"]),
    "gather by rows, scatter by rows": (["e", "d"], ["d", "e"], ["d", "e"]),
    "two axes as one ring": ([["e", "d"]], [None, ["e", "d"]], [None, ["e", "d"]]),
    "axes against the order of the mesh": (
        [["d", "e"]],
        [None, ["d", "e"]],
        [None, ["d", "e"]],
    ),
    "a ring of two": (["e"], [None, "e"], [None, "e"]),
}
"""What two axes can ask for at once."""


def require_right(found: Found) -> None:
    """Within the bound, and lying as the specs say."""
    assert "ratios" in found, found
    assert found["lies"]
    assert max(found["ratios"].values()) <= 1, found


@pytest.mark.parametrize("overlap", [None, False], ids=["ring", "plain"])
@pytest.mark.parametrize("dtype", ["bf16", "f32"])
@pytest.mark.parametrize("rule", RULES)
def test_each_sharding(ask: Ask, rule: str, dtype: str, overlap: bool | None) -> None:
    found = ask(mesh={"d": 8}, specs=RULES[rule], **SHAPE, dtype=dtype, overlap=overlap)
    require_right(found)
    assert found["type"] == {"bf16": "bfloat16", "f32": "float32"}[dtype]


@pytest.mark.parametrize("rule", TOGETHER)
def test_two_axes(ask: Ask, rule: str) -> None:
    require_right(ask(mesh={"e": 2, "d": 4}, specs=TOGETHER[rule], **SHAPE))


@pytest.mark.parametrize("devices", [1, 2, 3, 5])
@pytest.mark.parametrize("rule", ["gather x by rows", "scatter rows"])
def test_rings_of_any_size(ask: Ask, rule: str, devices: int) -> None:
    sizes = {"rows": [2 * devices], "k": 4 * devices, "n": 3 * devices}
    require_right(ask(mesh={"d": devices}, specs=RULES[rule], **sizes))


@pytest.mark.parametrize("rule", RULES)
def test_derivatives(ask: Ask, rule: str) -> None:
    require_right(ask(mesh={"d": 8}, specs=RULES[rule], **SHAPE, gradient=True))


@pytest.mark.parametrize("rule", ["gather x by rows", "reduce", "scatter columns"])
def test_derivatives_of_an_epilogue(ask: Ask, rule: str) -> None:
    """Whole numbers, of which every sum is exact: nothing may differ."""
    found = ask(
        mesh={"d": 8},
        specs=RULES[rule],
        **SHAPE,
        dtype="bf16",
        epilogue="bias+relu+residual",
        gradient=True,
        whole=True,
    )
    require_right(found)
    assert set(found["ratios"]) == {"c", "x", "w", "bias", "residual"}
    assert set(found["ratios"].values()) == {0}


@pytest.mark.parametrize("overlap", [None, False], ids=["ring", "plain"])
@pytest.mark.parametrize("rule", ["gather x by rows", "gather x along k", "reduce", "scatter rows"])
def test_epilogues(ask: Ask, rule: str, overlap: bool | None) -> None:
    found = ask(
        mesh={"d": 8}, specs=RULES[rule], **SHAPE, epilogue="bias+gelu+residual", overlap=overlap
    )
    require_right(found)


BATCHED: Final[dict[str, Specs]] = {
    "gather the sequence": (["e", "d"], [None, "d"], ["e", None, "d"]),
    "scatter the sequence": (["e", None, "d"], ["d"], ["e", "d"]),
}
"""The two halves of a layer of a transformer, whose sequence is sharded between them."""


@pytest.mark.parametrize("rule", BATCHED)
def test_rows_of_several_dimensions(ask: Ask, rule: str) -> None:
    specs, mesh = BATCHED[rule], {"e": 2, "d": 4}
    require_right(ask(mesh=mesh, specs=specs, rows=[4, 8], k=16, n=8, gradient=True))


@pytest.mark.parametrize(
    ("dtype", "out", "type"), [("i8", None, "int32"), ("bf16", "f32", "float32")]
)
def test_other_types(ask: Ask, dtype: str, out: str | None, type: str) -> None:
    found = ask(mesh={"d": 8}, specs=RULES["scatter rows"], **SHAPE, dtype=dtype, out=out)
    require_right(found)
    assert found["type"] == type


def test_derivatives_of_8_bit_floats_are_products_of_bf16(ask: Ask) -> None:
    specs = RULES["gather x by rows"]
    require_right(ask(mesh={"d": 8}, specs=specs, **SHAPE, dtype="e4m3", gradient=True))


def test_arrays_of_numpy(ask: Ask) -> None:
    require_right(ask(mesh={"d": 8}, specs=RULES["scatter rows"], **SHAPE, placed=False))


def test_under_jit(ask: Ask) -> None:
    require_right(ask(mesh={"d": 8}, specs=RULES["scatter rows"], **SHAPE, jit=True))


@pytest.mark.parametrize("rule", ["gather x by rows", "scatter rows"])
def test_under_vmap(ask: Ask, rule: str) -> None:
    require_right(ask(mesh={"d": 8}, specs=RULES[rule], **SHAPE, jit=True, vmap=True))


@pytest.mark.parametrize("rule", ["gather x along k", "scatter rows"])
def test_in_the_interpreter_that_knows_of_copies(ask: Ask, rule: str) -> None:
    require_right(ask(mesh={"d": 4}, specs=RULES[rule], **SHAPE, dma=True))


def test_on_a_mesh_whose_axes_are_part_of_types(ask: Ask) -> None:
    found = ask(
        mesh={"e": 2, "d": 4},
        specs=TOGETHER["gather w while rows are added up"],
        **SHAPE,
        epilogue="bias+relu",
        explicit=True,
        gradient=True,
        whole=True,
    )
    require_right(found)


@pytest.mark.parametrize(
    ("sizes", "code"), [({"rows": [15]}, "GEM0551"), ({"k": 33}, "GEM0551"), ({"n": 20}, "GEM0551")]
)
def test_sizes_that_devices_cannot_share(ask: Ask, sizes: dict[str, Any], code: str) -> None:
    given = SHAPE | sizes
    rule = "columns" if "n" in sizes else "gather w along k"
    found = ask(mesh={"d": 8}, specs=RULES[rule], placed=False, **given)
    assert found["code"] == code
    assert found["hint"].startswith("use ")
