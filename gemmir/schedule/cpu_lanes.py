"""Schedules for CPUs whose lanes go along k: C is thin, and its thin side shorter than a vector.

Where B is stored transposed and A has few rows, or C has few columns, what is read most lies along
k. A tile of C is then a vector for each element, which are added up at the end.
"""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu_model import balanced, item_bytes

THIN_ROWS = 16
"""Up to this many rows of A, a transposed B is used where it lies (measured on Zen 5: with more, a
copy in panels pays)."""

THIN_COLUMNS = 8
"""Up to this many columns a row of C is too short for a vector of f32 (measured on Zen 5)."""

LANE_VECTORS = 8
"""The least number of vectors along k: the sum of the lanes then costs less than the products."""

STREAMS = 5
"""Rows that are streamed at once from the long side (measured on Zen 5: with 8 and 12 prefetchers
reach less)."""

ALONG_K = "k"
"""What the lanes go along, as `vectorize` calls it."""

LANE_STEPS = 2
"""Unrolling of the loop over k: a step is a vector of each row, with up to 20 products."""


def is_along_k(gemm: Gemm, machine: CpuMachine) -> bool:
    """Whether `gemm` is of this class: thin, too large for L2, and A adjacent along k."""
    lanes = machine.lanes(item_bytes(gemm))
    is_plain = gemm.dtype in ("f32", "f64") and gemm.element_b == gemm.element
    is_apart = gemm.trans_a and gemm.leading("a") > 1
    if not is_plain or is_apart or gemm.k < LANE_VECTORS * lanes:
        return False
    large = (gemm.m + gemm.n) * gemm.k * item_bytes(gemm) > machine.l2_bytes
    few_rows = gemm.m <= THIN_ROWS and gemm.trans_b and gemm.n > gemm.m
    return large and (few_rows or (gemm.n <= min(THIN_COLUMNS, lanes) and gemm.m > gemm.n))


def lane_tile(gemm: Gemm, machine: CpuMachine) -> tuple[int, int]:
    """Rows and columns of a tile: the best ratio of products to loads that the registers hold."""
    long, short = max(gemm.m, gemm.n), min(gemm.m, gemm.n)
    room = machine.vector_registers - 2
    fitting = [
        (s, t)
        for s in range(1, STREAMS + 1)
        for t in range(1, short + 1)
        if s <= long and s * t + s + t <= room
    ]
    streamed, other = max(fitting, key=lambda f: (f[0] * f[1] / (f[0] + f[1]), f[0]))
    other = balanced(short, other, 1)
    return (streamed, other) if gemm.m > gemm.n else (other, streamed)


def along_k(gemm: Gemm, machine: CpuMachine) -> Iterator[str]:
    """The long side goes by once, and tiles of the thin one are taken in turn."""
    rows, columns = lane_tile(gemm, machine)
    is_packed = not gemm.trans_b and gemm.leading("b") > 1
    if is_packed:
        fits = gemm.n * gemm.k * item_bytes(gemm) <= machine.l2_bytes // 2
        yield f"promote{{operand=b to={'l2' if fits else 'l3'} layout=panel:1}}"
    order = f"m,n sizes={rows},{columns}" if gemm.m > gemm.n else f"n,m sizes={columns},{rows}"
    even = gemm.m % rows == 0 and gemm.n % columns == 0
    yield f"tile{{loops={order}{'' if even else ' edges=peel'}}}"
    yield "promote{operand=c to=registers}"
