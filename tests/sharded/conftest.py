"""A process with eight virtual devices, which every test of a worker of pytest uses."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parents[2]
WORKER: Final = Path(__file__).parent / "worker.py"

CASE_SECONDS: Final = 120
"""After which a case is taken to hang: on a computer that does much else they are slow."""

Found = dict[str, Any]
Ask = Callable[..., Found]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without JAX only the plans can be tested."""
    if importlib.util.find_spec("jax") is not None:
        return
    missing = pytest.mark.skip(reason="jax is not installed: pip install 'gemmir[tpu]'")
    for item in items:
        if item.path.parent == WORKER.parent and item.path.name != "test_plan.py":
            item.add_marker(missing)


def environment(devices: int) -> dict[str, str]:
    """For a process with that many virtual devices.

    NPROC is how many threads XLA runs them with: each device needs one, or those wait for ever that
    exchange something.
    """
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "NPROC": str(max(16, 2 * devices)),
        "PYTHONPATH": str(ROOT),
    }


class Worker:
    """A process that runs cases, one after another."""

    def __init__(self, devices: int, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), *arguments],
            env=environment(devices),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, **case: Any) -> None:
        """Begin a case."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(case) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Found:
        """What the case gave; the test fails where the process ended, or hung and was ended."""
        assert self.process.stdout is not None
        timer = Timer(CASE_SECONDS, self.kill)
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        assert line, f"the process ended with status {self.process.wait()}"
        return json.loads(line)

    def kill(self) -> None:
        """End the process and all that it began: JAX takes no milder signal in some states."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        finally:
            self.process.wait()


class Devices:
    """Eight devices in one process, which is begun again where a case has ended it."""

    def __init__(self) -> None:
        self.worker: Worker | None = None

    def ask(self, **case: Any) -> Found:
        """What a case of `worker.Case` gives."""
        if self.worker is None or self.worker.process.poll() is not None:
            self.worker = Worker(8)
        self.worker.ask(**case)
        return self.worker.answer()

    def close(self) -> None:
        """End the process."""
        if self.worker is not None:
            self.worker.kill()


@pytest.fixture(scope="session")
def ask() -> Iterator[Ask]:
    """Runs a case on eight devices."""
    devices = Devices()
    yield devices.ask
    devices.close()
