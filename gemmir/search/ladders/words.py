"""Numbers in sentences: sizes, and which cache holds them."""

from __future__ import annotations

from gemmir.machine import CpuMachine


def bytes_text(count: int) -> str:
    """A number of bytes with its unit: 512 bytes, 48 KiB, 4 MiB."""
    for unit, size in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= size:
            return f"{count / size:.4g} {unit}"
    return f"{count} bytes"


def held(size: int, machine: CpuMachine) -> str:
    """The nearest cache that holds `size` bytes, and the nearer one that does not."""
    caches = {"L1": machine.l1_bytes, "L2": machine.l2_bytes, "L3": machine.l3_bytes}
    passed = ""
    for name, capacity in caches.items():
        if size <= capacity:
            fits = f"what {name} ({bytes_text(capacity)}) holds"
            return f"more than {passed} and {fits}" if passed else fits
        passed = f"{name} ({bytes_text(capacity)})"
    return f"more than {passed}"


def per(count: float, of: float) -> str:
    """How many of one for each of another."""
    return f"{count / max(of, 1):.3g}"
