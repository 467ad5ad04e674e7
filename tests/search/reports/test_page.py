"""The page: it needs nothing else, nothing in it becomes markup, and a browser has no complaint."""

from __future__ import annotations

import html.parser
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gemmir.search.reports.build import page_of, title_of
from gemmir.search.reports.page import html_of
from gemmir.search.reports.sources import read
from tests.cli.conftest import Cli, cli
from tests.search.reports import browser
from tests.search.reports.conftest import HOSTILE

__all__ = ["cli"]

TYPICAL_BYTES = 3_000_000


class Reader(html.parser.HTMLParser):
    """Counts elements and keeps what they refer to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]


PAGES: dict[bytes, str] = {}
"""Pages that have been made, by the content of their files: drawing takes a while."""


def page(path: Path) -> str:
    content = path.read_bytes()
    if content not in PAGES:
        PAGES[content] = made(path)
    return PAGES[content]


def made(path: Path) -> str:
    sources = [(str(path), source) for source in read(path)]
    whole = page_of(
        sources, [], title=title_of(sources, []), command=f"gemmir report {path}", measure=False
    )
    return html_of(whole)


def test_a_page_refers_to_nothing_outside(results: Path) -> None:
    reader = Reader(page(results))
    asking = [v for n, v in reader.attributes if n in ("src", "href", "action", "xlink:href")]
    assert asking and all(value.startswith(("#", "data:,")) for value in asking)
    identities = [value for name, value in reader.attributes if name == "id"]
    assert len(identities) == len(set(identities))
    inner = {v[1:] for v in asking if v.startswith("#")}
    assert inner <= set(identities)
    assert not re.search(r"url\((?!#)", page(results))
    assert reader.tags["main"] == reader.tags["nav"] == reader.tags["h1"] == 1


def test_a_page_says_what_its_numbers_depend_on(results: Path) -> None:
    text = page(results)
    for word in ("abcdef1", "seed", "A CPU, 2 CPUs", "gemmir bench --suite s.toml -o r.json"):
        assert word in text
    assert "it is not installed" in text and "1 of 2 met" in text


def test_no_text_becomes_markup(hostile: Path, results: Path) -> None:
    text = page(hostile)
    tags, plain = Reader(text).tags, Reader(page(results)).tags
    assert tags["script"] == plain["script"] == 1 and tags["img"] == 0
    assert "onerror" not in {name for name, _ in Reader(text).attributes}
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_command_writes_a_page_and_says_what_it_wrote(cli: Cli, results: Path) -> None:
    found = cli("report", str(results), "-o", "r.html", "--plots", "p", "--format", "svg", "--json")
    assert found.status == 0, found.err
    assert found.json["page"] == "r.html"
    assert found.json["bytes"] == Path("r.html").stat().st_size
    (section,) = found.json["sections"]
    assert len(found.json["plots"]) == len(section["figures"]) == 4
    for path in found.json["plots"]:
        assert Path(path).read_text().startswith("<svg ")
    assert "drawing" in found.err


def test_a_command_shows_the_stages_of_a_problem(cli: Cli) -> None:
    found = cli("report", "--m", "8", "--n", "8", "--k", "8", "--target", "cpu:x86-64-v3", "--json")
    assert found.status == 0, found.err
    (problem,) = found.json["problems"]
    assert problem["wrong"] == 0 and "this very problem" in problem["checked"]
    assert problem["stages"][0]["name"] == "00-gemm"
    assert all(stage["check"] == "ok" for stage in problem["stages"])
    assert "LLVM IR" in Path("report.html").read_text()
    stage = cli("compile", "--m", "8", "--n", "8", "--k", "8", "--print-ir-after", "tile")
    Path("stage.mlir").write_text(stage.out)
    both = cli("report", "stage.mlir", "--m", "4", "--n", "4", "--k", "4", "--no-check", "--json")
    assert both.status == 0, both.err
    texts, sizes = both.json["problems"]
    assert texts["stages"][0]["name"] == sizes["stages"][0]["name"] == "00-gemm"
    assert (texts["checked"], sizes["title"][:9]) == (sizes["checked"], "4 x 4 x 4")
    unchecked = cli("report", "--m", "8", "--n", "8", "--k", "8", "--no-check", "-o", "n.html")
    assert unchecked.status == 0 and unchecked.out == "n.html\n"
    assert "--no-check was given" in Path("n.html").read_text()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", "GEM1431: x cannot be read|GEM1431: x is no results file: it is empty"),
        (b"hello", "GEM1431: x is no results file: it is text, and not JSON"),
        (b"\xff\x00", "GEM1431: x is no results file: it is neither text nor a database"),
        (b"[1]", "GEM1431: x is JSON, and no object is in it"),
        (b'{"a": 1}', "GEM1431: x is JSON of another kind: it has a"),
        (b'{"classes": {}}', "GEM1432: x is broken: it has no races"),
        (b'{"classes": {"a": [{}]}}', "GEM1432: x is broken: it lacks"),
        (b'{"classes": 3}', "GEM1432: x is broken"),
        (b'{"classes": {"a": [{"results": 5}]}}', "GEM1432: x is broken"),
        (b"[" * 100_000, "GEM1431: x is no results file"),
        (b"SQLite format 3\0" + b"x" * 100, "GEM1421"),
    ],
)
def test_a_file_that_is_none_is_refused(
    cli: Cli, tmp_path: Path, content: bytes, error: str
) -> None:
    (tmp_path / "x").write_bytes(content)
    found = cli("report", "x")
    assert found.status == 1
    assert re.match(f"error ({error})", found.err), found.err
    assert not Path("report.html").exists()


def test_impossible_numbers_are_refused(cli: Cli, results: Path) -> None:
    found = json.loads(results.read_text())
    for times in ([1.0, 0.0, 1.0], [float("nan")] * 3, [2.0, 3.0, 4.0]):
        found["classes"]["rows"][0]["results"]["gemmir"]["cpu_seconds"] = times
        results.write_text(json.dumps(found))
        assert "GEM1432" in cli("report", str(results)).err
    found["classes"]["rows"][0]["results"]["gemmir"]["cpu_seconds"] = [1.0, 1.0, 1.0]
    found["classes"]["rows"][0]["problem"]["m"] = -5
    results.write_text(json.dumps(found))
    assert "is broken: GEM0102: m=-5 is negative" in cli("report", str(results)).err


def test_results_are_not_overwritten(cli: Cli, results: Path) -> None:
    before = results.read_bytes()
    found = cli("report", str(results), "-o", str(results))
    assert found.status == 2 and "is read for the page" in " ".join(found.err.split())
    assert results.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ((), 2, "nothing to report"),
        (("--schedule", "tile{loops=m sizes=4}"), 2, "--schedule is of a problem"),
        (("--lock", "l.lock"), 2, "--lock is of a problem"),
        (("no.json",), 1, "GEM1431: no.json cannot be read: No such file"),
        (("--m", "4"), 2, "lacks --n, --k"),
        (("--m", "4", "--n", "4", "--k", "4", "--format", "gif"), 2, "plots are png or svg"),
        (("--m", "4", "--n", "4", "--k", "4", "--format", "svg"), 2, "--plots DIR"),
    ],
)
def test_what_would_change_nothing_is_refused(
    cli: Cli, arguments: tuple[str, ...], status: int, message: str
) -> None:
    found = cli("report", *arguments)
    assert found.status == status
    assert message in " ".join(found.err.split())


def test_a_folder_that_cannot_be_made_is_refused(cli: Cli, results: Path) -> None:
    Path("p").write_text("")
    found = cli("report", str(results), "--plots", "p")
    assert found.status == 1 and "GEM1433: the folder p cannot be made" in found.err


def test_without_its_libraries_it_says_what_to_install(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, results: Path
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    found = cli("report", str(results))
    assert found.status == 4
    assert "GEM1430: a report needs jinja2" in found.err
    assert "pip install 'gemmir[experiments]'" in found.err


@pytest.mark.skipif(browser.found() is None, reason="there is no Chromium here")
def test_a_browser_has_no_complaint_and_asks_nobody(
    cli: Cli, hostile: Path, results: Path, tmp_path: Path
) -> None:
    size = ("--m", "16", "--n", "16", "--k", "16", "--no-check")
    written = cli("report", str(hostile), str(results), *size, "-o", "page.html")
    assert written.status == 0, written.err
    file = Path("page.html").resolve()
    assert file.stat().st_size < TYPICAL_BYTES
    with browser.browser(tmp_path / "profile") as page:
        for width, dark in ((1280, False), (390, True)):
            page.open(file, width, dark=dark)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
        _sort(page)
        _views(page)
        _hidden(page)
        assert set(page.requests) == {file.as_uri()}
        assert page.complaints == []


def _sort(page: browser.Browser) -> None:
    """A head of a table is pressed twice, and rows go up and then down."""
    head = "document.querySelectorAll('#s2-results-speed-0-table thead button')[1]"
    cells = (
        "Array.from(document.querySelectorAll('#s2-results-speed-0-table tbody tr'))"
        ".map((row) => Number(row.cells[1].dataset.key ?? row.cells[1].textContent))"
    )
    for order in (1, -1):
        page.evaluate(f"{head}.click()")
        found: list[float] = page.evaluate(cells)
        assert len(set(found)) == 3 and found == sorted(found, reverse=order < 0)
    assert page.evaluate(f"{head}.closest('th').getAttribute('aria-sort')") == "descending"


def _views(page: browser.Browser) -> None:
    """Removed lines are hidden where the text alone is wanted."""
    gone = "getComputedStyle(document.querySelector('.line.removed')).display"
    assert page.evaluate(gone) != "none"
    page.evaluate("document.querySelector('.views input[value=text]').click()")
    assert page.evaluate(gone) == "none"


def _hidden(page: browser.Browser) -> None:
    """Every control has a name, every plot words, and the theme changes colours."""
    nameless: Any = page.evaluate(
        "Array.from(document.querySelectorAll('button, a, summary'))"
        ".filter((one) => !one.textContent.trim() && !one.ariaLabel).length"
    )
    assert nameless <= 2, "the empty name of a column of bars, in two tables"
    assert page.evaluate(
        "Array.from(document.querySelectorAll('svg')).every((one) => one.ariaLabel.length > 20)"
    )
    paper = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(paper)
    page.evaluate("document.getElementById('theme').click()")
    assert page.evaluate(paper) != before


TEXTS = ("ink", "muted", "link", "good", "bad", "violet")
GROUNDS = ("paper", "raised", "add", "remove")
LEAST_CONTRAST = 4.5
"""WCAG 2.2, success criterion 1.4.3, for text of this size."""


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = (int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(results: Path, theme: str) -> None:
    root = r":root {" if theme == "light" else r":root\[data-theme=dark\] {"
    blocks = re.findall(root + r"([^}]*)}", page(results))
    colours = dict(re.findall(r"--(\w+): (#\w{6})", " ".join(blocks)))
    for text in TEXTS:
        for ground in GROUNDS:
            low, high = sorted((luminance(colours[text]), luminance(colours[ground])))
            assert (high + 0.05) / (low + 0.05) >= LEAST_CONTRAST, (text, ground)
