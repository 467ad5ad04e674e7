"""XLA's own product for a problem, as the text of a Python file: the peer of a Pallas kernel.

    jax.lax.dot_general on the arrays as they are stored, and the epilogue in jax.numpy

XLA chooses everything else. Products of several groups are left out: how XLA makes them depends on
offsets that are known in a call only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gemmir.gemm import Gemm

FUNCTION: Final = "xla_dot"
"""The name of the function in the file."""

PRECISIONS: Final = {"f32": "HIGHEST", "bf16x3": "HIGH"}
"""`jax.lax.Precision` of products of f32, where it is not the default: how many products of bf16
XLA makes of one. The default takes one, as bf16x1 does."""

STEPS: Final = {
    "bias": "x = x + {operand}",
    "residual": "x = x + {operand}",
    "scale": "x = x * (scale_a * scale_b)",
    "relu": "x = jax.nn.relu(x)",
    "gelu": "x = jax.nn.gelu(x, approximate=True)",
    "silu": "x = jax.nn.silu(x)",
}
"""Each step of an epilogue in Python, on the sums `x`."""


def xla_dot(gemm: Gemm) -> str:
    """The text of a file whose function takes the operands of `gemm` that are read, in order."""
    arguments = ", ".join(o.name for o in gemm.operands if o.access != "write")
    body = "\n".join(f"    {line}" for line in _lines(gemm))
    return f"import jax\nimport jax.numpy as jnp\n\n\ndef {FUNCTION}({arguments}):\n{body}\n"


def _lines(gemm: Gemm) -> Iterator[str]:
    accumulator = f"jnp.{gemm.accumulator.numpy.name}"
    precision = PRECISIONS.get(gemm.dtype)
    said = "" if precision is None else f"precision=jax.lax.Precision.{precision}, "
    yield f"dimensions = {_dimensions(gemm)}"
    yield (f"x = jax.lax.dot_general(a, b, dimensions, {said}preferred_element_type={accumulator})")
    if _is_batched(gemm, "b") and not _is_batched(gemm, "a"):
        yield "x = x.transpose(1, 0, 2)"
    if gemm.alpha != 1:
        yield f"x = {_number(gemm, gemm.alpha)} * x"
    if gemm.beta:
        yield f"x = x + {_number(gemm, gemm.beta)} * c.astype({accumulator})"
    for step in gemm.steps:
        yield STEPS[step].format(operand=f"{step}.astype({accumulator})")
    result = f"x.astype(jnp.{gemm.result.numpy.name})"
    yield f"return jnp.broadcast_to({result}, {gemm.operands[-1].shape})"


def _dimensions(gemm: Gemm) -> str:
    """The dimension numbers: what is summed over, and the batch where both operands have one."""
    a, b = (1 if _is_batched(gemm, name) else 0 for name in "ab")
    summed = (a + (0 if gemm.trans_a else 1),), (b + (1 if gemm.trans_b else 0),)
    batch = ((0,), (0,)) if a and b else ((), ())
    return repr((summed, batch))


def _is_batched(gemm: Gemm, name: str) -> bool:
    """Whether the array of an operand has a dimension for the batch."""
    shape = next(o.shape for o in gemm.operands if o.name == name)
    return len(shape) == 3


def _number(gemm: Gemm, value: float) -> str:
    """A factor in Python: a whole number where the sums are integers."""
    return repr(int(value) if gemm.accumulator.is_integer else value)
