"""The rules that hold the code together: who may import whom, and what error codes mean."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gemmir.passes import PREFIX, pass_class, pass_names

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "reference" / "errors.md"
CODE: Final = re.compile(r"GEM\d{4}")

CLASSES: Final = {
    "GEM01": {"ProblemError"},
    "GEM02": {"ParseError", "parse_error"},
    "GEM03": {"ScheduleError", "ParseError"},
    "GEM04": {"BackendError"},
    "GEM05": {"CallError", "AllocationError", "DeviceError", "DeviceMemoryError"},
    "GEM06": {"MissingError"},
    "GEM07": {"OutputError"},
    "GEM08": {"MismatchError"},
    "GEM09": {"EvaluationError", "FaultError"},
    "GEM10": {"FaultError", "PtxFault"},
    "GEM11": {"ProfileError"},
    "GEM12": {"ScheduleError"},
    "GEM13": {
        "BackendError",
        "CallError",
        "MismatchError",
        "MissingError",
        "ParseError",
        "ProblemError",
        "ScheduleError",
    },
    "GEM14": {
        "BackendError",
        "CallError",
        "MismatchError",
        "MissingError",
        "OutputError",
        "ParseError",
        "ProblemError",
        "ProfileError",
        "ScheduleError",
    },
}
"""What is raised with the codes of each hundred: a class, or the function that makes one."""

SHARED: Final = {
    "GEM0121": {"gemmir/machine/cpu.py", "gemmir/machine/gpu.py"},
    "GEM0401": {"backends/cpu/assemble.py", "backends/ptx/emit.py"},
    "GEM0421": {
        "backends/llvm/emit.py",
        "backends/llvm/emitter.py",
        "backends/ptx/structure.py",
    },
    "GEM0502": {"gemmir/arrays.py", "gemmir/kernel.py"},
    "GEM0504": {"gemmir/arrays.py", "gemmir/kernel.py"},
    "GEM0506": {"gemmir/arrays.py", "gemmir/kernel.py"},
    "GEM0514": {"gemmir/arrays.py", "gemmir/cli/__init__.py"},
    "GEM0802": {"gemmir/cli/run.py", "gemmir/demo_gpu.py"},
}
"""Codes that several files raise, each with the one meaning that the page gives it.

The evaluator and the emulator are left out: their faults are few and every dialect or instruction
has them.
"""


@dataclass(frozen=True, kw_only=True)
class Raise:
    """A call `maker(code, …)` in a source file."""

    code: str
    maker: str
    file: str


def sources() -> list[Path]:
    return sorted(
        path
        for folder in ("gemmir", "passes", "backends")
        for path in (ROOT / folder).rglob("*.py")
        if path.parent.resolve() == path.parent
    )


def raises() -> Iterator[Raise]:
    """Every call whose first argument is an error code."""
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            first, maker = node.args[0], node.func
            if isinstance(first, ast.Constant) and CODE.fullmatch(str(first.value)):
                assert isinstance(maker, ast.Name)
                file = path.relative_to(ROOT).as_posix()
                yield Raise(code=str(first.value), maker=maker.id, file=file)


def rows() -> dict[str, list[str]]:
    """The rows of the page's tables: what they say of each code."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| GEM"):
            assert len(cells) == 3
            assert all(cells)
            found[cells[0]].append(cells[1])
    return found


def test_arrows_go_one_way() -> None:
    """The contracts of pyproject.toml, by import-linter."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_code_is_on_the_page_once_and_every_row_is_raised() -> None:
    raised = {found.code for found in raises()}
    assert sorted(raised) == sorted(rows())
    assert {code: said for code, said in rows().items() if len(said) > 1} == {}


def test_every_code_that_is_named_anywhere_is_raised() -> None:
    """A docstring that promises an error must name one that exists."""
    named = {code for path in sources() for code in CODE.findall(path.read_text())}
    assert sorted(named - set(rows())) == []


def test_no_two_codes_mean_the_same() -> None:
    meanings = [said for found in rows().values() for said in found]
    assert len(meanings) == len(set(meanings))


def test_the_hundreds_of_a_code_tell_its_class() -> None:
    wrong = [found for found in raises() if found.maker not in CLASSES[found.code[:5]]]
    assert wrong == []


def test_a_code_belongs_to_one_file() -> None:
    files: dict[str, set[str]] = defaultdict(set)
    for found in raises():
        if not found.code.startswith(("GEM09", "GEM10")):
            files[found.code].add(found.file)
    assert {code: where for code, where in files.items() if len(where) > 1} == SHARED


@pytest.mark.parametrize("name", pass_names())
def test_a_pass_has_one_name(name: str) -> None:
    """File, class, text form and test file agree."""
    file = name.replace("-", "_")
    assert pass_class(name).name == PREFIX + name
    assert pass_class(name).__name__ == name.title().replace("-", "")
    assert (ROOT / "passes" / f"{file}.py").is_file()
    assert (ROOT / "tests" / "passes" / f"test_{file}.py").is_file()


def test_no_source_reads_the_environment_when_it_is_imported() -> None:
    """Options are arguments; only functions may ask the environment."""
    for path in sources():
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                assert "os.environ" not in ast.unparse(node), path
                assert "os.getenv" not in ast.unparse(node), path
