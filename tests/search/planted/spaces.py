"""Twenty problems, each with a space of which some points are faster and wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule import default_schedule

HERE: Final = Path(__file__).parent
"""On PYTHONPATH it gives every process the pass `hurry`."""

PROBLEMS: Final[dict[str, dict[str, Any]]] = {
    "plain": {"m": 96, "n": 80, "k": 64},
    "odd": {"m": 37, "n": 83, "k": 61, "epilogue": "bias+relu"},
    "double": {"m": 64, "n": 48, "k": 80, "dtype": "f64"},
    "half": {"m": 64, "n": 96, "k": 128, "dtype": "bf16"},
    "bytes": {"m": 64, "n": 64, "k": 64, "dtype": "i8", "epilogue": "relu"},
    "batch": {"m": 32, "n": 48, "k": 40, "batch": 3},
    "stored": {"m": 48, "n": 64, "k": 96, "trans_b": True, "beta": 1.0},
    "large": {"m": 256, "n": 256, "k": 256},
}


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A problem and what is left out of its kernel."""

    problem: str
    what: str
    at: int = 0
    gemm: Gemm = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "gemm", Gemm(**PROBLEMS[self.problem]))

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.problem}, {self.what} {self.at}"

    @property
    def fault(self) -> str:
        """The pass that does it."""
        return f"hurry{{what={self.what} at={self.at}}}"

    def right(self, target: str = "cpu") -> tuple[str, ...]:
        """The passes without it: those of the default schedule."""
        return default_schedule(self.gemm, machine_for(target)).steps

    def wrong(self, target: str = "cpu") -> str:
        """The schedule with it."""
        return ",".join((*self.right(target), self.fault))

    def space(self, target: str = "cpu") -> str:
        """The default schedule with a hole for how often k is unrolled, and one for the fault."""
        return "\n".join(self._lines(target))

    def _lines(self, target: str) -> Iterator[str]:
        steps = self.right(target)
        unrolled = any(step.startswith("unroll{") for step in steps)
        if unrolled:
            yield "?u = 2 | 4"
        yield f"?fault = '' | '{self.fault}'"
        for step in steps:
            yield "unroll{loop=k factor=?u}" if step.startswith("unroll{") else step
        yield "?fault"


PLANTED: Final = (
    Planted(problem="plain", what="k_half"),
    Planted(problem="plain", what="k_short"),
    Planted(problem="plain", what="last_tile"),
    Planted(problem="plain", what="drop_product"),
    Planted(problem="plain", what="drop_products"),
    Planted(problem="plain", what="drop_store"),
    Planted(problem="odd", what="k_half"),
    Planted(problem="odd", what="no_relu"),
    Planted(problem="odd", what="drop_products"),
    Planted(problem="double", what="k_half"),
    Planted(problem="double", what="drop_product", at=1),
    Planted(problem="half", what="k_half"),
    Planted(problem="half", what="drop_store"),
    Planted(problem="bytes", what="drop_products"),
    Planted(problem="bytes", what="no_relu"),
    Planted(problem="batch", what="last_tile"),
    Planted(problem="stored", what="k_half"),
    Planted(problem="stored", what="drop_products"),
    Planted(problem="large", what="k_half"),
    Planted(problem="large", what="drop_products"),
)
