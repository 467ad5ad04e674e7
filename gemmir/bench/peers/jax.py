"""JAX on the CPU: a jitted function, called from Python, whose result is waited for."""

from __future__ import annotations

from collections.abc import Mapping
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

DTYPES: Final = ("f32", "f64", "bf16", "f16", "i8", "u8")
"""Types of A and B; whatever C is, the sums are of its type or wider."""


@dataclass(frozen=True, kw_only=True)
class Jax:
    """JAX in this process."""

    jax: Any
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """A jitted dot with what comes behind it; operands are JAX's arrays from the start."""
        require(gemm.dtype in DTYPES, f"its dot of {gemm.dtype} is not called")
        one_type(gemm)
        matrices_only(gemm)
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "it is called without alpha and beta")
        require("scale" not in gemm.steps, "it is called without scale")
        names = [operand.name for operand in gemm.operands[:-1]]
        put = [self.jax.device_put(np.ascontiguousarray(arrays[name])) for name in names]
        call = self.jax.jit(self._function(gemm, names, arrays["c"].dtype))
        last: list[Any] = [None]

        def repeat(count: int) -> None:
            for _ in range(count):
                last[0] = call(*put).block_until_ready()

        return Entrant(
            repeat=repeat,
            output=lambda: np.asarray(last[0]),
            flops=gemm.flops,
            about={"called": "jax.jit, in Python"},
        )

    def _function(self, gemm: Gemm, names: list[str], out: np.dtype[Any]) -> Any:
        numpy = self.jax.numpy
        summed = gemm.accumulator.numpy

        def function(*values: Any) -> Any:
            given = dict(zip(names, values, strict=True))
            a = numpy.swapaxes(given["a"], -1, -2) if gemm.trans_a else given["a"]
            b = numpy.swapaxes(given["b"], -1, -2) if gemm.trans_b else given["b"]
            x = numpy.matmul(a, b, preferred_element_type=summed)
            for step in gemm.steps:
                x = self._apply(step, x, given)
            return x.astype(out)

        return function

    def _apply(self, step: str, x: Any, given: Mapping[str, Any]) -> Any:
        if step in ("bias", "residual"):
            return x + given[step]
        if step == "gelu":
            return self.jax.nn.gelu(x, approximate=True)
        return getattr(self.jax.nn, step)(x)


def find(settings: Settings) -> Jax:
    """JAX, told by the environment to stay on the CPU and on so many threads."""
    try:
        jax: Any = import_module("jax")
    except ImportError as error:
        raise UnableError(f"{error}; pip install jax") from error
    jax.config.update("jax_enable_x64", True)
    return Jax(jax=jax, about={"version": jax.__version__})
