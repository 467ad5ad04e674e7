"""wgmma and its waits: PTX ISA, section "Asynchronous Warpgroup Level Matrix Instructions"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.clocks import WARP, warps_of
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.products import Multiply, of_warps
from gemmir.backends.ptx.emulator.scope import Action, Decode, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.waiting import Waiting
from gemmir.backends.ptx.emulator.warpgroup import WARPS, Warpgroup
from gemmir.backends.ptx.emulator.wgmma_forms import THREADS, form_of, operands_of


def _fence(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 0)

    def run(block: Block, group: Group) -> None:
        group.require_warps()
        block.pins.fence(group.lanes, block.count)

    return run


def _commit(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 0)

    def run(block: Block, group: Group) -> None:
        group.require_warps()
        warps: list[int] = warps_of(group.lanes).tolist()
        for warp in warps:
            number = warp // WARPS
            warpgroup = block.warpgroups.setdefault(number, Warpgroup(number))
            warpgroup.warps[warp % WARPS].commit()

    return run


def _wait(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 1)
    if not i.operands[0].isdigit() or int(i.operands[0]) > 7:
        raise FaultError("GEM1001", f"{i.operands[0]} is no number of groups, 0 to 7")
    left = int(i.operands[0])

    def run(block: Block, group: Group) -> Waiting | None:
        group.require_warps()
        numbers = np.unique(group.lanes // THREADS).tolist()
        asked = [(n, block.warpgroups[n]) for n in numbers if n in block.warpgroups]
        for number, warpgroup in asked:
            lanes = group.lanes[group.lanes // THREADS == number]
            bounds = _bounds(warpgroup, lanes, left)
            if not _is_whole(warpgroup, max(bounds.values())):
                return _wait_for_warps(warpgroup, max(bounds.values()))
        for number, warpgroup in asked:
            lanes = group.lanes[group.lanes // THREADS == number]
            _finish(block, warpgroup, lanes, left)
        return None

    return run


def _bounds(warpgroup: Warpgroup, lanes: Array, left: int) -> dict[int, int]:
    warps: list[int] = (warps_of(lanes) % WARPS).tolist()
    return {warp: warpgroup.warps[warp].bound(left) for warp in warps}


def _is_whole(warpgroup: Warpgroup, bound: int) -> bool:
    return all(p.is_whole for p in warpgroup.products[warpgroup.done : bound])


def _wait_for_warps(warpgroup: Warpgroup, bound: int) -> Waiting:
    def says() -> str:
        product = next(p for p in warpgroup.products[warpgroup.done : bound] if not p.is_whole)
        return f"{len(product.warps)} of 4 warps of warpgroup {warpgroup.number} issue a product"

    return Waiting(lambda: _is_whole(warpgroup, bound), says, again=True)


def _finish(block: Block, warpgroup: Warpgroup, lanes: Array, left: int) -> None:
    """Multiply what was waited for, and give the warps their sums."""
    bounds = _bounds(warpgroup, lanes, left)
    while warpgroup.done < max(bounds.values()):
        product = warpgroup.products[warpgroup.done]
        product.by.run(block, warpgroup, product)
        warpgroup.done += 1
    for warp, bound in bounds.items():
        state, own = warpgroup.warps[warp], lanes[lanes // WARP % WARPS == warp]
        for product in warpgroup.products[state.waited : bound]:
            for read in product.reads:
                read.end(own + block.first, block.now)
            for slot in product.factors.a_slots:
                block.pins.unpin(slot, own)
        state.waited = max(bound, state.waited)
        state.groups = state.groups[len(state.groups) - left :] if left else []
    _give_back(block, warpgroup, lanes, bounds)


def _give_back(block: Block, warpgroup: Warpgroup, lanes: Array, bounds: Mapping[int, int]) -> None:
    """Sums that no product of a warp is left for go back into its registers."""
    ready: dict[tuple[int, ...], list[int]] = {}
    for warp in bounds:
        state = warpgroup.warps[warp]
        for slots in [s for s, last in state.last.items() if last <= state.waited]:
            ready.setdefault(slots, []).append(warp)
    for slots, warps in ready.items():
        own = of_warps(lanes, warps)
        tile = warpgroup.warps[warps[0]].tiles[slots]
        for slot in slots:
            block.pins.unpin(slot, own)
        last = warpgroup.warps[warps[0]].last[slots]
        warpgroup.products[last - 1].by.write_back(block, tile, own)
        for warp in warps:
            del warpgroup.warps[warp].tiles[slots], warpgroup.warps[warp].last[slots]


def require_no_products(block: Block) -> None:
    """`FaultError` GEM1016 where a warp ends and has products in flight."""
    for warpgroup in block.warpgroups.values():
        if warpgroup.unfinished:
            raise FaultError("GEM1016", warpgroup.unfinished)


_FORMS: Final[Mapping[tuple[str, ...], Callable[[Scope, Instruction], Action]]] = {
    ("fence", "sync", "aligned"): _fence,
    ("commit_group", "sync", "aligned"): _commit,
    ("wait_group", "sync", "aligned"): _wait,
}


def _wgmma(scope: Scope, i: Instruction, place: int) -> Action:
    if i.name[1:2] == ("mma_async",):
        form = form_of(i)
        return Multiply(form, operands_of(scope, i, form), place, i.line).issue
    decode = _FORMS.get(i.name[1:])
    if decode is None:
        raise refuse(i)
    return decode(scope, i)


WGMMA: Final[Mapping[str, Decode]] = {"wgmma": _wgmma}
