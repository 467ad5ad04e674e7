"""Apply one wrong edit at a time, in memory, and see whether the battery notices.

    python harness.py TABLE.toml        a line of JSON for each mutant: name, outcome, case

The process imports everything once and forks for each mutant. The child forgets gemmir, imports it
again with one source replaced, and runs the battery: an error, a crash and no end in 40 seconds of
CPU time all mean that the mutant is caught. The case of the battery that a mutant names is run
first: it is what catches it, and saves all others. Nothing is written to disk.
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import importlib.abc
import importlib.machinery
import json
import os
import pkgutil
import resource
import runpy
import signal
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parents[2]
BATTERY: Final = Path(__file__).with_name("battery.py")
SECONDS: Final = 40
"""CPU time of a child; three times as much may pass on the clock, where others run or it waits."""

AT_ONCE: Final = 2
"""Children that run at the same time."""

THREADS: Final = 2
"""Threads of a team in a child."""

TPU_ONLY: Final = (
    *(f"gemmir/ir/{n}.py" for n in ("grid", "pallas", "visit_steps", "visits", "whole_blocks")),
    "gemmir/evaluate/pallas.py",
)
"""Files that only schedules for a TPU use."""

TILES: Final = (
    *(f"gemmir/{n}.py" for n in ("evaluate/amx", "ir/amx", "ir/tile_products")),
    "backends/llvm/tiles.py",
)
"""Files that only schedules for CPUs with matrix tiles use."""

HOPPER: Final = (
    "passes/pipeline.py",
    "gemmir/ir/tma.py",
    "gemmir/ir/warpgroup.py",
)
"""Files outside the backend that schedules for warpgroups use more of than others do."""

FOR_ROLES: Final = (
    "consumer",
    "producer",
    "role",
    "roles",
    "specialize",
    "staging",
    "warpgroup_products",
)
"""Files of `gemmir.ir` of that kind."""

ROLES: Final = (
    "passes/persist.py",
    *(f"gemmir/ir/{n}.py" for n in FOR_ROLES),
)
"""Files that only schedules for warpgroups use, whose IR shows what is wrong with them."""

MESSAGE_BYTES: Final = 400
"""How much of an error a child reports: less than a pipe holds, so that it never waits."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A wrong edit: `old` becomes `new` in `file`; `why` says what mistake that is.

    `case` is the case of the battery that notices it.
    """

    name: str
    file: str
    old: str
    new: str
    why: str
    case: str = ""

    @property
    def module(self) -> str:
        """The import name of the file."""
        name = self.file.removesuffix(".py").replace("/", ".")
        return name if name.startswith("gemmir.") else f"gemmir.{name}"

    @property
    def groups(self) -> tuple[str, ...] | None:
        """The groups of cases that an edit of the file can make wrong; None, which is all, of none.

        They are those of the machines whose code or IR it is in.
        """
        if not self.old:
            return None
        for files, group in ((TPU_ONLY, "tpu"), (ROLES, "roles"), (TILES, "tiles")):
            if self.file in files:
                return (group,)
        is_backend = self.file.startswith("backends/")
        reached = {
            "cpu": not self.file.startswith("backends/ptx/"),
            "gpu": not self.file.startswith(("backends/cpu/", "backends/llvm/structure.py")),
            "hopper": self.file.startswith("backends/ptx/") or self.file in HOPPER,
            "tpu": not is_backend,
            "roles": self.file in ("passes/vectorize.py", "gemmir/ir/write_back.py"),
            "tiles": self.file == "passes/vectorize.py",
        }
        return tuple(group for group, is_reached in reached.items() if is_reached)

    @property
    def has_stages(self) -> bool:
        """Whether an edit of the file can make the IR wrong, and not code alone."""
        return self.file in TILES or not self.file.startswith("backends/")

    def source(self) -> str:
        """The whole file with the edit; `ValueError` unless `old` is in it exactly once."""
        text = (ROOT / self.file).read_text()
        if text.count(self.old) != 1:
            raise ValueError(f"its text occurs {text.count(self.old)} times in {self.file}")
        return text.replace(self.old, self.new)


UNCHANGED: Final = Mutant(name="unchanged", file="gemmir/errors.py", old="", new="", why="")
"""No edit at all: the battery must pass."""


def read_table(path: Path) -> list[Mutant]:
    """The mutants of a TOML file, in its order."""
    tables = tomllib.loads(path.read_text())
    return [Mutant(name=name, **fields) for name, fields in tables.items()]


class _Replaced(importlib.machinery.SourceFileLoader):
    """Loads a module from other source than that of its file."""

    def __init__(self, fullname: str, path: str, source: str) -> None:
        super().__init__(fullname, path)
        self.source = source

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec", dont_inherit=True)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the one module whose source is replaced."""

    def __init__(self, module: str, loader: _Replaced) -> None:
        self.module = module
        self.loader = loader

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.module:
            return None
        return spec_from_file_location(fullname, self.loader.path, loader=self.loader)


