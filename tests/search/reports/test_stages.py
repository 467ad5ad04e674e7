"""The viewer: each stage whole, with its check, on every machine."""

from __future__ import annotations

import html
import re
import warnings

import pytest

import gemmir
from gemmir.check import Report, Row
from gemmir.compiler import Job, prepare
from gemmir.cost import predict
from gemmir.ir.context import parse_module
from gemmir.search.reports import checked as checks
from gemmir.search.reports.drawing import svg
from gemmir.search.reports.highlight import lines_of
from gemmir.search.reports.samples import unit_of
from gemmir.search.reports.stages import Viewer, viewer

TARGETS = {"cpu:x86-64-v3": "LLVM IR", "cuda:sm_90a": "PTX", "tpu:v6e": "Pallas kernel"}


def plain(line: str) -> str:
    return html.unescape(re.sub(r"</?i[^>]*>", "", line))


def shown(target: str) -> tuple[Viewer, Job]:
    problem = gemmir.Gemm(m=64, n=64, k=64, dtype="f32" if "cpu" in target else "bf16")
    job = prepare(problem, target)
    return viewer(job, is_checked=False), job


@pytest.mark.parametrize("target", TARGETS)
def test_every_stage_is_whole(target: str) -> None:
    found, job = shown(target)
    assert [stage.name for stage in found.stages] == list(job.stages)
    for view, stage in zip(found.stages, job.stages.values(), strict=True):
        lines = [line for passage in view.passages for line in passage.lines]
        text = [plain(line.html) for line in lines if line.kind != "removed"]
        assert text == stage.text.splitlines()
        assert view.added == sum(line.kind == "added" for line in lines)
        assert view.step == stage.step and "".join(view.summary)
    assert found.codes[0].title == TARGETS[target]
    code = job.lower().artifact.text
    assert [plain(line) for line in found.codes[0].lines] == code.rstrip("\n").split("\n")
    assert found.explained == job.lower().explain()
    assert found.command.startswith("gemmir report --m 64 --n 64 --k 64")


def test_stages_of_a_cpu_say_what_they_do_and_end_in_assembly() -> None:
    found, _ = shown("cpu:x86-64-v3")
    assert all(stage.meaning for stage in found.stages[1:])
    assert found.codes[-1].title == "Assembly"
    assert any("vfmadd" in plain(line) for line in found.codes[-1].lines)


@pytest.mark.parametrize("language", ["mlir", "llvm", "asm", "ptx", "pallas"])
@pytest.mark.parametrize("text", ['a<b & "c" // <i>\n\n%x = "d.e"\n', "", "\n", "x", "  é ⟨\t\n"])
def test_highlighting_changes_no_text(language: str, text: str) -> None:
    assert [plain(line) for line in lines_of(text, language)] == text.removesuffix("\n").split(
        "\n"
    )[: len(text.splitlines())]
    assert not re.search(r"<(?!/?i\b)", "".join(lines_of(text, language)))


def test_words_of_mlir_have_their_colours() -> None:
    (line,) = lines_of('%0 = memref.alloc() {a.b = "c"} : memref<8x?xf32> // d', "mlir")
    for part in (
        '<i class="tv">%0</i>',
        '<i class="to">memref.alloc</i>',
        '<i class="ts">&quot;c&quot;</i>',
        '<i class="tt">memref</i>',
        '<i class="tn">8</i>',
        '<i class="tt">f32</i>',
        '<i class="tc">// d</i>',
    ):
        assert part in line


def test_a_small_problem_is_checked_itself_and_a_large_one_by_the_same_passes() -> None:
    small = prepare(gemmir.Gemm(m=24, n=40, k=16), "cpu:x86-64-v3")
    found = viewer(small)
    assert "this very problem" in found.checked.about
    assert all(stage.check is not None and stage.check.ok for stage in found.stages)
    large = prepare(gemmir.Gemm(m=512, n=512, k=512), "cpu:x86-64-v3")
    found = checks.checked(large, most_flops=50_000, say=lambda text: None)
    assert re.search(r"smaller problem by the same passes, \d+ x \d+ x \d+", found.about)
    assert {*large.stages} <= set(found.rows) and not found.wrong


def test_blocks_that_persist_are_fewer_in_a_smaller_problem() -> None:
    job = prepare(gemmir.Gemm(m=4096, n=4096, k=4096, dtype="bf16"), "cuda:sm_90a")
    assert "persist" in str(job.schedule) and job.problem is not None
    chosen = checks.smaller(job, job.problem, checks.FLOPS_OF_BLOCKS)
    assert chosen is not None and "3 blocks in place of more" in chosen[1]
    assert str(chosen[0].schedule) == str(job.schedule).replace("blocks=132", "blocks=3")


@pytest.mark.parametrize("target", TARGETS)
def test_the_prediction_is_that_of_the_model(target: str) -> None:
    found, job = shown(target)
    module = parse_module([*job.stages.values()][-1].text)
    model = predict(module, job.machine)
    rows = {row[0]: row for row in found.prediction.table.rows}
    factor = unit_of(model.seconds)[0]
    assert rows["predicted time"][2] == pytest.approx(model.seconds * factor)
    assert {*model.seconds_by} < {*rows}
    for level, size in model.bytes_by_level.items():
        assert rows[f"bytes of {level}"][4] == size
    assert f"bound by {model.bound_by}" in found.prediction.alt


@pytest.mark.parametrize("sizes", [(0, 4, 4), (4, 4, 0), (3, 5, 7)])
def test_problems_without_work_have_a_page_too(sizes: tuple[int, int, int]) -> None:
    m, n, k = sizes
    found = viewer(prepare(gemmir.Gemm(m=m, n=n, k=k), "cpu:x86-64-v3"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert svg(found.prediction)
    assert not found.checked.wrong and all(stage.check for stage in found.stages)


def test_a_wrong_stage_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    job = prepare(gemmir.Gemm(m=8, n=8, k=8), "cpu:x86-64-v3")
    wrong = Row(name="01-tile", step="tile", status="wrong", seconds=0.1, message="it is <wrong>")
    report = Report(rows=(wrong,), reference="float64", smallest="")

    def check(job: Job, **given: object) -> Report:
        return report

    monkeypatch.setattr(checks, "check", check)
    found = viewer(job)
    assert found.checked.wrong == 1
    assert ("01-tile", "wrong: it is <wrong>") in [(r[0], r[6]) for r in found.table.rows]
