"""What libtpu's schedule of a kernel says of its main loop: bundles, units, spills.

libtpu dumps the code of an op as VLIW bundles after register allocation, the empty bundles in which
it waits for a unit included, and how many of each unit every bundle occupies. So a bundle is a
cycle, except that what a copy is waited for is not in it.

    0x10 LB: > { … sbr.rel (%p12) target bundleno = 636 … }      a loop begins; a branch
    MATMUL, MATPUSH, XLU, …  /  4 4 3 …  /  2 1 0 …              units, how many, and what is busy

The dump after the delay converter, which is called final, lacks the empty bundles: it is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PASSES: Final = "(packed-bundles-post-ra|pre-delay)"
"""The passes whose dumps are read; all of them would be hundreds of megabytes."""

BUNDLES: Final = "-packed-bundles-post-ra.txt"
UTILISATION: Final = "-pre-delay_hlo-static-per-bundle-utilization.txt"

DELAY_SLOTS: Final = 4
"""Bundles behind a branch that run before it is taken."""

MATMUL: Final = "MATMUL"
FILL: Final = "VLOAD:FILL"
SPILL: Final = "VSTORE:SPILL"

_BUNDLE: Final = re.compile(r"^\s*(0x[0-9a-f]+|0)\s+([A-Z]{2})?\s*:\s*([> ]*)\{(.*)")
_BRANCH: Final = re.compile(r"sbr\.rel (\(!?%\w+\) )?target bundleno = (\d+)")
_NUMBERS: Final = re.compile(r"^[\d ]+$")


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The loop that multiplies most, as it runs in most of its iterations.

    `bundles` are the cycles of one iteration, waits for copies aside; `edge_bundles` those that
    only some iterations have, such as the first and the last along k. `slots` is the part of the
    slots of each unit that an iteration occupies, `mxu_busy_cycles` that of the matrix units in
    cycles. `spills` and `fills` are vector registers stored and loaded again in an iteration.
    `depth` is 1 for a loop that is in no other; otherwise `around_bundles` are those of the
    outermost loop around it that are not in it. A kernel without a loop counts as one iteration.
    """

    bundles: int
    edge_bundles: int
    around_bundles: int
    mxu_busy_cycles: float
    slots: Mapping[str, float]
    spills: int
    fills: int
    depth: int
    kernel_bundles: int

    @property
    def mxu_occupancy(self) -> float:
        """The part of an iteration in which the matrix units are busy."""
        return self.mxu_busy_cycles / self.bundles


@dataclass(frozen=True, kw_only=True)
class Region:
    """Bundles from `first` up to `end`, which is not in it, in a loop or behind a branch."""

    first: int
    end: int
    depth: int = 0

    def __contains__(self, other: Region) -> bool:
        return self.first <= other.first and other.end <= self.end


@dataclass(frozen=True, kw_only=True)
class Listing:
    """The bundles of one op: its loops, what branches skip, and the units busy in each bundle."""

    units: tuple[str, ...]
    capacity: tuple[int, ...]
    rows: tuple[tuple[int, ...], ...]
    loops: tuple[Region, ...]
    skips: tuple[Region, ...]

    def busy(self, region: Region) -> list[int]:
        """Slots of each unit that the bundles of a region occupy, together."""
        rows = self.rows[region.first : region.end]
        return [sum(column) for column in zip(*rows, strict=True)] or [0] * len(self.units)

    def products(self, region: Region) -> int:
        """Slots of the matrix units that a region occupies."""
        return self.busy(region)[self.units.index(MATMUL)]


def listings(folder: Path) -> dict[str, Listing]:
    """The listings of all ops that libtpu dumped into `folder`, by the names of the ops.

    What has another form, as that of other versions of libtpu may, is left out.
    """
    found: dict[str, Listing] = {}
    for path in folder.glob(f"*{UTILISATION}"):
        stamp, rest = path.name.removesuffix(UTILISATION).split("-", 1)
        name = rest.rsplit("-", 1)[0]
        bundles = [*folder.glob(f"{stamp}-{_literal(name)}-[0-9]*{BUNDLES}")]
        code = [b for b in bundles if "schedule-analysis" not in b.name]
        if code and not name.startswith(("TLP", "<")):
            with suppress(ValueError):
                found[name] = listing(code[0].read_text(), path.read_text())
    return found


def _literal(name: str) -> str:
    """`name` as a pattern of file names that only it matches."""
    return re.sub(r"[\[\]*?]", lambda found: f"[{found[0]}]", name)


