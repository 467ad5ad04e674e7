"""What a contestant is, inside its process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from gemmir.gemm import Gemm

Array = npt.NDArray[Any]


class UnableError(Exception):
    """A library is not here, or does not do this problem; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """One problem, ready to be computed: `repeat(count)` makes so many calls.

    `output` gives the result of the last call. `about` is what a results file says of it.
    """

    repeat: Callable[[int], None]
    output: Callable[[], Array]
    flops: int
    about: Mapping[str, Any]


class Peer(Protocol):
    """A library in this process: `about` names its version, file and code path."""

    @property
    def about(self) -> Mapping[str, str]: ...

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """Make ready for `gemm` on `arrays`, by operand name; `UnableError` where it cannot."""
        ...


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a contestant is to run: `target` names the CPU that code is made for.

    `call` is the way of calling, where it is that which is compared.
    """

    target: str
    threads: int
    schedule: str | None = None
    call: str = ""


def require(holds: bool, reason: str) -> None:
    """`UnableError` with `reason` unless it holds."""
    if not holds:
        raise UnableError(reason)


def plain_product(gemm: Gemm) -> None:
    """`UnableError` where a BLAS does not do it all: it has no epilogue, no groups, no scales."""
    require(not gemm.epilogue, "it has no epilogue")
    matrices_only(gemm)


def matrices_only(gemm: Gemm) -> None:
    """`UnableError` where it takes more than plain matrices."""
    require(gemm.groups is None, "it has no groups of products")
    require(gemm.scale_block is None, "it has no scales of blocks")
    require(not gemm.has_weights, f"it has no weights of {gemm.element_b.name}")


def one_type(gemm: Gemm) -> None:
    """`UnableError` where A and B have different types."""
    require(gemm.element_b.name == gemm.element.name, "its A and B have one type")
