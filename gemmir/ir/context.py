"""Reading IR: the dialects gemmir's modules are written in, and errors that name the line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Final, cast

from xdsl.context import Context
from xdsl.dialects.builtin import (
    AnyDenseElement,
    AnyFloat,
    DenseIntOrFPElementsAttr,
    ModuleOp,
    RankedStructure,
)
from xdsl.ir import BlockArgument, Dialect, Operation, OpResult
from xdsl.parser import Parser
from xdsl.utils.exceptions import ParseError as XdslParseError
from xdsl.utils.exceptions import VerifyException

from gemmir.errors import ParseError

DIALECTS: Final[Mapping[str, tuple[str, str]]] = {
    "builtin": ("xdsl.dialects.builtin", "Builtin"),
    "func": ("xdsl.dialects.func", "Func"),
    "scf": ("xdsl.dialects.scf", "Scf"),
    "arith": ("xdsl.dialects.arith", "Arith"),
    "math": ("xdsl.dialects.math", "Math"),
    "memref": ("xdsl.dialects.memref", "MemRef"),
    "vector": ("xdsl.dialects.vector", "Vector"),
    "gemmir": ("gemmir.ir.dialect", "GEMMIR"),
    "amx": ("gemmir.ir.amx", "AMX"),
    "nvgpu": ("gemmir.ir.nvgpu", "NVGPU"),
    "pallas": ("gemmir.ir.pallas", "PALLAS"),
}
"""Every dialect of gemmir's IR: its name, and the module and variable that hold it."""


def _factory(module: str, variable: str) -> Callable[[], Dialect]:
    def load() -> Dialect:
        found: object = getattr(import_module(module), variable)
        assert isinstance(found, Dialect)
        return found

    return load


def make_context() -> Context:
    """A context of exactly `DIALECTS`; each is imported when the text first uses it."""
    context = Context()
    for name, (module, variable) in DIALECTS.items():
        context.register_dialect(name, _factory(module, variable))
    return context


@dataclass(frozen=True, kw_only=True)
class Parsed:
    """A parsed module, its text, and the position in it at which each operation starts."""

    module: ModuleOp
    text: str
    starts: Mapping[Operation, int]

    def line(self, op: Operation) -> int | None:
        """The line of `op`, from 1, or that of the nearest operation around it that has one."""
        around: Operation | None = op
        while around is not None and around not in self.starts:
            around = around.parent_op()
        return None if around is None else self.text.count("\n", 0, self.starts[around]) + 1


_HEXADECIMAL: Final = re.compile(r"0[xX][0-9A-Fa-f]+\b")
_NUMBER: Final = re.compile(r"-?[0-9][0-9A-Za-z.]*(?:(?<=[eE])[-+][0-9]+)?")


class _LineParser(Parser):
    """xDSL's parser, which also remembers where each operation started.

    A hexadecimal number among dense floats is the bits of one, as MLIR has it and as xDSL prints
    whole numbers of many digits; xDSL itself reads it as a whole number.
    """

    def __init__(self, context: Context, text: str, name: str) -> None:
        super().__init__(context, text, name)
        self.text = text
        self.latest = 0
        self.starts: dict[Operation, int] = {}

    def parse_operation(self) -> Operation:
        start = self.latest = self.pos
        op = super().parse_operation()
        self.starts[op] = start
        return op

    def parse_dense_int_or_fp_elements_attr(
        self, type: RankedStructure[AnyDenseElement] | None
    ) -> DenseIntOrFPElementsAttr[AnyDenseElement]:
        start = self.pos
        found = super().parse_dense_int_or_fp_elements_attr(type)
        literal = self.text[start : self.text.find(">", start)]
        element = found.get_element_type()
        is_number = '"' not in literal and _HEXADECIMAL.search(literal) is not None
        if not isinstance(element, AnyFloat) or not is_number:
            return found
        values = [_float(number, element) for number in _NUMBER.findall(literal)]
        floats = cast("RankedStructure[AnyFloat]", found.type)
        return DenseIntOrFPElementsAttr.from_list(floats, values)


def _float(number: str, element: AnyFloat) -> float:
    if not _HEXADECIMAL.fullmatch(number):
        return float(number)
    return element.unpack(int(number, 16).to_bytes(element.size, "little"), 1)[0]


