"""`gemmir check --ptx`: an edited PTX in place of the emitted one, as a user would try it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

PROBLEM = ("--m", "20", "--n", "24", "--k", "72", "--dtype", "bf16", "--target", "cuda:sm_80")


@pytest.fixture
def emitted(cli: Cli, tmp_path: Path) -> Path:
    """The PTX of the problem, in a file."""
    result = cli("compile", *PROBLEM, "--emit", "ptx", "-o", "kernel.ptx")
    assert result.status == 0, result.err
    return tmp_path / "kernel.ptx"


def edit(file: Path, pattern: str, by: str) -> None:
    """Replace the first match of `pattern`."""
    text = file.read_text()
    edited = re.sub(pattern, by, text, count=1, flags=re.MULTILINE)
    assert edited != text
    file.write_text(edited)


def test_what_was_emitted_is_right(cli: Cli, emitted: Path) -> None:
    result = cli("check", *PROBLEM, "--ptx", str(emitted), "--json")
    assert result.status == 0, result.err
    last = [row for row in result.json["rows"] if row["name"] == "ptx"]
    assert [row["status"] for row in last] == ["ok"]


@pytest.mark.parametrize(
    ("pattern", "by", "said"),
    [
        (
            r"^\s+bar\.sync.*\n",
            "",
            r"GEM1003: .*block \(0, 0, 0\), thread \d+, line \d+ \(ldmatrix.*without a barrier",
        ),
        (r"^\s+cp\.async\.wait_group.*\n", "", r"GEM1008: .*an asynchronous copy .*yet to fill"),
        (r"(wait_group\s+)\d+", r"\g<1>3", r"GEM1008: .*an asynchronous copy .*yet to fill"),
        (r"x4\.trans", "x4", r"element \[0, 0\] is .*, expected .*: off by .*, and the bound is "),
        (r"(\], )16(, %r\d+)?;", r"\g<1>12;", r"GEM1001: .*cp\.async"),
    ],
    ids=["barrier", "wait", "stage", "transpose", "size"],
)
def test_a_fault_is_named(cli: Cli, emitted: Path, pattern: str, by: str, said: str) -> None:
    edit(emitted, pattern, by)
    result = cli("check", *PROBLEM, "--ptx", str(emitted))
    assert result.status == 3
    assert re.search(rf"^error GEM0801: stage ptx .*{said}", result.err, re.M), result.err
    rows = [line for line in result.out.splitlines() if " ptx " in f" {line.strip()} "]
    assert "wrong" in rows[-1]
    assert all(" wrong " not in line for line in result.out.splitlines() if line not in rows)


def test_a_file_that_is_not_there(cli: Cli) -> None:
    result = cli("check", *PROBLEM, "--ptx", "no.ptx")
    assert result.status == 1
    assert "GEM0211: no.ptx cannot be read" in result.err


def test_only_for_a_gpu(cli: Cli, emitted: Path) -> None:
    result = cli("check", "--m", "4", "--n", "4", "--k", "4", "--ptx", str(emitted))
    assert result.status == 2
    assert "name a cuda target" in " ".join(re.sub("[│╭╮╰╯─]", " ", result.err).split())
