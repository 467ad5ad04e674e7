"""The blocks of a GPU: their shared memory, and the clusters in which they run at the same time."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xdsl.ir import Operation

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.order import Agent, Clock
from gemmir.evaluate.view import Buffer, View

if TYPE_CHECKING:
    from gemmir.evaluate.phases import Barriers


@dataclass(eq=False, slots=True)
class Cluster:
    """Blocks that run at once; `come` of them are at its barrier, for the `turn`-th time."""

    blocks: list[Block] = field(default_factory=list["Block"])
    clock: Clock = field(default_factory=dict[Agent, int])
    come: int = 0
    turn: int = 0


@dataclass(eq=False, kw_only=True, slots=True)
class Block:
    """A block that runs: what it made in shared memory, by the op that made it.

    `touched` is when others last used its barriers from afar, `loads` how many of a TMA are still
    to land in it.
    """

    name: str
    cluster: Cluster = field(default_factory=Cluster)
    made: dict[Operation, View] = field(default_factory=dict[Operation, View])
    barriers: dict[Buffer, Barriers] = field(default_factory=dict[Buffer, "Barriers"])
    touched: Clock = field(default_factory=dict[Agent, int])
    loads: int = 0
    is_over: bool = False

    def know_barriers(self, *, in_cluster: bool = False) -> None:
        """All its threads, and those of its cluster, know what mbarriers there are."""
        for barriers in self.barriers.values():
            barriers.is_known = True
            barriers.is_known_to_cluster |= in_cluster

    def end(self, clock: Clock) -> None:
        """Fault where something may still happen to its shared memory; `clock` is that of its end.

        Raises GEM0928 for loads and bytes, GEM0929 for other blocks.
        """
        if self.loads:
            raise FaultError("GEM0928", f"{self.loads} loads are still to land in {self.name}")
        for barriers in self.barriers.values():
            barriers.end()
        for agent, time in self.touched.items():
            if time > clock.get(agent, 0):
                raise FaultError(
                    "GEM0929", f"{self.name} may have ended when {agent.name} arrives there"
                )
        self.is_over = True
