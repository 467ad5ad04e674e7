"""The process of a trial on a GPU: it compiles, computes and is timed, as far as it is asked to.

    prepare gemm      compile, load, and bring operands there
    compute case      bring the arrays of a case, compute once, and show all memory
    show              show all memory again
    time              seconds of one launch, by events around as many as take a while

A fault in a kernel ends all that its process may do on the GPU, and nothing of what others do. Like
every candidate it does not judge what it computes.
"""

from __future__ import annotations

import math
import mmap
import resource
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from gemmir.errors import DeviceError, DeviceMemoryError
from gemmir.gemm import Gemm
from gemmir.search.trials.candidate import answered
from gemmir.search.trials.memory import CASES, Layout

if TYPE_CHECKING:
    from gemmir.backends.ptx.load import Program
    from gemmir.compiler import Lowered
    from gemmir.search.trials.gpu_arrays import OnGpu

GPU: Final = "gpu"
"""In place of the module of a contestant: it runs on a GPU."""

WARM_SECONDS: Final = 0.15
"""Launches before the first timing of a process, so that the clocks are those of work."""

MOST_LAUNCHES: Final = 2000
"""Of one graph."""

MOST_REPLAYS: Final = 1000
"""Of a graph at once: each takes milliseconds, unless its times are such as cannot be."""

FAULT: Final = "GEM0526"
"""What the driver says after a kernel has failed; other codes refuse it before it runs."""


class GpuCandidate:
    """One schedule: `spec` has its settings; `memory` is the file with the arrays."""

    def __init__(self, spec: Mapping[str, Any], memory: int) -> None:
        self.settings: Mapping[str, Any] = spec["settings"]
        self.memory = mmap.mmap(memory, 0)
        self._inside = ExitStack()
        self._layout: Layout | None = None
        self._program: Program | None = None
        self._first: OnGpu | None = None
        self._once: Callable[[], int] | None = None
        self._round: _Round | None = None

    def answer(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Do one thing, and say if it cannot be done."""
        return answered(self, asked)

    def prepare(self, gemm: Mapping[str, Any]) -> dict[str, Any]:
        """Compile within the limit of memory, and load; what a driver refuses is illegal.

        A driver reserves more addresses than there is memory, so that its own are not limited.
        """
        from gemmir.backends.ptx.load import load
        from gemmir.cache import ObjectCache, default_path
        from gemmir.compiler import lower

        problem = Gemm(**gemm)
        lowered = lower(problem, self.settings["target"], self.settings["schedule"])
        image = lowered.assemble(ObjectCache(default_path()))
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        try:
            self._program = cast("Program", load(image, lowered.artifact.signature).owner)
            self._inside.enter_context(self._program.driver.use(self.settings["gpu"]))
            return self._ready(problem, lowered)
        except DeviceMemoryError:
            raise
        except DeviceError as error:
            if error.code == FAULT:
                raise
            return {"illegal": str(error)}

    def _ready(self, problem: Gemm, lowered: Lowered) -> dict[str, Any]:
        """Bring operands to the GPU and bind the kernel to them."""
        from gemmir.search.trials.gpu_arrays import OnGpu

        assert self._program is not None
        driver, gpu = self._program.driver, self.settings["gpu"]
        self._layout = Layout.of(problem)
        self._first = OnGpu(driver, gpu, self._layout.arguments)
        self._once = self._program.bind(self._first.addresses, gpu=gpu)
        about = {
            "schedule": list(lowered.schedule.steps),
            "loader": driver.library,
            "driver_cuda": ".".join(map(str, driver.cuda_version)),
            "operand_places": self.settings["places"],
            "operands_are_cold": self.settings["is_cold"],
        }
        return {"flops": problem.flops, "about": about}

    def compute(self, case: str) -> dict[str, Any]:
        """Compute once, of the arrays of `case`."""
        from gemmir.backends.ptx.driver import LEGACY_STREAM

        assert self._layout and self._program and self._first and self._once
        self._first.send(self._layout.operands(self.memory, case))
        self._once()
        self._program.driver.synchronize(LEGACY_STREAM)
        return self.show()

    def show(self) -> dict[str, Any]:
        """Let the other side see all memory of the GPU as it is."""
        assert self._layout and self._first
        self._first.receive(self._layout.operands(self.memory, "shown"))
        return {}

    def time(self, sample_seconds: float, warm_up_seconds: float) -> dict[str, Any]:
        """Seconds of one launch; of a GPU those of a CPU are none."""
        if self._round is None:
            self._round = self._new_round()
            self._round.extend(sample_seconds)
            self._round.warm(WARM_SECONDS)
        self._round.warm(warm_up_seconds)
        seconds, launches = self._round.timed(sample_seconds)
        return {"cpu": seconds, "wall": seconds, "calls": launches}

    def _new_round(self) -> _Round:
        """All places, the last case in each of them, and a launch for each."""
        from gemmir.search.trials.gpu_arrays import OnGpu

        assert self._layout and self._program and self._first
        driver, gpu = self._program.driver, self.settings["gpu"]
        stream = driver.new_stream()
        more = [
            OnGpu(driver, gpu, self._layout.arguments) for _ in range(self.settings["places"] - 1)
        ]
        given = self._layout.operands(self.memory, CASES[-1])
        for place in more:
            place.send(given)
        calls = [
            self._program.bind(place.addresses, gpu=gpu, stream=stream)
            for place in (self._first, *more)
        ]
        return _Round(self._program, calls, stream, kept=more)


class _Round:
    """Launches on one place after the other, again and again, on the legacy stream in the end."""

    def __init__(
        self, program: Program, calls: list[Callable[[], int]], stream: int, kept: object
    ) -> None:
        self._driver = program.driver
        self._calls = calls
        self._stream = stream
        self._kept = kept
        self._laps = 1
        self._replay = self._recorded()
        self._replay()
        self._seconds = self._once()

    def extend(self, seconds: float) -> None:
        """Have so many laps in a graph that it takes about `seconds`."""
        wanted = math.ceil(seconds / self._seconds)
        self._laps = max(min(wanted, MOST_LAUNCHES // len(self._calls)), 1)
        if self._laps > 1:
            self._replay = self._recorded()
            self._seconds = self._once()

    def warm(self, seconds: float) -> None:
        """Launch for about so long, and do not wait for it."""
        for _ in range(min(math.ceil(seconds / self._seconds), MOST_REPLAYS)):
            self._replay()

    def timed(self, seconds: float) -> tuple[float, int]:
        """Seconds of a launch, of about so many seconds of launches, and how many those were."""
        times = min(max(round(seconds / self._seconds), 1), MOST_REPLAYS)
        first = self._driver.record()
        for _ in range(times):
            self._replay()
        launches = times * self._laps * len(self._calls)
        return self._driver.seconds(first, self._driver.record()) / launches, launches

    def _once(self) -> float:
        """Seconds of the graph."""
        first = self._driver.record()
        self._replay()
        return max(self._driver.seconds(first, self._driver.record()), 1e-9)

    def _recorded(self) -> Callable[[], None]:
        """A graph where the driver's library can record one, else a loop."""
        from gemmir.backends.ptx.driver import LEGACY_STREAM
        from gemmir.backends.ptx.driver.graphs import recorded

        calls = self._laps * self._calls
        if self._stream != LEGACY_STREAM:
            return recorded(calls, self._stream)
        return partial(_all, calls)


def _all(calls: list[Callable[[], int]]) -> None:
    for call in calls:
        call()
