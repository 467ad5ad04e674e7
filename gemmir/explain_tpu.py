"""What a lowering for a TPU decided: grid, blocks, VMEM, traffic, and what is expected to bind.

It is read from the last IR; what libtpu makes of the kernel is in `tpu_profile`.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from xdsl.dialects.builtin import VectorType
from xdsl.ir import Attribute

from gemmir.backends.pallas.arrays import Operand, operand_of
from gemmir.backends.pallas.cost import copies, cost_of, padded_bytes, visiting
from gemmir.backends.pallas.types import item_bytes
from gemmir.dtypes import BY_MLIR
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import memref_type, product_name
from gemmir.ir.pallas import ARBITRARY, CallOp, DotOp
from gemmir.machine import TpuMachine
from gemmir.schedule import pass_text
from gemmir.schedule.default_tpu import COPY_SECONDS
from gemmir.tpu_profile import Comparison, comparison_lines

if TYPE_CHECKING:
    from gemmir.compiler import Lowered

MIB: Final = 1 << 20

HBM: Final = "HBM"
STEPS: Final = "overhead of steps"


@dataclass(frozen=True, kw_only=True)
class BlockFacts:
    """The blocks of one array: their shape, buffers and padded bytes in VMEM, and their traffic."""

    name: str
    dtype: str
    array: tuple[int, ...]
    block: tuple[int, int]
    buffers: int
    vmem_bytes: int
    hbm_bytes: int


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The cycles of one step on one core, by what they are spent on, and what comes of them.

    The products of a step and its overhead follow each other, and meanwhile the blocks of the next
    are copied: at the rate of HBM, or, where they are small, with the latency of a copy. The first
    blocks are waited for. `cycles` are for all of it, as the default schedules reckon.
    """

    mxu_cycles_per_step: float
    overhead_cycles_per_step: float
    hbm_cycles_per_step: float
    copy_cycles_per_step: float
    cycles: float
    mxu_utilisation: float
    bound: str


@dataclass(frozen=True, kw_only=True)
class CallFacts:
    """One kernel: its grid and what of it is in order, its blocks, scratch and operations.

    `chunk` is how many products along k a step sums, `chunks` how many steps follow each other.
    """

    grid: tuple[int, ...]
    semantics: tuple[str, ...]
    blocks: tuple[BlockFacts, ...]
    scratch_bytes: int
    vmem_bytes: int
    hbm_bytes: int
    flops: int
    flops_per_step: float
    chunk: int
    chunks: int
    prediction: Prediction

    @property
    def steps(self) -> int:
        """The steps of the whole grid."""
        return math.prod(self.grid)


@dataclass(frozen=True, kw_only=True)
class TpuExplanation:
    """What was decided for a TPU; `profile` is there where it was asked for."""

    target: str
    problem: Gemm | None
    flops_per_byte: float | None
    steps: tuple[str, ...]
    kernels: tuple[CallFacts, ...]
    profile: Comparison | None

    def to_dict(self) -> dict[str, Any]:
        """This explanation as plain values, for JSON."""
        found = asdict(self)
        if self.profile is None:
            del found["profile"]
        else:
            found["profile"] = self.profile.to_dict()
        return found


def tpu_explanation(lowered: Lowered, profile: Comparison | None = None) -> TpuExplanation:
    """Read the kernels of `lowered` from its last stage."""
    problem, machine = lowered.problem, lowered.machine
    assert isinstance(machine, TpuMachine)
    module = parse_module([*lowered.stages.values()][-1].text)
    calls = [op for op in module.walk() if isinstance(op, CallOp)]
    return TpuExplanation(
        target=lowered.target,
        problem=problem,
        flops_per_byte=problem and problem.flops / max(problem.bytes_moved, 1),
        steps=tuple(pass_text(p) for p in lowered.schedule.passes),
        kernels=tuple(call_facts(call, machine) for call in calls),
        profile=profile,
    )


