"""Internal errors: a file from which they can be reproduced."""

from __future__ import annotations

import platform
import shlex
import tempfile
import traceback
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from gemmir.cli.output import note

if TYPE_CHECKING:
    from gemmir.compiler import Job

PREFIX = "gemmir-crash-"


@contextmanager
def reproducible(job: Job) -> Generator[None]:
    """If something unforeseen happens inside, remember that it happened to `job`."""
    try:
        yield
    except Exception as error:
        error.__dict__["gemmir_job"] = job
        raise


def report(error: Exception, arguments: Sequence[str], status: int) -> int:
    """Write the file, say where it is, and return `status`."""
    path = _write(reproducer(error, arguments))
    note(f"internal error: {type(error).__name__}: {error}")
    note("  this is a fault of gemmir, not of its input")
    if path is not None:
        note(f"  what is needed to reproduce it is in {path}")
    return status


def reproducer(error: Exception, arguments: Sequence[str]) -> str:
    """The text of the file: MLIR that carries its schedule, under comments that say the rest."""
    job: Job | None = error.__dict__.get("gemmir_job")
    facts = [
        f"command   {shlex.join(['gemmir', *arguments])}",
        f"versions  gemmir {version('gemmir')}, xdsl {version('xdsl')}, Python "
        f"{platform.python_version()}, {platform.platform()}",
    ]
    if job is not None:
        facts += [f"target    {job.target}", f"schedule  {job.schedule}"]
    facts += ["", *"".join(traceback.format_exception(error)).splitlines()]
    header = "".join(f"// {line}".rstrip() + "\n" for line in facts)
    return header if job is None else header + "\n" + _stage(job)


def _stage(job: Job) -> str:
    from gemmir.ir.context import parse_module
    from gemmir.lowering import stage_text

    return stage_text(parse_module(job.source), job.schedule)


def _write(text: str) -> Path | None:
    """Write into the current folder, or the temporary one; None where neither can be written."""
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        with suppress(OSError):
            descriptor, name = tempfile.mkstemp(prefix=PREFIX, suffix=".mlir", dir=folder)
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            return Path(name)
    return None
