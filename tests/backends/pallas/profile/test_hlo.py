"""What is read of scheduled HLO, on what libtpu made of three programs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from gemmir.backends.pallas.profile import hlo

DUMPS: Final = Path(__file__).parent / "dumps"
MIB: Final = 1 << 20


def ops(name: str) -> list[hlo.Op]:
    return hlo.ops((DUMPS / f"{name}.hlo").read_text())


def test_xla_copies_an_operand_first() -> None:
    """4096 cubed of bf16 on v5e: A is copied to VMEM whole, and the op says nothing of that."""
    found = ops("xla_v5e")
    assert [op.opcode for op in found if op.is_work] == ["fusion"]
    assert hlo.simulated_cycles(found) == 1_076_835
    assert hlo.estimated_cycles(found) == 1_083_068
    assert hlo.copy_bytes(found) == 32 * MIB
    assert hlo.hbm_bytes(found) == 3 * 32 * MIB
    assert hlo.vmem_bytes(found) == 32 * MIB + 14_618_624


def test_windows_of_xla() -> None:
    """32 by 3 windows of 1368 x 128; B, which stays in HBM, is read 4096 x 128 at a time."""
    fusion = ops("xla_v5e")[-1]
    assert fusion.windows == (32, 3, 1)
    assert fusion.window_bytes == 2 * (4096 * 128 + 1368 * 128)


def test_what_was_not_simulated_has_an_estimate() -> None:
    found = ops("xla_e4m3_tpu7x")
    assert hlo.simulated_cycles(found) is None
    assert hlo.estimated_cycles(found) == 159_668
    assert hlo.copy_bytes(found) == 16 * MIB


def test_a_kernel_has_no_estimate() -> None:
    found = ops("kernel_v5e")
    assert hlo.simulated_cycles(found) == 64_026
    assert hlo.estimated_cycles(found) is None
    assert hlo.copy_bytes(found) == 0
    assert hlo.hbm_bytes(found) == 3 * 2 * MIB
    assert hlo.vmem_bytes(found) == MIB


def test_one_op_without_an_estimate_leaves_all_unknown() -> None:
    known = ops("xla_v5e")[-1]
    assert hlo.simulated_cycles([known, known]) == 2 * 1_076_835
    assert hlo.simulated_cycles([known, replace(known, simulated_cycles=None)]) is None


@pytest.mark.parametrize(
    ("kind", "size"),
    [
        ("f32[2,3]{1,0}", 24),
        ("bf16[8,128]{1,0:T(8,128)(2,1)}", 2048),
        ("f8e5m2[8,128]{1,0}", 1024),
        ("s4[8,128]{1,0}", 512),
        ("pred[7]{0}", 7),
        ("s32[]", 4),
    ],
)
def test_bytes_of_a_type(kind: str, size: int) -> None:
    (op,) = hlo.ops(f"ENTRY %main () -> f32[] {{\n  %a = {kind} parameter(0)\n}}\n")
    assert [value.size_bytes for value in op.results] == [size]


def test_the_smaller_window_is_that_of_the_operand_in_hbm() -> None:
    text = (
        "ENTRY %main () -> f32[] {\n"
        "  %a = bf16[8192,8192]{1,0} parameter(0)\n"
        "  %b = bf16[8192,8192]{1,0:T(8,128)S(1)} parameter(1)\n"
        "  ROOT %dot = f32[8192,8192]{1,0} fusion(%a, %b), backend_config={"
        '"window_config":{"kernel_window_bounds":["512","8"],"output_window_bounds":["16","2"],'
        '"input_window_bounds":["16","32"],"iteration_bounds":["8","8","2"]}}\n'
        "}\n"
    )
    dot = hlo.ops(text)[-1]
    assert dot.window_bytes == 1024 * (16 * 32 * 2 + 16 * 2 * 4)
    assert dot.windows == (8, 8, 2)


@pytest.mark.parametrize("text", ["", "HloModule empty\n"])
def test_text_without_an_entry(text: str) -> None:
    assert hlo.ops(text) == []
    assert hlo.simulated_cycles([]) is None
