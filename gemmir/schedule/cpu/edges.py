"""What becomes of the last tiles on a CPU, where an extent is not cut into whole ones."""

from __future__ import annotations

from collections.abc import Iterator

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine
from gemmir.schedule.cpu.tiles import has_even_rows


def peel_loop(extent: int, size: int) -> str:
    """A smaller last tile where `size` does not divide `extent`."""
    return "" if extent % size == 0 else " edges=peel"


def peel(gemm: Gemm, rows: int, columns: int) -> str:
    """Smaller last tiles where C is not cut into whole ones."""
    return peel_loop(gemm.m, rows) or peel_loop(gemm.n, columns)


def last_rows(extent: int, rows: int, machine: CpuMachine) -> str:
    """What becomes of rows that `rows` does not divide."""
    if extent % rows == 0:
        return ""
    return " edges=even" if has_even_rows(machine) else " edges=peel"


def open_tiles(*loops: tuple[str, int, str]) -> Iterator[str]:
    """Loops by name, size and edges, outermost first: one `tile` where they can share it."""
    edges = {last for _, _, last in loops} - {""}
    if len(edges) < 2:
        names, sizes = (",".join(str(loop[part]) for loop in loops) for part in (0, 1))
        yield f"tile{{loops={names} sizes={sizes}{''.join(edges)}}}"
        return
    for name, size, last in loops:
        yield f"tile{{loops={name} sizes={size}{last}}}"
