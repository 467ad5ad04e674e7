"""Clocks, power and temperature of the GPU while something runs, by nvidia-smi."""

from __future__ import annotations

import statistics
import subprocess
import threading
import time
from typing import Any, Final

FIELDS: Final = (
    "driver_version",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "power.draw",
    "power.limit",
    "temperature.gpu",
)

CHANGING: Final = ("clocks.sm", "power.draw", "temperature.gpu")
"""Those that are said of each case, by their median and the units that nvidia-smi writes."""

EVERY_MILLISECONDS: Final = 250


class Monitor:
    """What nvidia-smi says four times a second; nothing where there is none."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self._seen: list[tuple[float, dict[str, str]]] = []
        command = [
            "nvidia-smi",
            f"--query-gpu={','.join(FIELDS)}",
            "--format=csv,noheader,nounits",
            f"--loop-ms={EVERY_MILLISECONDS}",
            "--id=0",
        ]
        try:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
        except OSError:
            self._process = None
            return
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            values = [value.strip() for value in line.split(",")]
            if len(values) != len(FIELDS):
                continue
            found: dict[str, str] = dict(zip(FIELDS, values, strict=True))
            if not self.first:
                self.first = found
            self._seen.append((time.perf_counter(), {name: found[name] for name in CHANGING}))

    def since(self, begin: float) -> dict[str, Any]:
        """The medians since `begin`, a time of `time.perf_counter`."""
        found = [values for when, values in list(self._seen) if when >= begin]
        medians = {name: _median([values[name] for values in found]) for name in CHANGING}
        known = {name: value for name, value in medians.items() if value is not None}
        return {"smi": known} if known else {}

    def end(self) -> None:
        """Ask no more."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _median(words: list[str]) -> float | None:
    """Of those that are numbers: what a GPU does not tell is `[N/A]`."""
    numbers: list[float] = []
    for word in words:
        try:
            numbers.append(float(word))
        except ValueError:
            continue
    return statistics.median(numbers) if numbers else None
