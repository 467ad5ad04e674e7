"""Specs of experiments: what is read from their text, and what is refused with the nearest key."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from gemmir.errors import ParseError
from gemmir.gemm import Gemm
from gemmir.search.experiments.spec import EXAMPLE, TOP, Entry, Spec, parse_spec, read_spec

TINY = "[[problem]]\nm = 2\nn = 3\nk = 4\n"


def read(text: str, folder: Path = Path()) -> Spec:
    return parse_spec(text, "mine.toml", folder)


def test_defaults() -> None:
    assert read(TINY) == Spec(name="mine", problems=(Gemm(m=2, n=3, k=4),), source=TINY)


def test_lists_are_multiplied_out_the_last_fastest() -> None:
    text = '[[problem]]\nm = [2, 3]\nn = 4\nk = [5, 6]\ndtype = ["f32", "f64"]\nepilogue = "bias"\n'
    found = [(g.m, g.n, g.k, g.dtype, g.epilogue) for g in read(text).problems]
    assert found == [(m, 4, k, t, "bias") for m in (2, 3) for k in (5, 6) for t in ("f32", "f64")]


def test_shapes_are_alternatives() -> None:
    text = '[[problem]]\nshapes = ["2x3x4", "5*6x7x8"]\nbeta = [0.0, 1.0]\n'
    shapes = (Gemm(m=2, n=3, k=4), Gemm(m=6, n=7, k=8, batch=5))
    wanted = [dataclasses.replace(gemm, beta=beta) for gemm in shapes for beta in (0.0, 1.0)]
    assert list(read(text).problems) == wanted


def test_schedules(tmp_path: Path) -> None:
    (tmp_path / "mine.schedule").write_text("tile{loops=m sizes=2}\n")
    (tmp_path / "tiles.space").write_text("?x = 1 | 2\ntile{loops=m sizes=?x}\n")
    text = TINY + (
        '[[schedule]]\n[[schedule]]\nname = "t"\ntext = "tile{loops=n sizes=2}"\n'
        '[[schedule]]\nfile = "mine.schedule"\ntargets = ["cpu"]\n'
        '[[schedule]]\nspace = "tiles.space"\ncount = 3\nseed = 5\n'
    )
    assert read(text, tmp_path).schedules == (
        Entry(name="default"),
        Entry(name="t", text="tile{loops=n sizes=2}"),
        Entry(name="mine", text="tile{loops=m sizes=2}\n", targets=("cpu",)),
        Entry(name="tiles", space=tmp_path / "tiles.space", count=3, seed=5),
    )


def test_the_example_says_every_key_and_the_defaults() -> None:
    spec, text = read_spec(EXAMPLE), EXAMPLE.read_text()
    for key in TOP:
        assert f"{key} =" in text or f"[[{key}]]" in text
    for field in dataclasses.fields(Spec):
        if field.name not in ("name", "problems", "schedules", "peers", "source"):
            assert getattr(spec, field.name) == field.default, field.name
    assert len(spec.problems) == 6


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("repetition = 3\n" + TINY, ("an experiment has no repetition", "repetitions")),
        ("rounds = 0\n" + TINY, ("rounds = 0", "a whole number from 1 on")),
        ("rounds = true\n" + TINY, ("rounds = True",)),
        ("sample_seconds = 0\n" + TINY, ("a number of seconds",)),
        ('objective = "speed"\n' + TINY, ('"auto" or "time" or "static"',)),
        ('peers = ["openblass"]\n' + TINY, ("no peer openblass", "the nearest is openblas")),
        ('targets = ["cpu", "cpu"]\n' + TINY, ("targets have cpu 2 times",)),
        ("cpus = [0, 1]\n" + TINY, ("2 cpus and 1 threads",)),
        ("", ("without problems",)),
        ("[[problem]]\nm = 2\nn = 2\n", ("lacks k",)),
        ("[[problem]]\nm = []\nn = 2\nk = 2\n", ("m = []",)),
        ('[[problem]]\nshapes = ["2x2"]\n', ("'2x2' is no shape", "MxNxK")),
        ('[[problem]]\nshapes = ["2x2x2"]\nm = 3\n', ("shapes and also sizes",)),
        (TINY + "dtyp = 'f32'\n", ("a problem has no dtyp", "the nearest is dtype")),
        (TINY + "dtype = 'f24'\n", ("f24",)),
        (TINY + "m = 3\n", ("not TOML",)),
        (TINY + TINY, ("the problems have 2 x 3 x 4 f32 2 times",)),
        (TINY + "[[schedule]]\ntext = 'a'\nfile = 'b'\n", ("text and file",)),
        (TINY + "[[schedule]]\ntext = 'a'\n", ("no name",)),
        (TINY + "[[schedule]]\ncount = 3\n", ("count, and no space",)),
        (TINY + "[[schedule]]\nfile = 'none'\n", ("none cannot be read",)),
        (TINY + "[[schedule]]\n[[schedule]]\n", ("the name default 2 times",)),
        (TINY + "[[schedule]]\ntargets = ['cup']\n", ("cup, which is no target", "is cpu")),
        ("[problem]\nm = 2\n", ("problem is a list of tables",)),
    ],
)
def test_what_is_refused(text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(ParseError) as raised:
        read(text)
    assert raised.value.code == "GEM1420"
    for part in parts:
        assert part in str(raised.value)
