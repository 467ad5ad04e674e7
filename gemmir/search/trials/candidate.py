"""The process of one trial: it compiles, computes and is timed, as far as it is asked to.

    prepare gemm      compile, with arrays of its own; what the contestant says of itself
    compute case      take the arrays of a case, compute once, and show all memory
    show              show all memory again
    time              seconds of one call, over as many as take a while

It does not judge what it computes: all of its memory is copied to where the other side compares it.
"""

from __future__ import annotations

import json
import mmap
import socket
from collections.abc import Mapping
from importlib import import_module
from typing import Any, Protocol

from gemmir.arrays import Operands
from gemmir.bench.entrant import Settings, UnableError
from gemmir.bench.worker import Worker
from gemmir.errors import BackendError, ProblemError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.search.trials.memory import Layout


class Answers(Protocol):
    """Who answers questions."""

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]: ...


def talk(who: Answers, other: socket.socket) -> None:
    """Let `who` answer until there are no more questions."""
    with other.makefile("rw", buffering=1) as file:
        for line in file:
            file.write(json.dumps(who.answer(json.loads(line))) + "\n")


def answered(who: Answers, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Let `who` do one thing; `illegal` or `crashed` says why it cannot be done."""
    try:
        return getattr(who, asked["do"])(**asked.get("with", {}))
    except (UnableError, ScheduleError, ProblemError, BackendError) as error:
        return {"illegal": str(error)}
    except MemoryError as error:
        return {"crashed": f"it has no memory left: {error}".rstrip(": ")}
    except Exception as error:
        words = str(error).splitlines() or [""]
        return {"crashed": f"{type(error).__name__}: {words[0]}"}


class Candidate(Worker):
    """One contestant: `spec` has its module and settings; `memory` is the file with the arrays."""

    def __init__(self, spec: Mapping[str, Any], memory: int) -> None:
        super().__init__(spec["peer"], spec["settings"])
        self.memory = mmap.mmap(memory, 0)
        self.layout: Layout | None = None
        self.operands: Operands | None = None

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do one thing, and say if it cannot be done."""
        return answered(self, asked)

    def prepare(self, gemm: Mapping[str, Any]) -> dict[str, Any]:
        """Compile for arrays of this process."""
        problem = Gemm(**gemm)
        self.layout = Layout.of(problem)
        self.operands = self.layout.operands(self.memory, "shown").copy()
        self._spread()
        peer = import_module(self.module).find(Settings(**self.settings))
        arrays = {name: o.array for name, o in self.operands.by_name.items()}
        entrant = peer.enter(problem, arrays)
        self.entrant, self.seconds = entrant, 0.0
        return {"flops": entrant.flops, "about": {**peer.about, **entrant.about}}

    def compute(self, case: str) -> dict[str, Any]:
        """Compute once, of the arrays of `case`."""
        assert self.layout is not None and self.operands is not None and self.entrant is not None
        given = self.layout.operands(self.memory, case)
        for name, operand in self.operands.by_name.items():
            operand.memory[:] = given.by_name[name].memory
        self._spread()
        self._first_call()
        return self.show()

    def show(self) -> dict[str, Any]:
        """Let the other side see all memory as it is."""
        assert self.layout is not None and self.operands is not None and self.entrant is not None
        shown = self.layout.operands(self.memory, "shown")
        for name, operand in self.operands.by_name.items():
            shown.by_name[name].memory[:] = operand.memory
        output = self.entrant.output()
        if output is not self.operands.output:
            shown.output[...] = output
        return {}
