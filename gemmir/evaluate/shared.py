"""Shared memory under watch: every touch of it must come after those that it depends on."""

from __future__ import annotations

from dataclasses import dataclass

from gemmir.evaluate.fibers import Fibers
from gemmir.evaluate.order import Agent, Clock, Places, Touches
from gemmir.evaluate.view import View


@dataclass(eq=False, slots=True)
class Watch:
    """Reads and writes of a buffer by the fiber whose turn it is."""

    fibers: Fibers
    touches: Touches

    def read(self, places: Places) -> None:
        """Threads read; faults with GEM0925 where nothing orders that."""
        fiber = self.fibers.current
        self.touches.read(fiber.agent, fiber.now, places, fiber.clock)

    def write(self, places: Places) -> None:
        """Threads write; faults as above."""
        fiber = self.fibers.current
        self.touches.write(fiber.agent, fiber.now, places, fiber.clock)


def watch(view: View, fibers: Fibers) -> None:
    """Watch the buffer of `view` from now on."""
    view.buffer.watch = Watch(fibers, Touches(view.buffer.data.size))


def _touches(view: View) -> Touches | None:
    return view.buffer.watch.touches if isinstance(view.buffer.watch, Watch) else None


def begin_read(view: View, agent: Agent, time: int, clock: Clock) -> None:
    """The TMA or the tensor cores begin to read `view`, until `time` of `agent` is over.

    Faults with GEM0925 where nothing orders that after a write, GEM0926 for a missing fence.
    """
    touches = _touches(view)
    if touches is not None:
        places = view.all_places()
        touches.read(agent, time, places, clock)
        touches.require_seen(f"{agent.name} read", places, clock)


def begin_write(view: View, agent: Agent, time: int, clock: Clock) -> None:
    """The TMA begins to write `view`, as above."""
    touches = _touches(view)
    if touches is not None:
        places = view.all_places()
        touches.require_seen(f"{agent.name} write over", places, clock)
        touches.write(agent, time, places, clock)
