"""Exit statuses, and what is said with each."""

import re
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp

import gemmir.compiler as compiler
from gemmir.cli import EXAMPLES, GROUPS, app
from gemmir.cli.crash import PREFIX
from gemmir.ir.dialect import EpilogueOp
from gemmir.passes.fuse_epilogue import FuseEpilogue
from gemmir.passes.tile import Tile
from tests.cli.conftest import Cli

SMALL = ("--m", "5", "--n", "9", "--k", "4")
BIASED = (*SMALL, "--epilogue", "bias")


def test_done(cli: Cli) -> None:
    result = cli("compile", *SMALL)
    assert result.status == 0, result.err
    assert result.err == ""


@pytest.mark.parametrize(
    ("arguments", "error", "hint"),
    [
        (("compile", "--m", "-5", "--n", "9", "--k", "4"), "GEM0102: m=-5 is negative", "sizes"),
        (("compile", *SMALL, "--dtype", "f24"), "GEM0103: dtype 'f24' is not", "use f32 or f64"),
        (("compile", *SMALL, "--epilogue", "tanh"), "GEM0106: epilogue step 'tanh'", "join any of"),
        (("compile", *SMALL, "--lda", "3"), "GEM0108: lda=3 is less than", "use at least 4"),
        (("compile", "no.mlir"), "GEM0211: no.mlir cannot be read: No such file", ""),
        (("opt", "no.mlir"), "GEM0211: no.mlir cannot be read: No such file", ""),
        (("run", *SMALL, "--array", "a=no.npy"), "GEM0208: no.npy cannot be read as .npy", ""),
        (("check", *SMALL, "--replace", "x=no.mlir"), "GEM0211: no.mlir cannot be read", ""),
        (("compile", *SMALL, "--emit", "asm", "-o", "no/x.s"), "GEM0701: no/x.s cannot", "nothing"),
    ],
)
def test_input_error(cli: Cli, arguments: tuple[str, ...], error: str, hint: str) -> None:
    result = cli(*arguments)
    assert result.status == 1
    assert result.out == ""
    first, *rest = result.err.splitlines()
    assert first.startswith(f"error {error}")
    assert [line.startswith(f"  hint: {hint}") for line in rest] == [True] * bool(hint)