def listing(bundles: str, utilisation: str) -> Listing:
    """The two dumps of one op, put together; `ValueError` where they are not such dumps."""
    lines = utilisation.splitlines()
    units = next((line for line in lines if line.startswith(MATMUL)), "")
    numbers = [tuple(map(int, line.split())) for line in lines if _NUMBERS.match(line)]
    names = tuple(name.strip() for name in units.split(","))
    if not units or not numbers or any(len(row) != len(names) for row in numbers):
        raise ValueError("no table of units")
    loops, branches = _structure(bundles)
    rows = tuple(numbers[1:])
    regions = [
        Region(first=start, end=_end(start, branches, len(rows)), depth=depth)
        for start, depth in loops.items()
    ]
    skips = [
        Region(first=at + DELAY_SLOTS + 1, end=target)
        for at, target, conditional in branches
        if conditional and at + DELAY_SLOTS + 1 < target <= len(rows)
    ]
    return Listing(
        units=names,
        capacity=numbers[0],
        rows=rows,
        loops=tuple(region for region in regions if region.end > region.first),
        skips=tuple(skips),
    )


def _structure(text: str) -> tuple[dict[int, int], list[tuple[int, int, bool]]]:
    """Where loops begin, with their depth, and the branches: from, to, whether conditional."""
    loops: dict[int, int] = {}
    branches: list[tuple[int, int, bool]] = []
    at = 0
    for line in text.splitlines():
        found = _BUNDLE.match(line)
        if found is None:
            continue
        at = int(found[1], 16)
        if found[2] == "LB":
            loops[at] = found[3].count(">")
        for branch in _BRANCH.finditer(found[4]):
            branches.append((at, int(branch[2]), branch[1] is not None))
    return loops, branches


def _end(start: int, branches: Sequence[tuple[int, int, bool]], size: int) -> int:
    """The end of the loop that begins at `start`: behind the last branch back to it."""
    backs = [at for at, target, _ in branches if target == start and at >= start]
    return min(max(backs) + DELAY_SLOTS + 1, size) if backs else start


def main_loop(found: Listing) -> Loop:
    """The innermost loop with most work of the matrix units; the whole code where there is none."""
    whole = Region(first=0, end=len(found.rows))
    multiplying = [loop for loop in found.loops if found.products(loop)]
    inner = max(multiplying, key=lambda r: (r.depth, found.products(r)), default=whole)
    skips = [skip for skip in found.skips if skip in inner]
    rare = _rare(found, inner, skips)
    removed = [found.busy(region) for region in rare]
    busy = [n - sum(column) for n, *column in zip(found.busy(inner), *removed, strict=True)]
    edge = sum(region.end - region.first for region in rare)
    bundles = max(inner.end - inner.first - edge, 1)
    outer = next((loop for loop in found.loops if inner in loop), inner)
    by_unit = dict(zip(found.units, busy, strict=True))
    capacity = dict(zip(found.units, found.capacity, strict=True))
    return Loop(
        bundles=bundles,
        edge_bundles=edge,
        around_bundles=(outer.end - outer.first) - (inner.end - inner.first),
        mxu_busy_cycles=by_unit[MATMUL] / capacity[MATMUL],
        slots={name: round(n / bundles / capacity[name], 4) for name, n in by_unit.items()},
        spills=by_unit.get(SPILL, 0),
        fills=by_unit.get(FILL, 0),
        depth=max(inner.depth, 1),
        kernel_bundles=len(found.rows),
    )


def _rare(found: Listing, around: Region, skips: Sequence[Region]) -> list[Region]:
    """The outermost regions inside `around` that most iterations skip.

    Those are the ones that multiply nothing; and of several that do all the multiplying, such as
    one for whole blocks and one for the last along k, all but the shortest.
    """
    inside = [skip for skip in skips if skip in around and skip != around]
    outer = _outermost(inside)
    multiplying = [region for region in outer if found.products(region)]
    rare = [region for region in outer if region not in multiplying]
    if len(multiplying) > 1 and sum(map(found.products, multiplying)) == found.products(around):
        shortest = min(multiplying, key=lambda region: region.end - region.first)
        rare += [region for region in multiplying if region is not shortest]
        multiplying = [shortest]
    for region in multiplying:
        rare += _rare(found, region, [skip for skip in inside if skip != region])
    return rare


def _outermost(regions: Sequence[Region]) -> list[Region]:
    """The regions that lie in no other; of those that overlap, the first."""
    found: list[Region] = []
    for region in sorted(regions, key=lambda r: (r.first, -r.end)):
        if not found or region.first >= found[-1].end:
            found.append(region)
    return found
