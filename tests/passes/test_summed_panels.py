"""promote of C to a cache: it is summed in panels, and written back at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects import memref
from xdsl.dialects.builtin import ModuleOp

import gemmir
from gemmir.check import check
from gemmir.errors import ScheduleError
from gemmir.gemm import Gemm
from gemmir.ir.attributes import PanelAttr, Space, SpaceAttr
from gemmir.ir.dialect import EpilogueOp, memref_type
from gemmir.ir.loops import gemms
from gemmir.ir.views import chain
from tests.strategies import examples

After = Callable[[Gemm, str], ModuleOp]

SUM = "promote{operand=c to=l2 layout=panel:8}"
SLICES = "tile{loops=k sizes=4},tile{loops=n sizes=8 edges=peel},tile{loops=m sizes=3}"
END = "promote{operand=c to=registers},vectorize{with=fma width=8}"


@st.composite
def problems(draw: st.DrawFn) -> Gemm:
    return Gemm(
        m=draw(st.integers(1, 12)),
        n=draw(st.integers(1, 40)),
        k=draw(st.integers(1, 20)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        alpha=draw(st.sampled_from([1.0, -0.5])),
        beta=draw(st.sampled_from([0.0, 1.0, 0.3])),
        ldc=draw(st.sampled_from([None, 50])),
        epilogue=draw(st.sampled_from(["", "bias+relu", "residual"])),
    )


@given(problems(), st.sampled_from([1, 3, 8, 16]), st.booleans())
@examples(0.3)
def test_the_meaning_stays(gemm: Gemm, width: int, fuse: bool) -> None:
    steps = [
        f"promote{{operand=c to=l2 layout=panel:{width}}}",
        f"tile{{loops=k sizes=4}},tile{{loops=n sizes={width} edges=peel}},tile{{loops=m sizes=2}}",
        "promote{operand=c to=registers}",
        *(["fuse-epilogue"] if fuse and gemm.steps else []),
        f"vectorize{{with=fma width={min(width, 4) if width != 3 else 1}}}",
    ]
    check(gemm, target="cpu:x86-64-v3", schedule=",".join(steps)).require_ok()


def test_c_is_summed_in_the_type_of_the_sum(after: After) -> None:
    module = after(Gemm(m=5, n=20, k=6, beta=2), SUM)
    (gemm,) = gemms(module)
    made = memref_type(chain(gemm.c)[0])
    assert made.get_shape() == (5, 24)
    assert made.layout == PanelAttr(1, 8, 40)
    assert made.memory_space == SpaceAttr(Space.L2)
    assert gemm.alpha.value.data == 1 and gemm.beta.value.data == 0


def test_a_tile_of_a_panel_is_adjacent(after: After) -> None:
    module = after(Gemm(m=6, n=16, k=8), f"{SUM},{SLICES}")
    (gemm,) = gemms(module)
    window = memref_type(gemm.c)
    assert str(window.layout) == "strided<[8, 1], offset: ?>"


def test_alpha_and_beta_come_with_the_write_back(after: After) -> None:
    module = after(Gemm(m=6, n=16, k=8, alpha=2, beta=3), f"{SUM},{SLICES}")
    (back,) = [op for op in module.walk() if isinstance(op, EpilogueOp)]
    assert isinstance(chain(back.inputs[0])[0].owner, memref.AllocOp)
    assert [op.name for op in back.body.block.ops].count("arith.mulf") == 2


def test_every_row_has_the_same_bits_however_many_there_are() -> None:
    import numpy as np

    generator = np.random.default_rng(0)
    a, b = generator.standard_normal((12, 37)), generator.standard_normal((37, 40))
    a, b = a.astype(np.float32), b.astype(np.float32)
    results = [
        gemmir.lower(Gemm(m=m, n=40, k=37), "cpu", f"{SUM},{SLICES},{END}").compile()(a[:m], b)
        for m in (1, 3, 7, 12)
    ]
    for result in results:
        assert np.array_equal(result, results[-1][: len(result)])


@pytest.mark.parametrize(
    ("gemm", "before"),
    [
        (Gemm(m=6, n=16, k=8), "tile{loops=k sizes=4}"),
        (Gemm(m=6, n=16, k=8, batch=2), ""),
        (Gemm(m=6, n=20, k=8), "tile{loops=n sizes=8}"),
    ],
)
def test_what_is_not_a_whole_sum_is_refused(gemm: Gemm, before: str) -> None:
    schedule = ",".join(s for s in (before, SUM) if s)
    with pytest.raises(ScheduleError, match="needs the whole sum") as found:
        gemmir.lower(gemm, "cpu:x86-64-v3", schedule)
    assert found.value.code == "GEM1314"


def test_a_tile_wider_than_a_panel_is_refused() -> None:
    schedule = f"{SUM},tile{{loops=k sizes=4}},{END}"
    with pytest.raises(ScheduleError, match="does not lie in one panel") as found:
        gemmir.lower(Gemm(m=6, n=16, k=8), "cpu:x86-64-v3", schedule)
    assert found.value.code == "GEM0310"


def test_a_sum_must_find_room_in_its_cache() -> None:
    gemm = Gemm(m=256, n=4096, k=8)
    with pytest.raises(ScheduleError, match="c of 256 x 4096 is 4194304 bytes") as found:
        gemmir.lower(gemm, "cpu:x86-64-v3", f"{SUM},{SLICES},{END}")
    assert found.value.code == "GEM0313"


def test_a_peeled_last_tile_reads_a_part_of_its_only_panel(after: After) -> None:
    gemm = Gemm(m=6, n=20, k=8)
    tiles = "tile{loops=n sizes=8 edges=peel},promote{operand=b to=l1 layout=panel:8}"
    after(gemm, f"{SUM},tile{{loops=k sizes=4}},{tiles},tile{{loops=m sizes=3}},{END}")
