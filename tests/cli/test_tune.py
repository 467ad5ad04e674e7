"""gemmir tune and --lock: a real tune of a tiny problem, and what other commands make of it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gemmir.lockfile import Lock
from gemmir.search.tuning.study import read_study
from tests.cli.conftest import Cli

SMALL = ("--m", "12", "--n", "32", "--k", "16")
TUNE = ("tune", *SMALL, "--study", "s", "--space", "my.space", "--rounds", "2", "--race", "8")

EPILOGUE = """
#map = affine_map<(i, j) -> (i, j)>
#row = affine_map<(i, j) -> (j)>
func.func @f(%a: memref<12x16xf32>, %b: memref<16x32xf32>, %v: memref<32xf32>,
             %c: memref<12x32xf32>) {
  %zero = arith.constant 0.0 : f32
  linalg.fill ins(%zero : f32) outs(%c : memref<12x32xf32>)
  linalg.matmul ins(%a, %b : memref<12x16xf32>, memref<16x32xf32>) outs(%c : memref<12x32xf32>)
  linalg.generic {indexing_maps = [#row, #map], iterator_types = ["parallel", "parallel"]}
    ins(%v : memref<32xf32>) outs(%c : memref<12x32xf32>) {
  ^bb0(%x: f32, %y: f32):
    %s = arith.addf %y, %x : f32
    %r = FUNCTION : f32
    linalg.yield %r : f32
  }
  return
}
"""

PINNING = """
import sys, time
from pathlib import Path
import gemmir
from importlib import import_module
from gemmir.lockfile import pin_of
tune = import_module("gemmir.cli.tune")
write = tune.write_file
def slowly(path, data):
    time.sleep(0.3)
    write(path, data)
tune.write_file = slowly
gemm = gemmir.Gemm(m=int(sys.argv[1]), n=8, k=8)
tune._pin(Path("my.lock"), pin_of(gemm, "cpu:x86-64-v3", 1, gemmir.Schedule()))
"""

SPACE = """
?mr = 2 | 4 | 6
?nv = 1 | 2
let nr = nv * lanes
tile{loops=m,n sizes=?mr,?nr edges=peel}
promote{operand=c to=registers}
vectorize{with=fma width=?width}
?width = lanes
"""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("my.space").write_text(SPACE)


def test_a_tune_from_the_beginning_to_a_compile(cli: Cli) -> None:
    result = cli(*TUNE, "--trials", "4", "--pin", "my.lock", "--json")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert (found["trials_done"], found["ended"]) == (4, "trials")
    assert sum(found["outcomes"].values()) == 4
    assert found["winner"] in found["tied"] and found["tie"] == (len(found["tied"]) > 1)
    low, high = found["interval"]
    assert 0 < low <= found["seconds"] <= high < 1e-3
    low, high = found["ratio_to_default_interval"]
    assert low <= found["ratio_to_default"] <= high
    assert found["objective"]["is_measured"] and found["study"] == "s"
    assert "best so far" in result.err and "pinned in my.lock" in result.err

    compiled = cli("compile", *SMALL, "--lock", "my.lock", "--json")
    assert ",".join(json.loads(compiled.out)["schedule"]) == found["winner"]
    assert compiled.err == ""
    ran = json.loads(cli("run", *SMALL, "--lock", "my.lock", "--seconds", "0", "--json").out)
    assert ",".join(ran["schedule"]) == found["winner"] and ran["within_bound"]
    raced = cli(
        "bench", *SMALL, "--lock", "my.lock", "--against", "numpy", "--rounds", "1", "--json"
    )
    (races,) = json.loads(raced.out)["classes"].values()
    assert ",".join(races[0]["results"]["gemmir"]["schedule"]) == found["winner"]

    again = cli(*TUNE)
    assert again.status == 1 and "GEM1412" in again.err
    more = cli(*TUNE, "--trials", "9", "--resume")
    assert more.status == 0, more.err
    assert "trials     6 (6 ok)" in more.out and "winner" in more.out


def test_a_lock_that_lacks_the_problem_leaves_the_default(cli: Cli) -> None:
    Path("my.lock").write_text("version = 1\n")
    result = cli("compile", *SMALL, "--lock", "my.lock", "--json")
    assert result.err == (
        "my.lock has no schedule for m=12 n=32 k=16 dtype=f32 on cpu: taking the default one\n"
    )
    two = cli("compile", *SMALL, "--lock", "my.lock", "--threads", "2")
    assert "on cpu with 2 threads: taking the default one" in two.err
    default = cli("compile", *SMALL, "--json")
    assert json.loads(result.out)["schedule"] == json.loads(default.out)["schedule"]


def test_a_lock_names_what_it_has_instead(cli: Cli) -> None:
    assert cli(*TUNE, "--trials", "2", "--pin", "my.lock").status == 0
    result = cli("compile", *SMALL, "--lock", "my.lock", "--threads", "2")
    assert "taking the default one; it has one for m=12 n=32 k=16 dtype=f32 on cpu (" in result.err
    cpu = cli("compile", *SMALL, "--lock", "my.lock", "--out", "f32")
    assert cpu.err == "", "that is what it would be anyway"


def test_an_epilogue_in_a_text_is_the_one_that_was_tuned(cli: Cli) -> None:
    gemm = ("--m", "12", "--n", "32", "--k", "16", "--epilogue", "bias+relu")
    tuned = (*TUNE[:1], *gemm, *TUNE[7:], "--trials", "2", "--pin", "my.lock", "--json")
    winner = json.loads(cli(*tuned).out)["winner"]
    Path("x.mlir").write_text(EPILOGUE.replace("FUNCTION", "arith.maximumf %s, %zero"))
    found = cli("compile", "x.mlir", "--lock", "my.lock", "--json")
    assert found.err == "" and ",".join(json.loads(found.out)["schedule"]) == winner
    Path("y.mlir").write_text(EPILOGUE.replace("FUNCTION", "arith.mulf %s, %s"))
    found = cli("compile", "y.mlir", "--lock", "my.lock", "--json")
    assert found.status == 0
    assert found.err == (
        "y.mlir has an epilogue that no problem names: taking the default schedule\n"
    )


def test_pins_of_tunes_at_once_are_all_kept(tmp_path: Path) -> None:
    """Each reads the file, waits, and writes it: without the lock the later one would win."""
    with ThreadPoolExecutor() as pool:
        done = [
            pool.submit(
                subprocess.run,
                [sys.executable, "-c", PINNING, str(m)],
                cwd=tmp_path,
                check=True,
            )
            for m in range(1, 5)
        ]
        assert all(one.result().returncode == 0 for one in done)
    pins = Lock.read(tmp_path / "my.lock").pins
    assert [pin.problem[:3] for pin in pins] == ["m=1", "m=2", "m=3", "m=4"]
    assert [p.name for p in tmp_path.iterdir() if "lock" in p.name] == ["my.lock"]


def test_a_lock_in_a_folder_that_is_not_there_is_told_first(cli: Cli) -> None:
    result = cli(*TUNE, "--pin", "no/my.lock")
    assert result.status == 1
    assert result.err.startswith("error GEM0701: no/my.lock cannot be written: No such file")
    assert not Path("s").exists()


def test_a_text_has_a_problem_too(cli: Cli) -> None:
    Path("x.mlir").write_text(
        "func.func @f(%a: memref<12x16xf32>, %b: memref<16x32xf32>, %c: memref<12x32xf32>) {\n"
        "  linalg.matmul ins(%a, %b : memref<12x16xf32>, memref<16x32xf32>)\n"
        "    outs(%c : memref<12x32xf32>)\n  return\n}\n"
    )
    Path("my.lock").write_text("version = 1\n")
    assert "my.lock has no schedule for m=12" in cli("compile", "x.mlir", "--lock", "my.lock").err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*TUNE, "--sampler", "luck"), "--sampler luck: there are tpe, random, cmaes, grid"),
        ((*TUNE, "--schedule", "x"), "--schedule says nothing to a tune"),
        ((*TUNE, "--lock", "x"), "--lock says nothing to a tune"),
        (("tune", "x.mlir", "--study", "s"), "FILE.mlir says nothing to a tune"),
        (("tune", *SMALL), "Missing option '--study'"),
        (("compile", *SMALL, "--lock", "x", "--schedule", "y"), "--schedule says what --lock"),
    ],
)
def test_what_would_change_nothing_is_a_usage_error(
    cli: Cli, arguments: tuple[str, ...], words: str
) -> None:
    result = cli(*arguments)
    assert result.status == 2 and words in " ".join(result.err.split())


def test_a_lock_that_cannot_be_pinned_into_is_told_first(cli: Cli) -> None:
    Path("my.lock").write_text("a poem")
    result = cli(*TUNE, "--pin", "my.lock")
    assert result.status == 1 and "GEM1418" in result.err and not Path("s").exists()


def test_an_interrupt_says_how_to_go_on(cli: Cli, tmp_path: Path) -> None:
    arguments = (*TUNE, "--trials", "5", "--no-prior", "--json")
    with subprocess.Popen(
        [sys.executable, "-m", "gemmir", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        _wait_for(tmp_path / "s", 1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130, err
    assert json.loads(out)["ended"] == "interrupt" and json.loads(out)["winner"] is None
    assert "go on with\n" in err and "--trials 5 --no-prior --json --resume" in err
    result = cli(*arguments, "--resume")
    assert result.status == 0, result.err
    rows = read_study(tmp_path / "s").rows
    assert [row.number for row in rows] == list(range(5))
    assert len({json.dumps(row.point) for row in rows}) == 5


def _wait_for(path: Path, rows: int) -> None:
    """Until a study has so many trials that have ended."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if path.exists() and path.stat().st_size:
            try:
                if sum(row.outcome is not None for row in read_study(path).rows) >= rows:
                    return
            except Exception:
                pass
        time.sleep(0.05)
    raise AssertionError(f"{path} has not got {rows} trials")