def call_facts(call: CallOp, machine: TpuMachine) -> CallFacts:
    """What one kernel has in VMEM at each step, what it moves and what it computes."""
    operands = _operands(call)
    blocks = tuple(_block_facts(call, operands, number, machine) for number in range(len(operands)))
    scratch = sum(
        padded_bytes(kind.get_shape(), item_bytes(kind.element_type), machine)
        for kind in (memref_type(buffer) for buffer in call.scratch)
    )
    flops = cost_of(call, operands).flops
    chunk = _chunk(call)
    return CallFacts(
        grid=call.extents,
        semantics=tuple(word.data for word in call.semantics),
        blocks=blocks,
        scratch_bytes=scratch,
        vmem_bytes=scratch + sum(block.vmem_bytes for block in blocks),
        hbm_bytes=sum(block.hbm_bytes for block in blocks),
        flops=flops,
        flops_per_step=flops / max(math.prod(call.extents), 1),
        chunk=chunk,
        chunks=math.prod(
            steps
            for dim, (steps, word) in enumerate(zip(call.extents, call.semantics, strict=True))
            if word.data == ARBITRARY and dim != visiting(call)
        ),
        prediction=_prediction(call, blocks, flops, _dtype(call), machine),
    )


def _name(value: Any) -> str:
    """What an array is called in the IR."""
    return str(value.name_hint or "array")


def _operands(call: CallOp) -> list[Operand]:
    """The arrays of a call as they lie, the inputs first."""
    arrays = (*call.inputs, *call.outputs)
    return [
        operand_of(_name(value), value, block, reference)
        for value, block, reference in zip(arrays, call.blocks, call.references, strict=True)
    ]


def _block_facts(
    call: CallOp, operands: Sequence[Operand], number: int, machine: TpuMachine
) -> BlockFacts:
    """The blocks of one operand; an input that is also an output is the old one."""
    operand, buffers = operands[number], call.blocks.data[number].buffers.data
    kind = memref_type(operand.base)
    first_output = len(call.inputs)
    written = [other.base for other in operands[first_output:]]
    is_old = number < first_output and operand.base in written
    return BlockFacts(
        name=f"old {_name(operand.base)}" if is_old else _name(operand.base),
        dtype=BY_MLIR[str(kind.element_type)].name,
        array=operand.shape,
        block=operand.block,
        buffers=buffers,
        vmem_bytes=buffers * padded_bytes(operand.block, operand.item_bytes, machine),
        hbm_bytes=copies(call, operand) * operand.item_bytes,
    )


def _dots(call: CallOp) -> list[DotOp]:
    return [op for op in call.body.walk() if isinstance(op, DotOp)]


def _chunk(call: CallOp) -> int:
    """How many products along k one `pallas.dot` sums; 0 where there is none."""
    lengths = [cast("VectorType[Attribute]", dot.lhs.type).get_shape()[1] for dot in _dots(call)]
    return max(lengths, default=0)


def _dtype(call: CallOp) -> str:
    """How elements are multiplied, by its name."""
    for dot in _dots(call):
        factor = cast("VectorType[Attribute]", dot.lhs.type).element_type
        return product_name(factor, dot.precision)
    return "bf16"


