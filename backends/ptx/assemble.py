"""PTX to machine code by NVIDIA's ptxas, where it is found; a loss that it reports is an error."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gemmir.backend import Artifact
from gemmir.backends.ptx.image import Image
from gemmir.errors import BackendError, MissingError

WHEELS: Final = (
    ("nvidia", "cu13/bin"),
    ("nvidia", "cuda_nvcc/bin"),
    ("triton", "backends/nvidia/bin"),
)
"""Python packages that carry NVIDIA's tools, and where in them.

The wheels nvidia-cuda-nvcc (ptxas), nvidia-cuda-nvdisasm and nvidia-cuda-cuobjdump of CUDA 13 share
a folder; that of nvidia-cuda-nvcc-cu12 is older.
"""

_RESOURCES: Final = {
    "registers": r"Used (\d+) registers",
    "stack_bytes": r"(\d+) bytes stack frame",
    "spill_store_bytes": r"(\d+) bytes spill stores",
    "spill_load_bytes": r"(\d+) bytes spill loads",
    "shared_bytes": r"(\d+) bytes smem",
}
"""What `ptxas -v` says of a kernel; a number that it leaves out is 0."""

_KERNEL: Final = re.compile(r"Compiling entry function '(\w+)'")

REFUSED: Final = "GEM0444"
"""The code of text that ptxas does not take."""

_WARPGROUPS: Final = "wgmma.mma_async"

_SERIALISED: Final = re.compile(r"^.*\bC75\d\d\b.*$", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a kernel takes, of each thread, and of shared memory of each block."""

    registers: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    shared_bytes: int

    @property
    def spills(self) -> bool:
        """Whether values go to local memory for want of registers."""
        return self.spill_store_bytes + self.spill_load_bytes > 0


@dataclass(frozen=True, kw_only=True)
class Cubin:
    """Machine code for one GPU, and what it takes: each kernel, and the most that any does."""

    data: bytes
    kernels: Mapping[str, Resources]
    resources: Resources


def find_ptxas() -> str | None:
    """The path of ptxas, None where there is none."""
    return find_tool("ptxas")


def find_tool(name: str) -> str | None:
    """The path of a tool of CUDA: on PATH, under CUDA_HOME or CUDA_PATH, or in a Python package."""
    roots = [Path(os.environ[v], "bin") for v in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(v)]
    for package, folder in WHEELS:
        spec = importlib.util.find_spec(package)
        places = (spec and spec.submodule_search_locations) or ()
        roots += [Path(place, folder) for place in places]
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, roots)])
    return shutil.which(name, path=path)


def assemble(artifact: Artifact) -> bytes:
    """`artifact` as an image to keep and to load, with a cubin where ptxas is found and makes one.

    A ptxas may be too old for the text; then the driver, which has its own, decides about it.
    Raises `BackendError` GEM0445 as `cubin` does, and GEM0452 where products of warpgroups have too
    few registers: their sums would go through memory between any two of them.
    """
    assert artifact.launch is not None
    code = b""
    if find_ptxas() is not None:
        try:
            made = cubin(artifact.text, artifact.cpu)
            if _WARPGROUPS in artifact.text:
                _require_registers(made)
            code = made.data
        except BackendError as error:
            if error.code != REFUSED:
                raise
    ptx = artifact.text.encode()
    return Image(gpu=artifact.cpu, launch=artifact.launch, ptx=ptx, cubin=code).to_bytes()


def _require_registers(made: Cubin) -> None:
    for name, taken in made.kernels.items():
        if taken.spills or taken.stack_bytes:
            raise BackendError(
                "GEM0452",
                f"{name} takes {taken.registers} registers of a thread and "
                f"{taken.stack_bytes + taken.spill_store_bytes} bytes of local memory",
                "tile m or n smaller over warpgroups: sums may have 192 registers of a thread",
            )


def cubin(ptx: str, gpu: str) -> Cubin:
    """`ptx` as machine code for `gpu`, such as sm_80.

    Raises `MissingError` GEM0608 where there is no ptxas, `BackendError` GEM0444 where it refuses
    the text and GEM0445 where it reports that it serialised tensor-core instructions.
    """
    tool = find_ptxas()
    if tool is None:
        raise MissingError(
            "GEM0608",
            "ptxas is not on PATH, under CUDA_HOME or CUDA_PATH, or in a Python package",
            "install the CUDA toolkit, or pip install gemmir[ptxas]",
        )
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "kernel.ptx"), Path(folder, "kernel.cubin")
        source.write_text(ptx)
        command = [tool, "-v", f"-arch={gpu}", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        said = done.stdout + done.stderr
        if done.returncode:
            raise BackendError("GEM0444", f"ptxas refuses the text: {said.strip()}")
        if found := _SERIALISED.search(said):
            raise BackendError("GEM0445", f"ptxas lost speed: {found.group().strip()}")
        return Cubin(
            data=target.read_bytes(), kernels=resources_by_kernel(said), resources=resources(said)
        )


def resources_by_kernel(said: str) -> dict[str, Resources]:
    """What `ptxas -v` said of each kernel in its input."""
    _, *parts = _KERNEL.split(said)
    return {name: resources(text) for name, text in zip(parts[::2], parts[1::2], strict=True)}


def resources(said: str) -> Resources:
    """What `ptxas -v` said of the kernels in its input: the most that any of them takes."""
    found = {name: re.findall(pattern, said) for name, pattern in _RESOURCES.items()}
    return Resources(**{name: max(map(int, n), default=0) for name, n in found.items()})
