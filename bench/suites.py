"""What is measured: the problems of every suite and the bar that each has to meet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from harness import GEMMIR, PRODUCT, Measured

from gemmir.gemm import Gemm


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure beside what it is to be."""

    value: float
    bar: str
    is_met: bool


@dataclass(frozen=True, kw_only=True)
class AtLeast:
    """Time of the fastest of `peers` over gemmir's must be `ratio`."""

    ratio: float
    peers: tuple[str, ...]

    def judge(self, measured: Mapping[str, Measured]) -> Verdict | None:
        """None where no such peer was measured."""
        ratios = [ratio(measured, name) for name in self.peers if name in measured]
        if not ratios:
            return None
        value = min(ratios)
        return Verdict(value=value, bar=f">= {self.ratio:g}", is_met=value >= self.ratio)


@dataclass(frozen=True, kw_only=True)
class Overhead:
    """The epilogue must add less than `part` of the time of the product."""

    part: float

    def judge(self, measured: Mapping[str, Measured]) -> Verdict | None:
        """Always a verdict: both contestants are gemmir's own."""
        value = overhead(measured)
        return Verdict(value=value, bar=f"< {self.part:.0%}", is_met=value < self.part)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem, and its bar where it has one."""

    gemm: Gemm
    bar: AtLeast | Overhead | None = None
    course: Literal["product", "epilogue"] = "product"


def ratio(measured: Mapping[str, Measured], peer: str) -> float:
    """CPU time of `peer` over gemmir's, of medians: more than 1 means that gemmir is faster."""
    return measured[peer].cpu.seconds / measured[GEMMIR].cpu.seconds


def overhead(measured: Mapping[str, Measured]) -> float:
    """What the epilogue adds, as a part of the CPU time of the product."""
    return 1 / ratio(measured, PRODUCT) - 1


OPENBLAS: Final = AtLeast(ratio=0.98, peers=("openblas",))
SMALL: Final = {16: 2.0, 32: 1.2, 64: 1.0}
"""Edge of a small square and the ratio that it must reach."""
EPILOGUE: Final = Overhead(part=0.04)

BERT_UP: Final = (128, 3072, 768)
BERT_DOWN: Final = (128, 768, 3072)
"""The two layers of BERT-base's MLP on 128 tokens: arXiv:1810.04805, section 3."""

SKINNY: Final = (
    *((m, 4096, 4096) for m in (1, 4, 8, 16, 64)),
    BERT_UP,
    BERT_DOWN,
    (4096, 64, 4096),
    (64, 64, 65536),
    (2048, 2048, 64),
    (32, 32, 4096),
)


def shape(m: int, n: int, k: int, dtype: str = "f32", epilogue: str = "") -> Gemm:
    """A row-major problem."""
    return Gemm(m=m, n=n, k=k, dtype=dtype, epilogue=epilogue)


SUITES: Final[Mapping[str, tuple[Case, ...]]] = {
    "squares": tuple(
        Case(gemm=shape(n, n, n, dtype), bar=OPENBLAS)
        for dtype in ("f32", "f64")
        for n in (512, 1024, 2048)
    ),
    "small": tuple(
        Case(gemm=shape(n, n, n), bar=AtLeast(ratio=ratio, peers=("openblas", "mkl")))
        for n, ratio in SMALL.items()
    ),
    "odd": tuple(Case(gemm=shape(n, n, n)) for n in (31, 127, 255, 513, 1000, 1023)),
    "skinny": tuple(Case(gemm=shape(*sizes)) for sizes in SKINNY),
    "epilogue": tuple(
        Case(gemm=shape(*sizes, epilogue="bias+gelu"), bar=EPILOGUE, course="epilogue")
        for sizes in ((1024, 1024, 1024), BERT_UP)
    ),
}
"""The throughput suites, in the order in which they run."""
