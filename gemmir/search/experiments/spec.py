"""What an experiment is, as its author writes it: problems, schedules, targets, libraries.

The text is TOML; `example.toml` beside this file has every key. Reading it looks at nothing but the
text and the files that it names.
"""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from gemmir.bench.contestants import FAMILIES
from gemmir.bench.suite import SHAPE
from gemmir.errors import GemmirError, ParseError
from gemmir.gemm import Gemm
from gemmir.search.experiments.plan import name_of

EXAMPLE: Final = Path(__file__).with_name("example.toml")


@dataclass(frozen=True, kw_only=True)
class Key:
    """What may stand behind a key: in words, and as a test."""

    words: str
    fits: Callable[[object], bool]


def _whole(least: int) -> Key:
    return Key(
        words=f"a whole number from {least} on",
        fits=lambda value: _is_whole(value) and cast("int", value) >= least,
    )


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_list_of(value: object, fits: Callable[[object], bool]) -> bool:
    return isinstance(value, list) and all(map(fits, cast("list[object]", value)))


TEXT: Final = Key(words="text", fits=lambda value: isinstance(value, str) and value != "")
TEXTS: Final = Key(
    words='a list of texts, as ["cpu"]', fits=lambda value: _is_list_of(value, TEXT.fits)
)
SECONDS: Final = Key(
    words="a number of seconds, as 0.02",
    fits=lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value > 0,
)
CPUS: Final = Key(
    words="a list of CPUs, as [1]",
    fits=lambda value: value != [] and _is_list_of(value, _whole(0).fits),
)
OBJECTIVES: Final = ("auto", "time", "static")
TABLES: Final = Key(words="a list of tables", fits=lambda value: _is_list_of(value, _is_table))


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


