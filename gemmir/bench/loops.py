"""Machine code that calls a C function many times, so that the cost of a call from Python is lost.

Addresses and sizes are written into each loop as constants; a loop takes only the number of calls.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from gemmir.backends.cpu.load import assembled, link
from gemmir.machine import CpuMachine

FLOAT: Final = {"f32": "float", "f64": "double"}
"""LLVM's name of an element type."""

LOOP: Final = """
define i32 @repeat(i64 %count) {{
entry:
  br label %again
again:
  %done = phi i64 [ 0, %entry ], [ %next, %end.each ]
  br label %each
each:
  %i = phi i64 [ 0, %again ], [ %i.next, %each ]
{pointers}  {call}
  %i.next = add i64 %i, 1
  %more.each = icmp slt i64 %i.next, {items}
  br i1 %more.each, label %each, label %end.each
end.each:
  %next = add i64 %done, 1
  %more = icmp slt i64 %next, %count
  %good = icmp eq i32 %status, 0
  %on = and i1 %more, %good
  br i1 %on, label %again, label %end
end:
  ret i32 %status
}}
"""

ACCUMULATORS: Final = 12
"""Independent sums of the peak loop: two FMA units with a latency of 4 need 8, and with the two
operands they fit the 16 vector registers of AVX2."""

STEPS: Final = 10_000
"""Iterations of one call of the peak loop, some 20 us."""


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """`repeat(count)` makes `count` calls; it raises where the last of them reports a failure."""

    function: Callable[[int], int]
    owner: object

    def __call__(self, count: int) -> None:
        if self.function(count):
            raise MemoryError("a call failed; what was timed is not a result")


@dataclass(frozen=True, kw_only=True)
class Moving:
    """A pointer argument: `stride_bytes` further for each product of a batch."""

    address: int
    stride_bytes: int = 0


Argument = str | Moving
"""One argument of a C call: LLVM text with its type, or a pointer."""


def call_loop(
    address: int,
    arguments: Sequence[Argument],
    *,
    result: str = "void",
    items: int = 1,
    owner: object = None,
) -> Repeat:
    """Calls of the C function at `address`, `items` of them each time; `owner` is kept alive.

    `result` is LLVM's type of what it returns: an i32 is 0 unless it failed.
    """
    texts: list[str] = []
    pointers = ""
    for number, argument in enumerate(arguments):
        if isinstance(argument, str):
            texts.append(argument)
        elif items > 1 and argument.stride_bytes:
            pointers += (
                f"  %o{number} = mul i64 %i, {argument.stride_bytes}\n"
                f"  %p{number} = getelementptr i8, {_pointer(argument.address)}, i64 %o{number}\n"
            )
            texts.append(f"ptr %p{number}")
        else:
            texts.append(_pointer(argument.address))
    call = f"call {result} {_pointer(address, typed=False)}({', '.join(texts)})"
    is_status = result == "i32"
    call = f"%status = {call}" if is_status else f"{call}\n  %status = add i32 0, 0"
    text = LOOP.format(call=call, pointers=pointers, items=items)
    code, library = _compiled(text, "repeat")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)
    return Repeat(function=prototype(code), owner=(library, owner))


def kernel_loop(
    address: int, pointers: Sequence[int], owner: object, sizes: Sequence[int] = ()
) -> Repeat:
    """Calls of `int f(void *, ..., int64_t, ...)` at `address`; `owner` is kept alive."""
    arguments: list[Argument] = [Moving(address=pointer) for pointer in pointers]
    arguments += [f"i64 {size}" for size in sizes]
    return call_loop(address, arguments, result="i32", owner=owner)


def real(dtype: str, value: float) -> str:
    """A number of type f32 or f64 as LLVM writes it, with its type."""
    exact = float(np.float32(value)) if dtype == "f32" else value
    return f"{FLOAT[dtype]} 0x{struct.pack('>d', exact).hex().upper()}"


def peak_loop(dtype: str, machine: CpuMachine) -> tuple[Repeat, int]:
    """Independent vector FMAs on registers, as fast as the core can; and the flops of one call."""
    numpy_type = np.dtype(np.float32 if dtype == "f32" else np.float64)
    lanes = machine.lanes(numpy_type.itemsize)
    address, owner = _compiled(_peak_text(dtype, lanes), "peak")
    cell = np.array([0.5, 1.0], numpy_type)
    flops = 2 * lanes * ACCUMULATORS * STEPS
    return kernel_loop(address, [cell.ctypes.data], (owner, cell)), flops


def _peak_text(dtype: str, lanes: int) -> str:
    """Every sum becomes itself times cell[0] plus cell[1], `STEPS` times, and is then stored.

    With 0.5 and 1.0 it tends to 2, so that none becomes subnormal or infinite.
    """
    scalar, vector = FLOAT[dtype], f"<{lanes} x {FLOAT[dtype]}>"
    sums = range(ACCUMULATORS)

    def splat(name: str) -> str:
        return (
            f"  %{name}.0 = insertelement {vector} poison, {scalar} %{name}, i64 0\n"
            f"  %{name}.v = shufflevector {vector} %{name}.0, {vector} poison, "
            f"<{lanes} x i32> zeroinitializer\n"
        )

    phis = "".join(
        f"  %s{i} = phi {vector} [ %shift.v, %entry ], [ %t{i}, %again ]\n" for i in sums
    )
    products = "".join(
        f"  %t{i} = call {vector} @llvm.fma.v{lanes}{dtype}"
        f"({vector} %s{i}, {vector} %scale.v, {vector} %shift.v)\n"
        for i in sums
    )
    stores = "".join(f"  store volatile {vector} %t{i}, ptr %sink\n" for i in sums)
    return (
        f"declare {vector} @llvm.fma.v{lanes}{dtype}({vector}, {vector}, {vector})\n"
        f"define i32 @peak(ptr %cell) {{\nentry:\n"
        f"  %sink = alloca {vector}\n"
        f"  %scale = load {scalar}, ptr %cell\n"
        f"  %second = getelementptr {scalar}, ptr %cell, i64 1\n"
        f"  %shift = load {scalar}, ptr %second\n"
        f"{splat('scale')}{splat('shift')}  br label %again\nagain:\n"
        f"  %i = phi i64 [ 0, %entry ], [ %next, %again ]\n{phis}{products}"
        f"  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, {STEPS}\n"
        f"  br i1 %more, label %again, label %end\nend:\n{stores}  ret i32 0\n}}\n"
    )


def _pointer(address: int, *, typed: bool = True) -> str:
    return f"{'ptr ' if typed else ''}inttoptr (i64 {address} to ptr)"


def _compiled(text: str, symbol: str) -> tuple[int, object]:
    """The address of `symbol` in a module of LLVM text, and what keeps its code alive."""
    library = link(assembled(text), (symbol,), {})
    return library[symbol], library
