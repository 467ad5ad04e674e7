"""mbarriers: phases that end when all have arrived and all bytes have landed.

As in PTX ISA 9.0, section "mbarrier": bytes may land before they are expected, as long as an
arrival is missing, and a wait for a parity goes on unless the phase under way has that parity.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gemmir.evaluate.fault import FaultError
from gemmir.evaluate.order import Agent, Clock, join


@dataclass(eq=False, slots=True)
class Barrier:
    """One barrier: `phase` phases are over, and of the next `missing` arrivals and `bytes` are.

    `under_way` bytes have been begun for that phase and have not landed. `told` is what is over for
    those who arrived, `over` what was when the last phase ended.
    """

    name: str
    arrivals: int
    missing: int = field(init=False)
    loads: Agent = field(init=False)
    phase: int = 0
    bytes: int = 0
    under_way: int = 0
    told: Clock = field(default_factory=dict[Agent, int])
    over: Clock = field(default_factory=dict[Agent, int])

    def __post_init__(self) -> None:
        self.missing = self.arrivals
        self.loads = Agent(f"loads of {self.name}")

    def __str__(self) -> str:
        bytes_ = f" and {self.bytes} bytes" if self.bytes else ""
        return f"phase {self.phase} of {self.name} lacks {self.missing} arrivals{bytes_}"

    def arrive(self, count: int) -> None:
        """`count` arrivals; faults with GEM0922 where the phase has fewer left."""
        if count > self.missing:
            raise FaultError("GEM0922", f"{count} more arrivals, but {self}")
        self.missing -= count
        self._end_phase()

    def expect(self, count: int) -> None:
        """The phase does not end before `count` more bytes have landed."""
        self.bytes += count

    def begin(self, count: int) -> None:
        """A load of `count` bytes is under way."""
        self.under_way += count

    def land(self, count: int) -> None:
        """A load of `count` bytes has landed; faults with GEM0923 where too many have."""
        self.under_way -= count
        self.bytes -= count
        if self.bytes < 0 and not self.missing:
            raise FaultError(
                "GEM0923",
                f"{-self.bytes} bytes more land than phase {self.phase} of {self.name} expects",
            )
        self._end_phase()

    def _end_phase(self) -> None:
        if self.missing or self.bytes:
            return
        if self.under_way:
            raise FaultError(
                "GEM0923",
                f"phase {self.phase} of {self.name} ends while {self.under_way} bytes are under "
                "way that it does not expect",
            )
        self.phase += 1
        self.missing = self.arrivals
        join(self.over, self.told)
        self.over[self.loads] = self.phase

    def is_over(self, parity: int) -> bool:
        """Whether a wait for the phase of `parity` goes on."""
        return self.phase % 2 != parity


@dataclass(eq=False, slots=True)
class Barriers:
    """What one op creates: a barrier for each stage, and who may use it yet."""

    name: str
    stages: list[Barrier]
    is_known: bool = False
    is_known_to_cluster: bool = False

    def at(self, stage: int, *, from_afar: bool = False) -> Barrier:
        """The barrier of `stage`.

        Faults with GEM0904 where there is none, GEM0924 where not all may know of it.
        """
        if not 0 <= stage < len(self.stages):
            raise FaultError("GEM0904", f"barrier {stage} of {len(self.stages)} of {self.name}")
        if not (self.is_known_to_cluster if from_afar else self.is_known):
            of = "its cluster" if from_afar else "the block"
            raise FaultError("GEM0924", f"no barrier of {of} comes after {self.name} was created")
        return self.stages[stage]

    def end(self) -> None:
        """Fault with GEM0923 where bytes are still expected."""
        for barrier in self.stages:
            if barrier.bytes:
                raise FaultError("GEM0923", f"the block ends, but {barrier}")
