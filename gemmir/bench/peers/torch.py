"""PyTorch, called from Python as its users call it, into tensors that exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np

from gemmir.bench.entrant import Array, Entrant, Settings, UnableError, require
from gemmir.gemm import Gemm

RESULTS: Final = {"f32": "f32", "f64": "f64", "bf16": "bf16", "f16": "f16", "i8": "i32"}
"""Types of A and B, and that of the C which it computes of them."""

VIEWS: Final = {"bf16": (np.int16, "bfloat16")}
"""Types that NumPy has from elsewhere: how their bits are handed over, and what they are."""


@dataclass(frozen=True, kw_only=True)
class Torch:
    """PyTorch in this process."""

    torch: Any
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """torch.mm, bmm, addmm or _int_mm, and an in-place call for each step of an epilogue."""
        result = RESULTS.get(gemm.dtype)
        require(result is not None, f"it has no product of {gemm.dtype} on a CPU")
        require(getattr(gemm, "dtype_b", None) in (None, gemm.dtype), "A and B have one type")
        out = gemm.operands[-1].dtype
        require(out == result, f"its product of {gemm.dtype} is {result}, and not {out}")
        require(gemm.groups is None, "it has no groups of products")
        require(gemm.scale_block is None, "it has no scales of blocks")
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "it is called without alpha and beta")
        tensors = {name: self._tensor(gemm, name, array) for name, array in arrays.items()}
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

    def _tensor(self, gemm: Gemm, name: str, array: Array) -> Any:
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
