"""PTX text -> kernels: parameters, registers, shared memory, and instructions with their lines."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Final

from gemmir.backends.ptx.emulator.faults import PtxFault

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", re.DOTALL)
_PARAMETER = re.compile(
    r"\.param\s+\.(\w+)\s+(?:\.ptr\s+(?:\.(?:global|shared|const|local)\s+)?(?:\.align\s+\d+\s+)?)?"
    r"([\w$]+)"
)
_MAP = re.compile(r"\.param\s+\.align\s+(\d+)\s+\.b8\s+([\w$]+)\[128\]")
_REGISTERS = re.compile(r"([%\w$]+)(?:<(\d+)>)?")
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.b(\d+)\s+([\w$]+)(?:\[(\d*)\])?\s*(?=;)")
_THREADS = re.compile(r"\.reqntid\s+(\d+)(?:\s*,\s*(\d+)\s*,\s*(\d+))?")
_MOST_THREADS = re.compile(r"\.maxntid\s+(\d+)(?:\s*,\s*(\d+)\s*,\s*(\d+))?")
_CLUSTER = re.compile(r"\.reqnctapercluster\s+(\d+)(?:\s*,\s*(\d+)\s*,\s*(\d+))?")
_LEAST_BLOCKS = re.compile(r"\.minnctapersm\s+(\d+)")
_MOST_REGISTERS = re.compile(r"\.maxnreg\s+(\d+)")
_INSTRUCTION = re.compile(r"(?:@(!?)([%\w$]+)\s+)?([a-z]\w*(?:[.:]+\w+)*)\s*(.*)", re.DOTALL)
_LABEL = re.compile(r"([$\w]+)\s*:(?!:)")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")
_WORD = re.compile(r"[%$\w]+")
_SPACE = re.compile(r"\s*")

MAX_THREADS: Final = 1024
"""Threads of a block, at most: CUDA C++ Programming Guide, section "Compute Capabilities"."""

MAP: Final = "tensormap"
"""The type of a parameter that is a tensor map: 128 bytes, aligned to 64."""

REGISTERS: Final = 65536
"""The registers of a multiprocessor: CUDA C++ Programming Guide, section "Compute Capabilities"."""

Scope = dict[str, str]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its guard, the parts of its name, and its operands as they are written."""

    line: int
    text: str
    guard: str | None
    negated: bool
    name: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """Shared memory by a name; the launch says how large it is where `size` is None."""

    name: str
    size: int | None
    alignment: int


@dataclass(slots=True)
class PtxKernel:
    """One entry: `code` with the places of its `labels`, and the registers by their class."""

    name: str
    parameters: tuple[tuple[str, str], ...]
    threads: tuple[int, int, int] | None
    most_threads: int
    cluster: tuple[int, int, int] | None = None
    """The blocks of a cluster, where the kernel says it."""
    registers_at_entry: int = 0
    """The most that a thread can begin with, 0 where the kernel does not bound it."""
    registers: dict[str, str] = field(default_factory=dict[str, str])
    shared: list[Variable] = field(default_factory=list[Variable])
    code: list[Instruction] = field(default_factory=list[Instruction])
    labels: dict[str, int] = field(default_factory=dict[str, int])


def parse(text: str, name: str | None = None) -> PtxKernel:
    """The entry `name` of `text`, or its only one; `PtxFault` GEM1001 where there is none."""
    text = _without_comments(text)
    entries = list(_ENTRY.finditer(text))
    wanted = [m for m in entries if name in (None, m.group(1))]
    if len(wanted) != 1:
        named = "" if name is None else f" {name}"
        found = ", ".join(m.group(1) for m in entries) or "none"
        raise PtxFault("GEM1001", f"the text has {len(wanted)} entries{named}: {found}")
    entry = wanted[0]
    said = entry.group(3)
    threads, most = _THREADS.search(said), _MOST_THREADS.search(said)
    cluster = _CLUSTER.search(said)
    kernel = PtxKernel(
        name=entry.group(1),
        parameters=tuple(_parameter(p.strip()) for p in entry.group(2).split(",") if p.strip()),
        threads=None if threads is None else _triple(threads.groups()),
        most_threads=MAX_THREADS if most is None else math.prod(_triple(most.groups())),
        cluster=None if cluster is None else _triple(cluster.groups()),
        registers_at_entry=_registers_at_entry(said),
    )
    _read_shared(kernel, text[: entries[0].start()])
    _Body(kernel, text).read(entry.end())
    return kernel


