"""How fast one core of this computer reads each level of its memory: a loop that only loads."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from gemmir.backends.cpu.load import assembled, link
from gemmir.bench.loops import Repeat, kernel_loop
from gemmir.machine.cpu import MIB, CpuMachine
from gemmir.machine.host import host_machine
from gemmir.measure import on_one_core

LOADS: Final = 8
"""Vectors loaded in one iteration, each combined with a register of its own."""

SAMPLES: Final = 7
"""The fastest counts: it is a limit that is asked for."""

SAMPLE_SECONDS: Final = 0.01

MOST_BYTES: Final = 256 * MIB
"""Of memory, which is read in an area four times as large as L3 where that is not more."""


@dataclass(frozen=True, kw_only=True)
class Bandwidth:
    """Bytes a second that were read of a level, in an area of so many bytes."""

    level: str
    bytes_per_second: float
    area_bytes: int


@cache
def bandwidths() -> tuple[Bandwidth, ...]:
    """Of each level of this computer, nearest first: about half a second."""
    machine = host_machine()
    with on_one_core():
        return tuple(_measured(level, size, machine) for level, size in _areas(machine))


def _areas(machine: CpuMachine) -> Iterator[tuple[str, int]]:
    """Areas that a level holds and the nearer one does not."""
    yield "L1", machine.l1_bytes // 2
    if machine.l2_bytes > 2 * machine.l1_bytes:
        yield "L2", machine.l2_bytes // 2
    if machine.l3_bytes > 2 * machine.l2_bytes:
        yield "L3", max(machine.l3_bytes // 4, 2 * machine.l2_bytes)
    yield "memory", min(4 * machine.l3_bytes, MOST_BYTES)


def _measured(level: str, size: int, machine: CpuMachine) -> Bandwidth:
    step = LOADS * machine.vector_bytes
    size -= size % step
    area = np.ones(size + machine.vector_bytes, np.uint8)
    shift = -area.ctypes.data % machine.vector_bytes
    address, library = _compiled(machine.vector_bytes)
    repeat = kernel_loop(address, [area.ctypes.data + shift], (library, area), [size])
    count = 1
    while (seconds := _seconds(repeat, count)) < SAMPLE_SECONDS:
        count *= max(2, min(16, int(SAMPLE_SECONDS / max(seconds, 1e-6))))
    least = min(_seconds(repeat, count) / count for _ in range(SAMPLES))
    return Bandwidth(level=level, bytes_per_second=size / least, area_bytes=size)


def _seconds(repeat: Repeat, count: int) -> float:
    """CPU time: another process on this core does not count."""
    start = time.thread_time()
    repeat(count)
    return time.thread_time() - start


def _compiled(vector_bytes: int) -> tuple[int, object]:
    library = link(assembled(_text(vector_bytes)), ("read",), {})
    return library["read"], library


def _text(vector_bytes: int) -> str:
    """`int read(void *area, int64_t bytes)`: every vector once, all combined and then stored."""
    vector, numbers = f"<{vector_bytes} x i8>", range(LOADS)
    phis = "".join(
        f"  %s{i} = phi {vector} [ zeroinitializer, %entry ], [ %t{i}, %again ]\n" for i in numbers
    )
    loads = "".join(
        f"  %o{i} = add i64 %at, {i * vector_bytes}\n"
        f"  %p{i} = getelementptr i8, ptr %area, i64 %o{i}\n"
        f"  %v{i} = load {vector}, ptr %p{i}, align {vector_bytes}\n"
        f"  %t{i} = xor {vector} %s{i}, %v{i}\n"
        for i in numbers
    )
    stores = "".join(f"  store volatile {vector} %t{i}, ptr %sink\n" for i in numbers)
    return (
        f"define i32 @read(ptr %area, i64 %bytes) {{\nentry:\n  %sink = alloca {vector}\n"
        f"  br label %again\nagain:\n  %at = phi i64 [ 0, %entry ], [ %next, %again ]\n"
        f"{phis}{loads}  %next = add i64 %at, {LOADS * vector_bytes}\n"
        f"  %more = icmp slt i64 %next, %bytes\n  br i1 %more, label %again, label %end\nend:\n"
        f"{stores}  ret i32 0\n}}\n"
    )
