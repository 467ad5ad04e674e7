"""Suites: what a file says, and what is wrong with one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gemmir.bench.report import spelled
from gemmir.bench.suite import Bars, Place, parse_suite, read_suite
from gemmir.errors import ParseError
from gemmir.gemm import Gemm

SHIPPED = Path(__file__).parents[2] / "bench" / "cpu_suite.toml"

TEXT = """
[bars]
suite = 1.2

[[class]]
name = "turned"
problem = { dtype = "f64" }
shapes = ["2x3x4", "5*2x3x4"]
variants = [{}, { trans_a = true }]
bars = { class = 1.0 }

[[class]]
name = "calls"
kind = "calls"
shapes = ["1x1x1"]

[[figure]]
what = "turned over calls"
of = { class = "turned", shape = "5*2x3x4" }
over = { class = "calls", shape = "1x1x1" }
least = 2

[[figure]]
what = "calls over the peak"
of = { class = "calls", shape = "1x1x1" }
least = 0.5
"""


ONE = "[[class]]\nname='x'\nshapes=['1x1x1']\n"


def test_each_shape_comes_with_each_variant():
    suite = parse_suite(TEXT)
    turned, calls = suite.classes
    assert suite.bars == Bars(suite=1.2, class_=1.02, shape=0.95)
    assert turned.bars == Bars(suite=1.2, class_=1.0, shape=0.95)
    plain = Gemm(m=2, n=3, k=4, dtype="f64")
    assert turned.problems == (
        plain,
        replace(plain, batch=5),
        replace(plain, trans_a=True),
        replace(plain, batch=5, trans_a=True),
    )
    assert (turned.kind, calls.kind) == ("product", "calls")
    assert suite.only(["calls"]).classes == (calls,)
    place = Place(class_="calls", shape="1x1x1")
    assert suite.figures[0].of == Place(class_="turned", shape="5*2x3x4")
    assert [(f.over, f.least) for f in suite.figures] == [(place, 2.0), (None, 0.5)]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[[class", "not TOML"),
        ("", "no class"),
        ("class = 3", "no list of tables"),
        ("[[class]]\nname='x'\nshape=['1x1x1']", "class x has shape"),
        ("[[class]]\nname='x'\nshapes=['1x1']", "MxNxK"),
        ("[[class]]\nname='x'\nshapes=['0x1x1']", "MxNxK"),
        ("[[class]]\nname='x'\nkind='y'\nshapes=['1x1x1']", "of kind 'y'"),
        ("[[class]]\nname='x'\nshapes=['1x1x1']\nproblem={mm=1}", "with mm"),
        ("[[class]]\nname='x'\nproblem={m=1}", "without sizes"),
        ("[[class]]\nname='x'\nshapes=['1x1x1']\nproblem={dtype='f31'}", "f31"),
        ("[[class]]\nname='x'\nshapes=['1x1x1']\nproblem=1", "no table"),
        ("[bars]\nclasses=1\n[[class]]\nname='x'\nshapes=['1x1x1']", "bars have classes"),
        ("[bars]\nclass='1'\n[[class]]\nname='x'\nshapes=['1x1x1']", "bars have class"),
        ("[[class]]\nname='x'\nshapes=['1x1x1']\n[other]\n", "has other"),
        (ONE + "bars={suite=1}", "bars have suite"),
        (ONE + ONE, "2 classes are called x"),
        (ONE + "problem={m=2}", "and its problem have m"),
        ("[[class]]\nname='x'\nshapes=[]", "shapes = "),
        ("[[class]]\nname='x'\nshapes=1", "shapes = 1"),
        (ONE + "variants=[]", "variants = "),
        (ONE + "[[figure]]\nwhat='y'\nof={class='x',shape='1x1x1'}", "it has what, of, least"),
        (ONE + "[[figure]]\nwhat='y'\nleast=1", "no table"),
        (ONE + "[[figure]]\nwhat='y'\nleast=1\nof={class='x'}", "it has class and shape"),
        (ONE + "[[figure]]\nwhat='y'\nleast=1\nof={class='x',shape='2x1x1'}", "has none"),
    ],
)
def test_what_is_no_suite_is_refused(text: str, part: str):
    with pytest.raises(ParseError, match=part) as caught:
        parse_suite(text)
    assert caught.value.code == "GEM1370"


def test_a_file_that_is_not_there_and_an_unknown_class_are_refused(tmp_path: Path):
    with pytest.raises(ParseError, match="cannot be read"):
        read_suite(tmp_path / "none.toml")
    with pytest.raises(ParseError, match="it has turned, calls"):
        parse_suite(TEXT).only(["tuned"])


def test_the_shipped_suite_has_every_class_and_no_problem_twice():
    suite = read_suite(SHIPPED)
    assert suite.bars == Bars(suite=1.10, class_=1.02, shape=0.95)
    names = [c.name for c in suite.classes]
    assert len(set(names)) == len(names)
    for of in suite.classes:
        problems = [spelled(gemm) for gemm in of.problems]
        assert len(set(problems)) == len(problems)
