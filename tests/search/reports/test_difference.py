"""What a pass changed: every line of both texts is there once, and only moved numbers are equal."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemmir
from gemmir.search.reports.difference import Line, difference

VALUES = st.sampled_from(["%0", "%1", "%2", "%a", "%a_1"])
LINES = st.lists(
    st.tuples(VALUES, st.sampled_from(["addi", "muli"]), VALUES, VALUES).map(
        lambda drawn: f"{drawn[0]} = arith.{drawn[1]} {drawn[2]}, {drawn[3]}"
    ),
    max_size=8,
).map("\n".join)


def kinds(lines: list[Line]) -> str:
    return "".join({"same": " ", "added": "+", "removed": "-"}[line.kind] for line in lines)


@given(LINES, LINES)
def test_both_texts_can_be_read_back(before: str, after: str) -> None:
    lines = difference(before, after)
    old, new = before.splitlines(), after.splitlines()
    assert [line.text for line in lines if line.after] == new
    assert [line.after for line in lines if line.after] == list(range(1, len(new) + 1))
    assert [line.before for line in lines if line.before] == list(range(1, len(old) + 1))
    assert [line.text for line in lines if line.kind == "removed"] == [
        old[line.before - 1] for line in lines if line.kind == "removed"
    ]
    assert all((line.kind == "same") == bool(line.before and line.after) for line in lines)


@given(LINES)
def test_nothing_changed_in_the_same_text(text: str) -> None:
    assert set(kinds(difference(text, text))) <= {" "}


def test_a_new_constant_moves_numbers_and_changes_nothing_else() -> None:
    before = "%0 = arith.constant 1\n%1 = arith.addi %0, %0\nfunc.return %1"
    after = "%0 = arith.constant 9\n%1 = arith.constant 1\n%2 = arith.addi %1, %1\nfunc.return %2"
    assert kinds(difference(before, after)) == "+   "


def test_another_operand_is_a_change_also_where_the_text_has_the_same_shape() -> None:
    before = "%0 = arith.constant 1\n%1 = arith.constant 2\n%2 = arith.addi %0, %1"
    after = "%0 = arith.constant 1\n%1 = arith.constant 2\n%2 = arith.addi %1, %1"
    assert kinds(difference(before, after)) == "  -+"


def test_what_uses_a_changed_value_is_changed() -> None:
    before = "%0 = arith.constant 1\n%1 = arith.addi %a, %0\nmemref.store %1"
    after = "%0 = arith.constant 1\n%1 = arith.muli %a, %0\nmemref.store %1"
    assert kinds(difference(before, after)).count("-") >= 1
    swapped = difference("%0 = a.x\n%1 = b.y\nc.z %0, %1", "%0 = b.y\n%1 = a.x\nc.z %0, %1")
    assert kinds(swapped).count("-") == 2


@pytest.mark.parametrize("target", ["cpu:x86-64-v3", "cuda:sm_80", "tpu:v6e"])
def test_an_unrolled_body_stays_in_its_first_copy(target: str) -> None:
    stages = [*gemmir.lower(gemmir.Gemm(m=64, n=64, k=64, dtype="f32"), target).stages.values()]
    for before, after in pairwise(stages):
        lines = difference(before.text, after.text)
        assert [line.text for line in lines if line.after] == after.text.splitlines()
        if after.step.startswith("unroll"):
            body = sum("outerproduct" in line for line in before.text.splitlines())
            kept = [line for line in lines if line.kind == "same" and "outerproduct" in line.text]
            assert len(kept) == body > 0
