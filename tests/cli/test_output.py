"""Where output goes, and what happens where it cannot."""

import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Final

import pytest

from gemmir.cli import EXAMPLES, GROUPS, main
from gemmir.cli.output import check_writable, put_json, write_file
from gemmir.errors import OutputError
from tests.cli.conftest import Cli


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")
    path.chmod(0o640)
    write_file(path, b"after")
    assert path.read_bytes() == b"after"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert os.listdir(tmp_path) == ["x"]


def test_a_new_file_gets_the_usual_permissions(tmp_path: Path) -> None:
    (tmp_path / "usual").write_bytes(b"")
    write_file(tmp_path / "x", b"new")
    assert (tmp_path / "x").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"before")
    (tmp_path / "link").symlink_to("real")
    write_file(tmp_path / "link", b"after")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"after"


def test_nothing_half_written_remains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"before")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OutputError, match=r"GEM0701: .*/x cannot be written: No space left"):
        write_file(path, b"after")
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["x"]


@pytest.mark.parametrize("place", ["no/x", "."])
def test_a_place_that_cannot_be_written(tmp_path: Path, place: str) -> None:
    with pytest.raises(OutputError, match="GEM0701"):
        write_file(tmp_path / place, b"")


def test_a_device_is_written_to() -> None:
    write_file(Path("/dev/null"), b"x")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    with pytest.raises(OutputError, match="GEM0701: /dev/full cannot be written: No space"):
        write_file(Path("/dev/full"), b"x")


def test_a_full_standard_output_is_an_error(shell: Cli) -> None:
    result = shell("gemmir passes > /dev/full")
    assert result.status == 1
    assert result.err == (
        "error GEM0701: standard output cannot be written: No space left on device\n"
        "  hint: nothing was written\n"
    )


def test_a_reader_that_leaves_is_no_error(shell: Cli) -> None:
    result = shell("gemmir compile --m 64 --n 64 --k 64 --emit asm,llvm --json | true")
    assert (result.status, result.err) == (0, "")


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    put_json({"a": [float("nan"), (float("inf"), 1.5)], "b": Path("x")})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [None, 1.5]], "b": "x"}


def test_a_file_that_could_not_be_written_is_refused_before(tmp_path: Path) -> None:
    check_writable(tmp_path / "new")
    check_writable(Path(os.devnull))
    (tmp_path / "old").touch()
    check_writable(tmp_path / "old")
    for path in (tmp_path, tmp_path / "no" / "x", tmp_path / "old" / "x"):
        with pytest.raises(OutputError, match="cannot be written"):
            check_writable(path)
    assert os.listdir(tmp_path) == ["old"]


SMALL = ("--m", "8", "--n", "8", "--k", "8")


@pytest.mark.parametrize(
    "command",
    [
        ("blas",),
        ("report", *SMALL),
        ("run", *SMALL),
        ("cost", "measure", "--suite", "suite.toml"),
    ],
    ids=lambda command: command[0],
)
def test_where_nothing_can_be_written_nothing_is_computed(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    for name in ("gemmir.compiler.build", "gemmir.blas.build", "gemmir.bench.race.cpus_for"):
        monkeypatch.setattr(name, never)
    (tmp_path / "suite.toml").write_text("")
    result = cli(*command, "-o", "no/x")
    assert (result.status, result.out) == (1, "")
    assert result.err.startswith("error GEM0701: no/x cannot be written: No such file")


MLIR: Final = """
func.func @product(%a: memref<2x3xf32>, %b: memref<3x4xf32>, %c: memref<2x4xf32>) {
  linalg.matmul ins(%a, %b : memref<2x3xf32>, memref<3x4xf32>) outs(%c : memref<2x4xf32>)
  func.return
}
"""

COMMANDS: Final = (
    ("--help",),
    ("--version",),
    *((function.__name__, "--help") for function in EXAMPLES),
    *((name, "--help") for name in GROUPS),
    *((n, f.__name__, "--help") for n, group in GROUPS.items() for f in group.examples),
    ("passes",),
    ("targets",),
    ("compile", *SMALL),
    ("compile", *SMALL, "--emit", "asm"),
    ("opt", "--to", "tiled", "x.mlir"),
    ("check", *SMALL),
    ("run", *SMALL),
    ("explain", *SMALL, "--edits", "0"),
    ("bench", *SMALL, "--quick", "--against", "numpy"),
    ("space", "list", *SMALL, "--limit", "1"),
    ("experiment", "init"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_minds_that_nobody_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.mlir").write_text(MLIR)
    reading, writing = os.pipe()
    os.close(reading)
    said = io.StringIO()
    with open(writing, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        monkeypatch.setattr(sys, "stderr", said)
        status = main(command)
    assert status == 0, said.getvalue()
    assert "error" not in said.getvalue().lower()


@pytest.mark.parametrize("command", ["--help", "tune --help", "--version"])
def test_a_process_ends_quietly_where_nobody_reads(shell: Cli, command: str) -> None:
    result = shell(f"gemmir {command} | true")
    assert (result.status, result.err) == (0, "")


def test_an_error_that_nobody_reads_is_still_one(shell: Cli) -> None:
    assert shell("gemmir compile --nosuch 2>&1 | true").status == 2
