"""What the page on spaces shows can be read and run."""

from __future__ import annotations

import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

from gemmir import Gemm
from gemmir.search.spaces import Space
from gemmir.search.spaces.expression import FUNCTIONS
from gemmir.search.spaces.names import PROBLEM

PAGE: Final = (Path(__file__).parents[3] / "docs" / "spaces.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def test_spaces_have_legal_points() -> None:
    texts = blocks("space")
    assert len(texts) == 3
    for text in texts:
        bound = Space.parse(text).bind(Gemm(m=1024, n=1024, k=1024), "cpu:x86-64-v3")
        assert bound.size > 10
        assert bound.refusal(bound.first) is None
        assert len(bound.sample(2, seed=4)) == 2


def test_the_test_of_a_space_runs(tmp_path: Path) -> None:
    """Hypothesis reads the source of a test, so it must be one of a file."""
    (example,) = blocks("py")
    (before, *_) = blocks("python")
    path = tmp_path / "example.py"
    path.write_text(f"{before}\n{example}")
    spec = spec_from_file_location("example", path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.test_products_are_right()


def test_the_words_are_all_there() -> None:
    for name in FUNCTIONS:
        assert re.search(rf"`[^`]*\b{name}\b[^`]*`", PAGE), name
    for name in PROBLEM:
        assert f"| `{name}` |" in PAGE
