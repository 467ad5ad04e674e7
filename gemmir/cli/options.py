"""The options that say what is to be lowered and how; commands share them.

A command takes them as one parameter `problem: ProblemOptions`, which `with_problem` spreads out
into single options.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, get_type_hints

import typer

from gemmir.cli.output import note

if TYPE_CHECKING:
    from gemmir.compiler import Job
    from gemmir.gemm import Gemm
    from gemmir.schedule import Schedule

STANDARD_INPUT: Final = Path("-")

ANY_WORD: Final = "any"
"""In place of a number: it is known when the kernel is called."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
"""What every command has."""


def _option(
    help: str,
    panel: str,
    *names: str,
    metavar: str | None = None,
    parser: Callable[[str], Any] | None = None,
) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar=metavar, parser=parser)


def _number(text: str, kind: type[int] | type[float]) -> Any:
    """A number, or `ANY` for the word any."""
    if text.strip().lower() == ANY_WORD:
        from gemmir.sizes import ANY

        return ANY
    try:
        return kind(text)
    except ValueError:
        word = "whole number" if kind is int else "number"
        raise typer.BadParameter(f"{text!r} is no {word}, and not {ANY_WORD}") from None


def _size(text: str) -> Any:
    return _number(text, int)


def _factor(text: str) -> Any:
    return _number(text, float)


SIZE: Final[dict[str, Any]] = {"metavar": "INTEGER|any", "parser": _size}
FACTOR: Final[dict[str, Any]] = {"metavar": "FLOAT|any", "parser": _factor}


PROBLEM: Final = "Problem: C = epilogue(alpha A B + beta C)"
LOWERING: Final = "Lowering"


@dataclass(frozen=True, kw_only=True)
class ProblemOptions:
    """A problem, as text in a file or as sizes, and the target and schedule to lower it with."""

    file: Annotated[
        Path | None,
        typer.Argument(
            help="The problem or any stage of it as MLIR; - is standard input.",
            metavar="FILE.mlir",
            show_default=False,
        ),
    ] = None
    m: Annotated[int | None, _option("Rows of C.", PROBLEM, "--m", **SIZE)] = None
    n: Annotated[int | None, _option("Columns of C.", PROBLEM, "--n", **SIZE)] = None
    k: Annotated[int | None, _option("Length of the sums.", PROBLEM, "--k", **SIZE)] = None
    dtype: Annotated[
        str | None,
        _option(
            "Element type of A and B: f32 f64 tf32 bf16x1 bf16x3 f16 bf16 e4m3 e5m2 i8 u8.", PROBLEM
        ),
    ] = None
    out: Annotated[
        str | None,
        _option("Element type of C: by default that of the sums, or f16 or bf16.", PROBLEM),
    ] = None
    alpha: Annotated[float | None, _option("Factor of the product.", PROBLEM, **FACTOR)] = None
    beta: Annotated[float | None, _option("Factor of the old C.", PROBLEM, **FACTOR)] = None
    batch: Annotated[int | None, _option("Number of products.", PROBLEM)] = None
    groups: Annotated[
        int | None,
        _option("Number of products, whose rows of A the operand offsets says.", PROBLEM),
    ] = None
    masked: Annotated[
        bool,
        _option(
            "Each of the groups has m rows of its own, counts of them used.", PROBLEM, "--masked"
        ),
    ] = False
    scale_block: Annotated[
        int | None,
        _option("Elements of A and B along k, and of B along n, that have one scale.", PROBLEM),
    ] = None
    dtype_b: Annotated[
        str | None,
        _option("Element type of B where it is another: weights i8 i4, or u8 by i8.", PROBLEM),
    ] = None
    weight_group: Annotated[
        int | None, _option("Elements along k of a column of weights that have one scale.", PROBLEM)
    ] = None
    trans_a: Annotated[bool, _option("A is stored k x m.", PROBLEM, "--trans-a")] = False
    trans_b: Annotated[bool, _option("B is stored n x k.", PROBLEM, "--trans-b")] = False
    lda: Annotated[int | None, _option("Elements between rows of A.", PROBLEM, **SIZE)] = None
    ldb: Annotated[int | None, _option("Elements between rows of B.", PROBLEM, **SIZE)] = None
    ldc: Annotated[int | None, _option("Elements between rows of C.", PROBLEM, **SIZE)] = None
    batch_stride_a: Annotated[int | None, _option("Elements between As.", PROBLEM)] = None
    batch_stride_b: Annotated[int | None, _option("Elements between Bs.", PROBLEM)] = None
    batch_stride_c: Annotated[int | None, _option("Elements between Cs.", PROBLEM)] = None
    epilogue: Annotated[
        str | None, _option("Steps joined by +: bias relu gelu silu residual scale.", PROBLEM)
    ] = None
    target: Annotated[str, _option("See gemmir targets.", LOWERING)] = "cpu"
    schedule: Annotated[
        str | None, _option("Passes, or a file of them.", LOWERING, metavar="TEXT|FILE")
    ] = None
    threads: Annotated[
        int | None, _option("Cores to run on; the default schedule is for them.", LOWERING)
    ] = None
    lock: Annotated[
        Path | None,
        _option("Take the schedule that gemmir tune --pin has written.", LOWERING, metavar="FILE"),
    ] = None

    @property
    def given(self) -> dict[str, Any]:
        """What was said of the problem itself, by the names of `Gemm`."""
        named = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        about = set(named) - {"file", "target", "schedule", "threads", "lock"}
        said = {name for name in about if named[name] is not None and named[name] is not False}
        return {f.name: named[f.name] for f in dataclasses.fields(self) if f.name in said}

    def gemm(self) -> Gemm:
        """The problem that the sizes say; a usage error where one is missing."""
        from gemmir.gemm import Gemm

        missing = [f"--{name}" for name in "mnk" if name not in self.given]
        if missing:
            raise typer.BadParameter(
                f"the problem lacks {', '.join(missing)}; give --m --n --k, or a FILE.mlir"
            )
        return Gemm(**self.given)

    def check_threads(self) -> None:
        """A usage error where there is not even one."""
        if self.threads is not None and self.threads < 1:
            raise typer.BadParameter(f"--threads {self.threads}: there is at least one")

    def schedule_for(self, gemm: Gemm | None) -> Schedule | str | Path | None:
        """The schedule that is given, or that the lock file has for `gemm`; None for the default.

        A problem that the file lacks is noted.
        """
        if self.lock is None:
            return schedule_of(self.schedule)
        if self.schedule is not None:
            raise typer.BadParameter("--schedule says what --lock would say; leave one of them out")
        from gemmir.lockfile import Lock, spelled, threads_of

        lock = Lock.read(self.lock)
        found = None if gemm is None else lock.schedule(gemm, self.target, self.threads)
        if found is None:
            what = "a later stage" if gemm is None else spelled(gemm)
            threads = threads_of(self.target, self.threads)
            where = self.target + (f" with {threads} threads" if threads > 1 else "")
            near = None if gemm is None else lock.nearest(gemm, self.target, self.threads)
            hint = "" if near is None else f"; it has one for {near}"
            note(f"{self.lock} has no schedule for {what} on {where}: taking the default one{hint}")
        return found

    def job(self, *, both: bool = False) -> Job:
        """What is to be lowered; `both` allows a file and sizes together."""
        from gemmir.compiler import prepare

        self.check_threads()
        if self.file is None:
            gemm = self.gemm()
            return prepare(gemm, self.target, self.schedule_for(gemm), self.threads)
        if self.given and not both:
            said = ", ".join(f"--{name.replace('_', '-')}" for name in sorted(self.given))
            raise typer.BadParameter(f"{said} would change nothing: {self.file} says the problem")
        return self._job_of_text(read_text(self.file), str(self.file))

    def _job_of_text(self, text: str, name: str) -> Job:
        """The job of a text; of which problem it is, it says itself, so the lock is read then."""
        from gemmir.compiler import prepare_text
        from gemmir.ir.context import parse_module
        from gemmir.ir.problem import says_epilogue

        def prepared(schedule: Schedule | str | Path | None) -> Job:
            return prepare_text(
                text, self.target, schedule=schedule, name=name, threads=self.threads
            )

        if self.lock is None:
            return prepared(schedule_of(self.schedule))
        job = prepared(None)
        if job.problem is not None and not says_epilogue(job.problem, parse_module(job.source)):
            note(f"{name} has an epilogue that no problem names: taking the default schedule")
            return job
        found = self.schedule_for(job.problem)
        return job if found is None else prepared(found)


