"""Loops of machine code: how often they call, with which pointers, and what a failure does."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from gemmir.bench.loops import Moving, call_loop, peak_loop, real
from gemmir.bench.operands import dequantised, make
from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, machine_for
from gemmir.machine.cpu import X86_64_V3

Callback = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_int64)


def test_pointers_move_with_the_items_of_a_batch():
    seen: list[tuple[int, int]] = []

    def note(pointer: int, number: int) -> int:
        seen.append((pointer, number))
        return 0

    callback = Callback(note)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    moving = Moving(address=4096, stride_bytes=24)
    call_loop(address, [moving, "i64 7"], result="i32", items=3, owner=callback)(2)
    assert seen == [(4096 + 24 * item, 7) for item in (0, 1, 2)] * 2
    seen.clear()
    call_loop(address, [moving, "i64 7"], result="void", owner=callback)(2)
    assert seen == [(4096, 7)] * 2


def test_a_call_that_fails_ends_the_loop():
    calls: list[int] = []

    def fail(pointer: int, number: int) -> int:
        calls.append(number)
        return 1

    callback = Callback(fail)
    address = ctypes.cast(callback, ctypes.c_void_p).value
    assert address is not None
    with pytest.raises(MemoryError):
        call_loop(address, [Moving(address=1), "i64 0"], result="i32")(5)
    assert calls == [0]


def test_numbers_are_exact():
    assert real("f64", 1.0) == "double 0x3FF0000000000000"
    assert real("f32", 0.1) == f"float 0x{np.float64(np.float32(0.1)).view(np.uint64):016X}"


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_the_peak_is_of_the_vectors_of_the_machine(dtype: str):
    machine = machine_for("cpu")
    assert isinstance(machine, CpuMachine)
    repeat, flops = peak_loop(dtype, machine)
    repeat(1)
    assert flops % (2 * machine.lanes(8 if dtype == "f64" else 4)) == 0
    assert flops >= peak_loop(dtype, X86_64_V3)[1]


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("dtype_b", ["i8", "i4"])
def test_weights_in_f32_stand_for_the_same_product(dtype_b: str, trans_b: bool):
    gemm = Gemm(m=3, n=4, k=22, dtype_b=dtype_b, weight_group=8, trans_b=trans_b)
    arrays = {name: operand.array for name, operand in make(gemm, 1).by_name.items()}
    same, converted = dequantised(gemm, arrays)
    found = same.reference(converted)
    assert np.all(np.abs(found - gemm.reference(arrays)) <= gemm.error_bound(arrays))
    assert converted["b"].dtype == np.float32 and not same.has_weights