def warm_up() -> None:
    """Import all that the battery needs, so that children find xDSL, NumPy and LLVM in memory."""
    sys.path.insert(0, str(ROOT))
    backends = ("gemmir.backends.llvm", "gemmir.backends.ptx")
    for package in ("gemmir.passes", *backends, "gemmir.evaluate", "gemmir.ir"):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
    runpy.run_path(str(BATTERY))
    gc.collect()
    gc.freeze()  # children do not look through it for garbage


def replace_source(mutant: Mutant, source: str) -> None:
    """Let the module of `mutant`, once it is imported, have another source than its file."""
    loader = _Replaced(mutant.module, str(ROOT / mutant.file), source)
    sys.meta_path.insert(0, _Finder(mutant.module, loader))


def run_child(mutant: Mutant, source: str | None, report: int) -> NoReturn:
    """In the child: run the battery on the mutated tree and exit.

    To `report` go the name of each case, a line each, and then the first error.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(3 * SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
    faulthandler.disable()  # a crash is an expected outcome and not to be described
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    for name in [n for n in sys.modules if n.split(".")[0] in ("gemmir", "tests")]:
        del sys.modules[name]
    if source is not None:
        replace_source(mutant, source)

    def begin(case: str) -> None:
        os.write(report, f"{case}\n".encode())

    try:
        run = runpy.run_path(str(BATTERY))["run"]
        run(mutant.groups, stages=mutant.has_stages, first=mutant.case, begin=begin)
    except BaseException as error:
        message = " ".join(f"{type(error).__name__}: {error}".split())
        os.write(report, message.encode()[:MESSAGE_BYTES])
        os._exit(1)
    os._exit(0)


def start(mutant: Mutant) -> tuple[int, int]:
    """Fork a child for `mutant`; returns its process id and where its message can be read."""
    source = None if mutant is UNCHANGED else mutant.source()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        run_child(mutant, source, writing)
    os.close(writing)
    return child, reading


def outcome(status: int, message: str) -> str:
    """What became of a child: "survived", or how it was caught."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        is_late = number in (signal.SIGALRM, signal.SIGXCPU)
        return "timeout" if is_late else signal.Signals(number).name
    return "survived" if os.WEXITSTATUS(status) == 0 else message


def run_all(mutants: Sequence[Mutant]) -> Iterator[dict[str, str]]:
    """Name and outcome of each mutant as they end, and the case at which it was caught."""
    waiting = list(mutants)
    running: dict[int, tuple[Mutant, int]] = {}
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            mutant = waiting.pop(0)
            try:
                child, reading = start(mutant)
            except ValueError as error:
                yield {"name": mutant.name, "outcome": f"stale: {error}", "case": ""}
                continue
            running[child] = (mutant, reading)
        if running:
            child, status = os.wait()
            mutant, reading = running.pop(child)
            with os.fdopen(reading, "rb") as pipe:
                *cases, message = pipe.read().decode(errors="replace").split("\n")
            what = outcome(status, message)
            last = "" if what == "survived" or not cases else cases[-1]
            yield {"name": mutant.name, "outcome": what, "case": last}


def main() -> None:
    """Run the table named on the command line, the unchanged tree first."""
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    warm_up()
    for found in run_all([UNCHANGED, *read_table(Path(sys.argv[1]))]):
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
