"""What a call from Python costs: gemmir's ways of calling, and others', with a new result each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from gemmir.bench.entrant import Array, Entrant, Settings, matrices_only, one_type, require
from gemmir.gemm import Gemm


@dataclass(frozen=True, kw_only=True)
class Calls:
    """One way of calling, by its name."""

    settings: Settings
    about: Mapping[str, str]

    def enter(self, gemm: Gemm, arrays: Mapping[str, Array]) -> Entrant:
        """A plain product of two arrays; NaNs in `c` tell where a call does not write there."""
        one_type(gemm)
        matrices_only(gemm)
        require(gemm.dtype in ("f32", "f64"), "calls are compared of what NumPy multiplies")
        require(not (gemm.epilogue or gemm.beta or gemm.batch), "calls are of a plain product")
        require(not (gemm.trans_a or gemm.trans_b), "calls are of a plain product")
        a, b, c = (np.ascontiguousarray(arrays[name]) for name in "abc")
        call = WAYS[self.settings.call](gemm, a, b, c, self.settings)
        last: list[Any] = [None]

        def repeat(count: int) -> None:
            for _ in range(count):
                last[0] = call()

        return Entrant(
            repeat=repeat,
            output=lambda: c if last[0] is None else np.asarray(last[0]),
            flops=gemm.flops,
            about={"called": self.settings.call},
        )


Way = Callable[[Gemm, Array, Array, Array, Settings], Callable[[], Any]]


def _matmul(gemm: Gemm, a: Array, b: Array, c: Array, settings: Settings) -> Callable[[], Any]:
    from gemmir.multiply import matmul

    return lambda: matmul(a, b)


def _kernel(gemm: Gemm, a: Array, b: Array, c: Array, settings: Settings) -> Callable[[], Any]:
    from gemmir.compiler import compile

    kernel = compile(gemm, settings.target)
    return lambda: kernel(a, b, out=c)


def _bound(gemm: Gemm, a: Array, b: Array, c: Array, settings: Settings) -> Callable[[], Any]:
    from gemmir.compiler import compile

    return compile(gemm, settings.target).bind(a, b, out=c)


def _numpy(gemm: Gemm, a: Array, b: Array, c: Array, settings: Settings) -> Callable[[], Any]:
    return lambda: np.matmul(a, b)


def _torch(gemm: Gemm, a: Array, b: Array, c: Array, settings: Settings) -> Callable[[], Any]:
    from gemmir.bench.peers.torch import find

    torch = find(settings).torch
    x, y = torch.from_numpy(a), torch.from_numpy(b)
    return lambda: torch.matmul(x, y)


WAYS: Mapping[str, Way] = {
    "gemmir.matmul": _matmul,
    "gemmir kernel": _kernel,
    "gemmir bound": _bound,
    "np.matmul": _numpy,
    "torch.matmul": _torch,
}
"""Ways of calling, by name: gemmir's first, then those that they are compared with."""


def find(settings: Settings) -> Calls:
    """The way that `settings` name, where its library is here."""
    name = settings.call.partition(".")[0]
    if name == "torch":
        from gemmir.bench.peers import torch

        torch.find(settings)
    version = np.__version__ if name == "np" else ""
    if name == "torch":
        version = str(import_module("torch").__version__)
    return Calls(settings=settings, about={"version": version})
