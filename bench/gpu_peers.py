"""The products of PyTorch, which are cuBLAS's, that kernels are timed beside."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from gemmir.epilogue_steps import STEP_OPERANDS
from gemmir.gemm import Gemm

Tensors = Mapping[str, Any]
Make = Callable[[Tensors], Callable[[], Any]]
"""What makes a call for one set of operands."""

EIGHT_BITS: Final = ("e4m3", "e5m2")


def peers_of(torch: Any, gemm: Gemm) -> dict[str, Make]:
    """The peers of a problem, the fastest way that PyTorch documents first; it is the yardstick.

    Sums of 8-bit floats are also made in f32 throughout, which cuBLAS does not do by itself. f32 is
    multiplied without tf32 unless that is asked. Of scales of blocks there is no yardstick.
    """
    torch.backends.cuda.matmul.allow_tf32 = gemm.dtype == "tf32"
    if gemm.scale_block is not None:
        return _blocks(torch, gemm)
    if gemm.dtype in EIGHT_BITS and gemm.steps in ((), ("scale",), ("scale", "bias")):
        return {
            "torch": _scaled(torch, gemm, is_fast=True),
            "torch, f32 sums": _scaled(torch, gemm, is_fast=False),
        }
    if gemm.steps:
        bare = replace(gemm, epilogue="")
        product = {f"product, {name}": make for name, make in peers_of(torch, bare).items()}
        return {"torch": _with_epilogue(torch, gemm), **product}
    if gemm.dtype == "i8":
        return {"torch": _whole(torch, gemm)}
    return {"torch": _product(torch, gemm)}


def _factors(gemm: Gemm, tensors: Tensors) -> tuple[Any, Any]:
    a, b = tensors["a"], tensors["b"]
    return (a.mT if gemm.trans_a else a), (b.mT if gemm.trans_b else b)


def _product(torch: Any, gemm: Gemm) -> Make:
    """Into an array of its own, of the type of the operands."""

    def make(tensors: Tensors) -> Callable[[], Any]:
        a, b = _factors(gemm, tensors)
        out = torch.empty_like(torch.matmul(a, b))
        return lambda: torch.matmul(a, b, out=out)

    return make


def _whole(torch: Any, gemm: Gemm) -> Make:
    def make(tensors: Tensors) -> Callable[[], Any]:
        a, b = _factors(gemm, tensors)
        out = torch._int_mm(a, b)
        return lambda: torch._int_mm(a, b, out=out)

    return make


def _scaled(torch: Any, gemm: Gemm, *, is_fast: bool) -> Make:
    """By the scales of the problem, or by scales of 1, into the type of C."""
    kind = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[gemm.result.name]

    def make(tensors: Tensors) -> Callable[[], Any]:
        a, b = _factors(gemm, tensors)
        one = torch.ones((1,), device="cuda")
        scales = {name: tensors.get(name, one) for name in STEP_OPERANDS["scale"]}
        out = torch.empty((gemm.m, gemm.n), dtype=kind, device="cuda")
        options = {**scales, "out_dtype": kind, "use_fast_accum": is_fast}
        if "bias" in gemm.steps:
            options["bias"] = tensors["bias"]
        return lambda: torch._scaled_mm(a, b, out=out, **options)

    return make


def _blocks(torch: Any, gemm: Gemm) -> dict[str, Make]:
    """By the scales of blocks of 128, which not every PyTorch has, and by one scale for each of A
    and B: neither is the yardstick. Of other types and with an epilogue there are none."""
    if gemm.dtype not in EIGHT_BITS or gemm.steps or gemm.trans_a or not gemm.trans_b:
        return {}
    one = replace(gemm, scale_block=None)

    def by_blocks(tensors: Tensors) -> Callable[[], Any]:
        scales = {
            "scale_a": tensors["scale_a"].mT.contiguous().mT,
            "scale_b": tensors["scale_b"].mT,
        }
        return _scaled(torch, one, is_fast=False)({**tensors, **scales})

    def by_one(tensors: Tensors) -> Callable[[], Any]:
        return _scaled(torch, one, is_fast=True)({name: tensors[name] for name in "ab"})

    return {"torch, scales of blocks": by_blocks, "torch, one scale": by_one}


def _with_epilogue(torch: Any, gemm: Gemm) -> Make:
    """By the one call that adds bias and activation in cuBLAS, or by one call after the other."""
    if gemm.steps not in (("bias", "gelu"), ("bias", "relu")):
        return _in_steps(torch, gemm)

    def make(tensors: Tensors) -> Callable[[], Any]:
        a, b = _factors(gemm, tensors)
        bias, is_gelu = tensors["bias"], gemm.steps[1] == "gelu"
        out = torch._addmm_activation(bias, a, b, use_gelu=is_gelu)
        return lambda: torch._addmm_activation(bias, a, b, use_gelu=is_gelu, out=out)

    return make


def _in_steps(torch: Any, gemm: Gemm) -> Make:
    functional = torch.nn.functional

    def applied(step: str, x: Any, tensors: Tensors) -> Any:
        if step == "scale":
            return x.mul_(tensors["scale_a"] * tensors["scale_b"])
        if step in ("bias", "residual"):
            return x.add_(tensors[step])
        if step == "relu":
            return functional.relu_(x)
        if step == "gelu":
            return functional.gelu(x, approximate="tanh")
        return functional.silu(x, inplace=True)

    def make(tensors: Tensors) -> Callable[[], Any]:
        a, b = _factors(gemm, tensors)
        out = torch.empty_like(torch.matmul(a, b))

        def call() -> Any:
            x = torch.matmul(a, b, out=out)
            for step in gemm.steps:
                x = applied(step, x, tensors)
            return x

        return call

    return make