def schedule_of(given: str | None) -> str | Path | None:
    """A schedule option: the path of a file where there is one, otherwise the passes themselves."""
    if given is None:
        return None
    is_path = given.endswith(".schedule") or ("{" not in given and Path(given).is_file())
    return Path(given) if is_path else given


def read_text(path: Path) -> str:
    """The text of a file or of standard input; `ParseError` GEM0211 where it cannot be read."""
    from gemmir.errors import ParseError

    try:
        if path == STANDARD_INPUT:
            return sys.stdin.read()
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ParseError("GEM0211", f"{path} cannot be read: {reason}") from error


def with_problem(command: Callable[..., None]) -> Callable[..., None]:
    """`command` with its parameter `problem` spread out; itself where it has none.

    One that takes `files` of another kind takes no file of a problem.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters = [
        p.replace(annotation=hints[p.name]) for p in inspect.signature(command).parameters.values()
    ]
    if "problem" not in hints:
        return command
    own = [p for p in parameters if p.name != "problem"]
    left_out = {"file"} if "files" in hints else set[str]()
    fields = [f for f in dataclasses.fields(ProblemOptions) if f.name not in left_out]
    types = get_type_hints(ProblemOptions, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    spread = [
        inspect.Parameter(f.name, keyword, default=f.default, annotation=types[f.name])
        for f in fields
    ]

    @wraps(command)
    def spread_command(**options: Any) -> None:
        named = {f.name: options.pop(f.name) for f in fields}
        command(problem=ProblemOptions(**named), **options)

    own = [p.replace(kind=keyword) for p in own]
    spread_command.__dict__["__signature__"] = inspect.Signature([*spread, *own])
    spread_command.__annotations__ = {p.name: p.annotation for p in (*spread, *own)}
    return spread_command
