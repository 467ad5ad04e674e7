"""The CPU's IR -> LLVM text for one CPU."""

from __future__ import annotations

from xdsl.dialects.builtin import ModuleOp

from gemmir.backend import Artifact
from gemmir.backends.llvm.emit import emit_module
from gemmir.machine import CpuMachine, Machine
from gemmir.signature import signature_of


def emit(module: ModuleOp, machine: Machine) -> Artifact:
    """`module` as LLVM text for `machine`; `BackendError` where an op has no instruction."""
    assert isinstance(machine, CpuMachine)
    signature = signature_of(module)
    text = emit_module(module, machine.llvm_features)
    return Artifact(kind="llvm", text=text, signature=signature, cpu=machine.llvm_cpu)
