"""Conversions of bf16 on a CPU, which holds their bits as integers.

LLVM makes an f32 of every bf16 that it moves where the CPU has no instructions for them, and calls
a function of the C library to round one.
"""

from __future__ import annotations

from typing import Final

from xdsl.dialects.builtin import bf16, f32, i16, i32

from gemmir.backends.llvm.emitter import Emitter
from gemmir.backends.llvm.text import lanes_type, splat_literal

BF16_BITS: Final = 16
"""The bits of a bf16, which are the upper ones of an f32."""

QUIET: Final = 1 << 22
"""The bit of an f32 that makes a NaN of what would be an infinity without its lower bits."""

ROUNDING: Final = frozenset({"avx512bf16", "avxneconvert", "bf16"})
"""Features of CPUs with an instruction that rounds f32 to bf16."""


def convert_bf16(e: Emitter, x: str, lanes: int, *, to_bf16: bool) -> str:
    """A row of f32 from the bits of one of bf16, or those of the nearest bf16, halves to even."""
    floats, words, halves = (lanes_type(of, lanes) for of in (f32, i32, i16))
    shift = splat_literal(str(BF16_BITS), "i32", lanes)
    if not to_bf16:
        wide = e.text.value(f"zext {halves} {x} to {words}")
        return e.text.value(
            f"bitcast {words} {e.text.value(f'shl {words} {wide}, {shift}')} to {floats}"
        )
    if e.has(*ROUNDING):
        made = lanes_type(bf16, lanes)
        rounded = e.text.value(f"fptrunc {floats} {x} to {made}")
        return e.text.value(f"bitcast {made} {rounded} to {halves}")
    if lanes > 1:
        return _upper_halves(e, _rounded(e, x, lanes), lanes)
    upper = e.text.value(f"lshr {words} {_rounded(e, x, lanes)}, {shift}")
    return e.text.value(f"trunc {words} {upper} to {halves}")


def _upper_halves(e: Emitter, x: str, lanes: int) -> str:
    """The upper 16 bits of each word of `x`, chosen among all its halves.

    Not shifted and truncated: LLVM 22 makes one store of a truncation and a masked store, and with
    AVX-512 that of 32 bits where the mask is known to have one lane, over what lies behind C.
    """
    pairs = lanes_type(i16, 2 * lanes)
    halves = e.text.value(f"bitcast {lanes_type(i32, lanes)} {x} to {pairs}")
    chosen = ", ".join(f"i32 {2 * lane + 1}" for lane in range(lanes))
    return e.text.value(
        f"shufflevector {pairs} {halves}, {pairs} poison, <{lanes} x i32> <{chosen}>"
    )


def _rounded(e: Emitter, x: str, lanes: int) -> str:
    """The bits of `x` whose upper half is the nearest bf16; a NaN stays one."""
    floats, words = (lanes_type(of, lanes) for of in (f32, i32))

    def of(word: str, left: str, right: int) -> str:
        return e.text.value(f"{word} {words} {left}, {splat_literal(str(right), 'i32', lanes)}")

    bits = e.text.value(f"bitcast {floats} {x} to {words}")
    is_odd = of("and", of("lshr", bits, BF16_BITS), 1)
    nearly_half = of("add", bits, (1 << BF16_BITS - 1) - 1)
    rounded = e.text.value(f"add {words} {nearly_half}, {is_odd}")
    is_nan = e.text.value(f"fcmp uno {floats} {x}, {x}")
    flags = "i1" if lanes == 1 else f"<{lanes} x i1>"
    quiet = of("or", bits, QUIET)
    return e.text.value(f"select {flags} {is_nan}, {words} {quiet}, {words} {rounded}")
