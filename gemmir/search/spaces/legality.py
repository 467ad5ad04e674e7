"""Why a point of a space is illegal, and how many points are for each reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import gemmir
from gemmir.errors import BackendError, GemmirError, ScheduleError
from gemmir.gemm import Gemm
from gemmir.machine import Machine
from gemmir.schedule import Schedule, check_fits


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Why a point is illegal.

    `reason` is what such points are counted by: a rule of the space, or what `code` means. A `code`
    is that of the error which lowering ends with; rules of the space have none. `message` has the
    numbers.
    """

    reason: str
    message: str
    code: str | None = None


@dataclass(frozen=True, kw_only=True)
class Census:
    """How many points of a space are legal, and how many are not for each reason.

    Of the `size` points so many were `examined`, in random order if not all. Legal is what the
    rules of the space and the sizes of the machine allow, and with `lowered` what the passes and
    the backend do.
    """

    size: int
    examined: int
    legal: int
    refused: Mapping[str, int] = field(default_factory=dict[str, int])
    lowered: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether every point was examined."""
        return self.examined == self.size

    @property
    def share(self) -> float:
        """The share of the examined points that is legal."""
        return self.legal / self.examined if self.examined else 0.0

    @property
    def uncertainty(self) -> float:
        """The standard error of `share`: 0 where every point was examined."""
        if self.is_exact or not self.examined:
            return 0.0
        left = (self.size - self.examined) / max(self.size - 1, 1)
        return (self.share * (1 - self.share) / self.examined * left) ** 0.5


def refused_by_checks(schedule: Schedule, gemm: Gemm, machine: Machine) -> Refusal | None:
    """What `check_fits` has against a schedule."""
    try:
        check_fits(schedule, gemm, machine)
    except ScheduleError as error:
        return refused(error)
    return None


def refused_by_lowering(text: str, gemm: Gemm, target: str) -> Refusal | None:
    """What the passes and the backend have against a schedule: it is lowered, and not assembled."""
    try:
        gemmir.lower(gemm, target, text)
    except (ScheduleError, BackendError) as error:
        return refused(error)
    return None


def refused(error: GemmirError) -> Refusal:
    """The refusal that an error is; it is counted by its code and by the pass that it names."""
    about = error.message.split(":")[0] if ":" in error.message[:24] else ""
    return Refusal(
        reason=f"{error.code}{f' {about}' if about else ''}",
        message=error.message + (f"; {error.hint}" if error.hint else ""),
        code=error.code,
    )