def parse_error(
    code: str, reason: str, *, name: str, line: int | None = None, column: int | None = None
) -> ParseError:
    """A `ParseError` that reads "NAME: line L, column C: reason" as far as these are known."""
    where = [f"{word} {n}" for word, n in (("line", line), ("column", column)) if n is not None]
    sentence = " ".join(reason.split()).rstrip("!.")
    return ParseError(code, ": ".join(filter(None, (name, ", ".join(where), sentence))))


_COMMENT_OR_STRING: Final = re.compile(
    r'//[^\n]*|"(?:[^"\\\n\v\f]|\\(?:["nt\\]|[0-9A-Fa-f]{2}))*(?P<end>"?)'
)


def _require_closed_strings(text: str, name: str) -> None:
    """Refuse a string that its line does not close: xDSL's lexer takes exponential time on it."""
    for match in _COMMENT_OR_STRING.finditer(text):
        if match["end"] == "":
            raise _syntax_error("the string is not closed on its line", text, match.start(), name)


def _syntax_error(reason: str, text: str, position: int, name: str) -> ParseError:
    line = text.count("\n", 0, position) + 1
    column = position - text.rfind("\n", 0, position)
    return parse_error("GEM0201", reason, name=name, line=line, column=column)


def _reason_and_position(parser: _LineParser, error: Exception) -> tuple[str, int]:
    if isinstance(error, VerifyException):
        return str(error), parser.pos
    if not isinstance(error, XdslParseError):
        return f"cannot be parsed ({type(error).__name__}: {error})", parser.pos
    if error.msg.startswith("Operation ") and error.msg.endswith(" is not registered"):
        known = ", ".join(parser.ctx.registered_dialect_names)
        # xDSL points at the token after the name.
        return f"{error.msg}; the dialects read are {known}", parser.latest
    return error.msg, error.span.start


def parse_with_lines(text: str, name: str, context: Context) -> Parsed:
    """Parse `text` in `context`, without verifying it.

    Raises `ParseError` GEM0201 with line and column. xDSL's parser answers malformed text with
    exceptions of every kind, so all of them are taken to mean that the text is at fault.
    """
    _require_closed_strings(text, name)
    try:
        parser = _LineParser(context, text, name)
    except XdslParseError as error:  # in the first token, which the parser reads when it is made
        raise _syntax_error(error.msg, text, error.span.start, name) from error
    try:
        module = parser.parse_module()
    except Exception as error:
        reason, position = _reason_and_position(parser, error)
        raise _syntax_error(reason, text, position, name) from error
    return Parsed(module=module, text=text, starts=parser.starts)


def _innermost_first(op: Operation) -> Iterator[Operation]:
    for region in op.regions:
        for block in region.blocks:
            for inner in block.ops:
                yield from _innermost_first(inner)
    yield op


_INVALID: Final = (VerifyException, ValueError, AssertionError, IndexError)
"""What xDSL raises where IR is not valid."""


def verify(parsed: Parsed, name: str) -> None:
    """Verify `parsed`; raises `ParseError` GEM0202 with the line of the operation at fault."""
    _require_definitions_first(parsed, name)
    try:
        parsed.module.verify()
    except _INVALID as error:
        line, cause = _fault(parsed) or (None, error)
        raise parse_error("GEM0202", f"does not verify: {cause}", name=name, line=line) from error


def _require_definitions_first(parsed: Parsed, name: str) -> None:
    """xDSL accepts a value that is used above or outside of its definition; MLIR does not."""
    for op, start in parsed.starts.items():
        for operand in op.operands:
            defined = isinstance(operand, BlockArgument) or (
                isinstance(operand, OpResult) and parsed.starts.get(operand.op, start) <= start
            )
            if not defined:
                reason = f"{op.name} uses a value that is not defined above it"
                raise parse_error("GEM0202", reason, name=name, line=parsed.line(op))


def _fault(parsed: Parsed) -> tuple[int | None, Exception] | None:
    """The line of the first operation that does not verify by itself, and why."""
    for op in _innermost_first(parsed.module):
        try:
            op.verify(verify_nested_ops=False)
        except _INVALID as error:
            return parsed.line(op), error
    return None


def parse_module(text: str, name: str = "<text>") -> ModuleOp:
    """The module that `text` spells in gemmir's dialects, verified; `name` is used in messages.

    Raises `ParseError`: GEM0201 where the text is not IR, GEM0202 where the IR is not valid.
    """
    parsed = parse_with_lines(text, name, make_context())
    verify(parsed, name)
    return parsed.module
