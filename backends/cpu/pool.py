"""The heap that kernels in this process take their packed buffers from.

A kernel calls `aligned_alloc` when it begins and `free` when it ends. Those of the C library return
a buffer of some megabytes to the system each time, and the next call pays a page fault for every
4 KiB of it again: 4 % of a product of 1024 cubed on Zen 5. So kernels that are loaded here get a
heap that keeps what they return: blocks of a power of two bytes, a few of each size, for all
kernels and threads. Larger blocks ask for huge pages, which Linux gives on request only
(madvise(2)).

Object files and libraries that are written for other programs call the C library.
"""

from __future__ import annotations

from typing import Final

PLACES: Final = 4
"""Blocks of each size that are kept: as many threads can call kernels and never allocate."""

LARGEST_KEPT: Final = 26
"""Blocks of up to 2 to this power bytes, 64 MiB, are kept: twice the largest L3 that a core here
has, of which default schedules pack a half at most."""

HUGE_PAGE: Final = 21
"""A huge page of x86-64, and of AArch64 with pages of 4 KiB, is 2 to this power bytes."""

FRONT: Final = 4096
"""Bytes of a block before its buffer, the last 16 of which say where the block begins and how large
it is; so a buffer begins on a page."""

TEXT: Final = """
@kept = internal global [{count} x ptr] zeroinitializer
declare noalias ptr @aligned_alloc(i64, i64)
declare void @free(ptr)
{declare_madvise}
declare i64 @llvm.ctlz.i64(i64, i1)
declare i64 @llvm.umax.i64(i64, i64)

define ptr @gemmir_take(i64 %alignment, i64 %size) nounwind {{
entry:
  %absurd = icmp ugt i64 %size, {absurd}
  br i1 %absurd, label %none, label %sized
none:
  ret ptr null
sized:
  %special = icmp ugt i64 %alignment, {front}
  %before = select i1 %special, i64 %alignment, i64 {front}
  %more = add i64 %size, %before
  %last = sub i64 %more, 1
  %zeros = call i64 @llvm.ctlz.i64(i64 %last, i1 false)
  %power = sub i64 64, %zeros
  %large = icmp ugt i64 %power, {largest}
  %own = or i1 %special, %large
  br i1 %own, label %make, label %look
look:
  %first = mul i64 %power, {places}
  br label %place
place:
  %n = phi i64 [ 0, %look ], [ %next, %empty ]
  %at = add i64 %first, %n
  %slot = getelementptr [{count} x ptr], ptr @kept, i64 0, i64 %at
  %found = atomicrmw xchg ptr %slot, ptr null acq_rel
  %got = icmp ne ptr %found, null
  br i1 %got, label %taken, label %empty
empty:
  %next = add i64 %n, 1
  %on = icmp ult i64 %next, {places}
  br i1 %on, label %place, label %make
taken:
  ret ptr %found
make:
  %bytes = shl i64 1, %power
  %huge = icmp uge i64 %power, {huge}
  %step = select i1 %huge, i64 {huge_bytes}, i64 {front}
  %wider = call i64 @llvm.umax.i64(i64 %step, i64 %alignment)
  %made = call noalias ptr @aligned_alloc(i64 %wider, i64 %bytes)
  %missing = icmp eq ptr %made, null
  br i1 %missing, label %none, label %there
there:
  br i1 %huge, label %ask, label %ready
ask:
  {madvise}
  br label %ready
ready:
  %new = getelementptr i8, ptr %made, i64 %before
  %base = getelementptr i8, ptr %new, i64 -16
  store ptr %made, ptr %base
  %size_at = getelementptr i8, ptr %new, i64 -8
  %kept_as = select i1 %own, i64 63, i64 %power
  store i64 %kept_as, ptr %size_at
  ret ptr %new
}}

define void @gemmir_give(ptr %buffer) nounwind {{
entry:
  %nothing = icmp eq ptr %buffer, null
  br i1 %nothing, label %done, label %some
done:
  ret void
some:
  %size_at = getelementptr i8, ptr %buffer, i64 -8
  %power = load i64, ptr %size_at
  %own = icmp ugt i64 %power, {largest}
  br i1 %own, label %drop, label %look
look:
  %first = mul i64 %power, {places}
  br label %place
place:
  %n = phi i64 [ 0, %look ], [ %next, %full ]
  %at = add i64 %first, %n
  %slot = getelementptr [{count} x ptr], ptr @kept, i64 0, i64 %at
  %swap = cmpxchg ptr %slot, ptr null, ptr %buffer acq_rel monotonic
  %put = extractvalue {{ ptr, i1 }} %swap, 1
  br i1 %put, label %done, label %full
full:
  %next = add i64 %n, 1
  %on = icmp ult i64 %next, {places}
  br i1 %on, label %place, label %drop
drop:
  %base = getelementptr i8, ptr %buffer, i64 -16
  %made = load ptr, ptr %base
  call void @free(ptr %made)
  ret void
}}
"""

LARGEST_ASKED: Final = 1 << 46
"""More than any computer has: such a size is refused before its power of two overflows."""

MADV_HUGEPAGE: Final = 14
"""Linux, include/uapi/asm-generic/mman-common.h."""

SYMBOLS: Final = {"aligned_alloc": "gemmir_take", "free": "gemmir_give"}
"""What kernels call, and what they get."""


def is_needed(object_bytes: bytes) -> bool:
    """Whether an object file allocates: its symbol table then holds the name."""
    return b"aligned_alloc" in object_bytes


def text(*, huge_pages: bool) -> str:
    """LLVM text of the heap; only Linux has pages that are huge on request."""
    return TEXT.format(
        count=PLACES * (LARGEST_KEPT + 1),
        places=PLACES,
        largest=LARGEST_KEPT,
        front=FRONT,
        absurd=LARGEST_ASKED,
        huge=HUGE_PAGE,
        huge_bytes=1 << HUGE_PAGE,
        declare_madvise="declare i32 @madvise(ptr, i64, i32)" if huge_pages else "",
        madvise=f"%advised = call i32 @madvise(ptr %made, i64 %bytes, i32 {MADV_HUGEPAGE})"
        if huge_pages
        else "",
    )
