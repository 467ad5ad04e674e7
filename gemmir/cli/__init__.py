"""The command line: one file a command, each a thin call of the library.

Exit status: 0 done; 1 compile or input error; 2 usage; 3 numbers differ; 4 device or tool missing;
5 illegal schedule; 70 internal error, with a file that reproduces it. Data goes to standard output,
progress and errors to standard error.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from gemmir.cli import cost, experiment, space
from gemmir.cli.bench import bench
from gemmir.cli.bisect import bisect
from gemmir.cli.blas import blas
from gemmir.cli.check import check
from gemmir.cli.compile import compile
from gemmir.cli.demo import demo
from gemmir.cli.doctor import doctor
from gemmir.cli.explain import explain
from gemmir.cli.ladder import ladder
from gemmir.cli.opt import opt
from gemmir.cli.options import with_problem
from gemmir.cli.passes import passes
from gemmir.cli.report import report
from gemmir.cli.run import run
from gemmir.cli.targets import targets
from gemmir.cli.tune import tune
from gemmir.errors import CallError, GemmirError

__all__ = ["app", "main"]

INTERNAL_ERROR: Final = 70
"""EX_SOFTWARE of sysexits.h."""

app = typer.Typer(
    name="gemmir",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

EXAMPLES: Final = {
    compile: (
        "gemmir compile --m 128 --n 3072 --k 768 --epilogue bias+gelu",
        "gemmir compile mlp.mlir --emit llvm -o mlp.ll",
        "gemmir compile --m 64 --n 64 --k 64 --emit so,header -o out/mlp",
        "gemmir compile --m 64 --n 64 --k 64 --print-ir-after vectorize",
        "gemmir compile --m 4096 --n 4096 --k 4096 --target cuda:sm_90a --emit sass",
        "gemmir compile --m 4096 --n 4096 --k 4096 --dtype bf16 --target tpu:v5e --emit pallas",
    ),
    opt: (
        "gemmir opt mlp.mlir -p 'tile{loops=m,n sizes=64,64}'",
        "gemmir opt mlp.mlir --to promoted > stage.mlir",
        "gemmir opt stage.mlir --from promoted",
    ),
    check: (
        "gemmir check --m 48 --n 40 --k 56 --epilogue bias+gelu",
        "gemmir check --m 48 --n 40 --k 56 --schedule my.schedule",
        "gemmir check --m 48 --n 40 --k 56 --replace vectorize=mine.mlir",
        "gemmir check --m 72 --n 200 --k 96 --dtype bf16 --target tpu:v5e",
    ),
    bisect: (
        "gemmir bisect --m 48 --n 40 --k 56 --schedule my.schedule",
        "gemmir bisect --m 1024 --n 1024 --k 1024 -o wrong.py",
        "gemmir bisect --m 48 --n 40 --k 56 --replace vectorize=mine.mlir --json",
    ),
    run: (
        "gemmir run --m 1024 --n 1024 --k 1024 --threads 2",
        "gemmir run --m 2 --n 3 --k 4 --array a=a.npy --array b=b.npy -o c.npy",
        "gemmir run --m 256 --n 512 --k 512 --dtype bf16 --target tpu:v5e --interpret",
    ),
    bench: (
        "gemmir bench --m 512 --n 512 --k 512",
        "gemmir bench --m 4096 --n 64 --k 4096 --against openblas,onednn --cpu 1",
        "gemmir bench --m 512 --n 512 --k 512 --target cpu:znver3",
        "gemmir bench --suite bench/cpu_suite.toml --class squares -o results.json",
    ),
    explain: (
        "gemmir explain --m 128 --n 3072 --k 768 --epilogue bias+gelu",
        "gemmir explain --m 512 --n 512 --k 512 --target cpu:x86-64-v4",
        "gemmir explain --m 512 --n 512 --k 512 --dtype bf16 --target cuda:sm_90a",
        "gemmir explain --m 512 --n 512 --k 512 --dtype bf16 --target tpu:v5e --profile",
    ),
    tune: (
        "gemmir tune --m 512 --n 512 --k 512 --trials 64 --study my.study",
        "gemmir tune --m 512 --n 512 --k 512 --trials 200 --study my.study --resume",
        "gemmir tune --m 512 --n 512 --k 512 --study my.study --space my.space --pin gemmir.lock",
        "gemmir tune --target cuda:sm_90a --m 4096 --n 4096 --k 4096 --dtype bf16 "
        "--objective time --study gpu.study",
        "gemmir compile --m 512 --n 512 --k 512 --lock gemmir.lock",
    ),
    ladder: (
        "gemmir ladder",
        "gemmir ladder --m 512 --n 512 --k 512 --target cpu:znver3 --why",
        "gemmir ladder --target cuda:sm_90a --rung tensor-cores",
        "gemmir ladder --target cuda:sm_90a --rung coalesced --emit ptx",
        "gemmir ladder --target tpu:v5e --no-measure -o rungs",
    ),
    blas: (
        "gemmir blas -o libgemmirblas.so",
        "LD_PRELOAD=$PWD/libgemmirblas.so python3 train.py",
        "gemmir blas --target cpu:x86-64-v3 -o libgemmirblas.so",
    ),
    report: (
        "gemmir report results.json -o results.html",
        "gemmir report experiment.db tuning.db --plots plots --format svg",
        "gemmir report --m 512 --n 512 --k 512 -o ir.html",
        "gemmir report --m 4096 --n 4096 --k 4096 --dtype bf16 --target cuda:sm_90a",
    ),
    targets: ("gemmir targets", "gemmir targets --json"),
    passes: ("gemmir passes", "gemmir passes tile"),
    doctor: ("gemmir doctor", "gemmir doctor --json"),
    demo: ("gemmir demo", "gemmir demo --json"),
}
"""Every command, in the order of the help, with examples of its use."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """A command that has commands of its own, each with examples of its use."""

    help: str
    examples: Mapping[Callable[..., None], Sequence[str]]


GROUPS: Final[Mapping[str, Group]] = {
    "space": Group(
        help="Spaces of schedules: schedules with holes, and which points of them are legal.",
        examples={
            space.show: (
                "gemmir space show --m 512 --n 512 --k 512",
                "gemmir space show --m 512 --n 512 --k 512 --text > my.space",
                "gemmir space show --m 512 --n 512 --k 512 --space my.space --lower",
            ),
            space.list: ("gemmir space list --m 512 --n 512 --k 512 --space my.space --limit 20",),
            space.sample: (
                "gemmir space sample --m 512 --n 512 --k 512 -n 20 --seed 1",
                "gemmir space sample --m 4096 --n 4096 --k 4096 --dtype bf16 --target cuda:sm_90a",
            ),
        },
    ),
    "cost": Group(
        help="The cost model against measured schedules: measuring them, and how well it ranks.",
        examples={
            cost.measure: (
                "gemmir cost measure --suite bench/cpu_suite.toml -o cost-mine.json",
                "gemmir cost measure --suite bench/cpu_suite.toml --class squares -o mine.json",
            ),
            cost.quality: (
                "gemmir cost quality",
                "gemmir cost quality bench/results/cost-cpu-znver5.json --problems",
                "gemmir cost quality cost-mine.json --json",
            ),
        },
    ),
    "experiment": Group(
        help="Measure problems x schedules x targets x repetitions, and compare what was found.",
        examples={
            experiment.init: (
                "gemmir experiment init",
                "gemmir experiment init squares.toml",
            ),
            experiment.run: (
                "gemmir experiment run squares.toml",
                "gemmir experiment run squares.toml -o results.db --resume",
                "gemmir experiment run squares.toml --append --json",
                "gemmir experiment run squares.toml --plan",
                "gemmir experiment run squares.toml --workers dask://10.0.0.7:8786",
            ),
            experiment.show: (
                "gemmir experiment show squares.db",
                "gemmir experiment show squares.db --run 1 --json",
            ),
            experiment.compare: (
                "gemmir experiment compare squares.db",
                "gemmir experiment compare squares.db 1 3",
                "gemmir experiment compare squares.db 1 another.db --confidence 0.99",
                "gemmir experiment compare squares.db --baseline openblas",
            ),
            experiment.export: (
                "gemmir experiment export squares.db --to csv > squares.csv",
                "gemmir experiment export squares.db --to parquet -o squares.parquet",
                "gemmir experiment export squares.db --to t4 --run 2",
            ),
        },
    ),
}
"""Every such command by its name; they follow the others in the help."""


def _help(command: Callable[..., None]) -> str:
    """The docstring of `command`, each paragraph in one line, to be wrapped for the terminal."""
    paragraphs = inspect.getdoc(command) or ""
    return "\n\n".join(" ".join(text.split()) for text in paragraphs.split("\n\n"))


def _epilog(examples: Sequence[str]) -> str:
    lines = "\n".join(f"  {line}" for line in examples).replace("[", r"\[")
    return f"\b\n[bold]Examples[/bold]\n{lines}"


def _add(to: typer.Typer, examples: Mapping[Callable[..., None], Sequence[str]]) -> None:
    for command, lines in examples.items():
        to.command(help=_help(command), epilog=_epilog(lines))(with_problem(command))


_add(app, EXAMPLES)
for _name, _group in GROUPS.items():
    _inner = typer.Typer(no_args_is_help=True, rich_markup_mode="rich")
    _add(_inner, _group.examples)
    app.add_typer(_inner, name=_name, help=_group.help)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"gemmir {version('gemmir')}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    """Lower one GEMM through one compiler pipeline to many machines."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command in `arguments`, by default those of the process; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="gemmir")
    except SystemExit as leaving:
        if isinstance(leaving.__context__, BrokenPipeError):
            return _unread(leaving.__context__)
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except GemmirError as error:
        return _explained(error)
    except MemoryError:
        return _explained(CallError("GEM0514", "there is no memory left", "use a smaller problem"))
    except Exception as error:
        from gemmir.cli.crash import report as report_crash

        return report_crash(error, given, INTERNAL_ERROR)
    return 0


def _unread(broken: BrokenPipeError) -> int:
    """The status where the reader of a help has gone: 0, or that of the error that was told."""
    from gemmir.cli.output import silence

    for stream in (sys.stdout, sys.stderr):
        silence(stream)
    return getattr(broken.__context__, "exit_code", 0)


def _explained(error: GemmirError) -> int:
    from gemmir.cli.output import note

    note(f"error {error.code}: {error.message}")
    if error.hint:
        note(f"  hint: {error.hint}")
    return error.exit_code
