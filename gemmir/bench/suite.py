"""The problems of a suite and the bars that they have, read from TOML.

[bars]                     least time of the best peer over gemmir's
suite = 1.10               geometric mean over all problems
class = 1.02               geometric mean over each class
shape = 0.95               each problem

[[class]]
name = "transposed"
kind = "product"                                or "calls", or "any m"
problem = { dtype = "f32" }                     fields of Gemm that all have
shapes = ["256x256x256", "64*32x32x32"]         MxNxK, or BATCH*MxNxK
variants = [{ trans_a = true }, {}]             each shape with each of these
bars = { class = 1.0 }                          where they are other ones

[[figure]]
what = "bf16 over f32 at 1024 cubed"
of = { class = "bf16", shape = "1024x1024x1024" }       gemmir's speed there
over = { class = "squares", shape = "1024x1024x1024" }  over that; without it, over the FMA peak
least = 0.95
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args

from gemmir.bench.contestants import Kind
from gemmir.errors import GemmirError, ParseError
from gemmir.gemm import Gemm

SHAPE: Final = re.compile(r"(?:([1-9]\d*)\*)?([1-9]\d*)x([1-9]\d*)x([1-9]\d*)")

KEYS: Final = ("name", "kind", "problem", "shapes", "variants", "bars")
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Least time of the best peer over gemmir's: of one problem, and as a geometric mean."""

    suite: float = 1.10
    class_: float = 1.02
    shape: float = 0.95


@dataclass(frozen=True, kw_only=True)
class Class:
    """Problems that are alike, and what is compared of them."""

    name: str
    kind: Kind = "product"
    problems: tuple[Gemm, ...]
    bars: Bars


@dataclass(frozen=True, kw_only=True)
class Place:
    """The first problem of a shape in a class."""

    class_: str
    shape: str


@dataclass(frozen=True, kw_only=True)
class Figure:
    """gemmir's speed `of` one problem over that of another, or over the FMA peak, and its bar."""

    what: str
    of: Place
    over: Place | None
    least: float


@dataclass(frozen=True, kw_only=True)
class Suite:
    """All classes, in order; `bars` are those of the whole."""

    classes: tuple[Class, ...]
    bars: Bars
    figures: tuple[Figure, ...] = ()

    def only(self, names: Sequence[str]) -> Suite:
        """The classes of these names; `ParseError` GEM1370 where there is none."""
        known = [c.name for c in self.classes]
        for name in names:
            if name not in known:
                raise ParseError(
                    "GEM1370", f"the suite has no class {name!r}", f"it has {', '.join(known)}"
                )
        return dataclasses.replace(self, classes=tuple(c for c in self.classes if c.name in names))


