"""The public names: they exist, say what they do, and are those that the documentation uses."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

import gemmir

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "README.md"
PYTHON: Final = ROOT / "docs" / "python.md"

LATER: Final = ("hypothesis", "rich", "typer", "jax", "matplotlib")
"""What is imported when it is first used and not with gemmir."""


def code_of(page: Path) -> str:
    """The Python code of a page, in blocks and in the text."""
    text = page.read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    return "\n".join([*blocks, *inline])


def used_names(page: Path) -> set[str]:
    """Names after `gemmir.` in the code of a page."""
    found = re.findall(r"\bgemmir\.(\w+)", code_of(page))
    return {name for name in found if not _is_module(name)}


def _is_module(name: str) -> bool:
    return any((ROOT / "gemmir" / file).exists() for file in (name, f"{name}.py")) and (
        name not in gemmir.__all__
    )


@pytest.mark.parametrize("name", gemmir.__all__)
def test_every_public_name_exists_and_says_what_it_does(name: str) -> None:
    value = getattr(gemmir, name)
    assert inspect.isclass(value) or callable(value) or value is gemmir.ANY
    assert inspect.getdoc(value)


@pytest.mark.parametrize("name", gemmir.__all__)
def test_every_public_method_says_what_it_does(name: str) -> None:
    value: object = getattr(gemmir, name)
    members = inspect.getmembers(value, callable) if inspect.isclass(value) else []
    public = [(n, member) for n, member in members if not n.startswith("_")]
    assert [n for n, member in public if not inspect.getdoc(member)] == []


def test_names_are_sorted_and_stand_once() -> None:
    assert gemmir.__all__ == sorted(set(gemmir.__all__))


def test_nothing_else_is_public() -> None:
    """Names that are not modules of the package are in `__all__`."""
    extra = [
        name
        for name, value in vars(gemmir).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    ]
    assert sorted(extra) == gemmir.__all__


@pytest.mark.parametrize("page", [README, PYTHON], ids=lambda page: page.name)
def test_pages_use_public_names_only(page: Path) -> None:
    if not page.exists():
        pytest.skip(f"{page.name} is not written yet")
    dialect = {"gemm", "epilogue", "forall", "pack", "name", "access", "schedule", "dim", "yield"}
    assert sorted(used_names(page) - set(gemmir.__all__) - dialect) == []


def test_every_public_name_is_in_the_documentation() -> None:
    if not README.exists() or not PYTHON.exists():
        pytest.skip("README.md or docs/python.md is not written yet")
    words = set(re.findall(r"\w+", code_of(README) + code_of(PYTHON)))
    assert sorted(set(gemmir.__all__) - words) == []


IMPORTED: Final = """
import json, sys
import gemmir
light = [name for name in sys.modules if name.partition(".")[0] in ("gemmir", "xdsl", "numpy")]
gemmir.Gemm
print(json.dumps({"light": light, "modules": sorted(sys.modules)}))
"""


def test_import_is_light() -> None:
    """How long it takes is in bench/compiling.py."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    assert [name for name in LATER if name in found["modules"]] == []
    assert found["light"] == ["gemmir"]
    assert "gemmir.compiler" in found["modules"], "one name brings what every compile needs"


@pytest.mark.parametrize(
    "code",
    [
        "import gemmir; assert set(gemmir.__all__) < set(dir(gemmir))",
        "from gemmir import *; assert lower and Gemm and ANY",
        "import gemmir; assert gemmir.errors.GemmirError is gemmir.GemmirError",
        "from gemmir import dlpack, errors; assert dlpack.__name__ == 'gemmir.dlpack'",
        "import gemmir.sharded.product; assert gemmir.sharded_matmul",
        "import gemmir.device_arrays, gemmir.multiply; assert gemmir.matmul",
        "import gemmir.front; assert gemmir.front.Gemm is gemmir.Gemm",
        "import gemmir\nassert not hasattr(gemmir, 'no_such_name')",
        "import gemmir, pickle\n"
        "assert pickle.loads(pickle.dumps(gemmir.Gemm(m=1, n=2, k=3))).n == 2",
        "import gemmir\n"
        "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(8) as pool:\n"
        "    assert len({id(c) for c in pool.map(lambda _: gemmir.compile, range(8))}) == 1",
    ],
)
def test_names_are_there_however_they_are_asked_for(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def test_help_does_not_import_the_compiler() -> None:
    code = (
        "import sys\nfrom gemmir.cli import main\nsys.argv = ['gemmir', '--help']\n"
        "assert main() == 0\nprint([n for n in sys.modules if n.split('.')[0] in LATER])"
    ).replace("LATER", repr(("xdsl", "numpy", "llvmlite")))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
