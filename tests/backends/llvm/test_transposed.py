"""Lines that are turned into columns by shuffles of two lines each."""

from __future__ import annotations

import math
import re
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm
from gemmir.backends.cpu.assemble import assembly
from gemmir.backends.llvm.text import ELEMENT_BYTES, FunctionText, transposed
from tests.strategies import examples

ROW = r"<(\d+) x \w+> (\S+), "
SHUFFLE = re.compile(rf"(%\w+) = shufflevector {ROW}{ROW}<\d+ x i32> <(.*)>")
ELEMENT = re.compile(rf"(%\w+) = (extract|insert)element {ROW}(?:\w+ (\S+), )?i64 (\d+)")


def run(text: FunctionText, values: dict[str, list[Any]]) -> None:
    """Execute shuffles, inserts and extracts; what is left open is None."""
    for line in text.lines:
        if found := SHUFFLE.search(line):
            name, lanes, x, _, y, mask = found.groups()
            open_lanes = [None] * int(lanes)
            both = [*values.get(x, open_lanes), *values.get(y, open_lanes)]
            lanes_of = re.findall(r"i32 (\d+|poison)", mask)
            values[name] = [None if x == "poison" else both[int(x)] for x in lanes_of]
            continue
        found = ELEMENT.search(line)
        assert found, line
        name, kind, lanes, source, element, at = found.groups()
        row = list(values.get(source, [None] * int(lanes)))
        if kind == "insert":
            row[int(at)] = values[element][0]
        values[name] = row if kind == "insert" else [row[int(at)]]


@st.composite
def blocks(draw: st.DrawFn) -> tuple[str, int, int]:
    scalar = draw(st.sampled_from(["i8", "half", "float", "double"]))
    most = 64 // ELEMENT_BYTES[scalar]
    lanes = draw(st.sampled_from([2**i for i in range(int(math.log2(most)) + 1)]))
    return scalar, draw(st.integers(1, 50)), lanes


@given(blocks())
@examples(0.5)
def test_each_column_has_a_lane_of_every_line(drawn: tuple[str, int, int]) -> None:
    scalar, count, lanes = drawn
    text, names = FunctionText(), [f"%line{number}" for number in range(count)]
    values: dict[str, list[Any]] = {
        name: [(number, lane) for lane in range(lanes)] for number, name in enumerate(names)
    }
    columns = transposed(text, scalar, names, lanes)
    run(text, values)
    assert [values[column] for column in columns] == [
        [(number, lane) for number in range(count)] for lane in range(lanes)
    ]


@pytest.mark.parametrize(("lanes", "steps"), [(2, 1), (4, 2), (8, 3), (16, 4)])
def test_a_square_takes_its_lines_once_a_step(lanes: int, steps: int) -> None:
    """Element by element it would be as many as there are elements."""
    text = FunctionText()
    transposed(text, "float", [f"%line{number}" for number in range(lanes)], lanes)
    assert len(text.lines) == lanes * steps


@pytest.mark.parametrize(("scalar", "lanes", "shuffles"), [("float", 4, 8), ("double", 2, 2)])
def test_an_instruction_turns_two_squares_of_short_lines(
    scalar: str, lanes: int, shuffles: int
) -> None:
    text = FunctionText()
    transposed(text, scalar, [f"%line{number}" for number in range(2 * lanes)], lanes)
    assert len(text.lines) == lanes + shuffles, "lines side by side, and shuffles of those"


def test_a_few_columns_of_b_are_turned_two_squares_at_once() -> None:
    lowered = gemmir.lower(Gemm(m=24, n=4, k=304), "cpu:znver4")
    code = assembly(lowered.artifact)
    assert "layout=panel:1}" in str(lowered.schedule)
    assert len(re.findall(r"\tvunpck[lh]p[sd]\t.*%ymm", code)) == 8, "for 8 rows of 4"
    assert "vmovss" not in code.split("vfmadd")[0]


def test_a_panel_of_a_transposed_b_is_turned_within_sixteen_bytes() -> None:
    lowered = gemmir.lower(Gemm(m=48, n=48, k=48, trans_b=True), "cpu:znver4")
    code = assembly(lowered.artifact)
    assert "panel:48" in str(lowered.schedule)
    assert len(re.findall(r"\tvunpck[lh]p[sd]\t", code)) == 48 * 8 // 4, "two for 8 elements"
    assert "vpermt2ps" not in code
