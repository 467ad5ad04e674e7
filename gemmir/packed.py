"""An operand that lies as a kernel reads it, packed once for many calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmir.errors import CallError
from gemmir.signature import Signature

ALIGNMENT: Final = 4096
"""Packed operands begin on a page, as the buffers of kernels do."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """What `kernel.prepack(b)` gives: to be passed to kernels of the same problem in b's place.

    It holds a copy: what is written to the array afterwards does not change it. `compute` is the
    function that reads it, for arrays of the other operands; it is the one at `place` of them.
    `purpose` is that of the kernels that it is for: see `gemmir.kernel.Kernel`.
    """

    operand: str
    place: int
    array: npt.NDArray[Any]
    signature: Signature
    purpose: str
    compute: Callable[..., Any]

    def __repr__(self) -> str:
        return f"<{self.operand} packed for {self.signature.symbol}, {self.array.nbytes} bytes>"


@dataclass(frozen=True, kw_only=True)
class Packing:
    """The two functions of a packed operand, as kernels."""

    operand: str
    pack: Callable[..., Any]
    compute: Callable[..., Any]
    elements: int
    dtype: np.dtype[Any]

    def new(self) -> npt.NDArray[Any]:
        """Memory for the packed operand, at the start of a page."""
        size = self.elements * self.dtype.itemsize
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.__array_interface__["data"][0] % ALIGNMENT
        return memory[start : start + size].view(self.dtype)


def packed_among(operands: Sequence[object], named: Mapping[str, object]) -> Packed | None:
    """The packed operand of a call; None where there is none."""
    for value in operands:
        if type(value) is Packed:
            return value
    for value in named.values():
        if type(value) is Packed:
            return value
    return None


def unpacked(
    packed: Packed, purpose: str, operands: Sequence[object], named: Mapping[str, object]
) -> tuple[list[object], dict[str, object]]:
    """The operands for `packed.compute`: `CallError` GEM1345 where `packed` is out of place."""
    if packed.purpose == purpose and not named:
        at = packed.place
        if len(operands) > at and operands[at] is packed:
            return [*operands[:at], packed.array, *operands[at + 1 :]], {}
    if packed.purpose != purpose:
        raise CallError(
            "GEM1345",
            f"{packed!r} is given to another kernel",
            "pack it with that kernel, or one of the same problem, target, schedule and threads",
        )
    names = [argument.name for argument in packed.signature.arguments]
    given = {**dict(zip(names, operands, strict=False)), **named}
    wrong = [n for n, value in given.items() if isinstance(value, Packed) and value is not packed]
    wrong += [n for n, value in given.items() if value is packed and n != packed.operand]
    if wrong:
        raise CallError(
            "GEM1345", f"{wrong[0]} is {packed!r}", f"pass it as {packed.operand}, once"
        )

    def plain(value: object) -> object:
        return packed.array if value is packed else value

    return [plain(value) for value in operands], {n: plain(value) for n, value in named.items()}
