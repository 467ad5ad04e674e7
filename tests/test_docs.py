"""The documentation is what the code does: what it shows is made anew and compared with it."""

from __future__ import annotations

import dataclasses
import re
import runpy
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, cast, get_type_hints

import pytest
import typer

import gemmir
from gemmir.backend import FolderBackend
from gemmir.cli import app
from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import GEMMIR
from gemmir.ir.nvgpu import NVGPU
from gemmir.ir.pallas import PALLAS
from gemmir.machine.cpu import CpuMachine
from gemmir.machine.gpu import GpuMachine
from gemmir.machine.tpu import TpuMachine
from gemmir.passes import pass_class, pass_names
from gemmir.schedule import Schedule
from gemmir.schedule.schedule import parameters_of

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
MADE: Final = runpy.run_path(str(DOCS / "regenerate.py"))
PAGES: Final = cast("Callable[[], list[Path]]", MADE["pages"])()
TEXTS: Final = {path: path.read_text(encoding="utf-8") for path in PAGES}
OTHERS: Final = tuple(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))

FENCE: Final = re.compile(r"^```(?P<info>[^\n]*)\n(?P<body>.*?)^```$", re.M | re.S)
CODE: Final = re.compile(r"GEM\d{4}")
LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)")


def shown(path: Path) -> str:
    """A page as a test is named."""
    return str(path.relative_to(ROOT))


def fences(language: str) -> Iterator[tuple[str, str]]:
    """What follows `language` behind the fence, and the text, of every such block."""
    for text in TEXTS.values():
        for found in FENCE.finditer(text):
            word, _, rest = found["info"].partition(" ")
            if word == language:
                yield rest, found["body"]


def prose(text: str) -> str:
    """A page without its blocks."""
    return FENCE.sub("", text)


def page(name: str) -> str:
    return TEXTS[DOCS / name]


def section(name: str, title: str) -> str:
    """The text of a page below the heading `title`, up to the next heading as high."""
    marks = re.search(rf"^(#+) {re.escape(title)}$", page(name), re.M)
    assert marks is not None, f"{name} has no section {title}"
    rest = page(name)[marks.end() :]
    end = re.search(rf"^#{{1,{len(marks[1])}}} ", FENCE.sub(lambda f: "x" * len(f[0]), rest), re.M)
    return rest if end is None else rest[: end.start()]


def table(text: str) -> dict[str, list[str]]:
    """The rows of the first table in `text` by their first cell, without backticks."""
    rows = re.search(r"(?:^\|.*\|\n?)+", text, re.M)
    assert rows is not None
    cells = [re.split(r"(?<!\\)\|", line)[1:-1] for line in rows[0].splitlines()[2:]]
    return {row[0].strip().strip("`"): [cell.strip() for cell in row[1:]] for row in cells}


# What the code makes ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PAGES, ids=shown)
def test_page_is_what_the_code_makes(path: Path) -> None:
    regenerated = cast("Callable[[Path], str]", MADE["regenerated"])
    assert regenerated(path) == TEXTS[path], "run `make docs`"


def test_abridged_ir_leaves_out_whole_ops() -> None:
    abridged = cast("Callable[[str, Mapping[str, str]], str]", MADE["abridged"])
    text = 'func.func @f() {\n  %0 = arith.addf %a, %b\n  "x"\n  scf.for %i {\n    a.b\n  }\n}\n'
    assert abridged(text, {}) + "\n" == text
    assert abridged(text, {"hide": "arith.addf"}).splitlines()[1] == "  // …"
    folded = abridged(text, {"within": "scf.for", "fold": "scf.for#1"})
    assert folded == "scf.for %i {\n  // …\n}"
    assert abridged(text, {"within": "%0"}) == "%0 = arith.addf %a, %b"
    with pytest.raises(ValueError, match=r"scf\.for#2"):
        abridged(text, {"hide": "scf.for#2"})


# Examples -----------------------------------------------------------------------------------------


def test_ir_examples_verify_or_are_refused() -> None:
    kinds = {"verify": 0, "refused": 0}
    for info, text in fences("mlir"):
        kind, _, reason = info.partition(": ")
        if kind == "verify":
            parse_module(text)
        elif kind == "refused":
            with pytest.raises(ParseError, match=re.escape(reason)):
                parse_module(text)
        if kind:
            kinds[kind] += 1
    assert min(kinds.values()) >= 5


def test_schedules_parse() -> None:
    texts = [text for _, text in fences("schedule")]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "examples").glob("*.schedule")]
    assert len(texts) >= 8
    for text in texts:
        assert len(Schedule.parse(text)) >= 3


def test_commands_exist() -> None:
    group = cast("Any", typer.main.get_command(app))
    lines = [line for _, text in fences("sh") for line in text.splitlines()]
    lines += [line for path in OTHERS for line in commands_in(path)]
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("gemmir ")]
    assert len(commands) >= 20
    for _, name, *words in commands:
        assert name in group.commands, name
        command = group.commands[name]
        if hasattr(command, "commands"):
            name, *words = words
            assert name in command.commands, name
            command = command.commands[name]
        parameters = command.params
        known = {option for p in parameters for option in (*p.opts, *p.secondary_opts)}
        assert {w for w in words if re.match(r"--?[a-z]", w)} <= known, f"gemmir {name} {words}"


def commands_in(path: Path) -> list[str]:
    if not path.exists():
        return []
    found = FENCE.finditer(path.read_text(encoding="utf-8"))
    return [line for block in found if block["info"] == "sh" for line in block["body"].splitlines()]


