"""The .mlir files of tests/filecheck do what their RUN lines say, as lit would run them.

Commands run in this process, which imports everything once; a few files are also run by lit, which
starts a process for each command.
"""

from __future__ import annotations

import io
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Final

import pytest
from filecheck.main import main as filecheck
from xdsl.xdsl_opt_main import xDSLOptMain

from gemmir.cli import main as gemmir

HERE: Final = Path(__file__).with_name("filecheck")
FILES: Final = sorted(path.relative_to(HERE).as_posix() for path in HERE.rglob("*.mlir"))
RUN: Final = "// RUN: "

BY_LIT: Final = ("backends/llvm.mlir", "ir/syntax.mlir", "passes/unroll.mlir")
"""Files of every command, and of commands that read one another's output."""


def _xdsl_opt(arguments: Sequence[str]) -> None:
    xDSLOptMain(args=arguments).run()


def _filecheck(arguments: Sequence[str]) -> None:
    filecheck(["filecheck", *arguments])


def _gemmir(arguments: Sequence[str]) -> None:
    sys.exit(gemmir(arguments))


COMMANDS: Final[Mapping[str, Callable[[Sequence[str]], None]]] = {
    "filecheck": _filecheck,
    "gemmir": _gemmir,
    "xdsl-opt": _xdsl_opt,
}


def run(command: Sequence[str], given: str, patch: pytest.MonkeyPatch) -> str:
    """What a command writes that reads `given`; it must succeed."""
    out, err = io.StringIO(), io.StringIO()
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    status: object = None
    with redirect_stdout(out), redirect_stderr(err):
        try:
            COMMANDS[command[0]](command[1:])
        except SystemExit as leaving:
            status = leaving.code
    assert not status, f"{shlex.join(command)}\n{out.getvalue()}{err.getvalue()}"
    return out.getvalue()


def pipelines(path: Path) -> list[list[list[str]]]:
    """The commands of each RUN line, with the file in place of %s."""
    lines = [line for line in path.read_text().splitlines() if line.startswith(RUN)]
    found: list[list[list[str]]] = []
    for line in lines:
        words = shlex.split(line.removeprefix(RUN).replace("%s", str(path)))
        commands: list[list[str]] = [[]]
        for word in words:
            if word == "|":
                commands.append([])
            else:
                commands[-1].append(word)
        found.append(commands)
    return found


@pytest.mark.parametrize("name", FILES)
def test_a_file_says_what_comes_of_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = pipelines(HERE / name)
    assert found
    for commands in found:
        assert commands[-1][0] == "filecheck"
        text = ""
        for command in commands:
            text = run(command, text, monkeypatch)


def test_lit_runs_the_files_too() -> None:
    program = "from lit.main import main; main()"
    paths = [str(HERE / name) for name in BY_LIT]
    command = [sys.executable, "-c", program, "-j2", "-v", "--no-progress-bar", *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert f"Passed: {len(BY_LIT)}" in " ".join(done.stdout.split())
