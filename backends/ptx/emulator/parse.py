"""PTX text -> kernels: parameters, registers, shared memory, and instructions with their lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gemmir.backends.ptx.emulator.faults import PtxFault

_ENTRY = re.compile(r"\.entry\s+([\w$]+)\s*\((.*?)\)([^{]*)\{", re.DOTALL)
_PARAMETER = re.compile(r"\.param\b[^,)]*?([\w$]+)\s*(?:,|$)")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+(%\w+)<(\d+)>")
_SHARED = re.compile(r"\.shared\s+(?:\.align\s+(\d+)\s+)?\.b8\s+([\w$]+)\[(\d+)\]")
_THREADS = re.compile(r"\.reqntid\s+(\d+)(?:\s*,\s*(\d+)\s*,\s*(\d+))?")
_INSTRUCTION = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)\s*(.*)", re.DOTALL)
_LABEL = re.compile(r"([$\w]+):\s*")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its guard, the parts of its name, and its operands as they are written."""

    line: int
    text: str
    guard: str | None
    negated: bool
    name: tuple[str, ...]
    operands: tuple[str, ...]


@dataclass(slots=True)
class PtxKernel:
    """One entry: `code` with the places of its `labels`, and the registers by their class."""

    name: str
    parameters: tuple[str, ...]
    threads: tuple[int, int, int] | None
    registers: dict[str, str] = field(default_factory=dict[str, str])
    shared: list[tuple[str, int, int]] = field(default_factory=list[tuple[str, int, int]])
    code: list[Instruction] = field(default_factory=list[Instruction])
    labels: dict[str, int] = field(default_factory=dict[str, int])


def parse(text: str, name: str | None = None) -> PtxKernel:
    """The entry `name` of `text`, or its only one; `PtxFault` GEM1001 where there is none."""
    text = _without_comments(text)
    entries = [m for m in _ENTRY.finditer(text) if name in (None, m.group(1))]
    if len(entries) != 1:
        named = "" if name is None else f" {name}"
        raise PtxFault("GEM1001", f"the text has {len(entries)} entries{named}")
    found = entries[0]
    threads = _THREADS.search(found.group(3))
    kernel = PtxKernel(
        name=found.group(1),
        parameters=tuple(_PARAMETER.findall(found.group(2).strip())),
        threads=None if threads is None else _triple(threads.groups()),
    )
    _read_shared(kernel, text[: found.start()])
    _read_body(kernel, text, found.end())
    return kernel


def _triple(found: tuple[str | None, ...]) -> tuple[int, int, int]:
    x, y, z = (int(n or 1) for n in found)
    return x, y, z


def _without_comments(text: str) -> str:
    """Comments become spaces, so that lines keep their numbers."""
    return re.sub(
        r"//[^\n]*|/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.DOTALL
    )


def _read_shared(kernel: PtxKernel, text: str) -> None:
    kernel.shared += [(n, int(size), int(align or 1)) for align, n, size in _SHARED.findall(text)]


def _read_body(kernel: PtxKernel, text: str, start: int) -> None:
    """Statements end in `;`; a line that begins with a label goes on behind it."""
    at, depth = start, 1
    begin = start
    while depth:
        if at >= len(text):
            raise PtxFault("GEM1001", f"the body of {kernel.name} does not end")
        character = text[at]
        depth += {"{": 1, "}": -1}.get(character, 0)
        if character == ";":
            _statement(kernel, text, begin, at)
            begin = at + 1
        at += 1
    rest = text[begin : at - 1].strip()
    if rest and not _LABEL.fullmatch(rest):
        raise PtxFault("GEM1001", f"{rest.splitlines()[0]!r} does not end in a semicolon")


def _statement(kernel: PtxKernel, text: str, begin: int, end: int) -> None:
    while True:
        begin += len(text[begin:end]) - len(text[begin:end].lstrip())
        label = _LABEL.match(text, begin, end)
        if label is None:
            break
        kernel.labels[label.group(1)] = len(kernel.code)
        begin = label.end()
    line = text.count("\n", 0, begin) + 1
    statement = " ".join(text[begin:end].split())
    if statement.startswith(".reg"):
        _declare(kernel, statement, line)
    elif statement.startswith(".shared"):
        _read_shared(kernel, statement)
    elif statement.startswith((".pragma", ".loc")):
        return
    elif statement:
        kernel.code.append(_instruction(statement, line))


def _declare(kernel: PtxKernel, statement: str, line: int) -> None:
    found = _REGISTERS.fullmatch(statement)
    if found is None:
        raise PtxFault("GEM1001", f"line {line}: {statement!r} declares no registers")
    kind, stem, count = found.groups()
    kernel.registers.update({f"{stem}{n}": kind for n in range(int(count))})


def _instruction(statement: str, line: int) -> Instruction:
    found = _INSTRUCTION.fullmatch(statement)
    if found is None:
        raise PtxFault("GEM1001", f"line {line}: {statement!r} is no instruction")
    negated, guard, name, operands = found.groups()
    return Instruction(
        line=line,
        text=statement,
        guard=guard,
        negated=bool(negated),
        name=tuple(name.split(".")),
        operands=tuple(o.strip() for o in _OPERAND.findall(operands)),
    )
