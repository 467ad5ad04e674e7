"""What object files say of themselves."""

from __future__ import annotations

import struct
from typing import Final

ELF_MACHINES: Final = {62: "x86_64", 183: "aarch64"}
"""Architectures in an ELF header: e_machine at byte 18 (System V ABI, gABI 4.1, chapter 4)."""


def elf_machine(object_bytes: bytes) -> int | None:
    """The number of the architecture of an ELF file; None for another kind of file."""
    if object_bytes[:4] != b"\x7fELF" or len(object_bytes) < 64:
        return None
    (number,) = struct.unpack_from("<H", object_bytes, 18)
    return number


def elf_architecture(object_bytes: bytes) -> str | None:
    """LLVM's name of the architecture of an ELF file, where that is a known one."""
    number = elf_machine(object_bytes)
    return None if number is None else ELF_MACHINES.get(number)
