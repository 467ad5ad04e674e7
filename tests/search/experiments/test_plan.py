"""Plans: every cell once, in an order that the seed alone decides, in blocks."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

from gemmir.errors import GemmirError, MissingError, ParseError
from gemmir.gemm import Gemm
from gemmir.search.experiments.plan import Plan, name_of, plan
from gemmir.search.experiments.planning import plan_of
from gemmir.search.experiments.spec import parse_spec
from tests.search.experiments.examples import SETTINGS, points

CPU = min(os.sched_getaffinity(0))
HERE = f"cpus = [{CPU}]\n"
TINY = HERE + "[[problem]]\nshapes = ['2x3x4', '5x6x7']\n"


def made(text: str, folder: Path = Path()) -> Plan:
    spec = parse_spec(text, "mine.toml", folder)
    return plan_of(spec, cpus=() if spec.cpus is None else None)


def test_every_repetition_of_every_point_is_there_once() -> None:
    found = plan("a", "", SETTINGS, points(4, 8, 16))
    counts = Counter((cell.point, cell.repetition) for cell in found.cells)
    assert counts == {(p, r): 1 for p in range(9) for r in range(3)}


def test_repetitions_are_blocks_and_problems_blocks_in_them() -> None:
    found = plan("a", "", SETTINGS, points(4, 8, 16))
    blocks = [
        key
        for key, _ in groupby((c.repetition, found.points[c.point].problem) for c in found.cells)
    ]
    assert len(blocks) == 9 and len(set(blocks)) == 9
    assert [repetition for repetition, _ in blocks] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_the_order_is_that_of_the_seed() -> None:
    orders = {
        tuple(plan("a", "", replace(SETTINGS, seed=seed), points(4, 8, 16)).cells)
        for seed in (0, 0, 1, 2)
    }
    assert len(orders) == 3
    inner = {
        tuple(cell.point for cell in plan("a", "", SETTINGS, points(4)).cells[at : at + 3])
        for at in (0, 3, 6)
    }
    assert len(inner) > 1, "repetitions differ"


def test_static_figures_are_read_once() -> None:
    those = [replace(point, objective="static") for point in points(4)]
    assert len(plan("a", "", SETTINGS, those).cells) == 3


def test_the_hash_is_of_all_that_is_measured() -> None:
    whole = plan("a", "", SETTINGS, points(4, 8))
    others = [
        plan("a", "", replace(SETTINGS, rounds=5), points(4, 8)),
        plan("a", "", SETTINGS, points(4)),
        plan("a", "", SETTINGS, [replace(p, schedule="x") for p in points(4, 8)]),
        plan("b", "", SETTINGS, points(4, 8)),
    ]
    assert len({whole.hash, *(other.hash for other in others)}) == 5
    assert plan("a", "a comment", SETTINGS, points(4, 8)).hash == whole.hash


def test_problems_have_different_names() -> None:
    those = [
        Gemm(m=2, n=3, k=4),
        Gemm(m=2, n=3, k=4, alpha=2.0),
        Gemm(m=2, n=3, k=4, batch=2),
        Gemm(m=2, n=3, k=4, batch=2, batch_stride_b=0),
        Gemm(m=2, n=3, k=4, groups=2),
        Gemm(m=2, n=3, k=4, groups=2, masked=True),
    ]
    assert len({name_of(gemm) for gemm in those}) == len(those)


def test_a_spec_becomes_points() -> None:
    found = made('peers = ["numpy", "openblas"]\ntargets = ["cpu", "cuda:sm_80"]\n' + TINY)
    names = [p.candidate.name for p in found.points if p.target == "cpu" and p.problem.m == 2]
    assert names[:3] == ["default", "numpy", "openblas"] and names[-1] == "fma peak"
    gpu = [p for p in found.points if p.target != "cpu"]
    assert [(p.candidate.name, p.objective) for p in gpu] == [("default", "static")] * 2
    assert found.settings.cpus == (0,)


def test_points_of_a_space_are_contestants(tmp_path: Path) -> None:
    (tmp_path / "t.space").write_text(
        "?x = 1..4\nwhere x != 3\ntile{loops=m,n sizes=?x,16}\npromote{operand=c to=registers}\n"
        "vectorize{with=fma width=4}\n"
    )
    table = "[[problem]]\nshapes = ['8x16x8']\n[[schedule]]\nspace = 't.space'\n"
    everything = made(table, tmp_path)
    found = {p.candidate.name: p for p in everything.points if p.candidate.kind == "schedule"}
    assert list(found) == ["t: x=1", "t: x=2", "t: x=4"]
    assert found["t: x=2"].candidate.point == {"x": 2}
    assert (found["t: x=2"].schedule or "").startswith("tile{loops=m,n sizes=2,16}")
    assert found["t: x=2"].candidate.space == "t.space"
    drawn = made(table + "count = 2\nseed = 1\n", tmp_path)
    names = {p.candidate.name for p in drawn.points if p.candidate.kind == "schedule"}
    assert len(names) == 2 and names < set(found)


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        (
            'objective = "time"\ntargets = ["tpu:v5e"]\n',
            "GEM1429",
            "kernels for TPUs are not timed",
        ),
        ('targets = ["tpu:v5e"]\npeers = ["numpy"]\n', "GEM1429", "no target that is timed"),
        ('objective = "static"\npeers = ["numpy"]\n', "GEM1429", "no target that is timed"),
        ('threads = 2\ntargets = ["tpu:v5e"]\n', "GEM1429", "threads are of a CPU"),
        ('objective = "time"\ntargets = ["cpu:neoverse-n1"]\n', "GEM0606", "aarch64"),
        ("cpus = [4096]\n", "GEM1373", "4096"),
    ],
)
def test_what_no_plan_can_be_made_of(text: str, code: str, part: str) -> None:
    with pytest.raises(GemmirError) as raised:
        made(text + TINY.removeprefix(HERE))
    assert raised.value.code == code and part in str(raised.value)


def test_a_cpu_that_cannot_run_it_has_static_figures() -> None:
    found = made('targets = ["cpu:neoverse-n1"]\n' + TINY.removeprefix(HERE))
    assert {p.objective for p in found.points} == {"static"}


def test_workers_choose_their_cpus() -> None:
    spec = parse_spec(TINY, "tiny.toml", Path())
    assert spec.cpus == (CPU,)
    with pytest.raises(ParseError, match=rf"GEM1429: cpus = \[{CPU}\] are of this computer"):
        plan_of(spec, ())
    assert plan_of(replace(spec, cpus=None), ()).settings.cpus == ()


def test_two_contestants_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(GemmirError, match="GEM1429: two contestants are called numpy"):
        made('peers = ["numpy"]\n' + TINY + '[[schedule]]\nname = "numpy"\n')


def test_unknown_targets(tmp_path: Path) -> None:
    with pytest.raises((MissingError, GemmirError)):
        made('targets = ["cpu:pdp11"]\n' + TINY)
