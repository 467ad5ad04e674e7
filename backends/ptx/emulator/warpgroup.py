"""The products of a warpgroup: which are in flight, and in which registers their sums are.

The four warps of a warpgroup issue the same products in the same order, each at its own time. A
product happens when a wait asks for it, which is as late as it may; it reads shared memory then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

from gemmir.backends.ptx.emulator.async_reads import AsyncRead
from gemmir.backends.ptx.emulator.values import Array

if TYPE_CHECKING:
    from gemmir.backends.ptx.emulator.state import Block

WARPS: Final = 4
"""The warps of a warpgroup."""

ROWS: Final = 64
"""m of a product."""


@dataclass(eq=False)
class Tile:
    """Sums in registers, by their numbers; `data` is there once a product has happened."""

    slots: tuple[int, ...]
    data: Array | None = None


@dataclass(frozen=True, slots=True)
class Factors:
    """What one product multiplies: descriptors, or None for A in registers `a_slots`."""

    place: int
    a: int | None
    b: int
    a_slots: tuple[int, ...]
    adds: bool


class Multiplier(Protocol):
    """The instruction that a product is of."""

    def run(self, block: Block, warpgroup: Warpgroup, product: Product) -> None:
        """Multiply now."""
        ...

    def write_back(self, block: Block, tile: Tile, lanes: Array) -> None:
        """Put the sums of these threads into their registers."""
        ...


@dataclass(eq=False)
class Product:
    """One wgmma.mma_async; `warps` have issued it. Behind `rows` of A there never was anything."""

    by: Multiplier
    factors: Factors
    tile: Tile
    warps: set[int] = field(default_factory=set[int])
    reads: list[AsyncRead] = field(default_factory=list[AsyncRead])
    a_units: Array | None = None
    b_units: Array | None = None
    rows: int = ROWS

    @property
    def is_whole(self) -> bool:
        """Whether all warps have issued it."""
        return len(self.warps) == WARPS


@dataclass(eq=False)
class WarpState:
    """How far one warp is: what it has issued, its groups, and what it has waited for."""

    issued: int = 0
    grouped: int = 0
    groups: list[int] = field(default_factory=list[int])
    """For each group that was not waited for: the number of products up to its end."""
    waited: int = 0
    tiles: dict[tuple[int, ...], Tile] = field(default_factory=dict[tuple[int, ...], Tile])
    """The sums that are in flight in this warp."""
    last: dict[tuple[int, ...], int] = field(default_factory=dict[tuple[int, ...], int])
    """The number of the last product issued into each, and one more."""

    def commit(self) -> None:
        """wgmma.commit_group."""
        self.grouped = self.issued
        self.groups.append(self.issued)

    def bound(self, left: int) -> int:
        """How many products a wait for all but the last `left` groups asks for."""
        asked = len(self.groups) - left
        return self.groups[asked - 1] if asked > 0 else self.waited


def _warps() -> tuple[WarpState, ...]:
    return tuple(WarpState() for _ in range(WARPS))


@dataclass(eq=False)
class Warpgroup:
    """The products of one warpgroup in their order; the first `done` have happened."""

    number: int
    products: list[Product] = field(default_factory=list[Product])
    warps: tuple[WarpState, ...] = field(default_factory=_warps)
    done: int = 0

    @property
    def unfinished(self) -> str:
        """What the warps have left undone at the end, in words; "" where nothing."""
        for warp, state in enumerate(self.warps):
            if state.waited < state.issued:
                what = "in no group" if state.grouped < state.issued else "not waited for"
                return (
                    f"warp {WARPS * self.number + warp} ends and "
                    f"{state.issued - state.waited} of its wgmma.mma_async are {what}"
                )
        return ""
