"""What blocks learn of one another: PTX ISA, section "Memory Consistency Model".

A thread releases by a release, or by a relaxed access after a fence; another one acquires what it
finds there by an acquire, or by a relaxed access before a fence. Fences and accesses of the scope
of a block order nothing between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from gemmir.backends.ptx.emulator.marks import Seen
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Action, Decode, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group

SCOPES: Final = ("cta", "cluster", "gpu", "sys")

_MEMBARS: Final = {"cta": "cta", "gl": "gpu", "sys": "sys"}


def acquire(block: Block, thread: int, address: int, *, at_once: bool) -> None:
    """A thread has read from `address`: it knows what is released there, or will at its fence."""
    found = block.machine.released.get(address)
    if found:
        order = block.order
        held = order.acquired if at_once else order.observed
        held.setdefault(thread + block.first, []).extend(found)


def release(block: Block, thread: int, address: int, *, at_once: bool, adds: bool) -> None:
    """A thread has written to `address`: others may learn there what it made known.

    A read-modify-write `adds` to what is released there already, a store takes its place.
    """
    thread += block.first
    seen = _seen(block, thread) if at_once else block.order.fenced.get(thread, [])
    before = block.machine.released.get(address, []) if adds else []
    block.machine.released[address] = [*before, *(s for s in seen if s not in before)]


def _seen(block: Block, thread: int) -> list[Seen]:
    """What the thread of this number in the cluster knows."""
    own = Seen(block.opened, block.since, block.now + thread)
    return [own, *block.order.knows(thread)]


PROXY_FENCES: Final = (
    ("fence", "proxy", "async"),
    ("fence", "proxy", "async", "shared::cta"),
    ("fence", "proxy", "async", "shared::cluster"),
)
"""Those that order what is done to shared memory."""


def _fence(scope: Scope, i: Instruction, place: int) -> Action:
    require_operands(i, 0)
    if i.name in PROXY_FENCES:
        return _pass_proxy_fence
    if i.name == ("fence", "proxy", "async", "global"):
        return lambda block, group: None
    if i.name == ("fence", "mbarrier_init", "release", "cluster"):
        return _publish_barriers
    words = [w for w in i.name[1:] if w not in ("sc", "acq_rel")]
    reach = _MEMBARS if i.name[0] == "membar" else {word: word for word in SCOPES}
    if len(words) != 1 or words[0] not in reach or len(i.name) > 3:
        raise refuse(i)
    if reach[words[0]] == "cta":
        return lambda block, group: None
    return _pass_fence


def _pass_proxy_fence(block: Block, group: Group) -> None:
    _publish_barriers(block, group)
    block.now = block.cluster.shared_clocks.pass_proxy_fence(group.lanes + block.first)


def _publish_barriers(block: Block, group: Group) -> None:
    """What these threads initialised is known to other blocks and to copies."""
    authors = set((group.lanes + block.first).tolist())
    block.now = block.machine.next_epoch()
    for barrier in block.cluster.barriers.values():
        if barrier.author in authors and barrier.fenced is None:
            barrier.fenced = block.now


def _pass_fence(block: Block, group: Group) -> None:
    order = block.order
    for lane in (group.lanes + block.first).tolist():
        observed = order.observed.pop(lane, None)
        if observed:
            order.acquired.setdefault(lane, []).extend(observed)
        order.fenced[lane] = _seen(block, lane)


FENCES: Final[Mapping[str, Decode]] = {"fence": _fence, "membar": _fence}