def _registers_at_entry(said: str) -> int:
    """What `.maxnreg` says, or what is left for each thread of the block."""
    own = _MOST_REGISTERS.search(said)
    if own is not None:
        return int(own.group(1))
    threads, least = _THREADS.search(said), _LEAST_BLOCKS.search(said)
    if threads is None:
        return 0
    all_threads = math.prod(_triple(threads.groups())) * (1 if least is None else int(least[1]))
    return min(REGISTERS // all_threads // 8 * 8, 256)


def _parameter(text: str) -> tuple[str, str]:
    """Name and type of a parameter: a scalar or a tensor map."""
    found = _MAP.fullmatch(text)
    if found is not None and int(found.group(1)) >= 64:
        return found.group(2), MAP
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise PtxFault("GEM1001", f"the parameter {text!r} is no scalar and no tensor map")
    return found.group(2), found.group(1)


def _triple(found: tuple[str | None, ...]) -> tuple[int, int, int]:
    x, y, z = (int(n or 1) for n in found)
    return x, y, z


def _without_comments(text: str) -> str:
    """Comments become spaces, so that lines keep their numbers."""
    return re.sub(
        r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL
    )


def _read_shared(kernel: PtxKernel, text: str) -> None:
    for alignment, bits, name, count in _SHARED.findall(text):
        item = int(bits) // 8
        declared = re.search(rf"\b{re.escape(name)}\s*\[", text) is not None
        elements = int(count) if count else (None if declared else 1)
        size = None if elements is None else item * elements
        kernel.shared.append(Variable(name, size, int(alignment or item)))


@dataclass(slots=True)
class _Body:
    """Reads the statements of a kernel; each `{` opens a scope with registers of its own."""

    kernel: PtxKernel
    text: str
    scopes: list[Scope] = field(default_factory=lambda: [{}])
    newlines: list[int] = field(init=False)
    opened: int = 0

    def __post_init__(self) -> None:
        self.newlines = [m.start() for m in re.finditer("\n", self.text)]

    def read(self, at: int) -> None:
        text = self.text
        while self.scopes:
            at = self._after_space(at)
            if at >= len(text):
                raise PtxFault("GEM1001", f"the body of {self.kernel.name} does not end")
            if text[at] == "{":
                self.opened += 1
                self.scopes.append({})
                at += 1
            elif text[at] == "}":
                self.scopes.pop()
                at += 1
            elif (label := _LABEL.match(text, at)) is not None:
                self.kernel.labels[label.group(1)] = len(self.kernel.code)
                at = label.end()
            else:
                at = self._statement(at)

    def _after_space(self, at: int) -> int:
        found = _SPACE.match(self.text, at)
        return at if found is None else found.end()

    def _statement(self, at: int) -> int:
        """Reads up to a semicolon and returns the place behind it."""
        end = self.text.find(";", at)
        line = bisect_right(self.newlines, at) + 1
        raw = self.text[at : len(self.text) if end < 0 else end]
        if end < 0 or raw.count("}") > raw.count("{"):
            raise PtxFault(
                "GEM1001", f"line {line}: {raw.splitlines()[0]!r} does not end in a semicolon"
            )
        statement = " ".join(raw.split())
        if statement.startswith(".reg"):
            self._declare(statement, line)
        elif statement.startswith((".shared", ".extern")):
            _read_shared(self.kernel, statement + ";")
        elif statement and not statement.startswith((".pragma", ".loc")):
            self.kernel.code.append(self._instruction(statement, line))
        return end + 1

    def _declare(self, statement: str, line: int) -> None:
        _, kind, *names = statement.replace(",", " ").split()
        for word in names:
            found = _REGISTERS.fullmatch(word)
            if found is None or not kind.startswith("."):
                raise PtxFault("GEM1001", f"line {line}: {statement!r} declares no registers")
            stem, count = found.groups()
            own = [stem] if count is None else [f"{stem}{n}" for n in range(int(count))]
            for name in own:
                self.kernel.registers[self._local(name)] = kind[1:]

    def _local(self, name: str) -> str:
        """What a register declared here is called in the whole kernel."""
        if len(self.scopes) == 1:
            return name
        self.scopes[-1][name] = f"{name}@{self.opened}"
        return self.scopes[-1][name]

    def _meant(self, word: str) -> str:
        found = [s[word] for s in reversed(self.scopes) if word in s]
        return found[0] if found else word

    def _instruction(self, statement: str, line: int) -> Instruction:
        found = _INSTRUCTION.fullmatch(statement)
        if found is None:
            raise PtxFault("GEM1001", f"line {line}: {statement!r} is no instruction")
        negated, guard, name, operands = found.groups()
        if len(self.scopes) > 1:
            operands = _WORD.sub(lambda m: self._meant(m.group()), operands)
            guard = None if guard is None else self._meant(guard)
        return Instruction(
            line=line,
            text=statement,
            guard=guard,
            negated=bool(negated),
            name=tuple(name.split(".")),
            operands=tuple(o.strip() for o in _OPERAND.findall(operands)),
        )
