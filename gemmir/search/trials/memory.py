"""Memory that the process of a trial shares with the one that judges it: arrays of every case.

A case is one set of operands and what must come out. `random` has numbers in [-1, 1), whose
results may be off by the a-priori bound; `whole` has small whole numbers, whose results are exact
in any order of the sums, so that not even the last bit may differ. Around every array and between
its rows lies what nobody may read or write (`gemmir.arrays`), and an output begins as that too.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gemmir.arrays import Operand, Operands, guarded_bytes
from gemmir.bench.operands import arguments_of, make
from gemmir.bench.race import expected_of
from gemmir.epilogue_steps import EXACT_STEPS
from gemmir.gemm import COUNTS, OFFSETS, Gemm
from gemmir.kernel import DTYPES
from gemmir.reference import Reference
from gemmir.signature import Argument

CASES: Final = ("whole", "random")
"""The last one is left in the arrays that are timed."""

AREAS: Final = (*CASES, "shown")
"""What the memory has: the arrays of each case, and those that a candidate shows."""

MOST: Final = 2
"""Whole numbers are up to this: every element type has them."""

MOST_FACTOR: Final = 16.0


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where each operand, with what lies around it, is in an area of the memory."""

    arguments: tuple[Argument, ...]

    @staticmethod
    def of(gemm: Gemm) -> Layout:
        """The layout for a problem."""
        return Layout(arguments=arguments_of(gemm))

    @property
    def area_bytes(self) -> int:
        """Bytes of an area."""
        return sum(map(_rounded, self.arguments))

    def operands(self, memory: mmap.mmap, area: str) -> Operands:
        """The operands in an area, as views."""
        at = AREAS.index(area) * self.area_bytes
        found: dict[str, Operand] = {}
        for argument in self.arguments:
            held = np.frombuffer(memory, np.uint8, guarded_bytes(argument), at)
            found[argument.name] = Operand(
                argument=argument, memory=held.view(DTYPES[argument.dtype])
            )
            at += _rounded(argument)
        return Operands(by_name=found)


def _rounded(argument: Argument) -> int:
    """Bytes of an operand in an area, in whole pages."""
    return -(-guarded_bytes(argument) // mmap.PAGESIZE) * mmap.PAGESIZE


@dataclass(frozen=True, kw_only=True)
class Case:
    """Operands and what must come out; `is_exact` says that no bit of it may differ."""

    name: str
    operands: Operands
    expected: Reference
    is_exact: bool

    def fault(self, shown: Operands) -> tuple[str, float | None]:
        """What is wrong with the memory of a candidate, "" for nothing; its largest error."""
        compared = self.expected.compare(shown.output)
        largest = None if compared.largest is None else compared.largest.ratio
        damage = shown.damage(self.operands)
        if damage:
            return f"{self.name} numbers: {damage}", largest
        if compared.first_wrong is not None:
            return f"{self.name} numbers: {compared.first_wrong}", largest
        return "", largest


class Memory:
    """The memory of all trials of one problem, and the cases that it has."""

    def __init__(self, gemm: Gemm, seed: int) -> None:
        self.layout = Layout.of(gemm)
        self.file = new_file(len(AREAS) * self.layout.area_bytes)
        self.map = mmap.mmap(self.file, 0)
        self.cases = tuple(self._case(gemm, name, seed) for name in CASES)
        self.shown = self.layout.operands(self.map, "shown")
        for name, operand in self.cases[-1].operands.by_name.items():
            self.shown.by_name[name].memory[:] = operand.memory

    def _case(self, gemm: Gemm, name: str, seed: int) -> Case:
        made = make(gemm, seed)
        if name == "whole":
            _make_whole(made, np.random.default_rng(seed))
        kept = self.layout.operands(self.map, name)
        for operand, held in made.by_name.items():
            kept.by_name[operand].memory[:] = held.memory
        expected = expected_of(gemm, kept)
        is_exact = name == "whole" and sums_exactly(gemm)
        if is_exact:
            expected = Reference(
                origin="whole numbers, exactly",
                expected=expected.expected,
                bound=np.zeros_like(expected.bound),
                view=expected.view,
            )
        return Case(name=name, operands=kept, expected=expected, is_exact=is_exact)

    def close(self) -> None:
        """Give the file back; the memory goes with the last view of it."""
        os.close(self.file)


def sums_exactly(gemm: Gemm) -> bool:
    """Whether sums of whole numbers up to `MOST` have no rounding, in any order on any unit."""
    factors = (gemm.alpha, gemm.beta)
    if any(f != round(f) or abs(f) > MOST_FACTOR for f in factors):
        return False
    if not set(gemm.steps) <= set(EXACT_STEPS):
        return False
    if gemm.accumulator.is_integer:
        return True
    scales = MOST ** (2 if gemm.scale_block else 1 if gemm.has_weights else 0)
    largest = abs(gemm.alpha) * gemm.k * MOST * MOST * scales
    largest += MOST * (abs(gemm.beta) + len(gemm.steps))
    return largest <= min(1 / gemm.product.sum_unit, 1 / gemm.result.unit)


def _make_whole(operands: Operands, generator: np.random.Generator) -> None:
    """Put small whole numbers where random ones were."""
    given: Mapping[str, Operand] = operands.by_name
    for name, operand in given.items():
        array = operand.array
        if name in (OFFSETS, COUNTS) or operand.argument.access == "write":
            continue
        least = 0 if array.dtype.kind == "u" else -MOST
        if operand.argument.element.per_byte > 1:
            low, high = (generator.integers(-MOST, MOST + 1, array.shape) & 15 for _ in range(2))
            array[...] = low | high << 4
        else:
            drawn: Any = generator.integers(least, MOST + 1, array.shape)
            array[...] = drawn.astype(array.dtype)


def new_file(size: int) -> int:
    """A file without a name, which goes with the last process that has it open."""
    if hasattr(os, "memfd_create"):
        file = os.memfd_create("gemmir-trials")
    else:
        with tempfile.TemporaryFile() as named:
            file = os.dup(named.fileno())
    os.ftruncate(file, size)
    return file
