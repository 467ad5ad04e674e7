"""What is read of scheduled HLO, on what libtpu made of three programs."""

from __future__ import annotations

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


@pytest.mark.parametrize("text", ["", "HloModule empty\n"])
def test_text_without_an_entry(text: str) -> None:
    assert hlo.ops(text) == []
    assert hlo.simulated_cycles([]) is None
