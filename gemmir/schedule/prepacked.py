"""The schedule that packs B before a call and otherwise does as another one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from gemmir.errors import CallError
from gemmir.schedule.schedule import Schedule

PACKS_B: Final = re.compile(r"promote\{operand=b to=\w+ layout=panel:(\d+)(x\d+)?( as=\w+)?")
PACKS_A: Final = re.compile(r"promote\{operand=a ")
ALONG_K: Final = re.compile(r"vectorize\{.*along=k")
DURING_N: Final = re.compile(r" during=n(,\w+)?")
UNSIGN: Final = "unsign"
SUMS_C: Final = re.compile(r"promote\{operand=c to=l")
OVER_PRODUCTS: Final = ("tile{loops=batch ", "parallelize{loop=group}")
"""Loops over a batch or groups, whose matrices are packed one by one."""
TILE: Final = re.compile(r"tile\{loops=(\S+?) sizes=([^ }]+)(.*)")


def prepacked_text(schedule: Schedule, columns: int) -> str:
    """`schedule` with all of B packed first, in the panels in which it packs tiles of B.

    Where it packs none, a panel is as wide as the innermost tile of n, and no wider than the
    `columns` of B, or a row of elements along k where lanes go along it. Sums have the same order.
    Raises `CallError` GEM1347 where nothing says how wide, or each part of C its own width.
    """
    steps = schedule.steps
    if any(step.startswith("part{") for step in steps):
        raise CallError(
            "GEM1347",
            "the schedule has passes of its own for each part of C, and B is packed for all of it",
            "leave part out",
        )
    packs = [match for match in map(PACKS_B.match, steps) if match is not None]
    is_along = any(ALONG_K.match(step) for step in steps)
    tile = min(_width(steps), max(columns, 1)) if not packs and not is_along else 1
    width = int(packs[-1].group(1)) if packs and not is_along else tile
    depth, as_ = (packs[-1].group(2) or "", packs[-1].group(3) or "") if packs else ("", "")
    first = f"promote{{operand=b to=l3 layout=panel:{width}{depth}{as_}}}"
    over = next((n for n, step in enumerate(steps) if not step.startswith(OVER_PRODUCTS)), 0)
    rest = filter(_stays, steps[over:]) if is_along else _others(steps[over:], width)
    return "\n".join([*steps[:over], first, "prepack{operand=b}", *rest])


def _stays(step: str) -> bool:
    """Whether `step` has a place where B is packed: it does not pack B, nor ask for it."""
    return not PACKS_B.match(step) and not step.startswith("prefetch{operand=b")


def _others(steps: Sequence[str], width: int) -> Iterator[str]:
    """What remains, with n cut by whole panels only, also what is for a core.

    A wider cut is for tiles of B to stay in a cache. In its place, once A is packed, one panel
    stays there while all rows of A pass by. Where C is summed in a cache, its cut stays early.
    """
    packs_a = [n for n, step in enumerate(steps) if PACKS_A.match(step)]
    sums_apart = any(SUMS_C.match(step) for step in steps)
    for number, step in enumerate(steps):
        if step == UNSIGN:  # what it sums up in a call is packed before
            continue
        if not _stays(step):
            continue
        if step.startswith("prefetch{operand=a"):
            yield DURING_N.sub(_during_others, step)
            continue
        tile = TILE.match(step)
        sizes = _sizes(tile) if tile is not None else {}
        if tile is None or "n" not in sizes:
            yield step
            continue
        rest = re.sub(r" edges=\w+", "", tile.group(3))
        is_shared = "over=" in rest
        if int(sizes["n"]) > width or is_shared:
            sizes["n"] = str(width)
            is_early = bool(packs_a) and number < packs_a[-1] and not sums_apart
            if is_early and not is_shared:
                del sizes["n"]
        if sizes:
            yield f"tile{{loops={','.join(sizes)} sizes={','.join(sizes.values())}{rest}"


def _during_others(during: re.Match[str]) -> str:
    """Of the loops in which lines of A are asked for those that stay inside one over rows."""
    return f" during={during.group(1)[1:]}" if during.group(1) else ""


def _sizes(tile: re.Match[str]) -> dict[str, str]:
    """The size of each loop that a step cuts."""
    return dict(zip(tile.group(1).split(","), tile.group(2).split(","), strict=True))


def _width(steps: Sequence[str]) -> int:
    for tile in map(TILE.match, reversed(steps)):
        if tile is not None and "n" in _sizes(tile):
            return int(_sizes(tile)["n"])
    raise CallError(
        "GEM1347",
        "the schedule neither packs B nor cuts n, so nothing says how wide panels of B are",
        "use a schedule that tiles n",
    )
