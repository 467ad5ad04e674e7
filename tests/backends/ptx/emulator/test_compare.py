"""setp, set, selp and predicates, as the PTX ISA defines them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tests.backends.ptx.emulator.ptx import result, run
from tests.backends.ptx.emulator.test_floats import F_LEFT, F_RIGHT
from tests.backends.ptx.emulator.test_integers import LEFT, RIGHT, U32, signed

COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a < b or a > b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "equ": lambda a, b: a == b or a != a or b != b,
    "neu": lambda a, b: a != b,
    "ltu": lambda a, b: not a >= b,
    "leu": lambda a, b: not a > b,
    "gtu": lambda a, b: not a <= b,
    "geu": lambda a, b: not a < b,
    "num": lambda a, b: a == a and b == b,
    "nan": lambda a, b: a != a or b != b,
}


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_of_floats(name: str) -> None:
    found = run(
        f"setp.{name}.f32 %p|%q, %r0, %r1; selp.u32 %r8, 1, 0, %p; selp.u32 %r9, 1, 0, %q;",
        [F_LEFT, F_RIGHT],
        [("%r8", U32), ("%r9", U32)],
    )
    expected = [COMPARISONS[name](float(a), float(b)) for a, b in zip(F_LEFT, F_RIGHT, strict=True)]
    assert found[0].astype(bool).tolist() == expected
    assert found[1].astype(bool).tolist() == [not x for x in expected]


INTEGERS: dict[str, Callable[[int, int], bool]] = {
    "lt.s32": lambda a, b: signed(a) < signed(b),
    "lt.u32": lambda a, b: a < b,
    "hi.u32": lambda a, b: a > b,
    "ls.u32": lambda a, b: a <= b,
    "ge.s32": lambda a, b: signed(a) >= signed(b),
    "ne.b32": lambda a, b: a != b,
}


@pytest.mark.parametrize("name", INTEGERS)
def test_comparisons_of_integers(name: str) -> None:
    text = f"setp.{name} %p, %r0, %r1; selp.b32 %r9, 1, 0, %p;"
    found = run(text, [LEFT, RIGHT], [("%r9", U32)])[0]
    pairs = zip(LEFT, RIGHT, strict=True)
    assert found.astype(bool).tolist() == [INTEGERS[name](int(a), int(b)) for a, b in pairs]


def test_a_comparison_is_joined_with_a_predicate() -> None:
    """p is (a < b) and c, q is not (a < b) and c."""
    text = """
        setp.ne.u32 %t, %r2, 0;
        setp.lt.and.u32 %p|%q, %r0, %r1, !%t;
        selp.u32 %r8, 1, 0, %p;
        selp.u32 %r9, 1, 0, %q;
    """
    a, b, c = (np.array(x, U32) for x in ([1, 2, 1, 2], [2, 1, 2, 1], [0, 0, 1, 1]))
    found = run(text, [a, b, c], [("%r8", U32), ("%r9", U32)])
    assert found[0].tolist() == [1, 0, 0, 0]
    assert found[1].tolist() == [0, 1, 0, 0]


def test_predicates_have_logic_of_their_own() -> None:
    text = """
        setp.ne.u32 %p, %r0, 0;
        setp.ne.u32 %q, %r1, 0;
        and.pred %t, %p, %q;
        selp.u32 %r7, 1, 0, %t;
        or.pred %t, %p, %q;
        selp.u32 %r8, 1, 0, %t;
        not.pred %t, %p;
        xor.pred %t, %t, %q;
        selp.u32 %r9, 1, 0, %t;
    """
    a, b = np.array([0, 0, 1, 1], U32), np.array([0, 1, 0, 1], U32)
    found = run(text, [a, b], [(f"%r{n}", U32) for n in (7, 8, 9)])
    assert [f.tolist() for f in found] == [[0, 0, 0, 1], [0, 1, 1, 1], [1, 0, 0, 1]]


def test_set_writes_all_ones_or_one() -> None:
    a, b = np.array([1, 2], U32), np.array([2, 2], U32)
    assert result("set.lt.u32.u32 %r9, %r0, %r1;", a, b, to=U32).tolist() == [0xFFFFFFFF, 0]
    assert result("set.lt.f32.u32 %r9, %r0, %r1;", a, b, to=np.float32).tolist() == [1.0, 0.0]
