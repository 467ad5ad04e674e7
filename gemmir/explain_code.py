"""What ptxas makes of a lowering for a GPU: registers, spills, occupancy, the main loop in SASS.

What a missing tool would have said is left out, and the tool named.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gemmir.backend import Artifact
from gemmir.backends.ptx.assemble import Resources, cubin
from gemmir.backends.ptx.occupancy import Occupancy, occupancy
from gemmir.backends.ptx.sass import PRODUCTS, SassLoop, disassemble, main_loop
from gemmir.errors import BackendError, MissingError
from gemmir.launch import KernelLaunch
from gemmir.machine import GpuMachine

OTHERS_SHOWN: Final = 6


@dataclass(frozen=True, kw_only=True)
class KernelCode:
    """What one kernel takes, and how many of its blocks a multiprocessor holds."""

    symbol: str
    resources: Resources
    static_shared_bytes: int
    dynamic_shared_bytes: int
    occupancy: Occupancy


@dataclass(frozen=True, kw_only=True)
class MachineCode:
    """The kernels and their main loop; `missing` says why something is not known."""

    kernels: tuple[KernelCode, ...] = ()
    loop: SassLoop | None = None
    missing: tuple[str, ...] = ()


def machine_code(artifact: Artifact, machine: GpuMachine) -> MachineCode:
    """Assemble and disassemble `artifact`, as far as the tools are there and take it."""
    try:
        code = cubin(artifact.text, artifact.cpu)
    except (MissingError, BackendError) as error:
        return MachineCode(missing=(_line(error),))
    assert artifact.launch is not None
    kernels = tuple(
        _kernel(kernel, code.kernels[kernel.symbol], machine)
        for kernel in artifact.launch.kernels
        if kernel.symbol in code.kernels
    )
    try:
        return MachineCode(kernels=kernels, loop=main_loop(disassemble(code.data)))
    except (MissingError, BackendError) as error:
        return MachineCode(kernels=kernels, missing=(_line(error),))


def _line(error: Exception) -> str:
    """What an error says, whose tool may have said many lines."""
    return " ".join(str(error).split())


def _kernel(launch: KernelLaunch, taken: Resources, machine: GpuMachine) -> KernelCode:
    return KernelCode(
        symbol=launch.symbol,
        resources=taken,
        static_shared_bytes=taken.shared_bytes,
        dynamic_shared_bytes=launch.dynamic_shared_bytes,
        occupancy=occupancy(launch, taken.registers, machine),
    )


def code_lines(code: MachineCode) -> Iterator[str]:
    """`code` as lines of text."""
    for kernel in code.kernels:
        named = f" ({kernel.symbol})" if len(code.kernels) > 1 else ""
        yield f"registers  {resources_text(kernel)}{named}"
        yield f"occupancy  {occupancy_text(kernel.occupancy)}{named}"
    if code.loop is not None:
        yield f"SASS loop  {loop_text(code.loop)}"
    for reason in code.missing:
        yield f"not known  {reason}"


def resources_text(kernel: KernelCode) -> str:
    """Registers and memories of a kernel."""
    taken = kernel.resources
    spilled = taken.spill_store_bytes + taken.spill_load_bytes
    return (
        f"{taken.registers} of a thread, {spilled} bytes spilled, {taken.stack_bytes} bytes of "
        f"stack; shared memory {kernel.static_shared_bytes} bytes static + "
        f"{kernel.dynamic_shared_bytes} dynamic"
    )


def occupancy_text(found: Occupancy) -> str:
    """The blocks that a multiprocessor holds, and what limits them."""
    by = ", ".join(f"{name} {count}" for name, count in found.blocks_by.items())
    binds = " and ".join(found.bound_by)
    return (
        f"{found.blocks} blocks a multiprocessor, {found.warps} of {found.max_warps} warps; "
        f"bound by {binds} ({by})"
    )


def loop_text(loop: SassLoop) -> str:
    """The products of a loop, their share, and the most frequent of the others.

    Products of warpgroups take so long each that what counts is how few waits they have.
    """
    products = [f"{count} {name}" for name, count in loop.opcodes.items() if name in PRODUCTS]
    others = [f"{count} {name}" for name, count in loop.opcodes.items() if name not in PRODUCTS]
    more = ", …" if len(others) > OTHERS_SHOWN else ""
    if loop.waits:
        return (
            f"{', '.join(products)} of warpgroups in {loop.instructions} instructions, "
            f"{loop.waits} waits for them ({', '.join(others[:OTHERS_SHOWN])}{more})"
        )
    return (
        f"{', '.join(products)}: {loop.share:.1%} of {loop.instructions} instructions, "
        f"{loop.others_per_product:.2f} others for each ({', '.join(others[:OTHERS_SHOWN])}{more})"
    )
