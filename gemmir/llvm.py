"""The part of llvmlite that gemmir uses, with types.

llvmlite ships no types of its own, so its objects are described here by what gemmir asks of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Final, Protocol, cast

LOCK: Final = threading.RLock()
"""Held around every use of LLVM that builds or loads code: several Python threads may compile."""


class Context(Protocol):
    """Owns the types of the modules that are parsed in it."""


class TargetData(Protocol):
    """The data layout of a target; `str` gives it as LLVM writes it."""


class Module(Protocol):
    """A parsed LLVM module."""

    triple: str
    data_layout: str

    def verify(self) -> None: ...


class TargetMachine(Protocol):
    """The code generator for one CPU."""

    @property
    def target_data(self) -> TargetData: ...
    def emit_object(self, module: Module) -> bytes: ...
    def emit_assembly(self, module: Module) -> str: ...


class Target(Protocol):
    """The code generators of one architecture."""

    def create_target_machine(
        self, *, cpu: str, features: str, opt: int, reloc: str, codemodel: str
    ) -> TargetMachine: ...


class Targets(Protocol):
    """Finds an architecture by its triple; `RuntimeError` if LLVM was built without it."""

    def from_triple(self, triple: str) -> Target: ...


class Jit(Protocol):
    """An ORC just-in-time linker."""


class Library(Protocol):
    """A loaded library: the address of each exported symbol. Unloaded when it is collected."""

    def __getitem__(self, symbol: str) -> int: ...


class LibraryBuilder(Protocol):
    """What is to be linked into a library."""

    def add_object_img(self, data: bytes) -> LibraryBuilder: ...
    def add_current_process(self) -> LibraryBuilder: ...
    def import_symbol(self, name: str, address: int) -> LibraryBuilder: ...
    def export_symbol(self, name: str) -> LibraryBuilder: ...
    def link(self, lljit: Jit, library_name: str) -> Library: ...


class MakeJit(Protocol):
    """Makes a just-in-time linker; errors are raised, and printed too unless suppressed."""

    def __call__(
        self, target_machine: TargetMachine, *, use_jit_link: bool, suppress_errors: bool
    ) -> Jit: ...


class MakeLibraryBuilder(Protocol):
    """Makes an empty library to be."""

    def __call__(self) -> LibraryBuilder: ...


class Binding(Protocol):
    """The module `llvmlite.binding`."""

    llvm_version_info: tuple[int, int, int]
    Target: Targets
    JITLibraryBuilder: MakeLibraryBuilder
    create_lljit_compiler: MakeJit

    def initialize_native_target(self) -> None: ...
    def initialize_native_asmprinter(self) -> None: ...
    def initialize_all_targets(self) -> None: ...
    def initialize_all_asmprinters(self) -> None: ...
    def get_host_cpu_name(self) -> str: ...
    def get_host_cpu_features(self) -> Mapping[str, bool]: ...
    def get_process_triple(self) -> str: ...
    def create_context(self) -> Context: ...
    def parse_assembly(self, llvmir: str, context: Context) -> Module: ...


_BINDING: Final = cast("Binding", import_module("llvmlite.binding"))


@cache
def binding() -> Binding:
    """llvmlite's binding, ready for this computer's own architecture."""
    with LOCK:
        _BINDING.initialize_native_target()
        _BINDING.initialize_native_asmprinter()
    return _BINDING


@cache
def binding_for_all() -> Binding:
    """llvmlite's binding, ready for every architecture that it was built with."""
    llvm = binding()
    with LOCK:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    return llvm


def versions() -> tuple[str, str]:
    """The versions of llvmlite and of the LLVM in it."""
    number = cast("str", import_module("llvmlite").__version__)
    return number, ".".join(map(str, binding().llvm_version_info))
