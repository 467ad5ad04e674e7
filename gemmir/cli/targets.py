"""gemmir targets: the machines that can be compiled for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gemmir.cli.options import Json
from gemmir.cli.output import put_json, put_table

if TYPE_CHECKING:
    from gemmir.machine import CpuMachine, GpuMachine, Machine


def targets(*, json: Json = False) -> None:
    """List the machines that can be compiled for, and whether their code runs here."""
    from gemmir.machine import targets as known

    found = [_described(target, machine) for target, machine in known()]
    if json:
        put_json(found)
        return
    columns = ["target", "LLVM CPU", " vector", " registers", " L1", " L2", " L3", " f32/cycle"]
    cpus = [_cells(entry) for entry in found if entry["kind"] == "cpu"]
    put_table("", [*columns, "runs here"], cpus)
    gpus = [_gpu_cells(entry) for entry in found if entry["kind"] == "cuda"]
    columns = ["target", "product", " SMs", " shared/block", " L2", " f32/cycle/SM"]
    put_table("", [*columns, "runs here"], gpus)
    tpus = [_tpu_cells(entry) for entry in found if entry["kind"] == "tpu"]
    columns = ["target", "product", " cores", " MXUs/core", " VMEM/core", " bf16/cycle/core"]
    put_table("", [*columns, "multiplies"], tpus)


def _described(target: str, machine: Machine) -> dict[str, Any]:
    from gemmir.machine import TpuMachine

    described = {"target": target, "kind": machine.kind, **asdict(machine)}
    if isinstance(machine, TpuMachine):
        return described
    return {
        **described,
        "f32_flops_per_cycle": machine.flops_per_cycle(4),
        "missing_here": _missing(machine),
    }


def _missing(machine: CpuMachine | GpuMachine) -> list[str]:
    """What this computer lacks to run code for `machine`: features of its CPU, or a GPU."""
    from gemmir.errors import MissingError
    from gemmir.machine import CpuMachine
    from gemmir.machine.host import missing_features

    if isinstance(machine, CpuMachine):
        return list(missing_features(machine))
    from gemmir.backends.ptx.driver import require_gpu

    try:
        require_gpu(machine.llvm_cpu)
    except MissingError as error:
        return [error.message]
    return []


def _tpu_cells(entry: dict[str, Any]) -> list[str]:
    return [
        entry["target"],
        entry["product"],
        str(entry["cores_per_device"]),
        f"{entry['mxus_per_core']} of {entry['mxu_size']} x {entry['mxu_size']}",
        f"{entry['vmem_bytes_per_core'] // 2**20} MiB",
        str(entry["bf16_flops_per_cycle_per_core"]),
        ", ".join(entry["mxu_dtypes"]),
    ]


def _gpu_cells(entry: dict[str, Any]) -> list[str]:
    return [
        entry["target"],
        entry["product"],
        str(entry["sms"]),
        f"{entry['smem_bytes_per_block'] // 1024} KiB",
        f"{entry['l2_bytes'] // 1024} KiB",
        str(entry["f32_flops_per_cycle"]),
        "no" if entry["missing_here"] else "yes",
    ]


def _cells(entry: dict[str, Any]) -> list[str]:
    missing = entry["missing_here"]
    return [
        entry["target"],
        entry["llvm_cpu"],
        f"{entry['vector_bytes']} B",
        str(entry["vector_registers"]),
        *(f"{entry[f'{level}_bytes'] // 1024} KiB" for level in ("l1", "l2", "l3")),
        str(entry["f32_flops_per_cycle"]),
        f"no: lacks {', '.join(missing)}" if missing else "yes",
    ]
