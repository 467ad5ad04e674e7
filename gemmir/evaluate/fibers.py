"""Fibers: what runs at the same time on a machine runs in turns here, each as far as it can.

A fiber is a Python thread, of which exactly one runs: it goes on until it must wait, and then hands
over to the first that need not, in a fixed order, so that every run is the same. Only when nobody
can go on does a load land, the last one first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, TypeAlias

import numpy as np
from xdsl.ir import SSAValue

from gemmir.evaluate.block import Block
from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.order import Agent, Clock, join

Act: TypeAlias = Callable[[], None]


class Threads(Enum):
    """Whom a fiber stands for."""

    BLOCK = "a block"
    WARPGROUP = "a warpgroup"
    ONE = "one thread"


class StoppedError(BaseException):
    """Unwinds a fiber that will not go on, because another one failed."""


def _always() -> bool:
    return True


@dataclass(eq=False, slots=True)
class Queue:
    """What one fiber has begun and another unit does, in its order, as late as a wait allows."""

    agent: Agent
    under_way: list[Act] = field(default_factory=list[Act])
    over: int = 0

    @property
    def next(self) -> int:
        """The time of what is begun next."""
        return self.over + len(self.under_way) + 1

    def finish(self, allowed: int) -> None:
        """Let all but the last `allowed` happen."""
        while len(self.under_way) > allowed:
            self.under_way.pop(0)()
            self.over += 1


@dataclass(eq=False, kw_only=True)
class Fiber:
    """One that runs: its SSA values, what is over for it, and what it has begun.

    `begun` are asynchronous copies of no group yet, `groups` those that have not landed: what lets
    each of them land. `products` and `stores` are under way on the tensor cores and the TMA, and
    `fenced` is the time of its last fence.
    `ready` says whether it can go on, and `what` for what it waits; None where for its own fibers.
    """

    name: str
    threads: Threads
    block: Block
    values: dict[SSAValue, Any] = field(default_factory=dict[SSAValue, Any])
    clock: Clock = field(default_factory=dict[Agent, int])
    begun: list[Act] = field(default_factory=list[Act])
    groups: list[list[Act]] = field(default_factory=list[list[Act]])
    agent: Agent = field(init=False)
    products: Queue = field(init=False)
    stores: Queue = field(init=False)
    fenced: int = 0
    turn: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    ready: Callable[[], bool] = _always
    what: Callable[[], str] | None = None
    is_done: bool = False
    is_stopped: bool = False
    failure: BaseException | None = None

    def __post_init__(self) -> None:
        self.agent = Agent(self.name, fence=Agent(f"fences of {self.name}"))
        self.products = Queue(Agent(f"products of {self.name}"))
        self.stores = Queue(Agent(f"stores of {self.name}"))
        self.clock[self.agent] = 1

    @property
    def now(self) -> int:
        """Its own time."""
        return self.clock[self.agent]

    def tick(self) -> None:
        """What it does from now on is later than what it told others."""
        self.clock[self.agent] += 1

    def fence(self) -> None:
        """What it wrote may be seen by the TMA and the tensor cores, once all its threads know."""
        self.fenced = self.now
        self.tick()
        if self.threads is Threads.ONE:
            self.meet()

    def meet(self) -> None:
        """All its threads know what each of them did."""
        join(self.clock, self._done)

    @property
    def _done(self) -> Clock:
        """What some of its threads know, and all do after a barrier."""
        assert self.agent.fence is not None
        over = {queue.agent: queue.over for queue in (self.products, self.stores)}
        return {self.agent.fence: self.fenced, **over}

    def tell(self, clock: Clock) -> None:
        """What is over for any of its threads is so for those who join `clock`."""
        join(clock, self.clock)
        join(clock, self._done)
        self.tick()

    def know(self, clock: Clock) -> None:
        """What is over by `clock` is over for it."""
        join(self.clock, clock)

    def end(self) -> None:
        """Fault with GEM0928 where something that it began may still be under way."""
        for queue in (self.products, self.stores):
            if queue.under_way:
                raise FaultError(
                    "GEM0928", f"{len(queue.under_way)} {queue.agent.name} are never waited for"
                )


class Fibers:
    """All that run, the one whose turn it is, and the loads that are under way."""

    def __init__(self) -> None:
        self.current = Fiber(name="the kernel", threads=Threads.BLOCK, block=Block(name="the grid"))
        self.loads: list[Act] = []
        self._all: list[Fiber] = [self.current]

    def child(self, name: str, threads: Threads, block: Block) -> Fiber:
        """A fiber that knows what the current one does."""
        parent = self.current
        parent.tick()
        return Fiber(
            name=name,
            threads=threads,
            block=block,
            values=dict(parent.values),
            clock=dict(parent.clock),
        )

    def run(self, fibers: Sequence[Fiber], bodies: Sequence[Act]) -> None:
        """Run each of `fibers` to its end, while the current one waits for all of them."""
        parent = self.current
        threads = [
            threading.Thread(target=self._main, args=(parent, fiber, body), daemon=True)
            for fiber, body in zip(fibers, bodies, strict=True)
        ]
        self._all += fibers
        for thread in threads:
            thread.start()
        try:
            self._wait_for(parent, fibers)
        finally:
            for fiber, thread in zip(fibers, threads, strict=True):
                if not fiber.is_done:
                    fiber.is_stopped = True
                    fiber.turn.release()
                thread.join()
        for fiber in fibers:
            parent.know(fiber.clock)

    def _wait_for(self, parent: Fiber, fibers: Sequence[Fiber]) -> None:
        parent.ready, parent.what = lambda: all(f.is_done for f in fibers), None
        self._hand_over(parent, self._choose())
        if parent.failure is not None:
            raise parent.failure

    def wait(self, ready: Callable[[], bool], what: Callable[[], str]) -> None:
        """Go on when `ready`; faults with GEM0920 where nobody will ever be."""
        if ready():
            return
        me = self.current
        me.ready, me.what = ready, what
        self._hand_over(me, self._choose())

    def _hand_over(self, me: Fiber, chosen: Fiber) -> None:
        if chosen is me:
            return
        self.current = chosen
        chosen.turn.release()
        me.turn.acquire()
        if me.is_stopped:
            raise StoppedError

    def _choose(self) -> Fiber:
        while True:
            for fiber in self._all:
                if not fiber.is_done and fiber.ready():
                    return fiber
            if not self.loads:
                raise FaultError("GEM0920", f"nobody can go on: {self._who_waits()}")
            self.loads.pop()()

    def _who_waits(self) -> str:
        waiting = [f"{f.name} waits for {f.what()}" for f in self._all if f.what is not None]
        return "; ".join(waiting)

    def _main(self, parent: Fiber, fiber: Fiber, body: Act) -> None:
        """What the thread of `fiber` does."""
        fiber.turn.acquire()
        chosen = parent
        try:
            if not fiber.is_stopped:
                with np.errstate(all="ignore"):
                    body()
        except StoppedError:
            pass
        except BaseException as failure:
            parent.failure = failure
        fiber.is_done = True
        self._all.remove(fiber)
        if fiber.is_stopped:
            return
        if parent.failure is None:
            try:
                chosen = self._choose()
            except Exception as failure:
                parent.failure = failure
        self.current = chosen
        chosen.turn.release()
