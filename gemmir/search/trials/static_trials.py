"""Trials for a machine that is not here: checked where it can be, and weighed by a model.

Each has a process of its own as others have, which can be killed and has a time limit; libtpu and
the emulator may take long.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from gemmir.closing import Closing
from gemmir.errors import MissingError
from gemmir.gemm import Gemm
from gemmir.search.trials.memory import new_file
from gemmir.search.trials.outcome import Outcome, bad
from gemmir.search.trials.places import NO_CACHE
from gemmir.search.trials.processes import Child, GoneError, LateError, Template, TemplateError
from gemmir.search.trials.template import STATIC
from gemmir.search.trials.trials import AGAIN, KilledError, Limits, require_known


class StaticTrials(Closing):
    """Trials of one problem on one target; with `profile` libtpu says the seconds.

    `seed` is that of the operands of the smaller problem that is computed.
    """

    def __init__(
        self,
        gemm: Gemm,
        *,
        target: str,
        seed: int = 0,
        limits: Limits | None = None,
        profile: bool = False,
    ) -> None:
        require_known(gemm)
        self.gemm, self.target, self.seed = gemm, target, seed
        self.limits = limits or Limits()
        self.profile = profile
        self._file = new_file(1)
        self._template = Template(NO_CACHE)

    def close(self) -> None:
        """End the process that others are made from."""
        self._template.close()

    def run(self, schedule: str) -> Outcome:
        """Try a schedule; the `about` of the outcome has what compilers and emulators say."""
        started = time.monotonic()
        found = bad("crashed", "")
        for _ in range(AGAIN):
            try:
                found = self._tried(schedule)
                break
            except (KilledError, TemplateError, OSError) as error:
                found = bad("crashed", str(error))
                self._template.close()
                self._template = Template(NO_CACHE)
        return replace(found, took=time.monotonic() - started)

    def _tried(self, schedule: str) -> Outcome:
        settings = {"target": self.target, "schedule": schedule, "profile": self.profile}
        spec: dict[str, Any] = {
            "peer": STATIC,
            "settings": settings,
            "cpus": [],
            "memory_bytes": self.limits.memory_bytes,
        }
        child = self._template.fork(spec, self._file)
        try:
            return self._asked(child, time.monotonic() + self.limits.seconds)
        finally:
            child.end()

    def _asked(self, child: Child, until: float) -> Outcome:
        prepared = _answer(child, "prepare", until, gemm=asdict(self.gemm))
        if isinstance(prepared, Outcome):
            return prepared
        checked = _answer(child, "check", until, seed=self.seed)
        if isinstance(checked, Outcome):
            return checked
        about = {**prepared["about"], **checked["about"]}
        found = Outcome(status="ok", flops=prepared["flops"], about=about, error=checked["error"])
        if checked["fault"]:
            return replace(found, status="wrong", detail=checked["fault"])
        weighed = _answer(child, "weigh", until, limit_seconds=max(until - time.monotonic(), 1.0))
        if isinstance(weighed, Outcome):
            return weighed
        return replace(found, seconds=(weighed["value"],), about={**about, **weighed["about"]})


def _answer(child: Child, do: str, until: float, **given: Any) -> Mapping[str, Any] | Outcome:
    try:
        found = child.ask(do, until=until, **given)
    except LateError:
        return bad("timeout", f"{do} has not ended in its time")
    except GoneError as error:
        if error.status == -signal.SIGKILL:
            raise KilledError(str(error)) from error
        return bad("crashed", str(error))
    if "illegal" in found:
        return bad("illegal", found["illegal"])
    return bad("crashed", found["crashed"]) if "crashed" in found else found


def libtpu_is_here() -> bool:
    """Whether a static profile of a TPU can be had."""
    from gemmir.backends.pallas.profile import require_libtpu

    try:
        require_libtpu()
    except MissingError:
        return False
    return True
