"""cp.async.bulk and its groups: PTX ISA, sections "cp.async.bulk.tensor", "cp.reduce.async.bulk.
tensor", "cp.async.bulk.commit_group", "cp.async.bulk.wait_group" and "prefetch"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator.bulk import (
    ITEMS,
    Load,
    Target,
    start_load,
    start_store,
    wait_for_stores,
)
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.mbarrier import MBarrier
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import Action, Read, Scope, refuse, require_operands
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.tensors import Tensor
from gemmir.backends.ptx.emulator.values import Array

_BOX: Final = re.compile(r"\[\s*([%\w$@]+(?:\s*\+\s*-?\w+)?)\s*,\s*\{([^}]*)\}\s*\]")
_DIMENSIONS: Final = re.compile(r"[1-5]d")
_LOAD: Final = re.compile(
    r"global(\.tile)?\.mbarrier::complete_tx::bytes(\.multicast::cluster)?(\.L2::cache_hint)?"
)
_STORE: Final = re.compile(r"global\.shared::cta(\.add)?(\.tile)?\.bulk_group(\.L2::cache_hint)?")


def bulk_copy(scope: Scope, i: Instruction) -> Action:
    """An instruction of copies in bulk."""
    name = ".".join(i.name)
    if name == "cp.async.bulk.commit_group":
        require_operands(i, 0)
        return _commit
    if name in ("cp.async.bulk.wait_group", "cp.async.bulk.wait_group.read"):
        return _wait(i)
    reduces = name.startswith("cp.reduce.async.bulk.tensor.")
    words = i.name[5 if reduces else 4 :]
    if not reduces and i.name[3:4] != ("tensor",):
        if i.name[3:5] == ("prefetch", "tensor"):
            return _prefetch_box(scope, i)
        raise refuse(i)
    if not words or not _DIMENSIONS.fullmatch(words[0]):
        raise refuse(i)
    if words[1] in ("shared::cluster", "shared::cta") and not reduces:
        return _load(scope, i, words)
    return _store(scope, i, words, reduces=reduces)


def _commit(block: Block, group: Group) -> None:
    for thread in group.lanes.tolist():
        groups = block.bulk.get(thread)
        if groups is not None:
            groups.closed.append(groups.open)
            groups.open = []


def _wait(i: Instruction) -> Action:
    require_operands(i, 1)
    if not i.operands[0].isdigit():
        raise FaultError("GEM1001", f"{i.operands[0]} is no number of groups")
    left = int(i.operands[0])

    def run(block: Block, group: Group) -> None:
        if block.bulk:
            for thread in group.lanes.tolist():
                wait_for_stores(block, thread, left)

    return run


WHOLE_BYTES: Final = 16
"""What the TMA takes as a whole of a row. On an H200 a box that began in between was an illegal
instruction, and a store to a row that ends in between wrote beyond the end."""


@dataclass(frozen=True, slots=True)
class _BoxOperand:
    """`[map, {coordinates}]`."""

    address: Read
    coordinates: tuple[Read, ...]

    def read(self, block: Block, group: Group) -> list[tuple[Tensor, list[int]]]:
        """The map and the coordinates of each thread."""
        columns = [read(block, group) for read in self.coordinates]
        found: list[tuple[Tensor, list[int]]] = []
        for lane, at in enumerate(self.address(block, group).tolist()):
            tensor = _tensor(block, at, lane)
            if tensor.rank != len(columns):
                message = f"{tensor.name} has {tensor.rank} dimensions, not {len(columns)}"
                raise FaultError("GEM1013", message, lane)
            places = [int(column[lane]) for column in columns]
            if (begin := places[0] * tensor.map.item_bytes) % WHOLE_BYTES:
                message = f"a box of {tensor.name} begins {begin} bytes behind its row"
                raise FaultError("GEM1013", f"{message}, not at whole {WHOLE_BYTES}", lane)
            found.append((tensor, places))
        return found


def _tensor(block: Block, address: int, lane: int) -> Tensor:
    tensor = block.machine.tensors.get(address)
    if tensor is None:
        raise FaultError("GEM1013", f"there is no tensor map at {address:#x}", lane)
    return tensor


def _box_operand(scope: Scope, operand: str, dimensions: str) -> _BoxOperand:
    found = _BOX.fullmatch(operand)
    names = [] if found is None else [n.strip() for n in found.group(2).split(",")]
    if found is None or len(names) != int(dimensions[0]):
        raise FaultError("GEM1001", f"{operand} is no tensor map with {dimensions[0]} coordinates")
    address = scope.address(f"[{found.group(1)}]")
    return _BoxOperand(address, tuple(scope.source(name, "s32") for name in names))


def _load(scope: Scope, i: Instruction, words: tuple[str, ...]) -> Action:
    form = _LOAD.fullmatch(".".join(words[2:]))
    if form is None or (form.group(2) and words[1] != "shared::cluster"):
        raise refuse(i)
    extra = [bool(form.group(2)), bool(form.group(3))]
    require_operands(i, 3 + sum(extra))
    target, box = scope.address(i.operands[0]), _box_operand(scope, i.operands[1], words[0])
    barrier = scope.address(i.operands[2])
    mask = scope.source(i.operands[3], "b16") if extra[0] else None
    if extra[1]:
        scope.source(i.operands[-1], "b64")

    def run(block: Block, group: Group) -> None:
        masks = None if mask is None else mask(block, group).tolist()
        places, counted = target(block, group).tolist(), barrier(block, group).tolist()
        for lane, (tensor, start) in enumerate(box.read(block, group)):
            ranks = None if masks is None else _ranks(block, masks[lane])
            local, targets = _targets(block, places[lane], counted[lane], ranks)
            stamp = block.stamp(Group(group.lanes[lane : lane + 1], False))
            code = int(stamp.threads[0])
            for one in targets:
                one.barrier.require_published(code, block.cluster.shared_clocks)
            start_load(Load(tensor, tensor.box_at(start), local, targets), block, stamp)

    return run


def _ranks(block: Block, mask: int) -> list[int]:
    ranks = [rank for rank in range(16) if mask >> rank & 1]
    if not ranks or ranks[-1] >= block.cluster.size:
        raise FaultError(
            "GEM1002", f"the mask {mask:#x} names blocks of a cluster of {block.cluster.size}"
        )
    return ranks


def _targets(
    block: Block, address: int, counted: int, ranks: list[int] | None
) -> tuple[int, tuple[Target, ...]]:
    """Where a load goes in each block, and the mbarrier there: both at the same place in all."""
    cluster = block.cluster
    owner, local = cluster.locate(address)
    counting, place = cluster.locate(counted)
    if counting is not owner:
        raise FaultError("GEM1002", "the box and its mbarrier lie in different blocks")
    blocks = [owner] if ranks is None else [cluster.blocks[rank] for rank in ranks]
    found: list[Target] = []
    for one in blocks:
        barrier: MBarrier = cluster.barrier(one, place)
        found.append(Target(one, barrier))
    return local, tuple(found)


def _store(scope: Scope, i: Instruction, words: tuple[str, ...], *, reduces: bool) -> Action:
    form = _STORE.fullmatch(".".join(words[1:]))
    if form is None or bool(form.group(1)) != reduces:
        raise refuse(i)
    require_operands(i, 2 + bool(form.group(3)))
    box, source = _box_operand(scope, i.operands[0], words[0]), scope.address(i.operands[1])
    if form.group(3):
        scope.source(i.operands[2], "b64")

    def run(block: Block, group: Group) -> None:
        addresses: Array = block.shared.local(source(block, group))
        for lane, (tensor, start) in enumerate(box.read(block, group)):
            if reduces and tensor.map.item not in ITEMS:
                raise FaultError("GEM1013", f"{tensor.name} is of {tensor.map.item}", lane)
            if (ends := tensor.map.extents[0] * tensor.map.item_bytes) % WHOLE_BYTES:
                message = f"rows of {tensor.name} end after {ends} bytes, and stores write whole "
                raise FaultError("GEM1013", f"{message}{WHOLE_BYTES}", lane)
            thread, at = int(group.lanes[lane]), int(addresses[lane])
            stamp = block.stamp(Group(np.array([thread]), False))
            found = tensor.box_at(start)
            start_store(block, thread, stamp, tensor, found, at, adds=reduces)

    return run


def _prefetch_box(scope: Scope, i: Instruction) -> Action:
    words = i.name[5:]
    if words[1:] not in (("L2", "global"), ("L2", "global", "tile")):
        raise refuse(i)
    require_operands(i, 1)
    box = _box_operand(scope, i.operands[0], words[0])

    def run(block: Block, group: Group) -> None:
        box.read(block, group)

    return run


def prefetch(scope: Scope, i: Instruction, place: int) -> Action:
    """prefetch.tensormap, which must be given a tensor map."""
    require_operands(i, 1)
    if i.name not in (("prefetch", "tensormap"), ("prefetch", "param", "tensormap")):
        raise refuse(i)
    address = scope.address(i.operands[0])

    def run(block: Block, group: Group) -> None:
        for lane, at in enumerate(address(block, group).tolist()):
            _tensor(block, at, lane)

    return run
