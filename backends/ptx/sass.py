"""Machine code of GPUs as text, by NVIDIA's nvdisasm, and what its main loop does.

cuobjdump prints the same, but calls nvdisasm for it.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gemmir.backends.ptx.assemble import find_tool
from gemmir.errors import BackendError, MissingError

OF_WARPGROUPS: Final = ("HGMMA", "QGMMA", "IGMMA")
PRODUCTS: Final = ("FFMA", "FFMA2", "DFMA", "HMMA", "IMMA", "DMMA", "QMMA", *OF_WARPGROUPS)
"""The instructions that a product is made of; the other multiply-adds make addresses."""

_WAIT: Final = re.compile(r"^\.DEPBAR\b")
_FUNCTION: Final = re.compile(r"^\s*\.section\s+\.text\.")
_LABEL: Final = re.compile(r"^(\.L\w+):")
_INSTRUCTION: Final = re.compile(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9]*)([^;]*);")
_PLACE: Final = re.compile(r"`\((\.L\w+)\)")


@dataclass(frozen=True, kw_only=True)
class SassLoop:
    """A loop of machine code: how often each of its opcodes stands there, the most frequent first.

    An opcode is named without its modifiers: LDS, not LDS.128. `waits` are those of a warpgroup for
    its products; where ptxas has put them one after the other, there is one for each.
    """

    opcodes: dict[str, int]
    waits: int = 0

    @property
    def instructions(self) -> int:
        """All instructions of one iteration."""
        return sum(self.opcodes.values())

    @property
    def products(self) -> int:
        """The instructions that multiply."""
        return sum(self.opcodes.get(name, 0) for name in PRODUCTS)

    @property
    def share(self) -> float:
        """The part of the instructions that multiplies."""
        return self.products / self.instructions

    @property
    def others_per_product(self) -> float:
        """Instructions that do not multiply, for each that does."""
        return (self.instructions - self.products) / self.products


def find_nvdisasm() -> str | None:
    """The path of nvdisasm, None where there is none."""
    return find_tool("nvdisasm")


def disassemble(cubin: bytes) -> str:
    """`cubin` as SASS.

    Raises `MissingError` GEM0612 where there is no nvdisasm, `BackendError` GEM0451 where it does
    not read the code, which may be for a GPU newer than it.
    """
    tool = find_nvdisasm()
    if tool is None:
        raise MissingError(
            "GEM0612",
            "nvdisasm is not on PATH, under CUDA_HOME or CUDA_PATH, or in a Python package",
            "install the CUDA toolkit, or pip install gemmir[ptxas]",
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.cubin")
        source.write_bytes(cubin)
        command = [tool, "-c", str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise BackendError("GEM0451", f"nvdisasm does not read the code: {said}")
    return done.stdout


def main_loop(sass: str) -> SassLoop | None:
    """The innermost loop with most instructions that multiply; None where there is none."""
    found = [
        SassLoop(
            opcodes=dict(Counter(name for name, _ in body).most_common()),
            waits=sum(name == "WARPGROUP" and bool(_WAIT.match(more)) for name, more in body),
        )
        for function in _functions(sass)
        for body in function.innermost()
    ]
    best = max(found, key=lambda loop: loop.products, default=None)
    return best if best is not None and best.products else None


@dataclass
class _Function:
    """One function: its opcodes and what follows each, its labels, and where it branches to."""

    opcodes: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    labels: dict[str, int] = field(default_factory=dict[str, int])
    branches: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])

    def innermost(self) -> Iterator[Sequence[tuple[str, str]]]:
        """The opcodes from a label to the last branch back to it, where no product is in another.

        A loop that waits for a barrier may be between. What waits longer stands at the end of the
        code and branches back into the middle of a loop, which makes no other.
        """
        places = [(self.labels.get(label, last + 1), last) for last, label in self.branches]
        loops = {first: last for first, last in places if self._multiplies(first, last)}
        for first, last in loops.items():
            is_outer = any(first < f and g <= last for f, g in loops.items())
            is_return = any(f < first <= g < last for f, g in loops.items())
            if not (is_outer or is_return):
                yield self.opcodes[first : last + 1]

    def _multiplies(self, first: int, last: int) -> bool:
        return any(name in PRODUCTS for name, _ in self.opcodes[first : last + 1])


def _functions(sass: str) -> list[_Function]:
    functions = [_Function()]
    for line in sass.splitlines():
        current = functions[-1]
        if _FUNCTION.match(line):
            functions.append(_Function())
        elif label := _LABEL.match(line):
            current.labels[label[1]] = len(current.opcodes)
        elif found := _INSTRUCTION.match(line):
            opcode, operands = found.groups()
            place = _PLACE.search(operands)
            if opcode == "BRA" and place:
                current.branches.append((len(current.opcodes), place[1]))
            current.opcodes.append((opcode, operands))
    return functions
