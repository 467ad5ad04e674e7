"""What a backend is, and how one is found by its name.

A backend turns the last IR of a pipeline into something that runs. It is a folder
`gemmir/backends/<kind>` with three files, each holding the function that it is named after:

    emit.py      emit(module, machine) -> Artifact        IR to the backend's own text
    assemble.py  assemble(artifact) -> bytes              that text to an object file
    load.py      load(object_bytes, signature) -> Loaded  an object file into this process

The folder is the registry. Each file is imported when it is first needed, so that a kernel from
the object cache is loaded without importing what emits it. A backend's whole input is the module
and the machine; it never sees the problem or the schedule.
"""

from __future__ import annotations

import ctypes
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from gemmir.errors import MissingError
from gemmir.launch import Launch
from gemmir.signature import Signature

if TYPE_CHECKING:
    from xdsl.dialects.builtin import ModuleOp

    from gemmir.machine import Machine


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What a backend emits: text of its `kind`, and the LLVM name of the CPU or GPU it is for.

    For a TPU that is the name of the machine, and the text a Python file.

    PTX has a `launch`, and the LLVM text that it was made from in `llvm`.
    """

    kind: Literal["llvm", "ptx", "pallas"]
    text: str
    signature: Signature
    cpu: str
    llvm: str = ""
    launch: Launch | None = None


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """Code in this process: `entry(*addresses)` runs machine code and returns its status.

    `owner` keeps the code alive; whoever keeps `entry` must keep this object too. `entry` releases
    the GIL and may run in several threads at once. For a TPU, `entry` is a function of
    arrays of JAX, and `owner` what is global to it. `address` is that of machine code on the CPU,
    and `threads` its variable of that name, where it has one. `others` are the functions for
    operands that are packed before, by symbol.
    """

    entry: Callable[..., Any]
    owner: object
    address: int | None = None
    threads: ctypes.c_int32 | None = None
    others: Mapping[str, Loaded] = field(default_factory=dict[str, "Loaded"])

    def __call__(self, *addresses: int) -> int:
        return self.entry(*addresses)


class Backend(Protocol):
    """The methods of every backend; `FolderBackend` is how they are found."""

    def emit(self, module: ModuleOp, machine: Machine) -> Artifact:
        """The last IR as the backend's text; `BackendError` where an op has no instruction."""
        ...

    def assemble(self, artifact: Artifact) -> bytes:
        """`artifact` as an object file."""
        ...

    def load(self, object_bytes: bytes, signature: Signature) -> Loaded:
        """The function of an object file, ready to be called with addresses."""
        ...


@dataclass(frozen=True, kw_only=True)
class FolderBackend:
    """The backend in `gemmir/backends/<kind>`, whose files are imported when they are used."""

    kind: str

    def _function(self, name: str) -> Callable[..., object]:
        return getattr(import_module(f"gemmir.backends.{self.kind}.{name}"), name)

    def emit(self, module: ModuleOp, machine: Machine) -> Artifact:
        """The last IR as the backend's text."""
        return cast("Artifact", self._function("emit")(module, machine))

    def assemble(self, artifact: Artifact) -> bytes:
        """`artifact` as an object file."""
        return cast("bytes", self._function("assemble")(artifact))

    def load(self, object_bytes: bytes, signature: Signature) -> Loaded:
        """The function of an object file, ready to be called with addresses."""
        return cast("Loaded", self._function("load")(object_bytes, signature))


def backend_kinds() -> tuple[str, ...]:
    """The names of all backends: the folders of `gemmir.backends` that emit for a machine."""
    package = import_module("gemmir.backends")
    folders = (path for root in package.__path__ for path in Path(root).iterdir())
    return tuple(sorted({folder.name for folder in folders if _is_backend(folder)}))


def _is_backend(folder: Path) -> bool:
    """Whether a folder has a file that emits, and is not just emission that others share."""
    return (folder / "emit.py").is_file() and folder.name != "llvm"


def backend_for(kind: str) -> Backend:
    """The backend named `kind`; `MissingError` GEM0601 lists the existing ones otherwise."""
    kinds = backend_kinds()
    if kind in kinds:
        return FolderBackend(kind=kind)
    nearest = difflib.get_close_matches(kind, kinds, n=1, cutoff=0.0)
    raise MissingError(
        "GEM0601",
        f"there is no backend {kind!r}; the backends are {', '.join(kinds) or 'none'}",
        f"use {nearest[0]}" if nearest else "",
    )


def threads_variable(symbol: str) -> str:
    """The int32 variable that says on how many threads `symbol` runs, 0 for what OpenMP says.

    Code without loops over cores has none.
    """
    return f"{symbol}_threads"


def tiles_constant(symbol: str) -> str:
    """The int32 constant beside `symbol` that says that it uses matrix tiles.

    Whoever calls it asks the operating system for their registers first.
    """
    return f"{symbol}_tiles"
