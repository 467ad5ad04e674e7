"""The state of one block: registers as arrays over its threads, and who has written what.

Registers hold bits, in unsigned integers of the width of their class; an instruction says how it
reads them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gemmir.backends.ptx.emulator.faults import FaultError

Array: TypeAlias = npt.NDArray[Any]

TYPES: Final[dict[str, np.dtype[Any]]] = {
    **{f"{kind}{8 * n}": np.dtype(f"u{n}") for kind in "bu" for n in (1, 2, 4, 8)},
    **{f"s{8 * n}": np.dtype(f"i{n}") for n in (1, 2, 4, 8)},
    "f32": np.dtype(np.float32),
    "f64": np.dtype(np.float64),
    "pred": np.dtype(np.bool_),
}
"""How an instruction of each type reads bits: PTX ISA, section on fundamental types."""

_FLOAT: Final = re.compile(r"0([fFdD])([0-9a-fA-F]+)")


@dataclass(eq=False)
class Lanes:
    """The threads of the block number `block`; `thread` and the rest are per thread."""

    block: tuple[int, int, int]
    special: dict[str, Array]
    symbols: dict[str, int]
    registers: dict[str, str]
    count: int
    values: dict[str, Array] = field(default_factory=dict[str, Array])
    written: dict[str, Array] = field(default_factory=dict[str, Array])

    def read(self, operand: str, kind: str, active: Array) -> Array:
        """The value of a register, special register, symbol or number in the `active` threads."""
        dtype = TYPES[kind]
        if operand in self.registers:
            return self._register(operand, active, dtype)
        if operand in self.special:
            return self.special[operand][active].astype(dtype)
        if operand in self.symbols:
            return np.full(len(active), self.symbols[operand], dtype)
        return np.full(len(active), number(operand, dtype), dtype)

    def _register(self, name: str, active: Array, dtype: np.dtype[Any]) -> Array:
        held = self.values.get(name)
        if held is None or not (fine := self.written[name][active]).all():
            lane = 0 if held is None else int(np.argmin(fine))
            raise FaultError("GEM1004", f"{name} is read and was never written", lane)
        if held.dtype.itemsize != dtype.itemsize:
            raise FaultError(
                "GEM1001", f"{name} is a .{self.registers[name]} register, not of {dtype}"
            )
        return held[active].view(dtype)

    def write(self, name: str, value: Array, active: Array) -> None:
        """Set a register in the `active` threads."""
        if name not in self.registers:
            raise FaultError("GEM1001", f"{name} is no register")
        dtype = TYPES[self.registers[name]]
        bits = dtype if dtype.kind == "b" else np.dtype(f"u{dtype.itemsize}")
        if value.dtype.itemsize != bits.itemsize:
            raise FaultError("GEM1001", f"{name} is a .{self.registers[name]} register")
        if name not in self.values:
            self.values[name] = np.zeros(self.count, bits)
            self.written[name] = np.zeros(self.count, np.bool_)
        self.values[name][active] = value.view(bits)
        self.written[name][active] = True


def number(text: str, dtype: np.dtype[Any]) -> Any:
    """A literal as a value of `dtype`."""
    if found := _FLOAT.fullmatch(text):
        wide = found.group(1) in "dD"
        value = struct.unpack(">d" if wide else ">f", bytes.fromhex(found.group(2)))[0]
        bits = np.array([value], np.float64 if wide else np.float32)
        same = dtype.kind != "f" and dtype.itemsize == bits.itemsize
        return bits.view(dtype)[0] if same else value
    try:
        value = int(text.rstrip("U"), 0)
    except ValueError:
        raise FaultError("GEM1001", f"{text} is no register, symbol or number") from None
    if dtype.kind in "ui":
        wrapped = value % (1 << 8 * dtype.itemsize)
        return np.array([wrapped], f"u{dtype.itemsize}").view(dtype)[0]
    return value
