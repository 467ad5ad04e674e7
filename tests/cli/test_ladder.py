"""gemmir ladder: what it prints, writes and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli

SMALL = ("--m", "40", "--n", "64", "--k", "16", "--target", "cpu:x86-64-v3", "--threads", "1")


def test_table_and_files(cli: Cli, tmp_path: Path) -> None:
    done = cli("ladder", *SMALL, "--no-measure", "-o", "rungs")
    assert done.status == 0, done.err
    assert "m=40 n=64 k=16 f32" in done.out
    assert "unknown" not in done.out
    assert "naive" in done.out
    assert "no rung cache-tiled: all of B, 16 x 64, is one block" in done.out
    files = sorted(path.name for path in (tmp_path / "rungs").iterdir())
    assert files[0] == "01-naive.schedule"
    sizes = SMALL[:6]
    for file in files:
        made = cli("compile", *sizes, "--target", "cpu:x86-64-v3", "--schedule", f"rungs/{file}")
        assert made.status == 0, made.err


def test_one_rung_and_its_code(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["gemmir", "ladder", "--json"])
    found = cli("ladder", *SMALL, "--rung", "vectorized", "--no-measure", "--json")
    assert [rung["name"] for rung in found.json["rungs"]] == ["packed", "vectorized"]
    assert found.json["ok"]
    assert found.json["command"] == "gemmir ladder --json"
    assert found.json["started"].startswith("20") and "llvm" in found.json["versions"]
    assert [rung["number"] for rung in found.json["rungs"]] == [4, 5]
    cli("ladder", *SMALL, "--rung", "vectorized", "--no-measure", "-o", "two")
    assert sorted(path.name for path in Path("two").iterdir()) == [
        "04-packed.schedule",
        "05-vectorized.schedule",
    ]
    text = cli("ladder", *SMALL, "--rung", "packed", "--emit", "schedule").out
    assert text.startswith("# packed: the block of B in panels\n")
    assert "vfmadd" in cli("ladder", *SMALL, "--rung", "packed", "--emit", "asm").out


def test_times_are_of_right_results(cli: Cli) -> None:
    found = cli("ladder", *SMALL[:6], "--threads", "1", "--rung", "loop-order", "--json")
    assert found.status == 0, found.err
    for rung in found.json["rungs"]:
        assert rung["how"] == "measured"
        assert rung["note"] == "right at 40 x 64 x 16 too"
        assert 0 < rung["seconds"] < 1
        assert rung["timings"] >= 3
        assert rung["facts"]["scalar multiply-adds"] > 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("--rung", "nave"), 1, "there is no rung 'nave' on this ladder"),
        (("--rung", "cache-tiled"), 1, "(all of B, 16 x 64, is one block)"),
        (("--emit", "asm"), 2, "--emit needs --rung"),
        (("--rung", "naive", "--emit", "obj"), 2, "the kinds are schedule, mlir, llvm, asm"),
        (("--schedule", "unroll{loop=k factor=2}"), 2, "a ladder has schedules of its own"),
        (("--groups", "2"), 1, "a ladder has no rungs for groups"),
        (("--rung", "naive", "--emit", "asm", "--json"), 2, "leave --json out"),
        (("--rung", "naive", "--emit", "asm", "-o", "there"), 2, "leave -o out"),
        (("--no-measure", "--cpu", "0"), 2, "--no-measure asks for none"),
        (("--target", "cuda:sm_80"), 2, "--threads is of a CPU"),
        (("--seed", "-1"), 2, "greater than or equal to 0"),
        (("-o", "/dev/null"), 1, "GEM1445: the folder /dev/null cannot be made"),
    ],
)
def test_what_is_refused(cli: Cli, arguments: tuple[str, ...], status: int, words: str) -> None:
    done = cli("ladder", *SMALL, *arguments)
    assert done.status == status
    assert words in " ".join(done.err.replace("│", " ").split())
