"""Text of the compiler as HTML: each line with its words in colours."""

from __future__ import annotations

import html
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

from gemmir.search.reports.libraries import pygments
from gemmir.search.reports.mlir_lexer import MlirLexer

LANGUAGES: Final = {"mlir": "mlir", "llvm": "llvm", "asm": "gas", "ptx": "ptx", "pallas": "python"}
"""The lexers of what there is to be shown."""

CLASSES: Final = (
    ("Comment", "tc"),
    ("Literal.String", "ts"),
    ("Literal.Number", "tn"),
    ("Keyword.Type", "tt"),
    ("Keyword", "tk"),
    ("Name.Variable", "tv"),
    ("Name.Function", "tf"),
    ("Name.Label", "tl"),
    ("Name.Attribute", "ta"),
    ("Name.Decorator", "td"),
    ("Name.Builtin", "to"),
)
"""The CSS class of each kind of word; others are plain."""


def lines_of(text: str, language: str) -> list[str]:
    """Each line of `text` as HTML; all of its characters are escaped."""
    if not text:
        return []
    lines: list[list[str]] = [[]]
    for kind, words in _tokens(text, language):
        name = _class_of(kind)
        for number, part in enumerate(words.split("\n")):
            if number:
                lines.append([])
            if part:
                escaped = html.escape(part)
                lines[-1].append(f'<i class="{name}">{escaped}</i>' if name else escaped)
    if lines[-1] == []:
        lines.pop()
    return ["".join(parts) for parts in lines]


def _tokens(text: str, language: str) -> Iterator[tuple[tuple[str, ...], str]]:
    yield from _lexer(LANGUAGES[language]).get_tokens(text)


@cache
def _lexer(name: str) -> Any:
    if name == "mlir":
        return MlirLexer(ensurenl=True, stripnl=False)
    return pygments("lexers").get_lexer_by_name(name, ensurenl=True, stripnl=False)


@cache
def _class_of(kind: tuple[str, ...]) -> str:
    """Of the first kind that `kind` is one of: a token is a tuple of names, the widest first."""
    found = (
        name for kinds, name in CLASSES if kind[: kinds.count(".") + 1] == tuple(kinds.split("."))
    )
    return next(found, "")
