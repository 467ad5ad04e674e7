"""Machine code that calls a C function many times, so that the cost of a call from Python is lost.

Addresses and sizes are written into each loop as constants; a loop takes only the number of calls.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from gemmir.gemm import Gemm
from gemmir.llvm import Jit, TargetMachine, binding
from gemmir.machine.host import feature_string, host_cpu, host_machine

FLOAT: Final = {"f32": "float", "f64": "double"}
"""LLVM's name of an element type."""

ROW_MAJOR: Final = 101
NOT_TRANSPOSED: Final = 111
"""CblasRowMajor and CblasNoTrans of cblas.h."""

LOOP: Final = """
define i32 @repeat(i64 %count) {{
entry:
  br label %again
again:
  %done = phi i64 [ 0, %entry ], [ %next, %again ]
  {call}
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

_numbers: Final[Iterator[int]] = itertools.count()


@dataclass(frozen=True, kw_only=True)
class Repeat:
    """`repeat(count)` makes `count` calls; it raises where one of them reports a failure."""

    function: Callable[[int], int]
    owner: object

    def __call__(self, count: int) -> None:
        if self.function(count):
            raise MemoryError("a call failed; what was timed is not a result")


def kernel_loop(address: int, pointers: Sequence[int], owner: object) -> Repeat:
    """Calls of `int f(void *, ...)` at `address` with `pointers`; `owner` is kept alive."""
    arguments = ", ".join(map(_pointer, pointers))
    return _loop(f"%status = call i32 {_pointer(address, typed=False)}({arguments})", owner)


def cblas_loop(address: int, integer: str, gemm: Gemm, pointers: Sequence[int]) -> Repeat:
    """Calls of cblas_sgemm or cblas_dgemm at `address` on the pointers of a, b and c.

    `integer` is LLVM's type of the library's sizes: i32 for LP64, i64 for ILP64.
    """
    a, b, c = map(_pointer, pointers)
    real = FLOAT[gemm.dtype]
    order = ", ".join(f"i32 {value}" for value in (ROW_MAJOR, NOT_TRANSPOSED, NOT_TRANSPOSED))
    sizes = ", ".join(f"{integer} {value}" for value in (gemm.m, gemm.n, gemm.k))
    lda, ldb, ldc = (f"{integer} {gemm.leading(name)}" for name in "abc")
    arguments = f"{order}, {sizes}, {real} 1.0, {a}, {lda}, {b}, {ldb}, {real} 0.0, {c}, {ldc}"
    function = _pointer(address, typed=False)
    return _loop(f"call void {function}({arguments})\n  %status = add i32 0, 0", None)


def peak_loop(dtype: str) -> tuple[Repeat, int]:
    """Independent vector FMAs on registers, as fast as the core can; and the flops of one call."""
    item_bytes = np.dtype(np.float32 if dtype == "f32" else np.float64).itemsize
    lanes = host_machine().lanes(item_bytes)
    address, owner = _compiled(_peak_text(dtype, lanes), "peak")
    cell = np.array([0.5, 1.0], np.float32 if dtype == "f32" else np.float64)
    flops = 2 * lanes * ACCUMULATORS * STEPS
    return kernel_loop(address, [cell.ctypes.data], (owner, cell)), flops


def _peak_text(dtype: str, lanes: int) -> str:
    """Every sum becomes itself times cell[0] plus cell[1], `STEPS` times, and is then stored.

    With 0.5 and 1.0 it tends to 2, so that none becomes subnormal or infinite.
    """
    real, vector = FLOAT[dtype], f"<{lanes} x {FLOAT[dtype]}>"
    sums = range(ACCUMULATORS)

    def splat(name: str) -> str:
        return (
            f"  %{name}.0 = insertelement {vector} poison, {real} %{name}, i64 0\n"
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
        f"  %scale = load {real}, ptr %cell\n"
        f"  %second = getelementptr {real}, ptr %cell, i64 1\n"
        f"  %shift = load {real}, ptr %second\n"
        f"{splat('scale')}{splat('shift')}  br label %again\nagain:\n"
        f"  %i = phi i64 [ 0, %entry ], [ %next, %again ]\n{phis}{products}"
        f"  %next = add i64 %i, 1\n  %more = icmp slt i64 %next, {STEPS}\n"
        f"  br i1 %more, label %again, label %end\nend:\n{stores}  ret i32 0\n}}\n"
    )


def _pointer(address: int, *, typed: bool = True) -> str:
    return f"{'ptr ' if typed else ''}inttoptr (i64 {address} to ptr)"


def _loop(call: str, owner: object) -> Repeat:
    address, code = _compiled(LOOP.format(call=call), "repeat")
    prototype = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_int64)
    return Repeat(function=prototype(address), owner=(code, owner))


def _compiled(text: str, symbol: str) -> tuple[int, object]:
    """The address of `symbol` in a module of LLVM text, and what keeps its code alive."""
    llvm, machine = binding(), _machine()
    module = llvm.parse_assembly(text, llvm.create_context())
    module.triple, module.data_layout = host_cpu().triple, str(machine.target_data)
    module.verify()
    builder = llvm.JITLibraryBuilder().add_object_img(machine.emit_object(module))
    library = builder.export_symbol(symbol).link(_jit(), f"bench-{next(_numbers)}")
    return library[symbol], library


@cache
def _machine() -> TargetMachine:
    host = host_cpu()
    return (
        binding()
        .Target.from_triple(host.triple)
        .create_target_machine(
            cpu=host.name,
            features=feature_string(host.name),
            opt=3,
            reloc="pic",
            codemodel="default",
        )
    )


@cache
def _jit() -> Jit:
    return binding().create_lljit_compiler(_machine(), suppress_errors=True)
