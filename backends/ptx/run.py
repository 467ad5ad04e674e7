"""Emitted PTX on arrays of the caller, in the emulator."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gemmir.backend import Argument, Artifact
from gemmir.backends.ptx.emulator import Report, emulate

Array = npt.NDArray[Any]


def run_ptx(artifact: Artifact, text: str, arrays: Sequence[Array]) -> Report | None:
    """Run `text`, launched as `artifact` is, on `arrays`, in place; None where there is no block.

    Raises `PtxFault` (GEM10xx) for what the emulator finds wrong.
    """
    launch = artifact.launch
    assert launch is not None
    if launch.blocks == 0:
        return None
    memory = [_memory(*pair) for pair in zip(artifact.signature.arguments, arrays, strict=True)]
    return emulate(text, memory, grid=(launch.blocks, 1, 1), block=(launch.threads, 1, 1))


def _memory(argument: Argument, array: Array) -> Array:
    """The elements from the first of `array` to its last, as they lie."""
    elements = argument.span_bytes // argument.item_bytes
    return np.lib.stride_tricks.as_strided(array, (elements,), (argument.item_bytes,))
