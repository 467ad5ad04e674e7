"""The process that compiles: python -m gemmir.backends.pallas.profile.worker FOLDER

FOLDER has `program.json` and `topology`; what comes of it is written there as `result.json`, also
where it fails: then it has `failed`, the step that did, and `message`. libtpu may end this process
at any time, and writes to both of its outputs; so nothing is told through them.

The environment is that of `ahead_of_time.environment`: JAX on the CPU, and of libtpu its compiler.
"""

from __future__ import annotations

import json
import resource
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from gemmir.backends.pallas.profile.program import Program
from gemmir.backends.pallas.profile.traffic import calls

PROGRAM = "program.json"
TOPOLOGY = "topology"
RESULT = "result.json"
SOURCE = "kernel.py"


def run(folder: Path) -> dict[str, Any]:
    """Compile the program in `folder`; the result as plain values."""
    jax: Any = import_module("jax")
    topologies: Any = import_module("jax.experimental.topologies")
    program = Program.from_json((folder / PROGRAM).read_text())
    step = "topology"
    try:
        name = (folder / TOPOLOGY).read_text()
        topology = topologies.get_topology_desc(platform="tpu", topology_name=name)
        step = "load"
        names: dict[str, Any] = {"__name__": program.function}
        exec(compile(program.text, str(folder / SOURCE), "exec"), names)
        function = jax.jit(names[program.function], keep_unused=True)
        step = "lower"
        placed = jax.sharding.SingleDeviceSharding(topology.devices[0])
        arrays = [
            jax.ShapeDtypeStruct(a.shape, jax.numpy.dtype(a.dtype), sharding=placed)
            for a in program.arguments
        ]
        traced = function.trace(*arrays)
        found = calls(traced.jaxpr)
        lowered = traced.lower()
        step = "compile"
        compiled = lowered.compile()
    except Exception as error:
        return {"failed": step, "message": _said(error)}
    return {
        "hlo": str(compiled.as_text()),
        "code_bytes": int(compiled.memory_analysis().generated_code_size_in_bytes),
        "calls": found,
    }


def _said(error: Exception) -> str:
    """What an error says, without the advice that JAX appends to it."""
    kind = "" if type(error).__name__ == "JaxRuntimeError" else f"{type(error).__name__}: "
    return f"{kind}{error}".split("\n--------------------")[0].strip()


def main(folder: Path) -> None:
    """Write what `run` finds; a process that libtpu ends leaves no core file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    (folder / RESULT).write_text(json.dumps(run(folder)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
