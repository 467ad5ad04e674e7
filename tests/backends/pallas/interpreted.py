"""Emitting a kernel, and running it in Pallas's interpreters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmir import jax_modules
from gemmir.backend import Artifact
from gemmir.backends.pallas.emit import emit
from gemmir.backends.pallas.load import function_of
from gemmir.dtypes import ELEMENTS
from gemmir.evaluate import evaluate
from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.lowering import run_passes
from gemmir.machine import TpuMachine
from gemmir.schedule import Schedule

Array = npt.NDArray[Any]

MOST: Final = 3
"""Whole numbers are from -3 to 3: sums of their products are exact in f32."""


def emitted(
    gemm: Gemm,
    schedule: Schedule | str,
    machine: TpuMachine,
    values: Mapping[str, Array] | None = None,
) -> tuple[Artifact, Array | None]:
    """The kernel, and what the evaluator makes of its IR and of `values`."""
    chosen = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
    module = build(gemm)
    run_passes(module, chosen)
    found = None
    if values is not None:
        own = {name: array.copy() for name, array in values.items()}
        evaluate(module, list(own.values()))
        found = own["c"]
    return emit(module, machine), found


def interpreted(
    artifact: Artifact, *, text: str | None = None, how: Any = True
) -> Callable[[Mapping[str, Array]], Array]:
    """What `text`, by default that of the artifact, makes of operands; compiled once.

    `how` is the argument `interpret` of `pl.pallas_call`.
    """
    function = function_of(artifact.text if text is None else text, artifact.signature.symbol)
    names = [a.name for a in artifact.signature.arguments if a.access != "write"]
    jitted = jax_modules.jax().jit(partial(function, interpret=how))
    return lambda values: np.asarray(jitted(*(values[name] for name in names)))


def whole_numbers(gemm: Gemm, seed: int = 0) -> dict[str, Array]:
    """Small whole numbers for every operand; an output that is not read holds NaN, or 99."""
    generator = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for operand in gemm.operands:
        dtype = ELEMENTS[operand.dtype].numpy
        array = generator.integers(-MOST, MOST + 1, operand.shape).astype(dtype)
        if operand.access == "write":
            array[...] = 99 if dtype.kind in "iu" else np.nan
        found[operand.name] = array
    return found


def random_numbers(gemm: Gemm, seed: int = 0) -> dict[str, Array]:
    """Numbers from -1 to 1 for every operand, or all that an integer can be."""
    generator = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for operand in gemm.operands:
        dtype = ELEMENTS[operand.dtype].numpy
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            most = min(limits.max, 2**20)
            array = generator.integers(max(limits.min, -most), most, operand.shape, endpoint=True)
        else:
            array = generator.uniform(-1, 1, operand.shape)
        found[operand.name] = array.astype(dtype)
    return found


def default_problems(machine: TpuMachine, dtypes: Sequence[str] | None = None) -> Iterator[Gemm]:
    """Problems of every type that `machine` multiplies, for which it has a default schedule."""
    for dtype in machine.mxu_dtypes if dtypes is None else dtypes:
        steps = "bias+relu" if dtype == "i8" else "bias+gelu"
        yield Gemm(m=1000, n=520, k=760, dtype=dtype, beta=1, epilogue="residual")
        yield Gemm(m=512, n=512, k=512, dtype=dtype)
        yield Gemm(m=264, n=300, k=1024, dtype=dtype, trans_a=True, trans_b=True, epilogue=steps)
        yield Gemm(m=8, n=4096, k=4096, dtype=dtype, alpha=2, epilogue="bias")
        yield Gemm(m=100, n=256, k=128, dtype=dtype, batch=3, batch_stride_b=0, epilogue=steps)
        yield Gemm(m=200, n=160, k=192, dtype=dtype, groups=4, trans_b=True, epilogue=steps)
