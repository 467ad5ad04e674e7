"""PyTorch, called from Python as its users call it, into tensors that exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
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
from gemmir.gemm import Gemm
from gemmir.int4 import unpack_int4

RESULTS: Final = {"f32": "f32", "f64": "f64", "bf16": "bf16", "f16": "f16", "i8": "i32"}
"""Types of A and B, and that of the C which it computes of them."""

INT4_GROUPS: Final = (32, 64, 128, 256)
"""Weights of 4 bits that may have one scale."""

VIEWS: Final = {"bf16": (np.int16, "bfloat16")}
"""Types that NumPy has from elsewhere: how their bits are handed over, and what they are."""


@dataclass(frozen=True, kw_only=True)
class Torch:
    """PyTorch in this process."""

    torch: Any
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """torch.mm, bmm, addmm or _int_mm, and an in-place call for each step of an epilogue."""
        if gemm.has_weights:
            return self._weights(gemm, arrays)
        result = RESULTS.get(gemm.dtype)
        require(result is not None, f"it has no product of {gemm.dtype} on a CPU")
        one_type(gemm)
        out = gemm.operands[-1].dtype
        require(out == result, f"its product of {gemm.dtype} is {result}, and not {out}")
        matrices_only(gemm)
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "it is called without alpha and beta")
        tensors = {name: self.tensor(gemm, name, array) for name, array in arrays.items()}
        product, name, steps = self._product(gemm, tensors)
        rest = [self._step(step, tensors) for step in steps]

        def repeat(count: int) -> None:
            for _ in range(count):
                product()
                for step in rest:
                    step()

        return Entrant(
            repeat=repeat,
            output=lambda: arrays["c"],
            flops=gemm.flops,
            about={"called": f"{name}, in Python"},
        )

    def _weights(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """torch._weight_int4pack_mm_for_cpu; its weights are packed beforehand."""
        torch = self.torch
        name = "_weight_int4pack_mm_for_cpu"
        fits = (gemm.dtype, gemm.dtype_b, gemm.result.name) == ("f32", "i4", "f32")
        require(fits and hasattr(torch, name), "it has no such product of weights in f32")
        require(gemm.weight_group in INT4_GROUPS, f"it has groups of {INT4_GROUPS}")
        require(not gemm.epilogue and not gemm.trans_a, "its product of weights is a plain one")
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "it is called without alpha and beta")
        unpacked, scale = unpack_int4(arrays["b"]), arrays["scale_b"]
        by_rows = unpacked if gemm.trans_b else unpacked.T
        raised = torch.from_numpy(np.ascontiguousarray(by_rows).astype(np.int32) + 8)
        packed = torch._convert_weight_to_int4pack_for_cpu(raised, 2)
        scales = torch.from_numpy(np.ascontiguousarray(scale.T if gemm.trans_b else scale))
        both = torch.stack([scales, torch.zeros_like(scales)], -1).contiguous()
        a = torch.from_numpy(np.ascontiguousarray(arrays["a"]))
        last: list[Any] = [None]

        def repeat(count: int) -> None:
            for _ in range(count):
                last[0] = torch._weight_int4pack_mm_for_cpu(a, packed, gemm.weight_group, both)

        return Entrant(
            repeat=repeat,
            output=lambda: last[0].numpy(),
            flops=gemm.flops,
            about={"called": f"torch.{name}, in Python"},
        )

    def tensor(self, gemm: Gemm, name: str, array: Array) -> Any:
        """An operand of `gemm` as a tensor on the same memory."""
        dtype = next(o.dtype for o in gemm.operands if o.name == name)
        if dtype not in VIEWS:
            return self.torch.from_numpy(array)
        bits, spelled = VIEWS[dtype]
        return self.torch.from_numpy(array.view(bits)).view(getattr(self.torch, spelled))

    def _product(
        self, gemm: Gemm, tensors: Mapping[str, Any]
    ) -> tuple[Callable[[], Any], str, tuple[str, ...]]:
        """The call, its name, and the steps of the epilogue that it leaves over."""
        torch, c = self.torch, tensors["c"]
        a = tensors["a"].mT if gemm.trans_a else tensors["a"]
        b = tensors["b"].mT if gemm.trans_b else tensors["b"]
        if gemm.dtype == "i8":
            require(gemm.batch is None, "its product of i8 has no batch")
            return lambda: torch._int_mm(a, b, out=c), "torch._int_mm", gemm.steps
        if gemm.batch is not None:
            is_plain = a.dim() == b.dim() == 3
            name = "torch.bmm" if is_plain else "torch.matmul"
            call = torch.bmm if is_plain else torch.matmul
            return lambda: call(a, b, out=c), name, gemm.steps
        if gemm.steps[:1] == ("bias",):
            bias = tensors["bias"]
            return lambda: torch.addmm(bias, a, b, out=c), "torch.addmm", gemm.steps[1:]
        return lambda: torch.mm(a, b, out=c), "torch.mm", gemm.steps

    def _step(self, name: str, tensors: Mapping[str, Any]) -> Callable[[], Any]:
        torch, c = self.torch, tensors["c"]
        calls: dict[str, Callable[[], Any]] = {
            "bias": lambda: c.add_(tensors["bias"]),
            "residual": lambda: c.add_(tensors["residual"]),
            "relu": c.relu_,
            "gelu": lambda: torch.ops.aten.gelu_(c, approximate="tanh"),
            "silu": lambda: torch.ops.aten.silu_(c),
        }
        if name not in calls:
            raise UnableError(f"it has no {name}")
        return calls[name]


def find(settings: Settings) -> Torch:
    """PyTorch, with as many threads as `settings` say."""
    try:
        torch: Any = import_module("torch")
    except ImportError as error:
        raise UnableError(f"{error}; pip install torch") from error
    torch.set_num_threads(settings.threads)
    torch.set_grad_enabled(False)
    about = {"version": torch.__version__, "code_path": torch.backends.cpu.get_cpu_capability()}
    return Torch(torch=torch, about=about)


def array_of(tensor: Any, dtype: np.dtype[Any]) -> Array:
    """A tensor as an array of `dtype`, whose bits it has."""
    if dtype.name not in {spelled for _, spelled in VIEWS.values()}:
        return tensor.numpy()
    return tensor.view(import_module("torch").int16).numpy().view(dtype)
