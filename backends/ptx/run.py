"""Emitted PTX on arrays of the caller, in the emulator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gemmir.backend import Artifact
from gemmir.backends.ptx.emulator import Report, emulate
from gemmir.dtypes import restrided
from gemmir.signature import Argument

Array = npt.NDArray[Any]


def run_ptx(
    artifact: Artifact, text: str, arrays: Sequence[Array], *, seed: int | None = None
) -> Report | None:
    """Run `text`, launched as `artifact` is, on `arrays`, in place; None where there is no block.

    With a `seed` the warps of each block run in random order, and not in step. Workspaces hold
    nothing before the first kernel. Raises `PtxFault` (GEM10xx) for what the emulator finds wrong.
    """
    launch = artifact.launch
    assert launch is not None
    memory = [_memory(*pair) for pair in zip(artifact.signature.arguments, arrays, strict=True)]
    blank = {len(memory) + n: np.ones(s, np.bool_) for n, s in enumerate(launch.workspace_bytes)}
    memory += [np.full(mask.size, 0xFF, np.uint8) for mask in blank.values()]
    only = len(launch.kernels) == 1
    reports = [
        emulate(
            text,
            [*kernel.tensor_maps, *memory],
            grid=(kernel.blocks, 1, 1),
            block=(kernel.threads, 1, 1),
            kernel=None if only else kernel.symbol,
            shared_bytes=kernel.dynamic_shared_bytes,
            seed=seed,
            blank=blank,
        )
        for kernel in launch.kernels
        if kernel.blocks
    ]
    return _together(reports) if reports else None


def _together(reports: Sequence[Report]) -> Report:
    """What several kernels did, as if they were one."""
    instructions: Counter[str] = Counter()
    for report in reports:
        instructions.update(report.instructions)
    return Report(
        instructions=dict(instructions),
        shared=tuple(access for report in reports for access in report.shared),
        global_=tuple(access for report in reports for access in report.global_),
    )


def _memory(argument: Argument, array: Array) -> Array:
    """The elements from the first of `array` to its last, as they lie."""
    elements = argument.span_bytes // argument.item_bytes
    return restrided(array, (elements,), (argument.item_bytes,))
