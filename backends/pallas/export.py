"""A Pallas kernel as StableHLO for a TPU: what XLA is given. Needs neither a TPU nor libtpu.

Pallas lowers the kernel to Mosaic on the way, so that this also finds blocks and operations that no
TPU has; it does not find a kernel that needs too much VMEM.
"""

from __future__ import annotations

from typing import Any

from gemmir import jax_modules
from gemmir.backend import Artifact
from gemmir.backends.pallas.load import function_of
from gemmir.dtypes import ELEMENTS
from gemmir.errors import BackendError


def stablehlo(artifact: Artifact) -> str:
    """The StableHLO text of `artifact`; `BackendError` GEM0477 where Pallas refuses it."""
    jax = jax_modules.jax()
    function = function_of(artifact.text, artifact.signature.symbol)
    arrays = [
        jax.ShapeDtypeStruct(argument.shape, ELEMENTS[argument.dtype].numpy)
        for argument in artifact.signature.arguments
        if argument.access != "write"
    ]
    try:
        lowered: Any = jax.jit(function).trace(*arrays).lower(lowering_platforms=("tpu",))
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BackendError(
            "GEM0477", f"Pallas refuses the kernel: {reason}", "use other blocks, or other types"
        ) from error
    return f"{lowered.as_text().rstrip()}\n"
