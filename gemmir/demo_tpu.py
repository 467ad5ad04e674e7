"""The layer of the demo for a TPU: its Pallas kernel, run in the interpreter, and its profile.

No TPU is needed. What needs JAX or libtpu is left out where that is not installed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from gemmir.arrays import make_operands
from gemmir.cache import ObjectCache, default_path
from gemmir.compiler import Lowered, lower
from gemmir.demo_gpu import checked
from gemmir.errors import MissingError, ProfileError
from gemmir.gemm import Gemm
from gemmir.reference import Element, reference_of_gemm
from gemmir.tpu_profile import Comparison, compare

TARGET: Final = "tpu:v5e"
DTYPE: Final = "bf16"


@dataclass(frozen=True, kw_only=True)
class Interpreted:
    """One run of the whole layer in Pallas's interpreter; the seconds include compiling it."""

    seconds: float
    largest: Element


@dataclass(frozen=True, kw_only=True)
class TpuDemo:
    """What was lowered, checked and profiled; where one of these was not, a reason says why."""

    lowered: Lowered
    interpreted: Interpreted | None
    not_interpreted: str
    profile: Comparison | None
    not_profiled: str


def run_tpu_demo(layer: Gemm, say: Callable[[str], None]) -> TpuDemo:
    """Lower `layer` with inputs of `DTYPE`, run it in the interpreter, and profile it.

    `say` is told what takes long. Raises `MismatchError` GEM0802 where the result is not within its
    bound.
    """
    lowered = lower(replace(layer, dtype=DTYPE), TARGET)
    interpreted, not_interpreted = _interpreted(lowered)
    profile, not_profiled = _profiled(lowered, say)
    return TpuDemo(
        lowered=lowered,
        interpreted=interpreted,
        not_interpreted=not_interpreted,
        profile=profile,
        not_profiled=not_profiled,
    )


def _interpreted(lowered: Lowered) -> tuple[Interpreted | None, str]:
    assert lowered.problem is not None
    operands = make_operands(lowered.artifact.signature)
    *inputs, output = operands.arrays
    start = time.perf_counter()
    try:
        lowered.compile(interpret=True)(*inputs, out=output)
    except MissingError as error:
        return None, f"{error.message}; {error.hint}"
    seconds = time.perf_counter() - start
    largest = checked(reference_of_gemm(lowered.problem, operands).compare(operands.output))
    return Interpreted(seconds=seconds, largest=largest), ""


def _profiled(lowered: Lowered, say: Callable[[str], None]) -> tuple[Comparison | None, str]:
    try:
        return compare(lowered, cache=ObjectCache(default_path()), say=say), ""
    except (MissingError, ProfileError) as error:
        return None, f"{error.message}; {error.hint}"