def read_suite(path: Path) -> Suite:
    """The suite in a file; `ParseError` GEM1370 where it is not one."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ParseError("GEM1370", f"{path} cannot be read: {reason}") from error
    return parse_suite(text, str(path))


def parse_suite(text: str, name: str = "<text>") -> Suite:
    """The suite that `text` says; `ParseError` GEM1370 where it says none."""
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ParseError("GEM1370", f"{name} is not TOML: {error}") from error
    try:
        bars = _bars(found.pop("bars", {}), Bars(), ("suite", "class", "shape"))
        classes = tuple(_class(entry, bars) for entry in _tables(found.pop("class", []), "class"))
        figures = tuple(_figure(entry) for entry in _tables(found.pop("figure", []), "figure"))
        _check_names(classes)
        _check_places(classes, figures)
    except _NotASuiteError as error:
        raise ParseError("GEM1370", f"{name}: {error}", error.hint) from error
    if found or not classes:
        raise ParseError(
            "GEM1370",
            f"{name} has {', '.join(found) or 'no class'}",
            "a suite has [bars], [[class]] and [[figure]] tables",
        )
    return Suite(classes=classes, bars=bars, figures=figures)


class _NotASuiteError(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _tables(value: object, name: str) -> list[dict[str, Any]]:
    if not isinstance(value, list):
        raise _NotASuiteError(f"{name} is no list of tables", f"write [[{name}]]")
    entries = cast("list[object]", value)
    return [_table(entry, f"a {name}") for entry in entries]


def _table(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _NotASuiteError(f"{what} is no table")
    return cast("dict[str, Any]", value)


def _bars(value: object, default: Bars, known: Sequence[str]) -> Bars:
    given = _table(value, "bars")
    for name, bar in given.items():
        if name not in known or not isinstance(bar, int | float):
            raise _NotASuiteError(
                f"bars have {name} = {bar!r}", f"{' and '.join(known)} are numbers such as 1.02"
            )
    named = {"class_" if name == "class" else name: float(bar) for name, bar in given.items()}
    return dataclasses.replace(default, **named)


def _figure(entry: Mapping[str, Any]) -> Figure:
    what, least = entry.get("what"), entry.get("least")
    is_known = set(entry) <= {"what", "of", "over", "least"}
    if not (isinstance(what, str) and isinstance(least, int | float) and is_known):
        raise _NotASuiteError(
            f"a figure has {', '.join(entry)}", "it has what, of, least, and over where it has one"
        )
    over = _place(what, entry["over"]) if "over" in entry else None
    return Figure(what=what, of=_place(what, entry.get("of")), over=over, least=float(least))


def _place(what: str, value: object) -> Place:
    place = _table(value, f"a place of the figure {what!r}")
    if set(place) != {"class", "shape"}:
        raise _NotASuiteError(
            f"a place of the figure {what!r} has {', '.join(place)}", "it has class and shape"
        )
    return Place(class_=str(place["class"]), shape=str(place["shape"]))


def _check_names(classes: Sequence[Class]) -> None:
    names = [c.name for c in classes]
    for name in names:
        if names.count(name) > 1:
            raise _NotASuiteError(f"{names.count(name)} classes are called {name}")


def _check_places(classes: Sequence[Class], figures: Sequence[Figure]) -> None:
    known = {(c.name, shape_of(gemm)) for c in classes for gemm in c.problems}
    for figure in figures:
        for place in (figure.of, figure.over):
            if place is not None and (place.class_, place.shape) not in known:
                raise _NotASuiteError(
                    f"the figure {figure.what!r} is of {place.shape} in class {place.class_}, "
                    "which has none"
                )


def shape_of(gemm: Gemm) -> str:
    """The shape of a problem as a suite has it."""
    batch = "" if gemm.batch is None else f"{gemm.batch}*"
    return f"{batch}{gemm.m}x{gemm.n}x{gemm.k}"


def _class(entry: Mapping[str, Any], bars: Bars) -> Class:
    name = str(entry.get("name", "without a name"))
    for key in entry:
        if key not in KEYS:
            raise _NotASuiteError(f"class {name} has {key}", f"a class has {', '.join(KEYS)}")
    shared = _table(entry.get("problem", {}), f"problem of class {name}")
    shapes: list[dict[str, int]] = [{}]
    if "shapes" in entry:
        shapes = [_shape(name, shape) for shape in _list(name, "shapes", entry)]
    variants: list[dict[str, Any]] = [{}]
    if "variants" in entry:
        listed = _list(name, "variants", entry)
        variants = [_table(variant, f"a variant of class {name}") for variant in listed]
    twice = sorted(set(shared).intersection(*shapes))
    if twice:
        raise _NotASuiteError(f"the shapes of class {name} and its problem have {', '.join(twice)}")
    kind = entry.get("kind", "product")
    if kind not in KINDS:
        raise _NotASuiteError(f"class {name} is of kind {kind!r}", f"use {' or '.join(KINDS)}")
    return Class(
        name=name,
        kind=kind,
        problems=tuple(
            _gemm(name, {**shared, **shape, **variant}) for variant in variants for shape in shapes
        ),
        bars=_bars(entry.get("bars", {}), bars, ("class", "shape")),
    )


def _list(name: str, key: str, entry: Mapping[str, Any]) -> list[Any]:
    """A list of a class that has something in it."""
    found = entry[key]
    if not isinstance(found, list) or not found:
        raise _NotASuiteError(f"class {name} has {key} = {found!r}", "write a list of some")
    return cast("list[Any]", found)


def _shape(name: str, text: object) -> dict[str, int]:
    match = SHAPE.fullmatch(str(text))
    if match is None:
        raise _NotASuiteError(
            f"class {name} has the shape {text!r}", "write MxNxK or BATCH*MxNxK, as 64*32x32x32"
        )
    batch, m, n, k = match.groups()
    return {"m": int(m), "n": int(n), "k": int(k)} | ({"batch": int(batch)} if batch else {})


def _gemm(name: str, fields: Mapping[str, Any]) -> Gemm:
    known = {field.name for field in dataclasses.fields(Gemm)}
    unknown = sorted(set(fields) - known)
    if unknown:
        raise _NotASuiteError(
            f"class {name} has a problem with {', '.join(unknown)}",
            f"a problem has {', '.join(sorted(known))}",
        )
    try:
        return Gemm(**fields)
    except TypeError as error:
        raise _NotASuiteError(f"class {name} has a problem without sizes: {error}") from error
    except GemmirError as error:
        raise _NotASuiteError(f"class {name}: {error.message}", error.hint) from error
