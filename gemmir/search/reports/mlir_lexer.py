"""Where the words of MLIR text are, for pygments, which has no lexer for it."""

from __future__ import annotations

from typing import Any, ClassVar

from pygments.lexer import RegexLexer
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Whitespace,
)


class MlirLexer(RegexLexer):
    """The generic and the custom form of operations, attributes and types."""

    name = "MLIR"
    tokens: ClassVar[dict[str, Any]] = {
        "root": [
            (r"\s+", Whitespace),
            (r"//.*", Comment.Single),
            (r'"(?:\\.|[^"\\])*"', String.Double),
            (r"%[\w$.-]+(?:#\d+)?", Name.Variable),
            (r"@[\w$.-]+", Name.Function),
            (r"\^\w+", Name.Label),
            (r"[#!][A-Za-z_][\w$.]*", Name.Decorator),
            (r"(?:memref|vector|tensor|strided|tuple|dense|opaque|affine_map)(?=<)", Keyword.Type),
            (r"(?:[su]?i\d+|b?f\d+\w*|index|none)\b", Keyword.Type),
            (r"(?<=x)(?:[su]?i\d+|b?f\d+\w*|index)\b", Keyword.Type),
            (r"[a-z_]\w*(?:\.\w+)+(?=\s*=)", Name.Attribute),
            (r"[a-z_]\w*(?:\.\w+)+", Name.Builtin),
            (r"(?:true|false|unit)\b", Keyword.Constant),
            (r"-?\d+\.\d*(?:[eE][+-]?\d+)?|0x[0-9a-fA-F]+\b", Number.Float),
            (r"-?\d+(?=x(?:\d|[a-z?]|\w*<))", Number.Integer),
            (r"-?\d+", Number.Integer),
            (r"[a-zA-Z_]\w*(?=\s*=)", Name.Attribute),
            (r"x(?=[\d?]|[a-z])", Punctuation),
            (r"[a-zA-Z_][\w$]*", Keyword),
            (r"->|==|[=:+*?-]", Operator),
            (r"[()\[\]{}<>,]", Punctuation),
            (r".", Punctuation),
        ]
    }
