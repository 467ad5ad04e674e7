"""gemmir bisect: what it prints, writes and leaves with."""

from __future__ import annotations

from pathlib import Path

import pytest

from gemmir.bisect import WRONG
from gemmir.passes.fuse_epilogue import FuseEpilogue
from tests.cli.conftest import Cli
from tests.test_bisect import DIRECT, loses_epilogue


def test_command(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes = ("--m", "13", "--n", "19", "--k", "11", "--epilogue", "bias+relu")
    done = cli("bisect", *sizes, "--schedule", DIRECT)
    assert done.status == 0, done.err
    assert done.out.startswith("all is right: the last stage and the code of 13 x 19 x 11\n")
    monkeypatch.setattr(FuseEpilogue, "apply", loses_epilogue(5))
    done = cli("bisect", *sizes, "--schedule", DIRECT, "--json")
    assert done.status == WRONG
    assert done.json["ok"] is False
    assert done.json["found"]["step"] == "fuse-epilogue"
    assert done.json["found"]["element"]["index"] == [0, 0]
    assert done.json["reproducer"] == "bisect-03-fuse-epilogue.py"
    assert (
        (tmp_path / done.json["reproducer"]).read_text().startswith('"""03-fuse-epilogue is wrong')
    )
    done = cli("bisect", *sizes, "--schedule", DIRECT, "-o", "mine.py", "--no-shrink")
    assert done.status == WRONG
    assert "at fault      fuse-epilogue\nstill right   02-promote\n" in done.out
    assert "error GEM1443: fuse-epilogue is at fault" in done.err
    assert (tmp_path / "mine.py").is_file()
    done = cli("bisect", *sizes, "--schedule", DIRECT, "-o", "no/such.py", "--no-shrink")
    assert done.status == 1
    assert "at fault      fuse-epilogue\n" in done.out
    assert "error GEM0701: no/such.py cannot be written" in done.err
