"""The GPU's IR -> LLVM text -> PTX, by LLVM's NVPTX backend; needs neither CUDA nor a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import SSAValue

from gemmir.backend import Artifact
from gemmir.backends.llvm.emit import EMITTERS
from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.llvm.text import FunctionText
from gemmir.backends.ptx.barriers import BARRIERS
from gemmir.backends.ptx.copies import COPIES
from gemmir.backends.ptx.fragments import FRAGMENTS
from gemmir.backends.ptx.functions import FUNCTIONS
from gemmir.backends.ptx.instructions import required_ptx
from gemmir.backends.ptx.launch import Layout, blocks_per_sm, layouts_of
from gemmir.backends.ptx.roles import ROLES
from gemmir.backends.ptx.rows import RowEmitter
from gemmir.backends.ptx.shared import SharedMemory, require_room, shared_memory
from gemmir.backends.ptx.structure import ALIGNMENT_BYTES, GPU, workspace_bytes, workspaces
from gemmir.backends.ptx.tma import PARAMETER, TMA, descriptors_of, tensor_map
from gemmir.backends.ptx.transfers import TRANSFERS
from gemmir.backends.ptx.wgmma import WGMMA
from gemmir.errors import BackendError
from gemmir.ir.dialect import memref_type
from gemmir.ir.tma import CreateDescriptorOp
from gemmir.launch import KernelLaunch, Launch, TensorMap
from gemmir.llvm import LOCK, TargetMachine, binding_for_all
from gemmir.machine import Machine
from gemmir.machine.gpu import GpuMachine
from gemmir.signature import signature_of

TABLE: Table = {
    **EMITTERS,
    **FUNCTIONS,
    **GPU,
    **FRAGMENTS,
    **TRANSFERS,
    **COPIES,
    **BARRIERS,
    **TMA,
    **WGMMA,
    **ROLES,
}


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
    ptx_version = required_ptx(module, machine)
    kernels = _kernels(function, machine)
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
    """One of the kernels of a function, with the descriptors that it takes."""

    symbol: str
    layout: Layout
    shared: SharedMemory
    descriptors: tuple[CreateDescriptorOp, ...]
    tensor_maps: tuple[TensorMap, ...]

    @property
    def launch(self) -> KernelLaunch:
        """How it is started."""
        return KernelLaunch(
            symbol=self.symbol,
            blocks=self.layout.grid,
            threads=self.layout.block,
            shared_bytes=self.shared.static_bytes,
            dynamic_shared_bytes=self.shared.dynamic_bytes,
            tensor_maps=self.tensor_maps,
            cluster=self.layout.cluster,
        )


def _kernels(function: func.FuncOp, machine: GpuMachine) -> list[Kernel]:
    """The kernels of a function: several are numbered."""
    found: list[Kernel] = []
    symbol, layouts = function.sym_name.data, layouts_of(function)
    pointers = [value for _, value in _pointers(function)]
    for number, layout in enumerate(layouts):
        name = symbol if len(layouts) == 1 else f"{symbol}_{number}"
        shared = shared_memory(layout.root, name)
        require_room(shared, machine)
        used = tuple(descriptors_of(function, layout.root))
        maps = tuple(tensor_map(op, pointers, layout.root) for op in used)
        found.append(
            Kernel(symbol=name, layout=layout, shared=shared, descriptors=used, tensor_maps=maps)
        )
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
        parameters = _parameters(e, function, kernel)
        e.ops(ops)
        lines = [f"{head}({parameters}) #{number} {{", "entry:", *e.text.stack, *e.text.lines]
        bodies.append("\n".join([*lines, "}", ""]))
    attributes = [
        f"attributes #{number} = {{ nounwind {_attributes(kernel.layout)} }}"
        for number, kernel in enumerate(kernels)
    ]
    parts = [
        'target triple = "nvptx64-nvidia-cuda"',
        *(line for kernel in kernels for line in kernel.shared.declarations()),
        *sorted(declarations),
    ]
    return "\n".join([*parts, "", *bodies, *attributes]) + "\n"


def _attributes(layout: Layout) -> str:
    """By what LLVM and ptxas know the threads of a block, and so the registers of each.

    Where warps have roles the registers are divided again: a block then has all of them.
    """
    found = [f'"nvvm.reqntid"="{layout.block},1,1"']
    held = blocks_per_sm(layout.root)
    if held is not None:
        found.append(f'"nvvm.minctasm"="{held}"')
    elif layout.roles is not None:
        found.append('"nvvm.minctasm"="1"')
    if layout.cluster > 1:
        found.append(f'"nvvm.cluster_dim"="{layout.cluster},1,1"')
    return " ".join(found)


def _pointers(function: func.FuncOp) -> list[tuple[str, SSAValue]]:
    """The arrays of the caller and then the workspaces: every kernel takes all of them."""
    return [
        *((f"%a{n}", argument) for n, argument in enumerate(function.body.block.args)),
        *((f"%w{n}", alloc.memref) for n, alloc in enumerate(workspaces(function))),
    ]


def _parameters(e: Emitter, function: func.FuncOp, kernel: Kernel) -> str:
    """The tensor maps of the kernel, and the pointers."""
    parameters: list[str] = []
    for number, op in enumerate(kernel.descriptors):
        e.values[op.result] = f"%t{number}"
        parameters.append(f"{PARAMETER} %t{number}")
    for name, value in _pointers(function):
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
