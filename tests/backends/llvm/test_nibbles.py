"""Elements of 4 bits: with which instructions they become floats, and what has none."""

import re
from typing import Final

import pytest

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import assembly
from gemmir.backends.cpu.emit import emit
from gemmir.errors import BackendError
from gemmir.ir.context import parse_module
from gemmir.machine import machine_for

WEIGHTS: Final = Gemm(m=1, n=48, k=512, dtype_b="i4", weight_group=128)
"""Too few columns to be dealt to 8 vectors."""

VFMADD: Final = r"vfmadd\d+ps"
FMLA: Final = "fmla"

FEW: Final = {
    "cpu:znver5": ("vpmultishiftqb", "vpandd", "vcvtdq2ps", VFMADD),
    "cpu:x86-64-v4": ("vpsllvd", "vpandd", "vcvtdq2ps", VFMADD),
    "cpu:znver3": ("vpbroadcastd", "vpsllvd", "vpand", "vcvtdq2ps", VFMADD),
    "cpu:neoverse-n1": ("ushl", "and", "scvtf", FMLA),
}
"""What the loop over k has for each vector of weights, once."""


def loop_of(text: str, multiply_add: str) -> list[str]:
    """The instructions of the innermost loop that multiplies most."""
    blocks = re.split(r"^\.\w+:.*$", text, flags=re.M)
    chosen = max(blocks, key=lambda block: len(re.findall(rf"\t{multiply_add}\t", block)))
    return re.findall(r"^\t([\w.]+)", chosen, re.M)


@pytest.mark.parametrize("target", FEW)
def test_a_weight_takes_no_instruction_more(target: str) -> None:
    lowered = gemmir.lower(WEIGHTS, target=target)
    *others, multiply_add = FEW[target]
    loop = loop_of(assembly(lowered.artifact), multiply_add)
    products = sum(bool(re.fullmatch(multiply_add, name)) for name in loop)
    assert products > 1
    assert {name: loop.count(name) for name in others} == dict.fromkeys(others, products)


def test_what_is_packed_is_exact() -> None:
    gemm = Gemm(m=96, n=512, k=512, dtype_b="i4", weight_group=128)
    text = assembly(gemmir.lower(gemm, target="cpu:znver5").artifact)
    assert "vpsrad" in text


HALVES: Final = """
func.func @f(%b: memref<4x8xi4> {gemmir.name = "b", gemmir.access = "read"},
             %c: memref<4x8xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  %zero = arith.constant 0 : index
  %none = arith.constant 0 : i4
  %x = vector.transfer_read %b[%zero, %zero], %none {in_bounds = [true, true]}
    : memref<4x8xi4>, vector<4x1xi4>
  %y = gemmir.extend %x : vector<4x1xi4> to vector<4x1xf32>
  vector.transfer_write %y, %c[%zero, %zero] {in_bounds = [true, true]}
    : vector<4x1xf32>, memref<4x8xf32>
  func.return
}
"""


def test_half_a_byte_cannot_be_read() -> None:
    with pytest.raises(BackendError) as raised:
        emit(parse_module(HALVES), machine_for("cpu:znver3"))
    assert raised.value.code == "GEM1335"
