"""The GPU's IR -> LLVM text -> PTX, by LLVM's NVPTX backend; needs neither CUDA nor a GPU."""

from __future__ import annotations

from functools import cache

from xdsl.dialects import func
from xdsl.dialects.builtin import ModuleOp

from gemmir.backend import Artifact, KernelLaunch, Launch, signature_of
from gemmir.backends.llvm.emit import EMITTERS
from gemmir.backends.llvm.emitter import Emitter, Pointer, Table
from gemmir.backends.ptx.copies import COPIES
from gemmir.backends.ptx.fragments import FRAGMENTS
from gemmir.backends.ptx.launch import Layout, layout_of
from gemmir.backends.ptx.shared import SharedMemory, require_room, shared_memory
from gemmir.backends.ptx.structure import ALIGNMENT_BYTES, GPU
from gemmir.errors import BackendError
from gemmir.ir.dialect import memref_type
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
    layout = layout_of(function)
    shared = shared_memory(function)
    require_room(shared, machine)
    llvm = _module(function, layout, shared)
    kernel = KernelLaunch(
        symbol=signature.symbol,
        blocks=layout.grid,
        threads=layout.block,
        shared_bytes=shared.static_bytes,
        dynamic_shared_bytes=shared.dynamic_bytes,
    )
    return Artifact(
        kind="ptx",
        text=_ptx(llvm, machine),
        signature=signature,
        cpu=machine.llvm_cpu,
        llvm=llvm,
        launch=Launch(kernels=(kernel,)),
    )


def _module(function: func.FuncOp, layout: Layout, shared: SharedMemory) -> str:
    e = Emitter(TABLE, function.sym_name.data)
    parameters: list[str] = []
    for number, argument in enumerate(function.body.block.args):
        name = f"%a{number}"
        extents = tuple(str(s) for s in memref_type(argument).get_shape())
        e.values[argument] = Pointer(name, extents)
        e.text.align(name, ALIGNMENT_BYTES)
        parameters.append(f"ptr noalias align {ALIGNMENT_BYTES} {name}")
    e.block(function.body.block)
    head = f"define ptx_kernel void @{e.symbol}({', '.join(parameters)}) #0 {{"
    attributes = f'attributes #0 = {{ nounwind "nvvm.reqntid"="{layout.block},1,1" }}'
    body = "\n".join([head, "entry:", *e.text.stack, *e.text.lines, "}"])
    parts = [
        'target triple = "nvptx64-nvidia-cuda"',
        *shared.declarations(),
        *sorted(e.text.declarations),
    ]
    return "\n".join([*parts, "", body, "", attributes]) + "\n"


@cache
def _target_machine(cpu: str, ptx_version: int) -> TargetMachine:
    binding_for_all().set_option("gemmir", "--nvptx-short-ptr")
    target = binding_for_all().Target.from_triple("nvptx64-nvidia-cuda")
    return target.create_target_machine(
        cpu=cpu, features=f"+ptx{ptx_version}", opt=3, reloc="default", codemodel="default"
    )


def _ptx(llvm: str, machine: GpuMachine) -> str:
    """`llvm` as PTX; `BackendError` GEM0401 where LLVM refuses its text."""
    with LOCK:
        binding = binding_for_all()
        code_generator = _target_machine(machine.llvm_cpu, machine.ptx_version)
        try:
            module = binding.parse_assembly(llvm, binding.create_context())
            module.data_layout = str(code_generator.target_data)
            module.verify()
        except RuntimeError as error:
            raise BackendError("GEM0401", f"LLVM refuses the text: {error}") from error
        return code_generator.emit_assembly(module)
