"""Preparing kernels to be measured elsewhere, checking them, and a measurement whose workers fail.

What is timed needs a GPU and PyTorch.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import gemmir
from gemmir.arrays import make_operands
from gemmir.backends.ptx.image import Image
from gemmir.epilogue_steps import EPILOGUE_STEPS
from gemmir.signature import Signature
from tests.backends.ptx.conftest import by_bindings, no_driver_kept
from tests.backends.ptx.fakes import FakeCuda, Status

__all__ = ["by_bindings", "no_driver_kept"]

BENCH = Path(__file__).parent.parent / "bench"

Bench = Callable[[str], Any]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    """Imports a file of `bench`, which is no package, as its scripts do."""
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    return import_module


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def image_of(folder: Path, kernel: Mapping[str, Any]) -> Image:
    return Image.from_bytes(gzip.decompress((folder / kernel["file"]).read_bytes()))


def test_a_folder_has_the_code_of_every_case(tmp_path: Path):
    schedule = tmp_path / "wrong.schedule"
    schedule.write_text("tile{loops=m sizes=4 over=cores}\n")
    folder = tmp_path / "made"
    cases = ("--case", "f32:64x48x32:nt", "--case", "bf16:32x32x32:nn:bf16:bias+relu")
    done = run("--prepare", str(folder), *cases, "--schedule", f"f32*={schedule}", "--jobs", "1")
    assert done.returncode == 0, done.stderr
    assert "f32:64x48x32:nt wrong: GEM" in done.stderr
    manifest = json.loads((folder / "cases.json").read_text())
    assert manifest["target"] == "cuda:sm_90a"
    first, second = manifest["cases"]
    assert (first["suite"], first["task"]) == ("case", "time")
    assert gemmir.Gemm(**first["problem"]) == gemmir.Gemm(m=64, n=48, k=32, trans_b=True)
    assert list(first["refused"]) == ["wrong"]
    assert first["refused"]["wrong"].startswith("GEM")
    (kernel,) = first["kernels"].values()
    image = image_of(folder, kernel)
    assert image.gpu == "sm_90a"
    assert [k["blocks"] for k in kernel["launch"]["kernels"]] == [
        k.blocks for k in image.launch.kernels
    ]
    assert list(second["kernels"]) == ["default", "product, default"]
    assert second["kernels"]["product, default"]["problem"]["epilogue"] == ""
    signature = Signature.from_json(second["kernels"]["default"]["signature"])
    assert [a.name for a in signature.arguments] == ["a", "b", "bias", "c"]


@pytest.mark.parametrize(
    ("option", "word"),
    [
        ("--case", "f32:64"),
        ("--case", "f32:1x2x3:xy"),
        ("--case", "f99:1x2x3"),
        ("--suite", "cube"),
        ("--schedule", "nowhere.schedule"),
    ],
)
def test_what_is_no_case_suite_or_schedule_is_a_usage_error(
    bench: Bench, tmp_path: Path, option: str, word: str
):
    app = typer.Typer()
    app.command()(bench("gpu").main)
    arguments = ["--prepare", str(tmp_path / "made"), "--case", "f32:8x8x8", option, word]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert option in done.output
    assert word.split(":")[0] in done.output
    assert not (tmp_path / "made").exists()


def test_it_is_said_what_to_do():
    assert run().returncode == 2


def test_a_case_says_all_of_a_problem(bench: Bench):
    problem = bench("gpu_cases").problem
    assert problem("tf32:3x4x5") == gemmir.Gemm(m=3, n=4, k=5, dtype="tf32")
    assert problem("bf16:3x4x5:tn:f16:bias+gelu:beta=2:batch=3:ldc=8") == gemmir.Gemm(
        m=3,
        n=4,
        k=5,
        dtype="bf16",
        trans_a=True,
        out="f16",
        epilogue="bias+gelu",
        beta=2.0,
        batch=3,
        ldc=8,
    )


def test_suites_have_what_is_to_be_shown(bench: Bench):
    suites = bench("gpu_cases").SUITES
    assert set(bench("gpu_report").BARS) == set(suites) - {"check"}
    gemms = {name: [case.gemm for case in cases] for name, cases in suites.items()}
    assert {(g.dtype, g.m) for g in gemms["square"]} == {
        (dtype, n) for dtype in ("bf16", "f16") for n in (4096, 8192)
    }
    assert len({(g.m, g.n, g.k) for g in gemms["llm"]}) == 20
    assert all(g.trans_b and g.out == "bf16" for g in gemms["llm"])
    checked = gemms["check"]
    assert {g.dtype for g in checked} >= {"bf16", "f16", "tf32", "e4m3", "e5m2", "i8", "u8", "f64"}
    assert {step for g in checked for step in g.steps} == set(EPILOGUE_STEPS)
    for cases in suites.values():
        assert len({case.text for case in cases}) == len(cases)


def test_schedules_are_of_a_file_a_folder_or_for_some_cases(bench: Bench, tmp_path: Path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.schedule").write_text("unroll{loop=k factor=2}")
    variants = bench("gpu_prepare").variants
    found = variants([str(tmp_path), f"bf16:*beta=2*={tmp_path / 'a.schedule'}"])
    assert [(v.name, v.pattern) for v in found] == [("a", "*"), ("b", "*"), ("a", "bf16:*beta=2*")]
    with pytest.raises(ValueError, match="nowhere"):
        variants(["nowhere"])


def test_a_schedule_of_a_file_fuses_where_there_is_an_epilogue(bench: Bench, tmp_path: Path):
    file = tmp_path / "mine.schedule"
    tile, *rest = (
        "tile{loops=m,n sizes=16,16 over=blocks}",
        "fuse-epilogue",
        "unroll{loop=k factor=2}",
        "expand-math",
    )
    steps = [tile, *rest]
    file.write_text("\n".join(steps))
    preparing, cases = bench("gpu_prepare"), bench("gpu_cases")
    case = cases.own_case("f32:16x16x16:bias")
    work = preparing._all_work(tmp_path, "cuda:sm_80", [case], preparing.variants([str(file)]))
    found = {w.name: preparing._schedule(w) for w in work}
    assert found["default"] is found["product, default"] is None
    assert found["mine"].steps == (*steps,)
    assert found["product, mine"].steps == (tile, "unroll{loop=k factor=2}")


def test_a_compiler_that_ends_its_process_takes_no_other_kernel_along(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    preparing, cases = bench("gpu_prepare"), bench("gpu_cases")
    lower = preparing.lower

    def dying(gemm: gemmir.Gemm, *rest: Any) -> Any:
        if gemm.m == 16:
            os._exit(134)
        return lower(gemm, *rest)

    monkeypatch.setattr(preparing, "lower", dying)
    asked = [cases.own_case(f"f32:{m}x8x8") for m in (8, 16, 24)]
    preparing.write_folder(tmp_path, "cuda:sm_80", asked, [], 1)
    listed = json.loads((tmp_path / "cases.json").read_text())["cases"]
    assert [len(case["kernels"]) for case in listed] == [1, 0, 1]
    assert listed[1]["refused"] == {"default": "the compiler ended its process"}


def test_measuring_imports_nothing_that_lowers():
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(BENCH)!r})\n"
        "sys.modules['xdsl'] = sys.modules['llvmlite'] = None\n"
        "from gpu_worker import without_front_door\n"
        "without_front_door()\n"
        "import gpu_launch, gpu_run, race\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def prepared(bench: Bench, folder: Path, *texts: str) -> dict[str, Any]:
    """The manifest of a folder with code for a GPU that the fake one can be."""
    cases = [bench("gpu_cases").own_case(text) for text in texts]
    bench("gpu_prepare").write_folder(folder, "cuda:sm_80", cases, [], 1)
    return json.loads((folder / "cases.json").read_text())


@pytest.mark.parametrize(
    "text",
    [
        "f32:20x24x16:nt",
        "bf16:33x24x16:nt:bf16:bias+gelu",
        "i8:16x16x32:nt:beta=2",
        "bf16:24x16x16:groups=3",
        "bf16:33x40x48:nt:bf16:scale_block=16",
        "bf16:33x24x16:nt:bf16:scale+bias",
        "f32:8x8x0",
    ],
)
def test_a_right_kernel_passes_its_check(bench: Bench, tmp_path: Path, by_bindings: Any, text: str):
    cuda = by_bindings(FakeCuda())
    (case,) = prepared(bench, tmp_path, text)["cases"]
    found = bench("gpu_check").checked(tmp_path, case["kernels"]["default"], 3)
    assert not found["wrong"], found
    assert found["same_bits"]
    assert found["damage"] == ""
    assert found.get("exact_on_integers", True)
    assert cuda.memory == {}


def test_a_wrong_kernel_does_not(bench: Bench, tmp_path: Path, by_bindings: Any):
    """It stores nothing."""
    by_bindings(FakeCuda())
    (case,) = prepared(bench, tmp_path, "f32:20x24x16:nt")["cases"]
    kernel = case["kernels"]["default"]
    image = image_of(tmp_path, kernel)
    text = image.ptx.decode().replace("st.global", "//st.global")
    edited = Image(gpu="sm_80", launch=image.launch, ptx=text.encode())
    (tmp_path / kernel["file"]).write_bytes(gzip.compress(edited.to_bytes()))
    found = bench("gpu_check").checked(tmp_path, kernel, 3)
    assert found["wrong"]
    assert found["error_by_bound"] > 1
    assert found["first_wrong"] == [0, 0]
    assert found["wrong_elements"] == 20 * 24
    assert not found["exact_on_integers"]


def test_bits_that_change_from_run_to_run_are_wrong(
    bench: Bench, tmp_path: Path, by_bindings: Any, monkeypatch: pytest.MonkeyPatch
):
    by_bindings(FakeCuda())
    check = bench("gpu_check")
    (case,) = prepared(bench, tmp_path, "f32:8x8x8")["cases"]
    after, seen = check._after, list[Any]()

    def unsteady(*arguments: Any) -> Any:
        found = after(*arguments)
        seen.append(found)
        if len(seen) == 2:
            found.output[3, 3] = np.nextafter(found.output[3, 3], np.float32(9))
        return found

    monkeypatch.setattr(check, "_after", unsteady)
    found = check.checked(tmp_path, case["kernels"]["default"], 3)
    assert found["wrong"] and not found["same_bits"]
    assert found["error_by_bound"] <= 1


def test_a_worker_answers_line_by_line(
    bench: Bench, tmp_path: Path, by_bindings: Any, monkeypatch: pytest.MonkeyPatch
):
    cuda = by_bindings(FakeCuda())
    (case,) = prepared(bench, tmp_path, "bf16:16x16x16:groups=2")["cases"]
    answers = io.StringIO()
    worker = bench("gpu_worker").Worker(tmp_path, answers)
    question = json.dumps({"case": case, "seconds": 0.0, "seed": 0}) + "\n"
    worker.serve(io.StringIO(question))
    said = [json.loads(line) for line in answers.getvalue().splitlines()]
    assert [found["event"] for found in said] == ["ready", "start", "row", "done"]
    assert said[0]["gpu"] == "Fake H200"
    assert said[1]["kernel"] == "default"
    assert not said[2]["row"]["wrong"]
    cuda.failing["launch"] = Status.ILLEGAL_ADDRESS
    answers.truncate(0)
    worker.serve(io.StringIO(question * 2))
    *_, last = answers.getvalue().strip("\0").splitlines()
    assert json.loads(last)["event"] == "failed"
    assert "GEM0526" in json.loads(last)["error"]
    assert json.loads(last)["kernel"] == "default"


SCRIPTED = """
import json, os, sys, time

