"""The oneDNN in PyTorch, newer than a system's, with epilogues in its primitives; from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from gemmir.bench.entrant import (
    Array,
    Entrant,
    Settings,
    UnableError,
    matrices_only,
    one_type,
    require,
)
from gemmir.bench.peers import torch as pytorch
from gemmir.gemm import Gemm

DTYPES: Final = ("f32", "bf16", "f16")

STEPS: Final[Mapping[tuple[str, ...], tuple[str, str | None]]] = {
    (): ("none", None),
    ("relu",): ("relu", None),
    ("gelu",): ("gelu", "tanh"),
    ("silu",): ("swish", None),
}
"""What comes behind the bias, and its name with that of its algorithm."""


@dataclass(frozen=True, kw_only=True)
class OneDnnInTorch:
    """torch.ops.mkldnn in this process."""

    torch: pytorch.Torch
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """A linear layer: A times the transpose of a B of n x k, with its epilogue."""
        one_type(gemm)
        matrices_only(gemm)
        require(gemm.dtype in DTYPES, f"its linear layer has no {gemm.dtype}")
        out = gemm.operands[-1].dtype
        require(out == gemm.dtype, f"its layer of {gemm.dtype} is not {out}")
        require(gemm.batch is None, "its linear layer has no batch")
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "it is called without alpha and beta")
        tensors = {name: self.torch.tensor(gemm, name, array) for name, array in arrays.items()}
        call = self._call(gemm, tensors)
        last: list[Any] = [None]

        def repeat(count: int) -> None:
            for _ in range(count):
                last[0] = call()

        def output() -> Array:
            np.copyto(arrays["c"], pytorch.array_of(last[0], arrays["c"].dtype))
            return arrays["c"]

        return Entrant(
            repeat=repeat,
            output=output,
            flops=gemm.flops,
            about={"called": "torch.ops.mkldnn._linear_pointwise, in Python"},
        )

    def _call(self, gemm: Gemm, tensors: Mapping[str, Any]) -> Callable[[], Any]:
        linear = self.torch.torch.ops.mkldnn._linear_pointwise
        a = tensors["a"].mT if gemm.trans_a else tensors["a"]
        weight = tensors["b"] if gemm.trans_b else tensors["b"].mT
        steps = gemm.steps
        bias = tensors["bias"] if steps[:1] == ("bias",) else None
        rest = steps[1:] if bias is not None else steps
        if rest == ("residual",):
            residual = tensors["residual"]
            return lambda: linear.binary(a, residual, weight, bias, "add")
        if rest not in STEPS:
            raise UnableError(f"its linear layer has no {gemm.epilogue}")
        name, algorithm = STEPS[rest]
        return lambda: linear(a, weight, bias, name, [], algorithm)


def find(settings: Settings) -> OneDnnInTorch:
    """PyTorch's oneDNN."""
    torch = pytorch.find(settings)
    require(bool(torch.torch.backends.mkldnn.is_available()), "this PyTorch has no oneDNN")
    return OneDnnInTorch(torch=torch, about=torch.about)
