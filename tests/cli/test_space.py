"""gemmir space, as a person and as a program sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest

from tests.cli.conftest import Cli

CUBE: Final = ("--m", "48", "--n", "48", "--k", "48", "--target", "cpu:x86-64-v3")
SPACE: Final = """\
?mr = 4 | 1..8
?copy = '' | 'promote{operand=b to=l2 layout=panel:16}'
where mr % 2 == 0
?copy
tile{loops=m,n sizes=?mr,16}
promote{operand=c to=registers}
vectorize{with=fma width=8}
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "my.space"
    path.write_text(SPACE)
    return path


def test_show(cli: Cli, path: Path) -> None:
    result = cli("space", "show", *CUBE, "--space", str(path))
    assert result.status == 0
    assert result.out.startswith(SPACE)
    words = " ".join(result.out.split())
    assert "?mr 8 4, 1, 2, 3, 5, 6, 7, 8 ?copy 2 '', promote{operand=b" in words
    assert "all points 16 legal, by the rules and the sizes 6 refused: where mr % 2 == 0" in words
    assert "(line 3) 8 refused: GEM0312 vectorize 2" in words


def test_show_as_json(cli: Cli, path: Path) -> None:
    schedule = SPACE.splitlines()[3:]
    text = ",".join(schedule).replace("?copy,", "").replace("?mr", "2")
    result = cli(
        "space", "show", *CUBE, "--space", str(path), "--lower", "--json", "--schedule", text
    )
    found = json.loads(result.out)
    assert (found["size"], found["legal"], found["exact"], found["lowered"]) == (16, 6, True, True)
    assert found["holes"]["mr"] == [4, 1, 2, 3, 5, 6, 7, 8]
    assert found["first"] == {"mr": 4, "copy": ""}
    assert found["refused"] == {"where mr % 2 == 0 (line 3)": 8, "GEM0312 vectorize": 2}
    assert found["point"] == {"mr": 2, "copy": ""}


def test_a_space_by_chance(cli: Cli, path: Path) -> None:
    result = cli("space", "show", *CUBE, "--space", str(path), "--most", "3")
    words = " ".join(result.out.split())
    assert "legal, about" in words
    assert "looked at, by chance 3" in words


def test_the_text_of_the_default_space_is_a_space(cli: Cli, tmp_path: Path) -> None:
    text = cli("space", "show", *CUBE, "--text").out
    file = tmp_path / "default.space"
    file.write_text(text)
    assert cli("space", "show", *CUBE, "--text", "--json").json == {"space": text}
    shown = cli("space", "list", *CUBE, "--space", str(file), "--limit", "1").out
    assert shown == cli("space", "list", *CUBE, "--limit", "1").out
    point, _, schedule = shown.strip().partition("\t")
    assert " nr=" in f" {point}"
    assert cli("check", *CUBE, "--schedule", schedule).status == 0


def test_list_and_sample(cli: Cli, path: Path) -> None:
    listed = json.loads(cli("space", "list", *CUBE, "--space", str(path), "--json").out)
    assert [row["point"]["mr"] for row in listed] == [4, 4, 2, 2, 6, 6]
    assert listed[1]["schedule"].startswith("promote{operand=b to=l2 layout=panel:16},tile{")
    drawn = cli("space", "sample", *CUBE, "--space", str(path), "-n", "9", "--seed", "3")
    assert len(drawn.out.splitlines()) == 6
    again = cli("space", "sample", *CUBE, "--space", str(path), "-n", "2", "--seed", "3")
    assert again.out.splitlines() == drawn.out.splitlines()[:2]


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("show", "--m", "4"), 2, "the problem lacks --n, --k"),
        (("list", *CUBE, "--schedule", "unroll{loop=k factor=2}"), 2, "--schedule would change"),
        (("show", *CUBE, "--lock", "my.lock"), 2, "--lock would change nothing"),
        (("sample", *CUBE, "--space", "?x = 2", "--threads", "2"), 2, "--threads would change"),
        (("show", "a.space", *CUBE[-2:]), 2, "a.space is a space; write --space a.space"),
        (
            ("show", *CUBE, "--space", "b.space"),
            1,
            "the space b.space cannot be read: No such file",
        ),
        (("show", *CUBE, "--space", "?x = 2"), 5, "error GEM1401: line 1: ?x stands nowhere"),
        (
            ("sample", *CUBE, "--space", "?x = 2\nwhere x > 2\ntile{loops=m sizes=?x}"),
            5,
            "error GEM1405: of 1 points 1 were looked at",
        ),
    ],
)
def test_refused(cli: Cli, arguments: tuple[str, ...], status: int, words: str) -> None:
    result = cli("space", *arguments)
    assert (result.status, result.out) == (status, "")
    assert words in " ".join(result.err.replace("│", " ").split())
