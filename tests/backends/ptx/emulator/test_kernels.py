"""Kernels as they are emitted: warps in any order, speed, and wrong edits of their text."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import numpy as np
import pytest

import gemmir
from gemmir import Gemm
from gemmir.arrays import Operands, make_operands
from gemmir.backend import Artifact
from gemmir.backends.ptx.emulator import PtxFault
from gemmir.backends.ptx.run import run_ptx

SCHEDULE = (
    "tile{loops=m,n sizes=64,64 over=blocks},tile{loops=m,n sizes=32,32 over=warps},"
    "promote{operand=c to=registers},tile{loops=k sizes=32},"
    "promote{operand=a to=shared layout=swizzle:64},"
    "promote{operand=b to=shared layout=swizzle:128},"
    "pipeline{loop=k stages=2},vectorize{with=mma width=8}"
)
"""Four warps to a block, which share what two stages of copies bring."""


@pytest.fixture(scope="module")
def emitted() -> Artifact:
    gemm = Gemm(m=64, n=64, k=128, dtype="bf16", out="f32")
    return gemmir.lower(gemm, target="cuda:sm_80", schedule=SCHEDULE).artifact


def product(artifact: Artifact, text: str = "", seed: int | None = None) -> Operands:
    operands = make_operands(artifact.signature, 0)
    run_ptx(artifact, text or artifact.text, operands.arrays, seed=seed)
    return operands


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_warps_changes_no_bit(emitted: Artifact, seed: int) -> None:
    assert emitted.launch is not None
    assert emitted.launch.kernels[0].threads == 128
    expected = product(emitted)
    np.testing.assert_array_equal(product(emitted, seed=seed).output, expected.output)


def nth(pattern: str, number: int, new: str) -> Callable[[str], str]:
    """Puts `new` in place of the match `number` of `pattern`."""

    def edit(text: str) -> str:
        found = list(re.finditer(pattern, text))[number]
        return text[: found.start()] + found.expand(new) + text[found.end() :]

    return edit


EDITS: dict[str, tuple[Callable[[str], str], str]] = {
    "the barrier is missing": (nth(r"bar\.sync\s+0;", 0, ""), "GEM1003.*ldmatrix"),
    "a wait is missing": (nth(r"cp\.async\.wait_group\s+\d+;", 0, ""), "GEM1008.*ldmatrix"),
    "a wait leaves one group more": (
        nth(r"cp\.async\.wait_group\s+0;", 0, "cp.async.wait_group 1;"),
        "GEM1008.*ldmatrix",
    ),
    "a copy goes to its neighbour's place": (
        nth(r"(cp\.async\.cg\.shared\.global \[%r\d+)\+(\d+)\]", 0, r"\1+16]"),
        "GEM1008.*cp.async|GEM1003.*cp.async|GEM1004.*ldmatrix",
    ),
    "a copy is misaligned": (
        nth(r"(cp\.async\.cg\.shared\.global \[[^\]]*\], \[%rd\d+)\+\d+\]", 0, r"\1+8]"),
        "GEM1002.*cp.async.*no multiple of 16",
    ),
    "a copy begins past the end": (
        nth(r"(cp\.async\.cg\.shared\.global \[[^\]]*\], \[%rd\d+)\+\d+\]", 0, r"\1+524288]"),
        "GEM1002.*cp.async",
    ),
    "one warp does not come to the barrier": (
        nth(r"bar\.sync\s+0;", 0, "setp.lt.u32 %p0, %tid.x, 96;\n@%p0 bar.sync 0;"),
        "GEM1003.*thread 96, .*ldmatrix.*reads what thread 0 writes",
    ),
    "one lane does not multiply": (
        nth(r"mma\.sync", 0, "setp.ne.u32 %p0, %tid.x, 5;\n@%p0 mma.sync"),
        "GEM1009.*31 of 32 lanes of warp 0",
    ),
    "an accumulator is not cleared": (
        nth(r"mov\.b32\s+%r\d+, 0f00000000;", 0, ""),
        "GEM1004.*never written",
    ),
    "an instruction is misspelt": (nth("ldmatrix", 0, "ldmatrx"), "GEM1001.*ldmatrx is not known"),
}


@pytest.mark.parametrize("name", EDITS)
def test_a_wrong_edit_is_found_and_named(emitted: Artifact, name: str) -> None:
    edit, message = EDITS[name]
    with pytest.raises(PtxFault, match=message):
        product(emitted, edit(emitted.text))


def test_a_problem_of_128_by_128_by_64_takes_seconds() -> None:
    """20 s are allowed; a fifth of a second is usual."""
    gemm = Gemm(m=128, n=128, k=64, dtype="bf16", out="f32")
    artifact = gemmir.lower(gemm, target="cuda:sm_80").artifact
    start = time.perf_counter()
    product(artifact)
    assert time.perf_counter() - start < 20
