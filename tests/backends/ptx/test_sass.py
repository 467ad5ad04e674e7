"""Machine code of the default schedules: what their main loops are made of.

Skipped where no ptxas or no nvdisasm is found; what reads their words needs neither.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from gemmir import Gemm, lower
from gemmir.backends.ptx.assemble import cubin, find_ptxas
from gemmir.backends.ptx.sass import SassLoop, disassemble, find_nvdisasm, main_loop
from gemmir.cli import main
from gemmir.errors import BackendError, MissingError
from tests.backends.ptx.conftest import tool

needs_tools = pytest.mark.skipif(
    None in (find_ptxas(), find_nvdisasm()), reason="ptxas or nvdisasm is not found"
)
layouts = pytest.mark.parametrize(
    ("trans_a", "trans_b"), [(False, False), (False, True), (True, False), (True, True)]
)
gpus = pytest.mark.parametrize("gpu", ["sm_80", "sm_90a"])

SASS = """
	.section	.text.first,"ax",@progbits
first:
.L_x_0:
        /*0000*/                   FFMA R1, R2, R3, R1 ;
.L_x_1:
        /*0010*/                   LDS.128 R4, [R5+0x10] ;
        /*0020*/                   FFMA R1, R2, R3.reuse, R1 ;
        /*0030*/              @!P0 FFMA R1, R2, R3, R1 ;
        /*0040*/              @!P1 BRA `(.L_x_1) ;
        /*0050*/                   FFMA R1, R2, R3, R1 ;
        /*0060*/               @P0 BRA P1, `(.L_x_0) ;
        /*0070*/               @P0 BRA `(.L_x_2) ;
.L_x_2:
        /*0080*/                   BRA `(.L_x_2);
	.section	.text.second,"ax",@progbits
.L_x_3:
        /*0000*/                   IMAD.WIDE R4, R5, R6, R7 ;
        /*0010*/                   BRA `(.L_x_3) ;
        /*0020*/                   BRA `(.L_x_1) ;
"""


def test_the_main_loop_is_the_innermost_with_most_products() -> None:
    found = main_loop(SASS)
    assert found is not None
    assert found.opcodes == {"FFMA": 2, "LDS": 1, "BRA": 1}
    assert (found.instructions, found.products) == (4, 2)
    assert (found.share, found.others_per_product) == (0.5, 1.0)


def test_code_without_products_has_no_main_loop() -> None:
    assert main_loop(SASS[SASS.index(".text.second") :]) is None
    assert main_loop("") is None


@cache
def loop_of(gpu: str, dtype: str, trans_a: bool, trans_b: bool) -> SassLoop:
    gemm = Gemm(m=4096, n=4096, k=4096, dtype=dtype, trans_a=trans_a, trans_b=trans_b)
    artifact = lower(gemm, f"cuda:{gpu}").artifact
    found = main_loop(disassemble(cubin(artifact.text, artifact.cpu).data))
    assert found is not None
    return found


@needs_tools
@layouts
@gpus
def test_nine_in_ten_instructions_of_f32_multiply(gpu: str, trans_a: bool, trans_b: bool) -> None:
    found = loop_of(gpu, "f32", trans_a, trans_b)
    assert found.opcodes["FFMA"] == found.products
    assert found.share >= 0.9, found


@needs_tools
@layouts
@gpus
@pytest.mark.parametrize("dtype", ["f16", "bf16"])
def test_tensor_cores_wait_for_few_others(
    gpu: str, dtype: str, trans_a: bool, trans_b: bool
) -> None:
    found = loop_of(gpu, dtype, trans_a, trans_b)
    assert found.opcodes["HMMA"] == found.products
    assert found.others_per_product <= 2, found


SIZES = ("--m", "64", "--n", "64", "--k", "64")
EMIT = ("compile", *SIZES, "--target", "cuda:sm_80", "--emit", "sass")


@needs_tools
def test_emit_sass(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(EMIT) == 0
    found = main_loop(capsys.readouterr().out)
    assert found is not None and found.opcodes["FFMA"]
    assert main([*EMIT, "-o", str(tmp_path)]) == 0
    assert (tmp_path / "gemm.sass").read_text().count("FFMA") >= found.opcodes["FFMA"]


def test_emit_sass_without_ptxas(nowhere: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(EMIT) == MissingError.exit_code == 4
    assert "GEM0608" in capsys.readouterr().err


def test_emit_sass_without_nvdisasm(ptxas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(EMIT) == 4
    said = capsys.readouterr().err
    assert "GEM0612: nvdisasm is not on PATH" in said
    assert "pip install gemmir[ptxas]" in said


def test_emit_sass_of_a_fake_tool(ptxas: Path, capsys: pytest.CaptureFixture[str]) -> None:
    disassembler(ptxas.parent, "cat $2")
    assert main(EMIT) == 0
    assert capsys.readouterr().out == "code"


def test_code_that_nvdisasm_does_not_read(ptxas: Path) -> None:
    disassembler(ptxas.parent, "echo 'fatal: not an ELF file' >&2; exit 1")
    with pytest.raises(BackendError, match=r"GEM0451.*not an ELF file"):
        disassemble(b"code")


def test_a_cpu_has_no_sass(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", *SIZES, "--emit", "sass"]) == 2
    assert "the kinds are mlir, llvm, asm" in capsys.readouterr().err


def disassembler(folder: Path, script: str) -> None:
    """An nvdisasm that is this shell script."""
    tool(folder, "nvdisasm").write_text(f"#!/bin/sh\n{script}\n")
