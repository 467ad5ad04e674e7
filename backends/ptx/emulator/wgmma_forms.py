"""Forms and operands of wgmma.mma_async: PTX ISA, section "wgmma.mma_async"."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gemmir.backends.ptx.emulator.async_reads import UNIT
from gemmir.backends.ptx.emulator.clocks import WARP
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.matrix import FACTORS, SUMS
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Read, Scope, names_in, refuse
from gemmir.backends.ptx.emulator.warpgroup import ROWS, WARPS

THREADS: Final = WARPS * WARP

_SHAPE: Final = re.compile(r"m64n(\d+)k(\d+)")

_PAIRS: Final[Mapping[str, tuple[str, ...]]] = {
    "f16": ("f16",),
    "bf16": ("bf16",),
    "tf32": ("tf32",),
    "e4m3": ("e4m3", "e5m2"),
    "e5m2": ("e4m3", "e5m2"),
    "s8": ("s8", "u8"),
    "u8": ("s8", "u8"),
}
"""The types of B that go with each of A."""

_SUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "f16": ("f32", "f16"),
    "bf16": ("f32",),
    "tf32": ("f32",),
    "e4m3": ("f32", "f16"),
    "e5m2": ("f32", "f16"),
    "s8": ("s32",),
    "u8": ("s32",),
}


@dataclass(frozen=True, slots=True)
class Form:
    """One form of wgmma.mma_async."""

    columns: int
    depth: int
    a: str
    b: str
    d: str
    saturates: bool

    @property
    def is_half(self) -> bool:
        """Whether operands may be MN-major: those of 16 bits."""
        return self.a in ("f16", "bf16")


def form_of(i: Instruction) -> Form:
    """`FaultError` GEM1001 for a form that the PTX ISA has not."""
    words = list(i.name)
    saturates = words[-1] == "satfinite"
    if saturates:
        words.pop()
    shape = _SHAPE.fullmatch(words[4]) if len(words) == 8 else None
    if shape is None or words[2:4] != ["sync", "aligned"]:
        raise refuse(i)
    columns, depth = map(int, shape.groups())
    d, a, b = words[5:]
    fits = b in _PAIRS.get(a, ()) and d in _SUMS[a] and depth * FACTORS[a].itemsize == 2 * UNIT
    step = 16 if a in ("s8", "u8") and columns > 24 else 8
    if not fits or not 8 <= columns <= 256 or columns % step or (saturates and d != "s32"):
        raise refuse(i)
    return Form(columns, depth, a, b, d, saturates)


@dataclass(frozen=True, slots=True)
class Operands:
    """What an instruction names: registers by number, and how the others are read."""

    slots: tuple[int, ...]
    names: tuple[str, ...]
    a_slots: tuple[int, ...]
    a_names: tuple[str, ...]
    a: Read | None
    b: Read
    adds: Read
    signs: tuple[int, int]
    transposed: tuple[bool, bool]


def operands_of(scope: Scope, i: Instruction, form: Form) -> Operands:
    """The sums, A, B, whether to add, and numbers that say how A and B are taken."""
    if len(i.operands) < 4:
        raise FaultError("GEM1001", f"{'.'.join(i.name)} has at least 4 operands")
    d, a, b, adds, *numbers = i.operands
    in_registers = a.startswith("{")
    signs, transposed = _numbers(i, form, numbers, in_registers=in_registers)
    names = names_in(d)
    packed = 4 // SUMS[form.d].itemsize
    if len(names) * THREADS * packed != ROWS * form.columns:
        raise FaultError("GEM1001", f"{len(names)} registers for {ROWS} by {form.columns} sums")
    a_names = names_in(a) if in_registers else []
    if in_registers and len(a_names) != 4:
        raise FaultError("GEM1001", f"{a} is not 4 registers")
    kind = form.d if form.d != "f16" else "b32"
    for name in names:
        scope.source(name, kind)
    for name in a_names:
        scope.source(name, "b32")
    return Operands(
        tuple(scope.slots[n] for n in names),
        tuple(names),
        tuple(scope.slots[n] for n in a_names),
        tuple(a_names),
        None if in_registers else scope.source(a, "b64"),
        scope.source(b, "b64"),
        scope.predicate(adds),
        signs,
        transposed,
    )


def _numbers(
    i: Instruction, form: Form, numbers: Sequence[str], *, in_registers: bool
) -> tuple[tuple[int, int], tuple[bool, bool]]:
    """The signs of A and B, and whether they are MN-major, which A in registers is not."""
    is_whole = form.d == "s32"
    count = 0 if is_whole else 2 + (form.is_half and 2 - in_registers)
    if len(numbers) != count or not all(n in ("0", "1", "-1") for n in numbers):
        raise FaultError("GEM1001", f"{'.'.join(i.name)} has other operands")
    if "0" in numbers[:2] or "-1" in numbers[2:]:
        raise FaultError("GEM1001", "a sign is 1 or -1, and a transposition 0 or 1")
    signs = (1, 1) if is_whole else (int(numbers[0]), int(numbers[1]))
    flags = ["0", *numbers[2:]] if in_registers else numbers[2:]
    return signs, (flags[0] == "1", flags[1] == "1") if len(flags) == 2 else (False, False)
