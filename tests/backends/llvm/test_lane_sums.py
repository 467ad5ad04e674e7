"""gemmir.lanesum: the same bits as halves of each row by itself, in vectors of several rows."""

from __future__ import annotations

import re

import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import assembly
from gemmir.evaluate import evaluate
from gemmir.ir.context import parse_module

ALONG = "vectorize{{with=fma width={width} along=k}}"


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (3, 1), (3, 3), (2, 4), (5, 1), (7, 1)])
@pytest.mark.parametrize(("dtype", "width"), [("f32", 8), ("f32", 4), ("f32", 2), ("f64", 4)])
def test_a_kernel_has_the_bits_of_the_evaluator(
    shape: tuple[int, int], dtype: str, width: int
) -> None:
    gemm = Gemm(m=shape[0], n=shape[1], k=5 * width, dtype=dtype, trans_b=True)
    schedule = f"promote{{operand=c to=registers}},{ALONG.format(width=width)}"
    lowered = gemmir.lower(gemm, "cpu:x86-64-v3", schedule)
    rng = np.random.default_rng(0)
    made, half = (np.float32, 2**12) if dtype == "f32" else (np.float64, 2**26)
    a, b = (rng.integers(-half, half, operand.shape) / half for operand in gemm.operands[:2])
    a, b, expected = a.astype(made), b.astype(made), np.zeros(shape, made)
    text = lowered.stages[list(lowered.stages)[-1]].text
    evaluate(parse_module(text), [a, b, expected])
    assert lowered.compile()(a, b).tobytes() == expected.tobytes()


def test_sixteen_rows_take_fifteen_additions() -> None:
    """And two shuffles each; by themselves they would take four additions each."""
    gemm = Gemm(m=4, n=4, k=64, trans_b=True)
    schedule = f"promote{{operand=c to=registers}},{ALONG.format(width=16)}"
    code = assembly(gemmir.lower(gemm, "cpu:znver4", schedule).artifact)
    assert len(re.findall(r"\bvaddps\b", code)) == 15
    shuffles = re.findall(r"\bv(shuf|unpck|insertf|perm|extractf|blend|movlh|movhl)\w*", code)
    assert len(shuffles) <= 2 * 15 + 4