def test_files_in_commands_exist() -> None:
    text = "\n".join(text for _, text in fences("sh"))
    named = re.findall(r"\b(?:examples|docs|bench)/[\w./-]+", text)
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


# References ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [*PAGES, *OTHERS], ids=shown)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for found in LINK.finditer(prose(text)):
        target, _, anchor = found["target"].partition("#")
        if target.startswith(("http:", "https:")):
            continue
        place = path if not target else (path.parent / target).resolve()
        assert place.exists(), found["target"]
        if anchor:
            assert anchor in anchors(place.read_text(encoding="utf-8")), found["target"]


def anchors(text: str) -> set[str]:
    """What GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_page_is_in_an_index() -> None:
    linked = {
        (path.parent / found["target"].partition("#")[0]).resolve()
        for path in (DOCS / "README.md", DOCS / "decisions" / "README.md")
        for found in LINK.finditer(TEXTS[path])
    }
    assert [shown(p) for p in PAGES if p not in linked and p != DOCS / "README.md"] == []


def test_error_codes_exist() -> None:
    folders = (ROOT / "gemmir", ROOT / "passes", ROOT / "backends")
    sources = "".join(p.read_text() for folder in folders for p in folder.rglob("*.py"))
    raised = set(CODE.findall(sources))
    assert len(raised) > 100
    for path, text in TEXTS.items():
        assert set(CODE.findall(prose(text))) <= raised, shown(path)


# Pages that must be complete ----------------------------------------------------------------------


def test_every_pass_is_documented() -> None:
    titles = re.findall(r"^## (.*)$", prose(page("passes.md")), re.M)
    assert sorted(titles) == list(pass_names())


@pytest.mark.parametrize("name", pass_names())
def test_parameters_of_a_pass_are_documented(name: str) -> None:
    made, text = pass_class(name), section("passes.md", name)
    wanted = {
        parameter: "required" if needed else default_of(made, parameter)
        for parameter, needed in parameters_of(made).items()
    }
    found = {row: cells[1].strip("`") for row, cells in table(text).items()} if wanted else {}
    assert found == wanted
    assert wanted or "No parameters" in text


def default_of(made: type[Any], parameter: str) -> str:
    (default,) = [f.default for f in dataclasses.fields(made) if f.name.rstrip("_") == parameter]
    return "none" if default is None else str(default).lower()


@pytest.mark.parametrize("name", pass_names())
def test_what_a_pass_refuses_is_documented(name: str) -> None:
    source = (ROOT / "passes" / f"{name.replace('-', '_')}.py").read_text()
    raised = set(re.findall(r'"(GEM\d{4})"', source))
    assert raised <= set(CODE.findall(section("passes.md", name).partition("Refused:")[2]))


def test_every_op_and_attribute_is_documented() -> None:
    operations = [*GEMMIR.operations, *NVGPU.operations, *PALLAS.operations]
    for op in operations:
        assert op.name in section("ir.md", f"`{op.name}`")
    examples = "".join(text for info, text in fences("mlir") if info == "verify")
    assert [op.name for op in operations if op.name not in examples] == []
    for attribute in (*GEMMIR.attributes, *PALLAS.attributes):
        assert f"#{attribute.name}<" in section("ir.md", f"`#{attribute.name}`")
        assert f"#{attribute.name}<" in examples


def test_public_names_are_documented() -> None:
    text = page("python.md")
    first = " ".join(table(text))
    assert sorted(re.findall(r"\w+", first)) == sorted(gemmir.__all__)


def test_fields_of_a_problem_are_documented() -> None:
    rows = " ".join(table(section("python.md", "The problem")))
    assert re.findall(r"\w+", re.sub(r"\b_([bc])\b", r"batch_stride_\1", rows)) == [
        f.name for f in dataclasses.fields(Gemm)
    ]


def test_fields_of_a_machine_are_documented() -> None:
    text = section("machines.md", "What a machine record holds")
    for machine in (CpuMachine, GpuMachine, TpuMachine):
        rows = " ".join(table(text.partition(f"`{machine.__name__}` is")[2]))
        names = re.findall(r"\w+", rows)
        assert sorted(names) == sorted(f.name for f in dataclasses.fields(machine))
        assert set(names) < set(get_type_hints(machine))


def test_every_command_and_kind_is_documented() -> None:
    from gemmir.cli.compile import KINDS

    group = cast("Any", typer.main.get_command(app))
    titles = re.findall(r"^## (.*)$", prose(page("cli.md")), re.M)
    assert [t for t in titles if t.islower()] == list(group.commands)
    kinds = "| kind |" + section("cli.md", "compile").partition("| kind |")[2]
    assert list(table(kinds)) == list(KINDS)


def test_functions_of_a_backend_are_documented() -> None:
    names = [n for n in vars(FolderBackend) if not n.startswith("_") and n != "kind"]
    rows = table(section("how-to.md", "Add a backend"))
    assert list(rows) == [f"{name}.py" for name in names]


@pytest.mark.parametrize("path", sorted((DOCS / "decisions").glob("0*.md")), ids=shown)
def test_decision_is_half_a_page(path: Path) -> None:
    text = TEXTS[path]
    assert text.startswith(f"# {path.name[:4]}: ")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.M) == ["Context", "Decision", "Consequence"]
    assert len(text.splitlines()) < 40
