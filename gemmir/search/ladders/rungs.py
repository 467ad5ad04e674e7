"""A rung of a ladder: a schedule, by what it changes in that of the rung before.

    climb = Climb()
    climb.rung("naive", …, Edit(new="tile{loops=m,n,k sizes=1,1,1}"), …)
    climb.rung("order", …, Edit(old="tile{loops=m,n,k sizes=1,1,1}",
                                new="tile{loops=m,k,n sizes=1,1,1}"))

A rung that would change nothing, since a block is as large as the matrix, is left out, with the
reason.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field

from gemmir.errors import ParseError
from gemmir.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One pass of a schedule: `old` becomes `new`, or is taken away where `new` is "".

    Where `old` is "" `new` is put before the pass `before`, or at the end. Of several passes with
    the text of `old` or `before` it is the one of that `number`, counted from 1.
    """

    old: str = ""
    new: str = ""
    before: str = ""
    number: int = 0

    def __str__(self) -> str:
        lines = [f"- {self.old}"] if self.old else []
        return "\n".join([*lines, *([f"+ {self.new}"] if self.new else [])])


@dataclass(frozen=True, kw_only=True)
class Rung:
    """One step of the road: its schedule, the edits that made it, and why it is faster.

    `title` says in a few words what it does, `why` in a few sentences what the machine gains.
    """

    name: str
    title: str
    why: str
    edits: tuple[Edit, ...]
    steps: tuple[str, ...]

    @property
    def schedule(self) -> Schedule:
        """The passes of this rung."""
        return Schedule.parse(",".join(self.steps))

    @property
    def text(self) -> str:
        """A `.schedule` file: what the rung is, and its passes, one a line."""
        return "\n".join([f"# {self.name}: {self.title}", "", *self.steps]) + "\n"


@dataclass
class Climb:
    """Rungs from the lowest to the highest, each made from the one before by its edits."""

    rungs: list[Rung] = field(default_factory=list[Rung])
    left_out: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def steps(self) -> tuple[str, ...]:
        """The passes of the last rung."""
        return self.rungs[-1].steps if self.rungs else ()

    def rung(self, name: str, title: str, why: str, *edits: Edit) -> None:
        """Add a rung, made from the one before by `edits`, one after another.

        Those that put a pass in its own place are left out.
        """
        steps, edits = self.steps, tuple(edit for edit in edits if edit.old != edit.new)
        for edit in edits:
            steps = edited(steps, edit)
        self.rungs.append(Rung(name=name, title=title, why=why, edits=edits, steps=steps))

    def rung_called(self, wanted: str) -> Rung:
        """The rung of that name; `ParseError` GEM1442 where there is none."""
        names = [rung.name for rung in self.rungs]
        if wanted not in names:
            nearest = difflib.get_close_matches(wanted, names, n=1, cutoff=0.0)[0]
            why = f" ({self.left_out[wanted]})" if wanted in self.left_out else ""
            raise ParseError(
                "GEM1442",
                f"there is no rung {wanted!r} on this ladder{why}; they are {', '.join(names)}",
                f"use {nearest}",
            )
        return self.rungs[names.index(wanted)]

    def leave_out(self, name: str, reason: str) -> None:
        """Say why a rung is not on this ladder."""
        self.left_out[name] = reason

    def arrive(self, name: str, title: str, why: str, schedule: Schedule) -> None:
        """End with `schedule`, whatever that changes; left out where the last rung has it."""
        if schedule.steps == self.steps:
            self.leave_out(name, f"{self.rungs[-1].name} has the same passes")
            return
        self.rung(name, title, why, *edits_between(self.steps, schedule.steps))


def edited(steps: Sequence[str], edit: Edit) -> tuple[str, ...]:
    """`steps` with one edit; all passes are written as `Schedule` prints them."""
    new = list(Schedule.parse(edit.new).steps)
    anchor = edit.old or edit.before
    at = _place(steps, anchor, edit.number) if anchor else len(steps)
    return (*steps[:at], *new, *steps[at + bool(edit.old) :])


def _place(steps: Sequence[str], text: str, number: int) -> int:
    (canonical,) = Schedule.parse(text).steps
    places = [at for at, step in enumerate(steps) if step == canonical]
    if number:
        return places[number - 1]
    if len(places) != 1:
        raise ValueError(f"{canonical} is {len(places)} times in {', '.join(steps)}")
    return places[0]


def edits_between(before: Sequence[str], after: Sequence[str]) -> tuple[Edit, ...]:
    """Edits that make `after` of `before`, applied one after another.

    A pass in the place of another one of the same name is taken for one that is changed.
    """
    edits: list[Edit] = []
    steps = list(before)
    matched = difflib.SequenceMatcher(a=[*before], b=[*after], autojunk=False)

    def number(at: int) -> int:
        """Which of the passes with the same text the one at `at` is; 0 where there is no other."""
        same = [i for i, step in enumerate(steps) if step == steps[at]]
        return same.index(at) + 1 if len(same) > 1 else 0

    moved = 0
    for kind, first, last, begin, end in matched.get_opcodes():
        if kind == "equal":
            continue
        old, new, at = list(before[first:last]), list(after[begin:end]), first + moved
        while old and new and _name(old[0]) == _name(new[0]):
            edits.append(Edit(old=old.pop(0), new=new[0], number=number(at)))
            steps[at] = new.pop(0)
            at += 1
        for gone in old:
            edits.append(Edit(old=gone, number=number(at)))
            del steps[at]
        for made in new:
            if at < len(steps):
                edits.append(Edit(new=made, before=steps[at], number=number(at)))
            else:
                edits.append(Edit(new=made))
            steps.insert(at, made)
            at += 1
        moved += (end - begin) - (last - first)
    return tuple(edits)


def _name(step: str) -> str:
    return step.partition("{")[0]