TOP: Final[Mapping[str, Key]] = {
    "name": TEXT,
    "seed": _whole(0),
    "repetitions": _whole(1),
    "rounds": _whole(1),
    "threads": _whole(1),
    "cpus": CPUS,
    "warm_up_seconds": SECONDS,
    "sample_seconds": SECONDS,
    "limit_seconds": SECONDS,
    "objective": Key(
        words=" or ".join(f'"{word}"' for word in OBJECTIVES), fits=lambda v: v in OBJECTIVES
    ),
    "targets": TEXTS,
    "peers": TEXTS,
    "peak": Key(words="true or false", fits=lambda value: isinstance(value, bool)),
    "problem": TABLES,
    "schedule": TABLES,
}
SCHEDULE: Final[Mapping[str, Key]] = {
    "name": TEXT,
    "text": TEXT,
    "file": TEXT,
    "space": TEXT,
    "count": _whole(1),
    "seed": _whole(0),
    "targets": TEXTS,
}
FIELDS: Final = tuple(field.name for field in dataclasses.fields(Gemm))
SHAPES: Final = "shapes"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One `[[schedule]]`: the default one, the passes of `text`, or points of `space`.

    `count` points are drawn with `seed`; without it, all are taken. `targets` are those that it is
    for, by default all.
    """

    name: str
    text: str | None = None
    space: Path | None = None
    count: int | None = None
    seed: int = 0
    targets: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """An experiment; `cpus` None are chosen when it begins, and `source` is its text."""

    name: str
    problems: tuple[Gemm, ...]
    schedules: tuple[Entry, ...] = (Entry(name="default"),)
    targets: tuple[str, ...] = ("cpu",)
    peers: tuple[str, ...] = ()
    peak: bool = True
    objective: Literal["auto", "time", "static"] = "auto"
    seed: int = 0
    repetitions: int = 3
    rounds: int = 10
    threads: int = 1
    cpus: tuple[int, ...] | None = None
    warm_up_seconds: float = 0.001
    sample_seconds: float = 0.02
    limit_seconds: float = 120.0
    source: str = ""


def read_spec(path: Path) -> Spec:
    """The experiment in a file; `ParseError` GEM1420 where it is none."""
    return parse_spec(_read(path, path.name), path.name, path.parent)


def parse_spec(text: str, name: str, folder: Path) -> Spec:
    """The experiment that `text` says; files that it names are sought in `folder`.

    Raises `ParseError` GEM1420, with the nearest known key or value.
    """
    try:
        found: dict[str, Any] = tomllib.loads(text)
        _check(found, TOP, "an experiment")
        problems = _problems(found.pop("problem", []))
        entries = [_entry(table, folder) for table in found.pop("schedule", [])]
        for key in ("targets", "peers", "cpus"):
            if key in found:
                found[key] = tuple(_once(found[key], f"{key} have"))
        found.setdefault("name", Path(name).stem)
        spec = Spec(**found, problems=problems, source=text)
        if entries:
            spec = dataclasses.replace(spec, schedules=tuple(entries))
        _check_whole(spec)
    except tomllib.TOMLDecodeError as error:
        raise ParseError("GEM1420", f"{name} is not TOML: {error}") from error
    except _NotOneError as error:
        raise ParseError("GEM1420", f"{name}: {error}", error.hint) from error
    return spec


class _NotOneError(Exception):
    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


def _check(table: Mapping[str, Any], known: Mapping[str, Key], what: str) -> None:
    for key, value in table.items():
        if key not in known:
            raise _unknown(f"{what} has no {key}", key, known)
        if not known[key].fits(value):
            raise _NotOneError(f"{key} = {value!r} of {what}", f"{key} is {known[key].words}")


def _unknown(message: str, word: str, known: Collection[str]) -> _NotOneError:
    nearest = difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]
    return _NotOneError(message, f"the nearest is {nearest}; all are {', '.join(known)}")


def _once(values: Sequence[Any], what: str) -> Sequence[Any]:
    for value in values:
        if values.count(value) > 1:
            raise _NotOneError(f"{what} {value} {values.count(value)} times", "write it once")
    return values


def _problems(tables: Sequence[Mapping[str, Any]]) -> tuple[Gemm, ...]:
    """Every problem of every table: their lists are multiplied out, the last one fastest."""
    found = [problem for table in tables for problem in _multiplied(table)]
    if not found:
        raise _NotOneError(
            "an experiment without problems", "write [[problem]] with m, n and k, or shapes"
        )
    _once([name_of(problem) for problem in found], "the problems have")
    return tuple(found)


def _multiplied(table: Mapping[str, Any]) -> list[Gemm]:
    axes: list[list[dict[str, Any]]] = []
    for key, value in table.items():
        if key not in (*FIELDS, SHAPES):
            raise _unknown(f"a problem has no {key}", key, (*FIELDS, SHAPES))
        listed = cast("list[object]", value if isinstance(value, list) else [value])
        if not listed:
            raise _NotOneError(f"{key} = [] of a problem", "write at least one value")
        axes.append([_shape(v) if key == SHAPES else {key: v} for v in listed])
    if SHAPES in table and {"m", "n", "k", "batch"} & set(table):
        raise _NotOneError("a problem has shapes and also sizes", "leave one of the two out")
    chosen = itertools.product(*axes)
    return [_gemm({k: v for part in parts for k, v in part.items()}) for parts in chosen]


def _shape(text: object) -> dict[str, int]:
    match = SHAPE.fullmatch(str(text))
    if match is None:
        raise _NotOneError(f"{text!r} is no shape", "write MxNxK or BATCH*MxNxK, as 64*32x32x32")
    batch, m, n, k = match.groups()
    return {"m": int(m), "n": int(n), "k": int(k)} | ({"batch": int(batch)} if batch else {})


def _gemm(fields: Mapping[str, Any]) -> Gemm:
    missing = [name for name in "mnk" if name not in fields]
    if missing:
        raise _NotOneError(f"a problem lacks {', '.join(missing)}", "write m, n and k, or shapes")
    try:
        gemm = Gemm(**fields)
        unknown = [*gemm.unknown, *gemm.unknown_factors]
    except GemmirError as error:
        raise _NotOneError(error.message, error.hint) from error
    except TypeError as error:
        raise _NotOneError(f"a problem of {dict(fields)}: {error}") from error
    if unknown:
        raise _NotOneError(f"a problem whose {', '.join(unknown)} is not known", "write a number")
    return gemm


def _entry(table: Mapping[str, Any], folder: Path) -> Entry:
    _check(table, SCHEDULE, "a schedule")
    kinds = [kind for kind in ("text", "file", "space") if kind in table]
    if len(kinds) > 1:
        raise _NotOneError(f"a schedule has {' and '.join(kinds)}", "leave all but one out")
    kind = kinds[0] if kinds else ""
    drawn = [key for key in ("count", "seed") if key in table]
    if drawn and kind != "space":
        raise _NotOneError(
            f"a schedule has {' and '.join(drawn)}, and no space to draw from", "add space = FILE"
        )
    if "seed" in table and "count" not in table:
        raise _NotOneError("a space has a seed, and all its points are taken", "add a count")
    if kind == "text" and "name" not in table:
        raise _NotOneError("a schedule of text has no name", "add name = …, which tables show")
    path = folder / table[kind] if kind in ("file", "space") else None
    text = table.get("text")
    if path is not None:
        text = _read(path, str(table[kind]))
    return Entry(
        name=table.get("name", "default" if path is None else path.stem),
        text=None if kind == "space" else text,
        space=path if kind == "space" else None,
        count=table.get("count"),
        seed=table.get("seed", 0),
        targets=tuple(_once(table["targets"], "targets have")) if "targets" in table else None,
    )


def _check_whole(spec: Spec) -> None:
    """What no single table shows."""
    _once([entry.name for entry in spec.schedules], "the schedules have the name")
    for peer in spec.peers:
        if peer not in FAMILIES:
            raise _unknown(f"there is no peer {peer}", peer, FAMILIES)
    for entry in spec.schedules:
        for target in entry.targets or ():
            if target not in spec.targets:
                raise _unknown(
                    f"the schedule {entry.name} is for {target}, which is no target",
                    target,
                    spec.targets,
                )
    if spec.cpus is not None and len(spec.cpus) != spec.threads:
        raise _NotOneError(
            f"{len(spec.cpus)} cpus and {spec.threads} threads", "give each thread a CPU"
        )


def _read(path: Path, name: str) -> str:
    """The text of a file; `ParseError` GEM1420 where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ParseError("GEM1420", f"{name} cannot be read: {reason}") from error
