"""Runs a kernel: blocks one after another, on the memory of the caller."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from gemmir.backends.ptx.emulator.clocks import WARP, Clocks
from gemmir.backends.ptx.emulator.cluster import Cluster
from gemmir.backends.ptx.emulator.faults import FaultError, PtxFault
from gemmir.backends.ptx.emulator.memory import GUARD, Memory
from gemmir.backends.ptx.emulator.parse import MAP, PtxKernel, parse
from gemmir.backends.ptx.emulator.program import Program, program_of
from gemmir.backends.ptx.emulator.report import Access, Report
from gemmir.backends.ptx.emulator.schedule import run_blocks
from gemmir.backends.ptx.emulator.state import Block, Machine
from gemmir.backends.ptx.emulator.tensors import Tensor, addresses_of, tensor_of
from gemmir.backends.ptx.emulator.values import WIDTHS, Array
from gemmir.launch import TensorMap

Triple: TypeAlias = tuple[int, int, int]

Argument: TypeAlias = "Array | np.generic[Any] | TensorMap"


def emulate(
    text: str,
    arguments: Sequence[Argument],
    *,
    grid: Triple,
    block: Triple,
    kernel: str | None = None,
    shared_bytes: int = 0,
    seed: int | None = None,
    blank: Mapping[int, Array] | None = None,
) -> Report:
    """Run the kernel of `text`, in place.

    `arguments` are 1-D arrays, which stand for buffers, NumPy scalars, and tensor maps of buffers.
    `shared_bytes` is the size of `.extern .shared` memory. With a `seed` warps run in random
    order, and copies land at random times. The blocks of a cluster run together. `blank` says of
    some buffers, by their number among the buffers, which bytes hold nothing yet; what is written
    is taken out of it.

    Raises `PtxFault` GEM1001 to GEM1017 for the first thing that is wrong.
    """
    found = parse(text, kernel)
    _require_fit(found, grid, block, len(arguments))
    buffers = [a.view(np.uint8) for a in arguments if isinstance(a, np.ndarray)]
    memory = _global_memory(found, arguments, buffers)
    memory.begin_blank(blank or {})
    parameters = _parameters(found, arguments, memory)
    count = block[0] * block[1] * block[2]
    tensors = _tensors(found, arguments, memory)
    program = program_of(found, count, parameters, shared_bytes, tensors)
    machine = Machine(memory, tensors)
    counts = [0] * len(program.steps)
    shuffle = None if seed is None else random.Random(seed)
    try:
        with np.errstate(all="ignore"):
            for first in _clusters(grid, found.cluster or (1, 1, 1)):
                run_blocks(program, _cluster(program, machine, first, grid, block), counts, shuffle)
    finally:
        for number, buffer in enumerate(buffers):
            buffer[:] = memory.buffer(number)
        for number, mask in (blank or {}).items():
            mask[:] = memory.blank_of(number)
    return _report(program, machine, counts)


def _require_fit(kernel: PtxKernel, grid: Triple, block: Triple, arguments: int) -> None:
    if kernel.threads not in (None, block) or len(kernel.parameters) != arguments:
        raise PtxFault(
            "GEM1007",
            f"{kernel.name} is for blocks of {kernel.threads} threads and "
            f"{len(kernel.parameters)} arguments, and is launched with {block} and {arguments}",
        )
    if math.prod(block) > kernel.most_threads:
        raise PtxFault(
            "GEM1007",
            f"{kernel.name} is launched with {math.prod(block)} threads to a block, and at most "
            f"{kernel.most_threads} are possible",
        )

    cluster = kernel.cluster or (1, 1, 1)
    if any(n % c for n, c in zip(grid, cluster, strict=True)):
        raise PtxFault(
            "GEM1007",
            f"{kernel.name} has clusters of {cluster} blocks, and is launched with {grid}",
        )


def _global_memory(
    kernel: PtxKernel, arguments: Sequence[Argument], buffers: list[Array]
) -> Memory:
    """A copy of all buffers; each begins at a multiple of 256."""
    starts: list[int] = []
    start = GUARD
    for buffer in buffers:
        starts.append(start)
        start += -(-buffer.size // 256) * 256 + GUARD
    pairs = zip(kernel.parameters, arguments, strict=True)
    names = [name for (name, _), a in pairs if isinstance(a, np.ndarray)]
    memory = Memory("global", names, starts, [b.size for b in buffers])
    for number, buffer in enumerate(buffers):
        memory.buffer(number)[:] = buffer
    return memory


def _parameters(
    kernel: PtxKernel, arguments: Sequence[Argument], memory: Memory
) -> dict[str, Array]:
    """The bytes of each parameter: an address or a scalar."""
    addresses = iter(memory.starts)
    found: dict[str, Array] = {}
    for (name, kind), argument in zip(kernel.parameters, arguments, strict=True):
        if isinstance(argument, TensorMap) != (kind == MAP):
            raise PtxFault("GEM1007", f"{name} is a .{kind}, and its argument is {argument!r}")
        if isinstance(argument, TensorMap):
            continue
        is_buffer = isinstance(argument, np.ndarray)
        value = np.array([next(addresses)], np.uint64) if is_buffer else np.array([argument])
        if value.itemsize != WIDTHS.get(kind):
            raise PtxFault(
                "GEM1007", f"{name} is a .{kind}, and its argument has {value.itemsize} bytes"
            )
        found[name] = value.view(np.uint8)
    return found


def _tensors(kernel: PtxKernel, arguments: Sequence[Argument], memory: Memory) -> dict[int, Tensor]:
    """The tensor maps by the addresses that they seem to have."""
    pairs = zip(kernel.parameters, arguments, strict=True)
    maps = {name: a for (name, _), a in pairs if isinstance(a, TensorMap)}
    addresses, found = addresses_of(list(maps)), dict[int, Tensor]()
    for name, one in maps.items():
        if not 0 <= one.argument < len(memory.starts):
            raise PtxFault("GEM1007", f"{name} is of the buffer {one.argument}, which is not given")
        start, size = memory.starts[one.argument], memory.sizes[one.argument]
        try:
            found[addresses[name]] = tensor_of(one, name, start, size)
        except FaultError as fault:
            raise PtxFault(fault.code, fault.message) from None
    return found


def _clusters(grid: Triple, cluster: Triple) -> Iterator[Triple]:
    """The first block of each cluster, those along x one behind another."""
    axes = [range(0, n, c) for n, c in zip(grid, cluster, strict=True)]
    for z, y, x in itertools.product(*reversed(axes)):
        yield x, y, z


def _cluster(
    program: Program, machine: Machine, first: Triple, grid: Triple, block: Triple
) -> Cluster:
    shape = program.kernel.cluster or (1, 1, 1)
    size, stride = math.prod(shape), -(-program.count // WARP) * WARP
    opened = machine.next_epoch()
    clocks = Clocks(stride, size, machine.next_epoch) if program.is_asynchronous else None
    cluster = Cluster(stride, size, opened, clocks)
    for rank, own in enumerate(_clusters(shape, (1, 1, 1))):
        at = (first[0] + own[0], first[1] + own[1], first[2] + own[2])
        special = _special(program.count, at, grid, block)
        special |= _special_of_cluster(program.count, rank, own, at, grid, shape)
        _block(program, machine, cluster, rank, at, special)
    return cluster


def _special(count: int, at: Triple, grid: Triple, block: Triple) -> dict[str, Array]:
    thread = np.arange(count, dtype=np.uint32)
    own = (thread % block[0], thread // block[0] % block[1], thread // (block[0] * block[1]))
    special = {"%laneid": thread % WARP, "%warpid": thread // WARP}
    for axis, name in enumerate("xyz"):
        special[f"%tid.{name}"] = own[axis]
        special[f"%ntid.{name}"] = np.full(count, block[axis], np.uint32)
        special[f"%ctaid.{name}"] = np.full(count, at[axis], np.uint32)
        special[f"%nctaid.{name}"] = np.full(count, grid[axis], np.uint32)
    return special


def _special_of_cluster(
    count: int, rank: int, own: Triple, at: Triple, grid: Triple, shape: Triple
) -> dict[str, Array]:
    numbers = {"%cluster_ctarank": rank, "%cluster_nctarank": math.prod(shape)}
    for axis, name in enumerate("xyz"):
        numbers[f"%cluster_ctaid.{name}"] = own[axis]
        numbers[f"%cluster_nctaid.{name}"] = shape[axis]
        numbers[f"%clusterid.{name}"] = at[axis] // shape[axis]
        numbers[f"%nclusterid.{name}"] = grid[axis] // shape[axis]
    return {name: np.full(count, value, np.uint32) for name, value in numbers.items()}


def _block(
    program: Program,
    machine: Machine,
    cluster: Cluster,
    rank: int,
    at: Triple,
    special: dict[str, Array],
) -> None:
    names, starts, sizes = zip(*program.shared, strict=True) if program.shared else ((), (), ())
    registers = len(program.kernel.registers)
    shared = Memory("shared", names, starts, sizes, rank=rank)
    if program.is_asynchronous:
        shared.begin_async()
    Block(
        machine=machine,
        cluster=cluster,
        rank=rank,
        at=at,
        count=program.count,
        special=special,
        shared=shared,
        values=[None] * registers,
        complete=[False] * registers,
        written=[None] * registers,
    )


def _report(program: Program, machine: Machine, counts: list[int]) -> Report:
    instructions: Counter[str] = Counter()
    for step, count in zip(program.steps, counts, strict=True):
        if count:
            instructions[step.instruction.name[0]] += count
    found: dict[str, list[Access]] = {"shared": [], "global": []}
    for (space, place), tally in machine.traffic.tallies.items():
        code = program.steps[place].instruction
        found[space].append(
            Access(line=code.line, text=code.text, ratio=tally.ratio, runs=tally.runs)
        )
    return Report(
        instructions=dict(instructions),
        shared=tuple(found["shared"]),
        global_=tuple(found["global"]),
    )
