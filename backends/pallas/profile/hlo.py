"""What scheduled HLO says of a program: the cycles of its ops, its copies, and what is in VMEM.

libtpu writes two estimates into the text, where it has them: that of its static profiler for the
code of a whole op (`bundle_analysis_data`), and what XLA expected of a convolution when it chose
its windows (`window_config`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

_ENTRY: Final = re.compile(r"^ENTRY .*?\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_OP: Final = re.compile(r"^\s*(ROOT )?%([\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)$")
_OPERAND: Final = re.compile(r"%([\w.-]+)")
_ARRAY: Final = re.compile(r"([a-z]\w*)\[([\d,]*)\](?:\{([^}]*)\})?")
_SPACE: Final = re.compile(r"S\((\d+)\)")
_SIMULATED: Final = re.compile(r'"bundle_analysis_data":\{"estimated_cycles":"(\d+)"')
_ESTIMATED: Final = re.compile(r'"window_config":\{[^}]*?"estimated_cycles":"(\d+)"')
_BOUNDS: Final = re.compile(r'"(\w+)_bounds":\[([^\]]*)\]')
_SCOPED: Final = re.compile(
    r'"used_scoped_memory_configs":\[\{"memory_space":"1"[^}]*"size":"(\d+)"'
)

TILE_ELEMENTS: Final = 8 * 128
"""Elements of the tiles that the windows of a convolution are counted in."""

CUSTOM_CALL: Final = "custom-call"
"""The op that a Pallas kernel is."""

HBM: Final = 0
VMEM: Final = 1

IN_PLACE: Final = (
    "bitcast",
    "constant",
    "copy-done",
    "get-tuple-element",
    "parameter",
    "tuple",
)
"""Ops that move nothing; what a `copy-done` waits for counts where the copy starts."""


@dataclass(frozen=True, kw_only=True)
class Value:
    """An array between ops, or one of a tuple: its bytes and the memory that it is in."""

    item_bits: int
    elements: int
    space: int

    @property
    def size_bytes(self) -> int:
        """Bytes without the padding of tiles."""
        return math.ceil(self.item_bits * self.elements / 8)


@dataclass(frozen=True, kw_only=True)
class Op:
    """One op of the entry computation; cycles are None where libtpu says nothing of them.

    `windows` is how many windows a convolution is made in, along each of its dimensions, k last;
    `window_bytes` is what of HBM it needs before it begins, and what is left to write at its end.
    """

    name: str
    opcode: str
    results: tuple[Value, ...]
    operands: tuple[Value, ...]
    simulated_cycles: int | None
    estimated_cycles: int | None
    windows: tuple[int, ...]
    window_bytes: int
    scoped_vmem_bytes: int

    @property
    def is_copy(self) -> bool:
        """Whether this is an asynchronous copy, of which no estimate says anything."""
        return self.opcode == "copy-start"

    @property
    def is_work(self) -> bool:
        """Whether this op takes cycles that an estimate covers."""
        return self.opcode not in IN_PLACE and not self.is_copy

    @property
    def hbm_bytes(self) -> int:
        """Bytes between HBM and the core if each array is read or written once.

        The results of a copy are its target, its source and a semaphore.
        """
        if self.opcode in IN_PLACE:
            return 0
        written = self.results[:1] if self.is_copy else self.results
        return sum(v.size_bytes for v in (*self.operands, *written) if v.space == HBM)


def ops(hlo: str) -> list[Op]:
    """The ops of the entry computation, in the order in which they run."""
    entry = _ENTRY.search(hlo)
    found: list[Op] = []
    results: dict[str, tuple[Value, ...]] = {}
    for line in entry[1].splitlines() if entry else ():
        matched = _OP.match(line)
        if matched is None:
            continue
        _, name, kind, opcode, rest = matched.groups()
        results[name] = tuple(_values(kind))
        arguments = rest.split(")", 1)[0]
        operands = [v for n in _OPERAND.findall(arguments) for v in results.get(n, ())]
        found.append(_op(name, opcode, results[name], operands, rest))
    return found


def _op(
    name: str, opcode: str, results: tuple[Value, ...], operands: Sequence[Value], rest: str
) -> Op:
    bounds = {found[1]: tuple(_numbers(found[2])) for found in _BOUNDS.finditer(rest)}
    return Op(
        name=name,
        opcode=opcode,
        results=results,
        operands=tuple(operands),
        simulated_cycles=_number(_SIMULATED, rest),
        estimated_cycles=_number(_ESTIMATED, rest),
        windows=bounds.get("iteration", ()),
        window_bytes=_window_bytes(bounds, results, operands),
        scoped_vmem_bytes=_number(_SCOPED, rest) or 0,
    )


def _window_bytes(
    bounds: Mapping[str, tuple[int, ...]], results: Sequence[Value], operands: Sequence[Value]
) -> int:
    """Bytes of one window of each operand in HBM and of the result.

    Which of the two windows is whose is not said: where one operand is in VMEM, the other has the
    smaller window.
    """
    if "output_window" not in bounds:
        return 0
    sizes = sorted(math.prod(bounds.get(f"{name}_window", (0,))) for name in ("kernel", "input"))
    fetched = [value for value in operands if value.space == HBM][: len(sizes)]
    written = math.prod(bounds["output_window"]) * results[0].item_bits
    bits = written + sum(n * v.item_bits for n, v in zip(sizes, fetched, strict=False))
    return bits * TILE_ELEMENTS // 8


def _numbers(text: str) -> Iterator[int]:
    return map(int, re.findall(r"\d+", text))


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return int(found[1]) if found else None


def _values(kind: str) -> Iterator[Value]:
    """The arrays in the text of a type; those of a tuple one after the other."""
    for name, shape, layout in _ARRAY.findall(kind):
        digits = re.search(r"\d+", name)
        space = _SPACE.search(layout)
        yield Value(
            item_bits=int(digits[0]) if digits else 8,
            elements=math.prod(int(n) for n in shape.split(",") if n),
            space=int(space[1]) if space else HBM,
        )


def simulated_cycles(found: Sequence[Op]) -> int | None:
    """The cycles of all ops by the static profiler; None where it says nothing of one."""
    return _sum([op.simulated_cycles for op in found if op.is_work])


def estimated_cycles(found: Sequence[Op]) -> int | None:
    """The cycles of all ops by XLA's own estimate; None where it has none of one."""
    return _sum([op.estimated_cycles for op in found if op.is_work])


def _sum(cycles: Sequence[int | None]) -> int | None:
    known = [n for n in cycles if n is not None]
    return sum(known) if known and len(known) == len(cycles) else None


def copy_bytes(found: Sequence[Op]) -> int:
    """Bytes of HBM that asynchronous copies between the ops read or write."""
    return sum(op.hbm_bytes for op in found if op.is_copy)


def hbm_bytes(found: Sequence[Op]) -> int:
    """Bytes of HBM that all ops move at least: each of their arrays once, and the copies."""
    return sum(op.hbm_bytes for op in found)


def vmem_bytes(found: Sequence[Op]) -> int:
    """Most bytes of VMEM that an op uses, and the arrays that are kept there beside."""
    scoped = max((op.scoped_vmem_bytes for op in found), default=0)
    kept = (op.results[:1] for op in found if op.is_copy or op.is_work)
    return scoped + sum(v.size_bytes for values in kept for v in values if v.space == VMEM)
