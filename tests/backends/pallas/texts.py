"""Modules as the passes leave them for a TPU, written by hand."""

from __future__ import annotations

from typing import Final

from gemmir.backend import Artifact, backend_for
from gemmir.ir.context import parse_module
from gemmir.machine import machine_for

VMEM: Final = "#gemmir.space<vmem>"

KERNEL: Final = """
func.func @{symbol}(%a: {a} {{gemmir.name = "{name}", gemmir.access = "read"}},
                    %b: memref<256x128xf32> {{gemmir.name = "b", gemmir.access = "read"}},
                    %c: {c} {{gemmir.name = "c", gemmir.access = "{access}"}}) {{
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  {view}
  pallas.call grid [2] semantics ["parallel"]
    ins({source}, %b : {x}, memref<256x128xf32>) outs(%c : {c})
    blocks [#pallas.block<{block}, affine_map<(d0) -> ({index})>, {buffers}>,
            #pallas.block<[256, 128], affine_map<(d0) -> (0, 0)>, 2>,
            #pallas.block<[64, 128], affine_map<(d0) -> (d0, 0)>, 2>] {{
  ^bb0(%i: index, %a_block: {a_block}, %b_block: memref<256x128xf32, #gemmir.space<vmem>>,
       %c_block: memref<64x128xf32, #gemmir.space<vmem>>):
    {body}
    gemmir.yield
  }}
  func.return
}}
"""
"""c = a @ b of f32, 128 x 128 x 256 in two blocks of rows."""


def read(value: str, block: str, shape: str) -> str:
    """All of a block as a vector."""
    return (
        f"%{value} = vector.transfer_read %{block}[%c0, %c0], %zero {{in_bounds = [true, true]}}"
        f" : memref<{shape}xf32, {VMEM}>, vector<{shape}xf32>"
    )


READ_A: Final = read("left", "a_block", "64x256")
READ_B: Final = read("right", "b_block", "256x128")
OLD: Final = read("old", "c_block", "64x128")
DOT: Final = (
    "%product = pallas.dot %left, %right"
    " : vector<64x256xf32>, vector<256x128xf32> -> vector<64x128xf32>"
)
WRITE: Final = (
    "vector.transfer_write %product, %c_block[%c0, %c0] {in_bounds = [true, true]}"
    f" : vector<64x128xf32>, memref<64x128xf32, {VMEM}>"
)


def module(*body: str, **fields: str) -> str:
    """`KERNEL` with another body, or with other fields."""
    known = {
        "symbol": "gemm",
        "name": "a",
        "access": "write",
        "a": "memref<128x256xf32>",
        "c": "memref<128x128xf32>",
        "view": "",
        "source": "%x" if "view" in fields else "%a",
        "x": "memref<128x256xf32>",
        "block": "[64, 256]",
        "index": "d0, 0",
        "buffers": "2",
        "a_block": f"memref<64x256xf32, {VMEM}>",
    }
    lines = "\n    ".join(body or (READ_A, READ_B, DOT, WRITE))
    return KERNEL.format(**{**known, **fields, "body": lines})


def emitted(text: str, target: str = "tpu:v5e") -> Artifact:
    """What the backend makes of a module."""
    parsed = parse_module(text)
    parsed.verify()
    return backend_for("pallas").emit(parsed, machine_for(target))
