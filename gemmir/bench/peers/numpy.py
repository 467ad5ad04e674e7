"""NumPy, called from Python as its users call it, into arrays that exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from gemmir.bench.entrant import Array, Entrant, Settings, UnableError, matrices_only, require
from gemmir.bench.peers.openblas import load, numpy_openblas
from gemmir.epilogue_steps import GELU_CUBIC, GELU_SQRT_2_OVER_PI
from gemmir.gemm import Gemm

DTYPES = ("f32", "f64")


@dataclass(frozen=True, kw_only=True)
class NumPy:
    """NumPy in this process, with the BLAS that it has."""

    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """np.matmul, and an in-place call for each step of an epilogue."""
        require(gemm.dtype in DTYPES, f"its matmul of {gemm.dtype} is no BLAS function")
        matrices_only(gemm)
        require((gemm.alpha, gemm.beta) == (1.0, 0.0), "its matmul has no alpha and beta")
        c = arrays["c"]
        a = arrays["a"].swapaxes(-1, -2) if gemm.trans_a else arrays["a"]
        b = arrays["b"].swapaxes(-1, -2) if gemm.trans_b else arrays["b"]
        steps = [_step(name, arrays) for name in gemm.steps]

        def repeat(count: int) -> None:
            for _ in range(count):
                np.matmul(a, b, out=c)
                for step in steps:
                    step()

        about = {"called": "np.matmul, in Python"}
        return Entrant(repeat=repeat, output=lambda: c, flops=gemm.flops, about=about)


def find(settings: Settings) -> NumPy:
    """NumPy, whose BLAS gets as many threads as `settings` say."""
    blas = next(numpy_openblas(), None)
    about = {"version": np.__version__}
    if blas is not None:
        found = load(blas, settings.threads).about
        about |= {"file": found["file"], "code_path": found["code_path"]}
    return NumPy(about=about)


def _step(name: str, arrays: Mapping[str, Array]) -> Callable[[], object]:
    c = arrays["c"]
    if name == "bias":
        return lambda: np.add(c, arrays["bias"], out=c)
    if name == "residual":
        return lambda: np.add(c, arrays["residual"], out=c)
    if name == "relu":
        return lambda: np.maximum(c, 0, out=c)
    room = np.empty_like(c)
    if name == "silu":
        return lambda: _silu(c, room)
    if name == "gelu":
        return lambda: _gelu(c, room)
    raise UnableError(f"it has no {name}")


def _silu(c: Array, room: Array) -> None:
    np.negative(c, out=room)
    np.exp(room, out=room)
    np.add(room, 1, out=room)
    np.divide(c, room, out=c)


def _gelu(c: Array, room: Array) -> None:
    np.multiply(c, c, out=room)
    np.multiply(room, c.dtype.type(GELU_SQRT_2_OVER_PI * GELU_CUBIC), out=room)
    np.add(room, c.dtype.type(GELU_SQRT_2_OVER_PI), out=room)
    np.multiply(room, c, out=room)
    np.tanh(room, out=room)
    np.add(room, 1, out=room)
    np.multiply(room, c.dtype.type(0.5), out=room)
    np.multiply(c, room, out=c)
