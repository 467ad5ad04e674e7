"""What the functions of a packed operand are called, and how many elements it has."""

from __future__ import annotations

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Attribute

from gemmir.ir.attributes import PanelAttr


def pack_symbol(symbol: str, operand: str) -> str:
    """The function that packs `operand` for `symbol`."""
    return f"{symbol}_pack_{operand}"


def compute_symbol(symbol: str, operand: str) -> str:
    """The function that is `symbol` with `operand` packed."""
    return f"{symbol}_packed_{operand}"


def packed_elements(of: MemRefType[Attribute]) -> int:
    """Elements of a buffer of panels."""
    assert isinstance(of.layout, PanelAttr)
    extent = of.get_shape()[of.layout.dim.data]
    return -(-extent // of.layout.width.data) * of.layout.stride.data