def say(**fields):
    print(json.dumps(fields), flush=True)

say(event="ready", gpu="none")
for line in sys.stdin:
    asked = json.loads(line)
    for name in asked["case"]["kernels"]:
        say(event="start", kernel=name)
        what = name.split("-")[0]
        if what == "crash":
            os._exit(11)
        if what == "hang":
            time.sleep(100)
        if what == "fault":
            say(event="failed", kernel=name, error="illegal address")
            sys.exit()
        row = {"name": name, "wrong": what == "wrong", "error_by_bound": 0.5, "schedule": []}
        say(event="row", row={**row, "given": asked["seconds"]})
    say(event="done")
"""
"""A worker that does what the names of kernels say."""


def case_of(suite: str, task: str, *kernels: str, **refused: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"schedule": [], "launch": {}}
    named = dict.fromkeys(kernels, entry)
    text = "+".join(kernels)
    return {"suite": suite, "text": text, "task": task, "kernels": named, "refused": refused}


def measured(
    bench: Bench, tmp_path: Path, *cases: dict[str, Any], budget: float = 100.0
) -> dict[str, Any]:
    script, output = tmp_path / "worker.py", tmp_path / "found.json"
    script.write_text(SCRIPTED)
    measurement = bench("gpu_run").Run(
        folder=tmp_path,
        manifest={"target": "cuda:sm_90a", "cases": cases},
        seconds=2.0,
        seed=0,
        budget=budget,
        output=output,
        command=[sys.executable, str(script)],
    )
    found = measurement.measure()
    assert json.loads(output.read_text()) == found
    return found


def test_the_rest_of_a_case_goes_on_when_a_kernel_fails(bench: Bench, tmp_path: Path):
    found = measured(
        bench,
        tmp_path,
        case_of("s", "check", "good-1", "crash-1", "good-2", "fault-1", "good-3"),
        case_of("s", "check", "good-4", missing="GEM0318: it does not fit"),
    )
    assert found["gpu"] == "none"
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [
        "missing",
        "good-1",
        "crash-1",
        "good-2",
        "fault-1",
        "good-3",
        "good-4",
    ]
    assert rows["crash-1"]["error"] == "the process ended with status 11"
    assert rows["fault-1"]["error"] == "illegal address"
    assert rows["missing"]["refused"].startswith("GEM0318")
    assert [name for name, row in rows.items() if row.get("wrong")] == ["crash-1", "fault-1"]
    counts = {"kernels": 6, "wrong": 2, "refused": 1, "left_out": 0}
    assert found["summary"] == {"s": counts}


def test_what_is_prepared_is_chosen_by_suite_and_pattern(bench: Bench):
    chosen = bench("gpu").chosen
    pairs = (("square", "bf16:1"), ("square", "f16:1"), ("llm", "bf16:2"))
    cases = [{"suite": suite, "text": text} for suite, text in pairs]
    assert chosen(cases, "", []) == cases
    assert [case["text"] for case in chosen(cases, "llm,square", [])] == [
        "bf16:2",
        "bf16:1",
        "f16:1",
    ]
    assert [case["text"] for case in chosen(cases, "square", ["bf16*", "tf32*"])] == ["bf16:1"]
    with pytest.raises(typer.BadParameter, match="prepared are square, llm"):
        chosen(cases, "fp8", [])


def test_a_kernel_that_never_ends_is_given_up(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench("gpu_run"), "SILENT_SECONDS", -1.0)
    found = measured(bench, tmp_path, case_of("s", "time", "hang-1", "good-1"))
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["hang-1"]["error"].startswith("nothing happened for")
    assert not rows["good-1"]["wrong"]


def test_checks_that_take_long_are_left_for_the_end(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench("gpu_run"), "CHECK_PART", 0.0)
    checks = [case_of("check", "check", f"good-{n}") for n in (1, 2)]
    found = measured(bench, tmp_path, *checks, case_of("square", "time", "good-3"))
    assert [row["name"] for row in found["rows"]] == ["good-3", "good-1", "good-2"]
    assert found["rows"][0]["given"] == 2.0


def test_a_budget_is_shared_and_what_it_does_not_pay_is_left_out(bench: Bench, tmp_path: Path):
    times = [case_of("square", "time", f"good-{n}") for n in range(2)]
    found = measured(bench, tmp_path, *times, budget=5.0)
    assert 0.2 <= found["rows"][0]["given"] < 1.5
    found = measured(bench, tmp_path, *times, budget=0.5)
    assert [row["left_out"] for row in found["rows"]] == ["the budget is spent"] * 2
    assert found["summary"]["square"]["left_out"] == 2


def test_without_a_worker_nothing_is_measured(bench: Bench, tmp_path: Path):
    running = bench("gpu_run")
    cases = [case_of("s", "check", "good-1")]
    measurement = running.Run(
        folder=tmp_path,
        manifest={"cases": cases},
        seconds=1.0,
        seed=0,
        budget=10.0,
        output=None,
        command=[sys.executable, "-c", "raise SystemExit(4)"],
    )
    with pytest.raises(running.NoWorkerError, match="status 4"):
        measurement.measure()


def test_when_no_worker_begins_any_more_what_was_found_stays(bench: Bench, tmp_path: Path):
    """The second one finds what the first has left, and ends."""
    script, left = tmp_path / "once.py", tmp_path / "left"
    begin = f"import os\nif os.path.exists({str(left)!r}): raise SystemExit(4)\n"
    script.write_text(f"{begin}open({str(left)!r}, 'w').close()\n{SCRIPTED}")
    running = bench("gpu_run")
    found = running.Run(
        folder=tmp_path,
        manifest={"cases": [case_of("s", "check", "good-1", "crash-1", "good-2")]},
        seconds=1.0,
        seed=0,
        budget=100.0,
        output=None,
        command=[sys.executable, str(script)],
    ).measure()
    assert [row["name"] for row in found["rows"]] == ["good-1", "crash-1", ""]
    assert "no worker begins any more" in found["rows"][-1]["error"]


def timed(suite: str, case: str, name: str, **figures: float) -> dict[str, Any]:
    times = {"median": 1e-3, "lower": 0.9e-3, "upper": 1.1e-3, "count": 10}
    row = {"suite": suite, "case": case, "name": name, "wrong": False, "schedule": ["tile"]}
    return {**row, "seconds": times, "tflops": 500.0, **figures}


def test_a_report_has_means_worst_cases_and_verdicts(bench: Bench):
    report = bench("gpu_report")
    peer = timed("llm", "x", "torch", ratio=1.0)
    del peer["schedule"]
    launch: dict[str, Any] = {"suite": "launch", "case": "l", "wrong": False, "schedule": []}
    wrong = {**timed("llm", "y", "wide", ratio=9.0), "wrong": True, "error_by_bound": 70.0}
    rows: list[dict[str, Any]] = [
        timed("llm", "x", "default", ratio=0.9),
        timed("llm", "y", "default", ratio=1.6),
        timed("llm", "x", "wide", ratio=1.2),
        wrong,
        peer,
        timed("epilogue", "z", "default", ratio=1.0, overhead=0.03),
        timed("epilogue", "z", "product, default", ratio=0.5),
        {**launch, "name": "default, bound call", "microseconds": {"median": 4.0}},
        {**launch, "name": "default, call", "microseconds": {"median": 14.0}},
        {"suite": "square", "case": "q", "name": "", "left_out": "the budget is spent"},
    ]
    found = report.summary(rows)
    schedules = found["llm"]["schedules"]
    assert schedules["default"] == {
        "cases": 2,
        "mean": pytest.approx(1.2),
        "least": 0.9,
        "worst": "x",
        "met": True,
    }
    assert not schedules["wide"]["met"] or schedules["wide"]["cases"] == 1
    assert schedules["best of all"]["least"] == 1.2
    assert found["llm"]["wrong"] == 1
    assert found["epilogue"]["schedules"]["default"]["met"] is False
    assert "met" not in found["epilogue"]["schedules"]["product, default"]
    launches = found["launch"]["schedules"]
    assert launches["default, bound call"] == {"microseconds": 4.0, "met": True}
    assert launches["default, call"] == {"microseconds": 14.0}
    rows = [row for row in rows if row["suite"] != "launch"]
    text = report.table({"rows": rows, "summary": found})
    assert "WRONG error_by_bound 70.0" in text
    assert "left out: the budget is spent" in text
    assert "BELOW THE BAR" in text
    assert "geometric mean 1.200 of 2 cases, worst 0.900 at x, meets the bar" in text


def test_the_monitor_says_nothing_where_there_is_no_tool(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PATH", str(tmp_path))
    quiet = bench("gpu_monitor").Monitor()
    assert quiet.since(0.0) == {}
    quiet.end()
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho '580.1, 1410, 3201, 1980, [N/A], 700.0, 44'\n")
    tool.chmod(0o755)
    monitor = bench("gpu_monitor").Monitor()
    end = time.perf_counter() + 10
    while not monitor.first and time.perf_counter() < end:
        time.sleep(0.01)
    assert monitor.first["driver_version"] == "580.1"
    assert monitor.since(0.0) == {"smi": {"clocks.sm": 1410.0, "temperature.gpu": 44.0}}
    monitor.end()


def test_float64_on_the_gpu_has_the_bounds_of_numpy(bench: Bench):
    torch: Any = pytest.importorskip("torch")
    check = bench("gpu_check")
    for text in (
        "bf16:20x24x16:nt:bf16:bias+gelu+residual",
        "tf32:8x9x10:tn:beta=2:alpha=3",
        "e4m3:8x16x16:nt:bf16:scale+silu",
        "e4m3:20x48x40:nt:bf16:relu:scale_block=16",
    ):
        gemm = bench("gpu_cases").problem(text)
        operands = make_operands(gemmir.lower(gemm, "cuda:sm_89").artifact.signature, 1)
        arrays = {name: operand.array for name, operand in operands.by_name.items()}
        tensors = {name: torch.tensor(a.astype(np.float64)) for name, a in arrays.items()}
        found = check.expected(torch, gemm, tensors)
        np.testing.assert_allclose(found.exact.numpy(), gemm.reference(arrays), rtol=1e-12)
        np.testing.assert_allclose(found.bound.numpy(), gemm.error_bound(arrays), rtol=1e-9)


def test_a_case_is_kept_as_json(bench: Bench):
    case = bench("gpu_cases").own_case("bf16:8x8x8:groups=2")
    assert asdict(case) == {"suite": "case", "text": "bf16:8x8x8:groups=2", "task": "check"}