def _prediction(
    call: CallOp, blocks: Sequence[BlockFacts], flops: int, dtype: str, machine: TpuMachine
) -> Prediction:
    steps, rate = max(math.prod(call.extents), 1), machine.hbm_bytes_per_cycle_per_core
    mxu = flops / steps / machine.mxu_flops_per_cycle(dtype)
    overhead = machine.grid_step_overhead_cycles
    first = sum(min(b.vmem_bytes // b.buffers, b.hbm_bytes) for b in blocks[: len(call.inputs)])
    hbm = (sum(block.hbm_bytes for block in blocks) - first) / steps / rate
    copied = max(hbm, COPY_SECONDS * machine.clock_hz + hbm / 2)
    work = "MXU" if mxu >= overhead else STEPS
    per_step = {work: mxu + overhead, HBM if copied == hbm else "latency of copies": copied}
    bound = max(per_step, key=lambda name: per_step[name])
    cycles = steps / machine.cores_per_device * per_step[bound] + first / rate
    return Prediction(
        mxu_cycles_per_step=mxu,
        overhead_cycles_per_step=overhead,
        hbm_cycles_per_step=hbm,
        copy_cycles_per_step=copied,
        cycles=cycles,
        mxu_utilisation=mxu * steps / machine.cores_per_device / cycles,
        bound=bound,
    )


# As text -----------------------------------------------------------------------------------------


def tpu_lines(found: TpuExplanation, machine: TpuMachine, problem: str) -> Iterator[str]:
    """`found` as lines of text; `problem` is the problem in one line."""
    yield f"problem    {problem}"
    yield (
        f"machine    {found.target} ({machine.product}): {machine.mxus_per_core} matrix units of "
        f"{machine.mxu_size} x {machine.mxu_size} a core"
    )
    yield ""
    yield "schedule"
    yield from (f"  {step}" for step in found.steps)
    for kernel in found.kernels:
        yield ""
        yield from _kernel_lines(kernel, machine)
    yield ""
    if found.profile is not None:
        yield from comparison_lines(found.profile)
    elif importlib.util.find_spec("libtpu") is None:
        yield (
            "profile    libtpu is not installed: pip install gemmir[tpu-aot]; then --profile shows "
            "its static profile"
        )
    else:
        yield "profile    --profile shows libtpu's static profile, beside that of XLA's own product"


def _kernel_lines(found: CallFacts, machine: TpuMachine) -> Iterator[str]:
    steps = " x ".join(map(str, found.grid)) or "1"
    ordered = [i for i, word in enumerate(found.semantics) if word == "arbitrary"]
    order = f"; in order along dimension {', '.join(map(str, ordered))}" if ordered else ""
    cores = f" on {machine.cores_per_device} cores" if machine.cores_per_device > 1 else ""
    yield f"grid       {steps} = {found.steps} steps{cores}{order}"
    for block in found.blocks:
        array = " x ".join(map(str, block.array))
        shape = " x ".join(map(str, block.block))
        buffers = "1 buffer" if block.buffers == 1 else f"{block.buffers} buffers"
        yield (
            f"block      {block.name}: {shape} of {array} {block.dtype}, {buffers}, "
            f"{_size(block.vmem_bytes)}; {_size(block.hbm_bytes)} in all steps"
        )
    if found.scratch_bytes:
        yield f"scratch    {_size(found.scratch_bytes)}"
    room = machine.vmem_bytes_per_core
    yield (
        f"VMEM       {_size(found.vmem_bytes)} of {_size(room)} a core, "
        f"{found.vmem_bytes / room:.0%}"
    )
    if found.chunk:
        later = f", added in the order of k {found.chunks} times" if found.chunks > 1 else ""
        yield f"sum        {found.chunk} products by the matrix units, in their own order{later}"
    yield (
        f"step       {found.flops_per_step:.3g} operations, "
        f"{_size(int(found.hbm_bytes / max(found.steps, 1)))} of HBM"
    )
    guess = found.prediction
    yield (
        f"predicted  a step {guess.mxu_cycles_per_step:,.0f} cycles of the matrix units and "
        f"{guess.overhead_cycles_per_step:,.0f} of overhead, meanwhile "
        f"{guess.copy_cycles_per_step:,.0f} of copies"
    )
    yield (
        f"           {guess.cycles:,.0f} cycles, {guess.mxu_utilisation:.1%} of the matrix units; "
        f"bound by {guess.bound}"
    )


def _size(count: int) -> str:
    for unit, scale in (("MiB", MIB), ("KiB", 1024)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
