"""CPUs by their names, for tests of schedules."""

from gemmir.machine import CpuMachine, machine_for


def cpu(name: str) -> CpuMachine:
    machine = machine_for(f"cpu:{name}")
    assert isinstance(machine, CpuMachine)
    return machine
