"""What comes before what, by vector clocks, so that a missing wait shows in whatever order ops run.

An *agent* is what touches memory at its own pace: a fiber, the products or the stores that it has
begun, the loads of a barrier. Each counts its own time, and a clock says up to which time of each
agent everything is known to be over. Waiting for a barrier joins the clocks of those who arrived.
That is the happens-before of Lamport, Time, Clocks, and the Ordering of Events, CACM 21(7), 1978,
with times kept for each element as in Flanagan and Freund, FastTrack, PLDI 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gemmir.evaluate.fault import FaultError


@dataclass(eq=False, slots=True)
class Agent:
    """Who touches memory.

    The time of `fence`, of threads, says which of their writes the TMA and the tensor cores see; it
    is None for these themselves.
    """

    name: str
    fence: Agent | None = None


Clock: TypeAlias = dict[Agent, int]
"""Up to which time of each agent all is known to be over; 0 where nothing is said."""

Places: TypeAlias = npt.NDArray[Any]
"""Which elements of a buffer, from its first on."""


def join(clock: Clock, other: Mapping[Agent, int]) -> None:
    """What is over by `other` is over by `clock` too."""
    for agent, time in other.items():
        if time > clock.get(agent, 0):
            clock[agent] = time


@dataclass(eq=False, slots=True)
class Touches:
    """The time of each agent at which it last read and wrote each of the `elements` of a buffer."""

    elements: int
    _reads: dict[Agent, Places] = field(default_factory=dict[Agent, Places])
    _writes: dict[Agent, Places] = field(default_factory=dict[Agent, Places])

    def read(self, agent: Agent, time: int, places: Places, clock: Clock) -> None:
        """`agent` reads at its `time` what must have been written; faults with GEM0925."""
        _require_over(self._writes, f"{agent.name} read what {{}} write", places, clock)
        self._mark(self._reads, agent, time, places)

    def write(self, agent: Agent, time: int, places: Places, clock: Clock) -> None:
        """`agent` writes at its `time` what nobody uses any more; faults with GEM0925."""
        _require_over(self._writes, f"{agent.name} write what {{}} write", places, clock)
        _require_over(self._reads, f"{agent.name} write what {{}} read", places, clock)
        for times in (*self._reads.values(), *self._writes.values()):
            times[places] = 0
        self._mark(self._writes, agent, time, places)

    def require_seen(self, reader: str, places: Places, clock: Clock) -> None:
        """Fault with GEM0926 unless the TMA and the tensor cores see what threads wrote."""
        for agent, times in self._writes.items():
            if agent.fence is not None and times[places].max(initial=0) > clock.get(agent.fence, 0):
                raise FaultError(
                    "GEM0926",
                    f"{reader} what {agent.name} wrote: no nvgpu.fence.proxy, and behind that a "
                    "barrier, come in between",
                )

    def _mark(self, marks: dict[Agent, Places], agent: Agent, time: int, places: Places) -> None:
        if agent not in marks:
            marks[agent] = np.zeros(self.elements, np.int32)
        marks[agent][places] = time


def _require_over(marks: Mapping[Agent, Places], said: str, places: Places, clock: Clock) -> None:
    for agent, times in marks.items():
        if times[places].max(initial=0) > clock.get(agent, 0):
            count = int((times[places] > clock.get(agent, 0)).sum())
            raise FaultError(
                "GEM0925", f"{said.format(agent.name)}: {count} elements, and no wait in between"
            )
