"""The GPU's IR -> LLVM text -> PTX, by LLVM's NVPTX backend; needs neither CUDA nor a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from xdsl.dialects import func
from xdsl.dialects.builtin import IntegerAttr, ModuleOp

from gemmir.backend import Artifact, KernelLaunch, Launch, signature_of
from gemmir.backends.llvm.emit import EMITTERS
from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.llvm.text import FunctionText
from gemmir.backends.ptx.copies import COPIES
from gemmir.backends.ptx.fragments import FRAGMENTS
from gemmir.backends.ptx.instructions import required_ptx
from gemmir.backends.ptx.launch import Layout, layouts_of
from gemmir.backends.ptx.rows import RowEmitter
from gemmir.backends.ptx.shared import SharedMemory, require_room, shared_memory
from gemmir.backends.ptx.structure import ALIGNMENT_BYTES, GPU, workspace_bytes, workspaces
from gemmir.errors import BackendError
from gemmir.ir.dialect import BLOCKS_PER_SM, memref_type
from gemmir.llvm import LOCK, TargetMachine, binding_for_all
from gemmir.machine import Machine
from gemmir.machine.gpu import GpuMachine

TABLE: Table = {**EMITTERS, **GPU, **FRAGMENTS, **COPIES}


def emit(module: ModuleOp, machine: Machine) -> Artifact:
    """`module` as PTX for `machine`; `BackendError` where an op has no instruction.

    GEM0443 where its buffers do not fit into the shared memory of a block.
    """
    assert isinstance(machine, GpuMachine)
    signature = signature_of(module)
    function = next(
        op
        for op in module.body.block.ops
        if isinstance(op, func.FuncOp) and op.sym_name.data == signature.symbol
    )
    kernels = _kernels(signature.symbol, layouts_of(function), machine)
    ptx_version = required_ptx(module, machine)
    llvm = _module(function, kernels)
    return Artifact(
        kind="ptx",
        text=_ptx(llvm, machine, ptx_version),
        signature=signature,
        cpu=machine.llvm_cpu,
        llvm=llvm,
        launch=Launch(
            kernels=tuple(kernel.launch for kernel in kernels),
            workspace_bytes=tuple(map(workspace_bytes, workspaces(function))),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One of the kernels of a function."""

    symbol: str
    layout: Layout
    shared: SharedMemory

    @property
    def launch(self) -> KernelLaunch:
        """How it is started."""
        return KernelLaunch(
            symbol=self.symbol,
            blocks=self.layout.grid,
            threads=self.layout.block,
            shared_bytes=self.shared.static_bytes,
            dynamic_shared_bytes=self.shared.dynamic_bytes,
        )


def _kernels(symbol: str, layouts: Sequence[Layout], machine: GpuMachine) -> list[Kernel]:
    """The kernels of these layouts: several are numbered."""
    found: list[Kernel] = []
    for number, layout in enumerate(layouts):
        name = symbol if len(layouts) == 1 else f"{symbol}_{number}"
        shared = shared_memory(layout.root, name)
        require_room(shared, machine)
        found.append(Kernel(symbol=name, layout=layout, shared=shared))
    return found


def _module(function: func.FuncOp, kernels: Sequence[Kernel]) -> str:
    declarations: set[str] = set()
    nests = [kernel.layout.root for kernel in kernels]
    bodies: list[str] = []
    for number, kernel in enumerate(kernels):
        others = [nest for nest in nests if nest is not kernel.layout.root]
        ops = [op for op in function.body.block.ops if op not in others]
        head = f"define ptx_kernel void @{kernel.symbol}"
        e = RowEmitter(TABLE, kernel.symbol, FunctionText(declarations=declarations))
        parameters = _parameters(e, function)
        e.ops(ops)
        lines = [f"{head}({parameters}) #{number} {{", "entry:", *e.text.stack, *e.text.lines]
        bodies.append("\n".join([*lines, "}", ""]))
    held = _blocks_per_sm(function)
    attributes = [
        f'attributes #{number} = {{ nounwind "nvvm.reqntid"="{kernel.layout.block},1,1"{held} }}'
        for number, kernel in enumerate(kernels)
    ]
    parts = [
        'target triple = "nvptx64-nvidia-cuda"',
        *(line for kernel in kernels for line in kernel.shared.declarations()),
        *sorted(declarations),
    ]
    return "\n".join([*parts, "", *bodies, *attributes]) + "\n"


def _blocks_per_sm(function: func.FuncOp) -> str:
    """The attribute by which LLVM and ptxas limit the registers of a thread."""
    held = function.attributes.get(BLOCKS_PER_SM)
    return f' "nvvm.minctasm"="{held.value.data}"' if isinstance(held, IntegerAttr) else ""


def _parameters(e: Emitter, function: func.FuncOp) -> str:
    """The arrays of the caller and then the workspaces: every kernel takes all of them."""
    parameters: list[str] = []
    pointers = [
        *((f"%a{n}", argument) for n, argument in enumerate(function.body.block.args)),
        *((f"%w{n}", alloc.memref) for n, alloc in enumerate(workspaces(function))),
    ]
    for name, value in pointers:
        extents = tuple(str(s) for s in memref_type(value).get_shape())
        e.values[value] = Pointer(name, extents)
        e.text.align(name, ALIGNMENT_BYTES)
        parameters.append(f"ptr noalias align {ALIGNMENT_BYTES} {name}")
    return ", ".join(parameters)


@cache
def _target_machine(cpu: str, ptx_version: int) -> TargetMachine:
    binding_for_all().set_option("gemmir", "--nvptx-short-ptr")
    target = binding_for_all().Target.from_triple("nvptx64-nvidia-cuda")
    return target.create_target_machine(
        cpu=cpu, features=f"+ptx{ptx_version}", opt=3, reloc="default", codemodel="default"
    )


def _ptx(llvm: str, machine: GpuMachine, ptx_version: int) -> str:
    """`llvm` as PTX; `BackendError` GEM0401 where LLVM refuses its text."""
    with LOCK:
        binding = binding_for_all()
        code_generator = _target_machine(machine.llvm_cpu, ptx_version)
        try:
            module = binding.parse_assembly(llvm, binding.create_context())
            module.data_layout = str(code_generator.target_data)
            module.verify()
        except RuntimeError as error:
            raise BackendError("GEM0401", f"LLVM refuses the text: {error}") from error
        return code_generator.emit_assembly(module)
