"""A schedule: a pass pipeline as a value that can be parsed, printed, compared and hashed.

The text is xDSL's pipeline syntax with short pass names. Passes are separated by commas or line
ends, `#` begins a comment, and `panel:16` needs no quotes:

    tile{loops=n,k sizes=2048,512}
    promote{operand=b to=l3 layout=panel:16}   # stays in the last-level cache
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec, parse_pipeline
from xdsl.utils.exceptions import ArgSpecParseError

from gemmir.errors import ScheduleError
from gemmir.passes import PREFIX, pass_class, pass_names

_POINTED_VALUE: Final = re.compile(r"=([A-Za-z_]+[:.][A-Za-z0-9_]+)")
_BARE_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*([:.][A-Za-z0-9_]+)?")


OVER_CORES: Final = re.compile(r"over=cores|parallelize\{(?![^}]*over=)")
"""A pass that runs a loop over cores: `parallelize` does unless it says otherwise."""


@dataclass(frozen=True, eq=False)
class Schedule:
    """Passes in the order in which they run; two schedules are equal where their passes are."""

    passes: tuple[ModulePass, ...] = ()

    @staticmethod
    def parse(text: str) -> Schedule:
        """The schedule that `text` spells.

        Raises `ScheduleError`: GEM0302 for an unknown pass, GEM0303 for an unknown or missing
        parameter, GEM0304 for a value of the wrong type, GEM0305 where the text is no pipeline.
        """
        return Schedule(tuple(_parse_pass(spec) for spec in _parse_specs(text)))

    @property
    def steps(self) -> tuple[str, ...]:
        """The text of each pass."""
        return tuple(pass_text(p) for p in self.passes)

    @property
    def digest(self) -> str:
        """A short hash of the text, stable across processes."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:12]

    @property
    def is_threaded(self) -> bool:
        """Whether a pass runs a loop over cores."""
        return OVER_CORES.search(str(self)) is not None

    def __str__(self) -> str:
        return ",".join(self.steps)

    def __len__(self) -> int:
        return len(self.passes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schedule) and self.passes == other.passes

    def __hash__(self) -> int:
        return hash(self.passes)


class PassPipeline(Schedule):
    """A schedule built from passes in Python: `PassPipeline([Tile(("m",), (64,)), …])`."""

    def __init__(self, passes: Iterable[ModulePass]) -> None:
        super().__init__(tuple(passes))


def pass_text(p: ModulePass) -> str:
    """The text form of one pass, as in `tile{loops=m,n sizes=64,64}`."""
    spec = p.spec()
    name = spec.name.removeprefix(PREFIX)
    if not spec.parameters:
        return name
    items = [f"{key}={','.join(map(_value_text, value))}" for key, value in spec.parameters.items()]
    return f"{name}{{{' '.join(items)}}}"


def _value_text(value: str | int | bool | float) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and not _BARE_WORD.fullmatch(value):
        return f'"{value}"'
    return str(value)


def _parse_specs(text: str) -> Sequence[ArgSpec]:
    lines = [line.split("#")[0].strip().rstrip(",") for line in text.splitlines()]
    joined = ",".join(line for line in lines if line)
    quoted = _POINTED_VALUE.sub(r'="\1"', joined)
    try:
        return tuple(parse_pipeline(quoted))
    except ArgSpecParseError as error:
        _, place, *_, reason = str(error).splitlines()
        at = int(place.rsplit(":", 1)[1]) - 1
        where = repr(quoted[at : at + 20]) if quoted[at:] else "its end"
        raise ScheduleError(
            "GEM0305",
            f"the schedule cannot be read at {where}: {reason.strip()}",
            "write NAME{parameter=value …},NAME{…}",
        ) from None


def _parse_pass(spec: ArgSpec) -> ModulePass:
    try:
        made = pass_class(spec.name)
    except KeyError:
        nearest = difflib.get_close_matches(spec.name, pass_names(), n=1, cutoff=0.0)[0]
        raise ScheduleError(
            "GEM0302",
            f"there is no pass {spec.name!r}; the passes are {', '.join(pass_names())}",
            f"use {nearest}",
        ) from None
    _check_parameters(made, spec)
    try:
        return made.from_spec(ArgSpec(made.name, dict(spec.parameters)))
    except ValueError as error:
        reason = str(error).replace(PREFIX, "")
        raise ScheduleError(
            "GEM0304", f"{spec.name}: {reason}", f"its parameters are {_described(made)}"
        ) from None


def parameters_of(made: type[ModulePass]) -> dict[str, bool]:
    """The parameters of a pass as they are written, and whether each is required."""
    required = made.required_fields()
    return {
        f.name.rstrip("_"): f.name in required for f in dataclasses.fields(made) if f.name != "name"
    }


def _check_parameters(made: type[ModulePass], spec: ArgSpec) -> None:
    known = parameters_of(made)
    short = spec.name.removeprefix(PREFIX)
    for given in spec.normalize_parameter_names().parameters:
        if given not in known:
            raise ScheduleError(
                "GEM0303",
                f"{short} has no parameter {given!r}",
                f"its parameters are {_described(made)}",
            )
    missing = [k for k, needed in known.items() if needed and k not in spec.parameters]
    if missing:
        raise ScheduleError(
            "GEM0303", f"{short} needs {', '.join(missing)}", f"write {short}{{{missing[0]}=…}}"
        )


def _described(made: type[ModulePass]) -> str:
    names = [k if needed else f"{k} (optional)" for k, needed in parameters_of(made).items()]
    return ", ".join(names) or "none"
