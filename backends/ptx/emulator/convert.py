"""cvt: PTX ISA, section "Data Movement and Conversion Instructions: cvt"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import ml_dtypes
import numpy as np

from gemmir.backends.ptx.emulator import floats
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Scope,
    refuse,
    require_operands,
)
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import TYPES, Array, is_float

Convert = Callable[[Array], Array]

WHOLE: Final[Mapping[str, Callable[[Array], Array]]] = {
    "rni": np.rint,
    "rzi": np.trunc,
    "rmi": np.floor,
    "rpi": np.ceil,
}
"""How a float becomes whole."""

EIGHT_BITS: Final[Mapping[str, np.dtype[Any]]] = {
    "e4m3x2": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2x2": np.dtype(ml_dtypes.float8_e5m2),
}

LARGEST_FINITE: Final = {
    "e4m3x2": 448.0,
    "e5m2x2": 57344.0,
    "f16": 65504.0,
    "bf16": 255 * 2.0**120,
}

SCALARS: Final = {kind for kind in TYPES if kind[0] in "usf" or kind == "bf16"} - {"f16x2", "f32x2"}

PAIRS: Final = {"f16x2": "f16", "bf16x2": "bf16"}


def _convert(scope: Scope, i: Instruction, place: int) -> Action:
    if len(i.name) < 3:
        raise refuse(i)
    *modifiers, to, of = i.name[1:]
    if to in EIGHT_BITS:
        return _to_eight_bits(scope, i, modifiers, to, of)
    if of in EIGHT_BITS:
        return _from_eight_bits(scope, i, modifiers, to, of)
    if to in PAIRS:
        return _to_pair(scope, i, modifiers, to, of)
    if to == "tf32":
        return _to_tf32(scope, i, modifiers, of)
    if to not in SCALARS or of not in SCALARS:
        raise refuse(i)
    if "bf16" in (to, of) and ("sat" in modifiers or "8" in (to[1:], of[1:])):
        raise refuse(i)
    require_operands(i, 2)
    change = _scalar(i, modifiers, to, of)
    source = scope.source(i.operands[1], of, wider=True)
    write = scope.target(i.operands[0], to, wider=True)
    return lambda block, group: write(block, group, change(source(block, group)))


def _scalar(i: Instruction, modifiers: list[str], to: str, of: str) -> Convert:
    rounding = modifiers.pop(0) if modifiers and modifiers[0].startswith("r") else ""
    relu = _take(modifiers, "relu")
    flushes = _take(modifiers, "ftz")
    saturates = _take(modifiers, "sat")
    finite = _take(modifiers, "satfinite")
    if modifiers or (flushes and "f32" not in (to, of)):
        raise refuse(i)
    if not is_float(to):
        change = _to_integer(i, rounding, to, of)
        if relu or finite:
            raise refuse(i)
    else:
        change = _to_float(i, rounding, to, of)
    if relu or finite:
        if of != "f32" or to not in ("f16", "bf16") or rounding != "rn":
            raise refuse(i)
        change = _limited(change, relu, finite, to)
    if saturates and is_float(to):
        change = _then(change, floats.saturate)
    return _then(floats.flush, change) if flushes and of == "f32" else change


def _then(first: Convert, second: Convert) -> Convert:
    return lambda a: second(first(a))


def _take(modifiers: list[str], word: str) -> bool:
    found = modifiers[:1] == [word]
    if found:
        modifiers.pop(0)
    return found


def _to_integer(i: Instruction, rounding: str, to: str, of: str) -> Convert:
    """Integers are cut or extended, or clamped by .sat; floats are clamped, and NaN becomes 0."""
    dtype = TYPES[to]
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    if not is_float(of):
        if rounding:
            raise refuse(i)
        if "sat" not in i.name:
            return lambda a: a.astype(dtype)
        least, most = np.iinfo(TYPES[of]).min, np.iinfo(TYPES[of]).max
        if low <= least and most <= high:
            raise refuse(i)
        return lambda a: np.array([min(max(int(x), low), high) for x in a], dtype)
    if rounding not in WHOLE:
        raise refuse(i)

    def change(a: Array) -> Array:
        whole = WHOLE[rounding](a.astype(np.float64))
        inside = (whole > low) & (whole < high)
        found = np.where(inside, whole, 0).astype(dtype)
        found = np.where(whole >= high, dtype.type(high), found)
        return np.where(whole <= low, dtype.type(low), found)

    return change


def _to_float(i: Instruction, rounding: str, to: str, of: str) -> Convert:
    """A wider float is exact; a narrower one, or one of an integer, is rounded to nearest."""
    dtype = TYPES[to]
    if to == of:
        if rounding and rounding not in WHOLE:
            raise refuse(i)
        whole = WHOLE.get(rounding)
        if whole is None:
            return lambda a: a
        return lambda a: whole(a.astype(np.float64)).astype(dtype)
    rounds = not is_float(of) or _precision(to) < _precision(of) or {to, of} == {"f16", "bf16"}
    if rounds != (rounding == "rn") or rounding not in ("", "rn"):
        raise refuse(i)
    if to in ("f16", "bf16"):
        return lambda a: floats.narrow(_exact_f64(a), dtype)
    return lambda a: a.astype(dtype)


def _exact_f64(a: Array) -> Array:
    """As f64; integers of 64 bits are rounded to odd in it."""
    wide = a.astype(np.float64)
    if a.dtype.kind not in "ui" or a.dtype.itemsize < 8:
        return wide
    return np.array([_odd_f64(int(x)) for x in a])


def _odd_f64(whole: int) -> float:
    """An integer as f64, rounded to odd."""
    extra = max(abs(whole).bit_length() - 53, 0)
    kept = abs(whole) >> extra
    kept |= int(abs(whole) != kept << extra)
    return float(kept << extra) * (-1 if whole < 0 else 1)


def _precision(kind: str) -> int:
    """Bits of the significand."""
    return {"bf16": 8, "f16": 11, "f32": 24, "f64": 53}[kind]


def _limited(change: Convert, relu: bool, finite: bool, to: str) -> Convert:
    largest = LARGEST_FINITE[to]

    def run(a: Array) -> Array:
        found = change(a)
        if finite:
            wide = found.astype(np.float32)
            found = np.where(
                wide == wide, np.clip(wide, -largest, largest).astype(found.dtype), found
            )
        return np.where(found <= 0, found.dtype.type(0), found) if relu else found

    return run


def _to_pair(scope: Scope, i: Instruction, modifiers: list[str], to: str, of: str) -> Action:
    """Two f32, the first one into the upper half."""
    require_operands(i, 3)
    if of != "f32" or "sat" in modifiers or "ftz" in modifiers:
        raise refuse(i)
    half = PAIRS[to]
    change = _scalar(i, modifiers, half, of)
    upper, lower = (scope.source(o, "f32") for o in i.operands[1:])
    write = scope.target(i.operands[0], "b32")

    def run(block: Block, group: Group) -> None:
        halves = [change(lower(block, group)), change(upper(block, group))]
        write(block, group, np.stack(halves, axis=1).view(np.uint32)[:, 0])

    return run


def _to_tf32(scope: Scope, i: Instruction, modifiers: list[str], of: str) -> Action:
    """The 13 lowest bits of an f32 are rounded away: to nearest, ties away from 0 or to even."""
    require_operands(i, 2)
    rounding = modifiers.pop(0) if modifiers else ""
    relu, finite = _take(modifiers, "relu"), _take(modifiers, "satfinite")
    if of != "f32" or rounding not in ("rna", "rn") or modifiers or relu or finite:
        raise refuse(i)
    read, write = scope.source(i.operands[1], "b32"), scope.target(i.operands[0], "b32")

    def run(block: Block, group: Group) -> None:
        bits = read(block, group).astype(np.uint64)
        last = (bits >> np.uint64(13)) & np.uint64(1)
        up = np.uint64(0x1000) if rounding == "rna" else np.uint64(0xFFF) + last
        found = ((bits + up) & np.uint64(0xFFFFE000)).astype(np.uint32)
        special = (bits & np.uint64(0x7F800000)) == 0x7F800000
        nan = special & ((bits & np.uint64(0x7FFFFF)) != 0)
        found = np.where(special, bits.astype(np.uint32), found)
        write(block, group, np.where(nan, np.uint32(0x7FFFFFFF), found))

    return run


def _to_eight_bits(scope: Scope, i: Instruction, modifiers: list[str], to: str, of: str) -> Action:
    """Two f32, the first one into the upper byte, or the halves of an f16x2."""
    if modifiers != ["rn", "satfinite"] or of not in ("f32", "f16x2"):
        raise refuse(i)
    require_operands(i, 3 if of == "f32" else 2)
    write = scope.target(i.operands[0], "b16")
    if of == "f32":
        upper, lower = (scope.source(o, "f32") for o in i.operands[1:])

        def run(block: Block, group: Group) -> None:
            pair = np.stack([lower(block, group), upper(block, group)], axis=1)
            write(block, group, _finite_bytes(pair, to))

        return run
    halves = scope.source(i.operands[1], "f16x2")
    return lambda block, group: write(
        block, group, _finite_bytes(halves(block, group).astype(np.float32).reshape(-1, 2), to)
    )


def _finite_bytes(pair: Array, to: str) -> Array:
    """Rows of two f32 as two bytes in 16 bits; what is too large becomes the largest."""
    largest = LARGEST_FINITE[to]
    limited = np.where(pair == pair, np.clip(pair, -largest, largest), pair)
    found = limited.astype(EIGHT_BITS[to]).view(np.uint8)
    return np.where(pair == pair, found, np.uint8(0x7F)).view(np.uint16)[:, 0]


def _from_eight_bits(
    scope: Scope, i: Instruction, modifiers: list[str], to: str, of: str
) -> Action:
    require_operands(i, 2)
    if modifiers != ["rn"] or to != "f16x2":
        raise refuse(i)
    read, write = scope.source(i.operands[1], "b16"), scope.target(i.operands[0], "f16x2")
    dtype = EIGHT_BITS[of]
    return lambda block, group: write(
        block,
        group,
        floats.canonical(read(block, group)[:, None].view(dtype).astype(np.float16)).ravel(),
    )


CONVERSIONS: Final[Mapping[str, Decode]] = {"cvt": _convert}
