"""Emitted Pallas kernels on arrays of the caller, in Pallas's interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gemmir import jax_modules
from gemmir.backend import Artifact
from gemmir.backends.pallas.export import stablehlo
from gemmir.backends.pallas.load import function_of

Array = npt.NDArray[Any]


def run_pallas(
    artifact: Artifact, text: str, arrays: Sequence[Array], *, interpret: Any = True
) -> None:
    """Lower `text` for a TPU, and run it on `arrays`, of which the last is written.

    `interpret` is that of `pl.pallas_call`. Raises `BackendError` as `stablehlo` does.
    """
    stablehlo(replace(artifact, text=text))
    function = partial(function_of(text, artifact.signature.symbol), interpret=interpret)
    arguments = artifact.signature.arguments
    inputs = [
        np.ascontiguousarray(array)
        for array, argument in zip(arrays, arguments, strict=True)
        if argument.access != "write"
    ]
    arrays[-1][...] = np.asarray(jax_modules.jax().jit(function)(*inputs))
