"""The steps of an epilogue: what they take, what they compute, and how they round."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

EPILOGUE_STEPS: Final = ("bias", "relu", "gelu", "silu", "residual", "scale")
"""Steps of an epilogue; joined by `+`, applied from left to right."""

EXACT_STEPS: Final = ("bias", "relu", "residual")
"""Steps of an epilogue that integers have too."""

EXPONENTIAL_STEPS: Final = ("gelu", "silu")
"""Steps of an epilogue that take an exponential of each element."""

STEP_OPERANDS: Final[Mapping[str, tuple[str, ...]]] = {
    "bias": ("bias",),
    "residual": ("residual",),
    "scale": ("scale_a", "scale_b"),
}
"""The arrays that a step of an epilogue takes; such a step stands in an epilogue once."""

GELU_SQRT_2_OVER_PI: Final = math.sqrt(2.0 / math.pi)
"""gelu is its tanh form, Hendrycks and Gimpel, arXiv:1606.08415, section 2."""
GELU_CUBIC: Final = 0.044715

STEP_SLOPES: Final = {"bias": 1.0, "residual": 1.0, "relu": 1.0, "gelu": 1.13, "silu": 1.10}
"""How much each step can magnify an error of its input: the largest slope of the function. That of
`scale` is the product of both scales, which may underflow."""

STEP_ROUNDINGS: Final = {"bias": 1, "residual": 1, "relu": 0, "gelu": 32, "silu": 24, "scale": 3}
"""Rounded operations behind one step, counted generously: exp is a polynomial of about 15."""


def scale_of(arrays: Mapping[str, Array]) -> Array:
    """The product of the scales."""
    return arrays["scale_a"] * arrays["scale_b"]


def apply_step(step: str, x: Array, arrays: Mapping[str, Array]) -> Array:
    """`x` after a step, whose operands are in `arrays` by name, in the type of `x`."""
    if step == "scale":
        return x * scale_of(arrays)
    if step == "bias":
        return x + arrays["bias"]
    if step == "residual":
        return x + arrays["residual"]
    if step == "relu":
        return np.maximum(x, 0)
    if step == "gelu":
        return x * _sigmoid(2 * GELU_SQRT_2_OVER_PI * (x + GELU_CUBIC * x**3))
    return x * _sigmoid(x)


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))