def test_text_that_is_no_mlir(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text("func.func @f(\n%")
    result = cli("compile", "x.mlir")
    assert result.status == 1
    assert re.match(r"error GEM0201: x\.mlir: line 2, column \d+: ", result.err)
    (tmp_path / "x.mlir").write_bytes(b"\xff\xfe")
    assert "GEM0211: x.mlir cannot be read: it is not UTF-8" in cli("compile", "x.mlir").err


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("nosuch",), "No such command 'nosuch'"),
        (("compile",), "the problem lacks --m, --n, --k"),
        (("compile", "--m", "5"), "the problem lacks --n, --k"),
        (("compile", *SMALL, "--nosuch"), "No such option: --nosuch"),
        (("compile", *SMALL, "--m", "many"), "Invalid value for '--m'"),
        (("compile", "x.mlir", *SMALL), "--k, --m, --n would change nothing: x.mlir says"),
        (("compile", "x.mlir", "--beta", "0"), "--beta would change nothing"),
        (("compile", *SMALL, "--threads", "0"), "--threads 0: there is at least one"),
        (("check", *SMALL, "--seed", "-1"), "greater than or equal to 0"),
        (("run", *SMALL, "--seed", "-1"), "greater than or equal to 0"),
        (("bisect", *SMALL, "--seed", "-1"), "greater than or equal to 0"),
        (("compile", *SMALL, "--emit", "ptx"), "--emit ptx: the kinds are mlir, llvm, asm, obj"),
        (("compile", *SMALL, "--emit", "obj"), "--emit obj is not text; -o names its file"),
        (("compile", *SMALL, "--emit", "llvm,asm"), "makes several files; -o names their stem"),
        (("compile", *SMALL, "-o", "x"), "-o needs --emit"),
        (("compile", *SMALL, "--print-ir-after", "fuse"), "the stages are 00-gemm, "),
        (("check", *SMALL, "--replace", "tile"), "--replace tile: write STAGE=FILE.mlir"),
        (("run", *SMALL, "--array", "a"), "--array a: write NAME=FILE.npy"),
        (("passes", "til"), "there is no pass 'til'; did you mean tile?"),
    ],
)
def test_usage_error(cli: Cli, arguments: tuple[str, ...], error: str) -> None:
    result = cli(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert error in " ".join(re.sub("[│╭╮╰╯─]", " ", result.err).split())


def test_no_command_is_a_usage_error_that_shows_the_help(cli: Cli) -> None:
    result = cli()
    assert result.status == 2
    assert "compile" in result.out + result.err


def test_numbers_differ(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FuseEpilogue, "apply", _drop_epilogue)
    result = cli("check", *BIASED, "--no-shrink")
    assert result.status == 3
    assert "error GEM0801: stage 03-fuse-epilogue (after fuse-epilogue): element [0, 0]" in (
        result.err
    )
    assert "wrong" in result.out
    result = cli("run", *BIASED, "--seconds", "0", "--schedule", UNCACHED)
    assert result.status == 3
    assert "error GEM0802: element [0, 0] is " in result.err


UNCACHED = (
    "tile{loops=n,m sizes=8,2},promote{operand=c to=registers},fuse-epilogue,"
    "vectorize{with=fma width=4}"
)
"""A schedule whose kernel no other test has left in the object cache."""


def _drop_epilogue(self: FuseEpilogue, ctx: Context, op: ModuleOp) -> None:
    last = [o for o in op.walk() if isinstance(o, EpilogueOp)][-1]
    last.detach()
    last.erase()


def test_device_missing(cli: Cli) -> None:
    result = cli("compile", *SMALL, "--target", "cpu:znver33")
    assert result.status == 4
    assert result.err.startswith("error GEM0602: there is no target 'cpu:znver33'")
    assert "  hint: use cpu:znver3\n" in result.err


def test_tool_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = cli("compile", *SMALL, "--emit", "so", "-o", "x.so")
    assert result.status == 4
    assert result.err.startswith("error GEM0603: ")


@pytest.mark.parametrize(
    ("schedule", "error"),
    [
        ("nosuch", "GEM0302: there is no pass 'nosuch'"),
        ("tile{loops=q sizes=3}", "GEM0321: tile: loops=q cannot name 'q' here"),
        ("tile{", "GEM0305: the schedule cannot be read at its end: Expected argument name here"),
        ("tile{loops=m,n 8}", "GEM0305: the schedule cannot be read at "),
    ],
)
def test_illegal_schedule(cli: Cli, schedule: str, error: str) -> None:
    result = cli("compile", *SMALL, "--schedule", schedule)
    assert result.status == 5
    assert result.err.startswith(f"error {error}")
    assert "Traceback" not in result.err


def test_a_file_that_is_not_there_is_an_input_error(cli: Cli) -> None:
    """As FILE.mlir is: nothing of a schedule or space is illegal yet."""
    result = cli("compile", *SMALL, "--schedule", "no.schedule")
    assert result.status == 1
    assert result.err.startswith("error GEM0315: the schedule no.schedule cannot be read")
    result = cli("tune", *SMALL, "--space", "no.space", "--study", "s")
    assert result.status == 1
    assert result.err.startswith("error GEM1406: the space no.space cannot be read")
    result = cli("compile", "no.mlir")
    assert result.status == 1 and result.err.startswith("error GEM0211")


def test_internal_error_leaves_what_reproduces_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise KeyError("a thing")

    monkeypatch.setattr(Tile, "apply", fail)
    schedule = (
        "tile{loops=n,m sizes=8,2},promote{operand=c to=registers},vectorize{with=fma width=8}"
    )
    result = cli("compile", *SMALL, "--schedule", schedule)
    assert result.status == 70
    assert result.out == ""
    assert result.err.startswith("internal error: KeyError: 'a thing'\n")
    assert "Traceback" not in result.err
    (file,) = tmp_path.glob(f"{PREFIX}*.mlir")
    assert str(file) in result.err
    text = file.read_text()
    assert "// command   gemmir compile --m 5 --n 9 --k 4 --schedule 'tile{" in text
    assert f"// schedule  {schedule}\n" in text
    assert "//     raise KeyError" in text
    again = cli("compile", file.name)
    assert again.status == 70
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli("compile", file.name).status == 0


def test_internal_error_before_there_is_a_problem(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(compiler, "build", fail)
    assert cli("compile", *SMALL).status == 70
    (file,) = tmp_path.glob(f"{PREFIX}*.mlir")
    assert all(line.startswith("//") for line in file.read_text().splitlines())


def test_memory_is_short(cli: Cli) -> None:
    result = cli("run", "--m", str(2**19), "--n", "1", "--k", str(2**20), "--dtype", "f64")
    assert result.status == 1
    assert result.err.startswith("error GEM0514: there is no memory for a")


SHOWN = {c.__name__: examples for c, examples in EXAMPLES.items()} | {
    f"{name} {c.__name__}": examples
    for name, group in GROUPS.items()
    for c, examples in group.examples.items()
}


@pytest.mark.parametrize("command", SHOWN)
def test_help_has_examples(cli: Cli, command: str) -> None:
    result = cli(*command.split(), "--help")
    assert result.status == 0
    assert "Examples" in result.out
    shown = " ".join(result.out.split())
    assert SHOWN[command]
    for example in SHOWN[command]:
        assert " ".join(example.split()) in shown


def test_help_and_version(cli: Cli) -> None:
    assert cli("--help").status == 0
    assert {c.name or getattr(c.callback, "__name__", "") for c in app.registered_commands} == {
        c.__name__ for c in EXAMPLES
    }
    assert {group.name for group in app.registered_groups} == set(GROUPS)
    result = cli("--version")
    assert (result.status, result.out) == (0, "gemmir 0.1.0\n")


def test_status_of_the_process(shell: Cli) -> None:
    sizes = "--m 5 --n 9 --k 4"
    assert shell("gemmir --version").status == 0
    assert shell(f"gemmir compile {sizes} --dtype f24").status == 1
    assert shell("gemmir compile").status == 2
    assert shell(f"gemmir compile {sizes} --target tpu").status == 4
    assert shell(f"gemmir compile {sizes} --schedule nosuch").status == 5
