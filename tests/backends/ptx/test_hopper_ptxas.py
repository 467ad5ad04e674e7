"""ptxas takes products of warpgroups as they are: nothing spilled, nothing one after the other.

Skipped where no ptxas is found, and what reads machine code where there is no nvdisasm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from gemmir import Gemm
from gemmir.backends.ptx.assemble import cubin, find_ptxas
from gemmir.backends.ptx.sass import SassLoop, disassemble, find_nvdisasm, main_loop
from tests.backends.ptx.hopper import LARGE, Tiles, lowered

pytestmark = pytest.mark.skipif(find_ptxas() is None, reason="ptxas is not found")

MOST_INSTRUCTIONS: Final = 45
"""Of a slice of k of 128 x 256: four products, their descriptors and two barriers."""

MOST_SCALED_INSTRUCTIONS: Final = 125
"""Of a slice of 128 x 128 with scales: 64 multiply-adds more."""

DTYPES: Final = ("bf16", "f16", "tf32", "e4m3", "e5m2", "i8", "u8")
PERSISTENT: Final = Tiles(blocks=132)


def cases() -> Iterator[tuple[str, Gemm, Tiles]]:
    """Every type, both orders of operands, clusters, and how C goes out."""
    for dtype in DTYPES:
        yield dtype, replace(LARGE, dtype=dtype, out=None), PERSISTENT
    for trans_a, trans_b in ((False, False), (True, False), (True, True)):
        name = f"{'nt'[trans_a]}{'nt'[trans_b]}"
        yield name, replace(LARGE, trans_a=trans_a, trans_b=trans_b), PERSISTENT
    yield "cluster", LARGE, Tiles(cluster=2, blocks=66)
    yield "stored", replace(LARGE, out="bf16"), replace(PERSISTENT, stored=True)
    yield "stored f32", LARGE, replace(PERSISTENT, stored=True)
    fused = replace(LARGE, out="bf16", beta=0.5, epilogue="bias+relu+residual")
    yield "epilogue", fused, replace(PERSISTENT, stored=True, epilogue=True)
    yield "edges", replace(LARGE, m=4001, n=4000, k=4008, out="f16"), Tiles(blocks=100)


def wide_cases() -> Iterator[tuple[str, Gemm, Tiles]]:
    """Tiles of 192 registers of sums, of 128 rows, of one warpgroup and of three."""
    yield "256 x 128", LARGE, replace(PERSISTENT, m=256, n=128, group=128)
    yield "256 x 192", LARGE, replace(PERSISTENT, m=256, n=192, group=128, stages=3)
    yield "64 x 256", LARGE, replace(PERSISTENT, m=64)
    yield "192 x 160", LARGE, replace(PERSISTENT, m=192, n=160)


def scaled_cases() -> Iterator[tuple[str, Gemm, Tiles]]:
    """Sums in two levels, with and without scales of blocks."""
    scaled = replace(LARGE, dtype="e4m3", out="bf16", scale_block=128)
    tiles = replace(PERSISTENT, n=128, stored=True, twice=True)
    yield "two levels", replace(scaled, scale_block=None), tiles
    yield "scales", scaled, tiles
    yield "scales at edges", replace(scaled, m=4001, n=4080, k=4000), tiles


@pytest.mark.parametrize(
    ("gemm", "tiles"),
    [pytest.param(*c[1:], id=c[0]) for c in (*cases(), *wide_cases(), *scaled_cases())],
)
def test_nothing_is_spilled(gemm: Gemm, tiles: Tiles) -> None:
    artifact = lowered(gemm, tiles).artifact
    found = cubin(artifact.text, artifact.cpu).resources
    assert not found.spills, found
    assert found.stack_bytes == 0
    assert artifact.launch is not None
    threads = artifact.launch.kernels[0].threads
    assert found.registers <= min(65536 // threads // 8 * 8, 255)


def loop_of(gemm: Gemm, tiles: Tiles) -> SassLoop:
    artifact = lowered(gemm, tiles).artifact
    found = main_loop(disassemble(cubin(artifact.text, artifact.cpu).data))
    assert found is not None
    return found


@pytest.mark.skipif(find_nvdisasm() is None, reason="nvdisasm is not found")
@pytest.mark.parametrize(("gemm", "tiles"), [pytest.param(*c[1:], id=c[0]) for c in cases()])
def test_a_slice_of_k_is_few_instructions(gemm: Gemm, tiles: Tiles) -> None:
    found = loop_of(gemm, tiles)
    assert (found.products, found.waits) == (4, 1)
    assert found.opcodes["WARPGROUP"] == 2
    assert found.instructions <= MOST_INSTRUCTIONS, found


@pytest.mark.skipif(find_nvdisasm() is None, reason="nvdisasm is not found")
def test_scales_are_loaded_once_a_row() -> None:
    """Two of A, one of B; 64 sums of a thread are added to as many."""
    gemm, tiles = next(c[1:] for c in scaled_cases() if c[0] == "scales")
    found = loop_of(gemm, tiles)
    assert (found.opcodes["LDG"], found.opcodes["FMUL"], found.opcodes["FFMA"]) == (3, 2, 64)
    assert found.instructions <= MOST_SCALED_INSTRUCTIONS, found


def test_one_slice_of_k_finds_its_zeros_in_registers() -> None:
    """Zeros that were put there behind the fence would have made ptxas add another."""
    for m, n, group in ((64, 16, 64), (256, 64, 128)):
        artifact = lowered(replace(LARGE, k=64), Tiles(m=m, n=n, group=group, stages=2)).artifact
        assert cubin(artifact.text, artifact.cpu).resources.stack_bytes == 0
