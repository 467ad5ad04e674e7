"""Where data goes: standard output or a file, whole or not at all."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, cast

import typer

from gemmir.errors import OutputError


def put(text: str) -> None:
    """Write data to standard output.

    A reader that has gone away ends the command quietly. Raises `OutputError` GEM0701 where
    nothing can be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise typer.Exit(0) from None
    except OSError as error:
        silence(sys.stdout)
        raise _refused("standard output", error) from error


def note(text: str) -> None:
    """Tell the person at the terminal how it goes, on standard error."""
    with suppress(OSError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def put_json(value: object) -> None:
    """Write `value` to standard output as JSON; what is not finite becomes null."""
    put(json.dumps(_finite(value), indent=2, default=str) + "\n")


def put_table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Write a table for people: as wide as it needs to be, coloured on a terminal."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title or None, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        right = column[:1].isspace()
        table.add_column(column.strip(), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    is_terminal = sys.stdout.isatty()
    buffer = io.StringIO()
    console = Console(file=buffer, force_terminal=is_terminal, width=None if is_terminal else 1000)
    console.print(table)
    put("\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n")


def write_file(path: Path, data: bytes) -> None:
    """Write all of `data` to `path`, or leave what is there.

    A device or a pipe is written to. Raises `OutputError` GEM0701.
    """
    path = path.expanduser()
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "it is a folder")
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            with path.open("wb") as file:
                file.write(data)
        else:
            _replace(path.resolve(), data)
    except OSError as error:
        raise _refused(str(path), error) from error


@contextmanager
def alone(path: Path) -> Generator[None]:
    """Let no other process that asks for the same change the file `path` meanwhile: it waits.

    A file beside it is locked, for `path` itself is replaced; it goes when nobody has it.
    """
    import fcntl

    path = path.expanduser().resolve()
    beside = path.with_name(f".{path.name}.changing")
    try:
        while True:
            file = os.open(beside, os.O_RDWR | os.O_CREAT, 0o666)
            fcntl.flock(file, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file), os.stat(beside)):
                    break
            os.close(file)  # who had it before has removed it
    except OSError as error:
        raise _refused(str(path), error) from error
    try:
        yield
    finally:
        with suppress(OSError):
            beside.unlink()
        os.close(file)


def check_writable(path: Path) -> None:
    """Refuse, before long work, a file that `write_file` could not write; changes nothing."""
    path = path.expanduser()
    is_special = path.exists() and not path.is_file()
    reason = None
    if path.is_dir():
        reason = errno.EISDIR
    elif not path.resolve().parent.is_dir():
        reason = errno.ENOENT
    elif not os.access(path if is_special else path.resolve().parent, os.W_OK):
        reason = errno.EACCES
    if reason is not None:
        raise _refused(str(path), OSError(reason, os.strerror(reason)))


def _replace(path: Path, data: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.chmod(temporary, _mode(path))
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _mode(path: Path) -> int:
    """The permissions of the file at `path`, or those that a new file gets."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _refused(where: str, error: OSError) -> OutputError:
    return OutputError(
        "GEM0701", f"{where} cannot be written: {error.strerror or error}", "nothing was written"
    )


def silence(stream: io.TextIOBase | Any) -> None:
    """Send what is still buffered nowhere, so that the end of the process does not complain."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        pairs = cast("Mapping[object, object]", value).items()
        return {str(key): _finite(inner) for key, inner in pairs}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in cast("list[object]", value)]
    return value


@contextmanager
def progress() -> Generator[Callable[[str], None]]:
    """What is being done, in one line on standard error, where that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status("") as status:
        yield lambda words: status.update(words)
