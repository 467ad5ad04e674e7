"""The derivative of grouped GEMM on a TPU, against that of the same by JAX alone."""

from __future__ import annotations

from importlib import import_module
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.arrays import make_operands
from gemmir.epilogue_steps import STEP_OPERANDS
from gemmir.gemm import OFFSETS
from gemmir.ir.build import build
from gemmir.signature import signature_of
from gemmir.tpu_derivative import STEPS

jax: Any = import_module("jax")  # its types are not complete
jnp: Any = import_module("jax.numpy")

TARGET: Final = "tpu:v5e"
ROWS: Final = (0, 5, 5, 30, 33)

PROBLEMS: Final = {
    "plain": Gemm(m=40, n=24, k=16, groups=4),
    "turned": Gemm(m=40, n=24, k=16, groups=4, trans_b=True, alpha=0.5, beta=2.0),
    "layer": Gemm(m=40, n=24, k=16, groups=4, beta=0.5, epilogue="bias+gelu+residual"),
    "relu": Gemm(m=40, n=24, k=16, groups=4, epilogue="bias+relu"),
    "scale": Gemm(m=40, n=24, k=16, groups=4, epilogue="scale+bias"),
    "bf16": Gemm(m=40, n=24, k=16, groups=4, dtype="bf16", out="bf16", epilogue="bias+silu"),
    "bf16x3": Gemm(m=40, n=24, k=16, groups=4, dtype="bf16x3", epilogue="bias"),
}
TOLERANCES: Final = {"bf16": 0.02, "bf16x3": 1e-4}


def arrays_of(gemm: Gemm) -> dict[str, Any]:
    operands = make_operands(signature_of(build(gemm)))
    operands.by_name[OFFSETS].array[:] = ROWS
    return {name: jnp.asarray(operand.array) for name, operand in operands.by_name.items()}


def by_jax(gemm: Gemm, arrays: dict[str, Any]) -> Any:
    """The problem, product after product."""
    wide = {n: x.astype(jnp.float32) for n, x in arrays.items() if n != OFFSETS}
    found = wide["c"]
    for number, (begin, end) in enumerate(pairwise(ROWS)):
        b = wide["b"][number].T if gemm.trans_b else wide["b"][number]
        product = jnp.matmul(wide["a"][begin:end], b, precision=jax.lax.Precision.HIGHEST)
        x = gemm.alpha * product + gemm.beta * wide["c"][begin:end]
        others = {"bias": wide["bias"][number]} if "bias" in wide else {}
        if "residual" in wide:
            others["residual"] = wide["residual"][begin:end]
        others |= {name: wide[name] for name in STEP_OPERANDS["scale"] if name in wide}
        for step in gemm.steps:
            x = STEPS[step](x, *(others[n] for n in STEP_OPERANDS.get(step, ())))
        found = found.at[begin:end].set(x)
    return found


@pytest.mark.parametrize("name", PROBLEMS)
def test_is_that_of_jax(name: str) -> None:
    gemm = PROBLEMS[name]
    arrays = arrays_of(gemm)
    kernel = gemmir.compile(gemm, TARGET, interpret=True)
    weight = jnp.asarray(np.random.default_rng(9).uniform(-1, 1, (gemm.m, gemm.n)))

    def ours(values: dict[str, Any]) -> Any:
        *inputs, c = (values.get(name, arrays[name]) for name in arrays)
        found = kernel(*inputs, out=c)
        return jnp.sum(found.astype(jnp.float32) * weight)

    def theirs(values: dict[str, Any]) -> Any:
        return jnp.sum(by_jax(gemm, {**arrays, **values}) * weight)

    values = {n: x for n, x in arrays.items() if n != OFFSETS}
    got, expected = jax.jit(jax.grad(ours))(values), jax.grad(theirs)(values)
    for of, right in expected.items():
        mine = got[of]
        assert mine.dtype == right.dtype and mine.shape == right.shape
        limit = TOLERANCES.get(name, 1e-5) * max(float(jnp.abs(right).max()), 1.0)
        off = jnp.abs(mine.astype(jnp.float32) - right.astype(jnp.float32))
        assert float(off.max()) <= limit, of


def test_lowers_for_a_tpu_with_kernels_for_all_but_b() -> None:
    gemm = Gemm(m=256, n=384, k=512, groups=4, dtype="bf16", out="bf16", epilogue="bias+gelu")
    kernel = gemmir.compile(gemm, TARGET)
    arrays = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays_of_any(gemm)]

    def loss(a: Any, b: Any, offsets: Any, bias: Any, c: Any) -> Any:
        return kernel(a, b, offsets, bias, out=c).astype(jnp.float32).sum()

    call = jax.jit(jax.grad(loss, (0, 1, 3)))
    text = call.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == 2  # the sum, whose gelu is differentiated, and dA


def arrays_of_any(gemm: Gemm) -> list[Any]:
    return [o.array for o in make_operands(signature_of(build(gemm))).by_name.values()]
