"""Every rung of every ladder: one edit after another, right at every stage, and as it is said."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from xdsl.dialects.builtin import ModuleOp

from gemmir.backends.cpu.assemble import assembly
from gemmir.compiler import lower, prepare
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import OuterProductOp
from gemmir.lowering import run_passes
from gemmir.machine import CpuMachine, GpuMachine, TpuMachine, machine_for
from gemmir.passes.unroll import Unroll
from gemmir.schedule import Schedule, default_schedule
from gemmir.search.ladders import Climb, Edit, climb, ladder, problem_for
from gemmir.search.ladders.changes import changed_counts, op_counts, outline, outline_diff
from gemmir.search.ladders.checking import check_schedule
from gemmir.search.ladders.emulated import emulated, warpgroup_tiles_of
from gemmir.search.ladders.measured import instructions
from gemmir.search.ladders.profiled import profiled
from gemmir.search.ladders.rungs import edited, edits_between
from gemmir.search.ladders.table import BAR, bar, lesson, rows

CPU = "cpu:x86-64-v3"
CPUS = (CPU, "cpu:x86-64-v4")
HOPPER = "cuda:sm_90a"
TPU = "tpu:v5e"

LADDERS = [
    *((target, Gemm(m=520, n=1040, k=600)) for target in CPUS),
    (CPU, Gemm(m=600, n=700, k=600, dtype="f64", trans_b=True, beta=1.0)),
    (CPU, Gemm(m=64, n=128, k=64, epilogue="bias+gelu", batch=2)),
    (CPU, Gemm(m=1, n=1, k=1)),
    (CPU, Gemm(m=128, n=128, k=300, dtype="bf16")),
    (CPU, Gemm(m=128, n=128, k=300, dtype="i8")),
    *((f"cuda:sm_{name}", Gemm(m=4096, n=4096, k=4096, dtype="f16")) for name in (75, 80, "90a")),
    (HOPPER, Gemm(m=512, n=512, k=512, epilogue="bias+gelu", batch=2, dtype="bf16")),
    (HOPPER, Gemm(m=4096, n=4096, k=4096)),
    ("cuda:sm_89", Gemm(m=300, n=200, k=100, dtype="f64")),
    ("cuda:sm_80", Gemm(m=7, n=7, k=7, dtype="f64")),
    (HOPPER, Gemm(m=7, n=7, k=7, dtype="bf16")),
    (HOPPER, Gemm(m=256, n=512, k=8, dtype="bf16")),
    *((f"tpu:{name}", Gemm(m=4096, n=4096, k=4096, dtype="bf16")) for name in ("v4", "v5e", "v6e")),
    (TPU, Gemm(m=300, n=200, k=1000, dtype="f32", epilogue="bias+relu")),
    (TPU, Gemm(m=100, n=100, k=100, dtype="bf16", batch=2)),
    ("tpu:tpu7x", Gemm(m=4096, n=4096, k=4096, dtype="bf16", epilogue="bias+gelu")),
]


def _name(value: object) -> str:
    if isinstance(value, Gemm):
        return f"{value.m}x{value.n}x{value.k}-{value.dtype}-{value.epilogue or 'plain'}"
    return str(value)


@pytest.mark.parametrize(("target", "gemm"), LADDERS, ids=_name)
def test_rungs_differ_by_their_edits_and_lower(target: str, gemm: Gemm) -> None:
    made = climb(gemm, target, threads=2 if target.startswith("cpu") else 1)
    steps: tuple[str, ...] = ()
    for rung in made.rungs:
        assert rung.edits, rung.name
        for edit in rung.edits:
            assert edit.old != edit.new
            steps = edited(steps, edit)
        assert steps == rung.steps == rung.schedule.steps
        assert len(rung.why) > 100
        job = prepare(gemm, target, rung.schedule)
        run_passes(parse_module(job.source), job.schedule)
    assert len({rung.name for rung in made.rungs}) == len(made.rungs)
    assert not set(made.left_out) & {rung.name for rung in made.rungs}
    one_core = [r for r in made.rungs if not r.schedule.is_threaded]
    assert one_core[-1].schedule == default_schedule(gemm, machine_for(target))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (
            "cpu:x86-64-v4",
            "naive loop-order cache-tiled register-tiled packed vectorized unrolled prefetched",
        ),
        (
            HOPPER,
            "naive coalesced shared-memory register-tiled wide-loads warp-tiled tensor-cores "
            "square-warp-tiles async-copies unrolled wgmma wide-tiles clusters block-order "
            "persistent default",
        ),
        (TPU, "small-blocks large-blocks deep-blocks full-k vmem-blocks grid-order parts"),
    ],
)
def test_the_road_is_the_classic_one(target: str, expected: str) -> None:
    names = [rung.name for rung in climb(problem_for(target, {}), target).rungs]
    assert names[: len(expected.split())] == expected.split()


def test_some_hundred_rows_fill_the_panels() -> None:
    """Where the default schedule has that, and the road has come to its loops over k."""
    names = [rung.name for rung in climb(Gemm(m=512, n=1024, k=1024), "cpu:znver5").rungs]
    assert names[-2:] == ["prefetched", "filled"]
    assert "filled" not in [
        rung.name for rung in climb(Gemm(m=1024, n=1024, k=1024), "cpu:znver5").rungs
    ]


@pytest.mark.parametrize("target", CPUS)
def test_code_of_a_cpu_is_what_is_said(target: str) -> None:
    gemm, vectors = Gemm(m=520, n=1040, k=600), False
    for rung in climb(gemm, target).rungs:
        text = assembly(lower(gemm, target, rung.schedule).artifact)
        counts = instructions(text)
        vectors |= rung.name == "vectorized"
        assert (counts["vector multiply-adds"] != 0) == vectors, rung.name
        assert (counts["scalar multiply-adds"] == 0) == vectors, rung.name
        assert ("prefetch" in text) == ("prefetch" in str(rung.schedule)), rung.name
        if rung.name == "vectorized":
            machine = machine_for(target)
            assert isinstance(machine, CpuMachine)
            tile = machine.lanes(4)
            assert f"width={tile}" in str(rung.schedule)


@pytest.mark.parametrize("name", ["naive", "loop-order", "cache-tiled", "packed", "prefetched"])
def test_rungs_of_a_cpu_are_right(name: str) -> None:
    gemm = Gemm(m=520, n=1040, k=600)
    checked = check_schedule(gemm, climb(gemm, CPU).rung_called(name).schedule, machine_for(CPU))
    assert checked.report is not None
    assert checked.ok, checked.text
    assert checked.gemm.flops < gemm.flops


def test_a_wrong_rung_is_said_to_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    def leaves_out(self: Unroll, ctx: object, op: object) -> None:
        assert isinstance(op, ModuleOp)
        first = next(o for o in op.walk() if isinstance(o, OuterProductOp))
        first.result.replace_all_uses_with(first.acc)

    monkeypatch.setattr(Unroll, "apply", leaves_out)
    gemm = Gemm(m=64, n=64, k=64)
    found = ladder(gemm, CPU, only="unrolled", is_measured=False)
    assert not found.ok
    assert [step.checked.ok for step in found.steps] == [True, False]
    assert "unroll: element [0, 0] is" in found.steps[1].checked.text


@pytest.mark.parametrize("name", ["naive", "register-tiled", "tensor-cores", "wgmma"])
def test_rungs_of_a_gpu_are_emulated(name: str) -> None:
    gemm, machine = problem_for(HOPPER, {}), machine_for(HOPPER)
    rung = climb(gemm, HOPPER).rung_called(name)
    assert isinstance(machine, GpuMachine)
    assert check_schedule(gemm, rung.schedule, machine).ok
    figure = emulated(gemm, rung.schedule, machine)
    assert figure.how == ("static" if name == "wgmma" else "emulated")
    assert figure.of_peak is not None
    assert 0 < figure.of_peak < 1
    sectors = {"naive": 16.0, "tensor-cores": 1.0}
    if name in sectors:
        assert figure.facts["worst sectors touched over needed"] == sectors[name]


def test_warpgroups_are_reckoned_from_their_schedule() -> None:
    made = climb(problem_for(HOPPER, {}), HOPPER)
    tiles = warpgroup_tiles_of(made.rung_called("persistent").schedule)
    assert (tiles.m, tiles.n, tiles.warpgroups) == (128, 256, 2)
    assert (tiles.cluster_m, tiles.cluster_n, tiles.group, tiles.stages) == (2, 1, 8, 4)
    assert warpgroup_tiles_of(made.rung_called("default").schedule).pingpong


def test_rungs_of_a_tpu_are_reckoned() -> None:
    gemm, machine = problem_for(TPU, {}), machine_for(TPU)
    assert isinstance(machine, TpuMachine)
    figures = [
        profiled(gemm, rung.schedule, machine, say=lambda words: None, by_libtpu=False)
        for rung in climb(gemm, TPU).rungs
    ]
    shares = [figure.of_peak or 0 for figure in figures]
    assert all(figure.how == "static" for figure in figures)
    assert shares[0] < 0.05
    assert shares == sorted(shares)
    hbm = [figure.facts["bytes of HBM"] for figure in figures]
    assert hbm[0] == max(hbm)


def test_parts_of_blocks_are_checked() -> None:
    gemm = problem_for(TPU, {})
    checked = check_schedule(gemm, climb(gemm, TPU).rung_called("parts").schedule, machine_for(TPU))
    assert checked.report is not None
    assert checked.ok, checked.text


def test_changes_are_those_of_the_ir() -> None:
    gemm = Gemm(m=64, n=64, k=64)
    modules = [
        parse_module([*lower(gemm, CPU, text).stages.values()][-1].text)
        for text in (
            "tile{loops=m,k,n sizes=1,1,1},promote{operand=c to=registers},"
            "vectorize{with=fma width=1}",
            "tile{loops=m,n sizes=2,8},promote{operand=c to=registers},vectorize{with=fma width=8}",
        )
    ]
    before, after = map(outline, modules)
    assert before[:3] == ["for m step 1", "  for k step 1", "    for n step 1"]
    assert "    for k step 1" in after
    assert "      gemmir.outerproduct vector<2x8xf32>" in after
    changed = changed_counts(*map(op_counts, modules))
    assert changed["scf.for"] == -1
    assert "-  for k step 1" in outline_diff(before, after)


def test_edits_find_their_way() -> None:
    before = ("promote{operand=c to=vmem}", "tile{loops=k sizes=4}", "promote{operand=c to=vmem}")
    after = ("tile{loops=m sizes=2}", "tile{loops=k sizes=8}", "promote{operand=c to=vmem}")
    for old, new in ((before, after), (after, before), ((), after), (before, ())):
        steps: tuple[str, ...] = old
        for edit in edits_between(old, new):
            steps = edited(steps, edit)
        assert steps == new
    with pytest.raises(ValueError, match="is 2 times in"):
        edited(before, Edit(old=before[0]))


def test_a_rung_that_changes_nothing_is_left_out() -> None:
    made = Climb()
    made.rung("first", "…", "…", Edit(new="tile{loops=m sizes=2}"))
    made.arrive("default", "…", "…", Schedule.parse("tile{loops=m sizes=2}"))
    assert [rung.name for rung in made.rungs] == ["first"]
    assert made.left_out == {"default": "first has the same passes"}


@pytest.mark.parametrize(
    ("gemm", "target", "words"),
    [
        (Gemm(m=8, n=8, k=0), CPU, "a size of 0"),
        (Gemm(m=8, n=8, k=8, dtype="bf16", groups=2), HOPPER, "groups"),
        (Gemm(m=32, n=32, k=32, dtype="tf32"), HOPPER, "dtype tf32 on a GPU"),
        (Gemm(m=32, n=32, k=32, dtype="tf32"), CPU, "dtype tf32 on a CPU"),
    ],
)
def test_problems_without_rungs(gemm: Gemm, target: str, words: str) -> None:
    with pytest.raises(ParseError, match=words) as found:
        climb(gemm, target)
    assert found.value.code == "GEM1440"


def test_bars_are_logarithmic() -> None:
    assert bar(1.0) == "█" * BAR
    assert bar(0.001) == bar(None) == ""
    assert len(bar(0.0316)) == BAR // 2


@pytest.mark.parametrize("target", ["cuda:sm_90a", "tpu:v5e", "cpu:znver5"])
def test_the_shipped_results_are_those_of_the_ladders(target: str) -> None:
    folder = Path(__file__).parents[3] / "bench" / "results"
    found = json.loads((folder / f"ladder-{target.split(':')[1]}.json").read_text())
    assert found["ok"]
    assert found["command"].startswith("gemmir ladder ")
    made = climb(Gemm(**found["problem"]), target)
    for rung, kept in zip(made.rungs, found["rungs"], strict=True):
        assert list(rung.steps) == kept["schedule"], rung.name
        assert (rung.name, rung.title, rung.why) == (kept["name"], kept["title"], kept["why"])
        assert re.fullmatch("measured|emulated|static", kept["how"])
        assert "right" in kept["checked"]


WHYS: list[tuple[str, dict[str, object], str, str, str]] = [
    (CPU, {"n": 7}, "naive", "28 bytes apart, so that a line has 2 of them", "a line of its own"),
    (CPU, {"n": 7}, "vectorized", "(1 columns unused)", "a row of the panel, 32 bytes"),
    (CPU, {"k": 3}, "unrolled", "once for 3 steps of k", "4 steps"),
    (CPU, {"trans_b": True}, "loop-order", "loses for B", "walked along their rows"),
    (CPU, {"trans_b": True}, "packed", "B is stored n x k", "a row of B"),
    (HOPPER, {"trans_a": True}, "naive", "A is stored k x m", "a sector of 32"),
    (HOPPER, {"trans_b": True}, "coalesced", "B is stored n x k", "of B adjoins"),
    ("cuda:sm_75", {"dtype": "f16"}, "tensor-cores", "16 x 8 x 8, is 1024", "2048"),
    (HOPPER, {"dtype": "f64"}, "wide-loads", "where there were 2", "2th"),
    (TPU, {"k": 256}, "full-k", "through VMEM 2 times", "1 times"),
    (TPU, {"dtype": "f32", "k": 16384}, "full-k", "Blocks are 128 x 128, for", "512 x"),
    (TPU, {}, "vmem-blocks", "take 30 MiB of 128 MiB", "as much as"),
]


@pytest.mark.parametrize(("target", "given", "name", "said", "unsaid"), WHYS)
def test_reasons_are_those_of_the_problem(
    target: str, given: dict[str, object], name: str, said: str, unsaid: str
) -> None:
    why = climb(problem_for(target, given), target).rung_called(name).why
    assert said in why
    assert unsaid not in why


def test_a_ladder_without_figures_says_so() -> None:
    found = ladder(Gemm(m=32, n=32, k=32), CPU, only="packed", is_measured=False)
    assert [step.rung.name for step in found.steps] == ["register-tiled", "packed"]
    assert [step.figure.how for step in found.steps] == ["unknown", "unknown"]
    assert found.ratio(1) is None
    (row,) = [row for row in rows(found) if row[0] == "packed"]
    assert row[2:5] == ["-", "-", "-"]
    text = "\n".join(lesson(found, 1))
    assert "+ promote{operand=b to=l2 layout=panel:2}" in text
    assert "no figure: --no-measure" in text
    assert found.to_dict()["rungs"][1]["edits"] == ["+ promote{operand=b to=l2 layout=panel:2}"]
