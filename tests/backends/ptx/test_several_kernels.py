"""Functions of several nests over blocks: kernels that run one after another on one workspace."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

import gemmir
from gemmir.arrays import Operands, make_operands
from gemmir.backend import Artifact
from gemmir.backends.ptx.emulator import PtxFault
from gemmir.backends.ptx.run import run_ptx
from gemmir.check import check
from gemmir.errors import BackendError
from gemmir.gemm import Gemm
from gemmir.machine import machine_for
from gemmir.schedule.default import default_text

TARGET = "cuda:sm_80"
DEEP = Gemm(m=20, n=24, k=100)
TILES = (
    "tile{loops=m,n sizes=16,16 over=blocks},tile{loops=m,n sizes=4,4 over=threads},"
    "promote{operand=c to=registers},tile{loops=k sizes=16},"
    "promote{operand=a to=shared layout=panel:20},promote{operand=b to=shared layout=panel:20}"
)
VECTORS = "vectorize{with=fma width=4},unroll{loop=k factor=4}"
SPLIT = f"split-k{{factor=3 order=fixed}},{TILES},{VECTORS}"
FUSED = f"split-k{{factor=3 order=fixed}},{TILES},fuse-epilogue,{VECTORS}"


def emitted(gemm: Gemm = DEEP, schedule: str = SPLIT) -> Artifact:
    return gemmir.lower(gemm, TARGET, schedule).artifact


def operands_of(artifact: Artifact, seed: int = 0) -> Operands:
    return make_operands(artifact.signature, seed)


def test_each_nest_is_a_kernel_in_order() -> None:
    artifact = emitted()
    assert artifact.launch is not None
    first, second = artifact.launch.kernels
    assert (first.symbol, first.blocks, first.threads) == ("gemm_0", 3 * 2 * 2, 16)
    assert (second.symbol, second.blocks, second.threads) == ("gemm_1", 1, 128)
    assert first.shared_bytes > 0
    assert second.shared_bytes == 0
    assert artifact.launch.workspace_bytes == (3 * 20 * 24 * 4,)
    assert re.findall(r"\.entry (\w+)", artifact.text) == ["gemm_0", "gemm_1"]
    for symbol in ("gemm_0", "gemm_1"):
        assert len(re.findall(rf"\.param \.\S+ .*{symbol}_param_\d", artifact.text)) == 4


@pytest.mark.parametrize(
    "gemm",
    [
        DEEP,
        replace(DEEP, k=96, alpha=2, beta=3, epilogue="bias+relu+residual"),
        replace(DEEP, m=7, n=9, epilogue="bias"),
        replace(DEEP, m=0, epilogue="bias"),
    ],
    ids=str,
)
def test_they_are_right_together(gemm: Gemm) -> None:
    check(gemm, target=TARGET, schedule=FUSED if gemm.steps else SPLIT).require_ok()


@pytest.mark.parametrize("dtype", ["bf16", "tf32", "i8", "f64"])
def test_slices_on_tensor_cores(dtype: str) -> None:
    gemm = Gemm(m=20, n=24, k=100 if dtype == "f64" else 300, dtype=dtype, epilogue="bias")
    schedule = "split-k{factor=3}\n" + default_text(gemm, machine_for(TARGET))
    check(gemm, target=TARGET, schedule=schedule).require_ok()


def test_the_second_adds_what_the_first_has_left() -> None:
    artifact = emitted()
    assert artifact.launch is not None
    second = artifact.launch.kernels[1]
    launch = replace(artifact.launch, kernels=(second, second))
    alone = replace(artifact, launch=launch)
    with pytest.raises(PtxFault, match=r"GEM1004: .* in global memory were never written"):
        run_ptx(alone, artifact.text, operands_of(artifact).arrays)


def test_the_bits_are_those_of_any_order_of_blocks() -> None:
    """The evaluator runs the blocks from the last to the first, the emulator from the first on."""
    artifact = emitted()
    once, again = operands_of(artifact), operands_of(artifact)
    run_ptx(artifact, artifact.text, once.arrays)
    run_ptx(artifact, artifact.text, again.arrays)
    wide = emitted(schedule=SPLIT.replace("sizes=16,16", "sizes=8,16", 1))
    other = operands_of(wide)
    run_ptx(wide, wide.text, other.arrays)
    assert once.output.tobytes() == again.output.tobytes() == other.output.tobytes()


def test_an_epilogue_of_its_own_is_no_kernel() -> None:
    with pytest.raises(BackendError, match="GEM0441"):
        emitted(replace(DEEP, epilogue="bias"))


def test_the_last_stage_gives_the_same_text() -> None:
    lowered = gemmir.lower(DEEP, TARGET, SPLIT)
    again = gemmir.lower_text(list(lowered.stages.values())[-1].text, TARGET)
    assert again.artifact.text == lowered.artifact.text
    assert again.artifact.launch == lowered.artifact.launch


@pytest.mark.parametrize(
    ("gemm", "factor"),
    [
        (Gemm(m=16, n=4096, k=4096, dtype="bf16"), 8),
        (Gemm(m=256, n=256, k=16384), 32),
        (Gemm(m=64, n=64, k=2048, dtype="f16", batch=4), 4),
        (Gemm(m=4096, n=4096, k=65536, dtype="bf16"), 1),
        (Gemm(m=64, n=64, k=1023, dtype="f16"), 1),
        (Gemm(m=0, n=64, k=4096), 1),
        (Gemm(m=64, n=64, k=4096, groups=2), 1),
    ],
    ids=str,
)
def test_k_is_split_where_c_is_small_and_k_deep(gemm: Gemm, factor: int) -> None:
    first = default_text(gemm, machine_for(TARGET)).split("\n")[0]
    if factor == 1:
        assert not first.startswith("split-k")
    else:
        assert first == f"split-k{{factor={factor} order=fixed}}"


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=16, n=40, k=1500, dtype="bf16", epilogue="bias+gelu"),
        Gemm(m=20, n=24, k=1024, beta=0.5, epilogue="residual"),
        Gemm(m=9, n=8, k=1200, dtype="f16", trans_a=True, batch=2),
    ],
    ids=str,
)
def test_split_defaults_are_right(gemm: Gemm) -> None:
    assert default_text(gemm, machine_for(TARGET)).startswith("split-k")
    check(gemm, target=TARGET, shrink=False).require_ok()
