"""Two processes with four devices each, which exchange over the loopback interface by gloo."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.sharded.conftest import Found, Worker
from tests.sharded.test_mesh import RULES, SHAPE, TOGETHER, require_right

AskBoth = Callable[..., list[Found]]

PORTS_TRIED: Final = 3
"""A port that is free may be taken by the time that the first process opens it."""


class Processes:
    """Both processes; each runs every case and looks at the shards that it has."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.workers = [Worker(4, port, "2", str(number)) for number in range(2)]

    def ask(self, **case: Any) -> list[Found]:
        """What each found; the case runs in both at once."""
        for worker in self.workers:
            worker.ask(**case)
        return [worker.answer() for worker in self.workers]

    def kill(self) -> None:
        """End both."""
        for worker in self.workers:
            worker.kill()


def joined() -> Processes:
    """Both processes, once they have found each other."""
    for tried in range(PORTS_TRIED):
        processes = Processes()
        try:
            processes.ask(mesh={"d": 8}, specs=RULES["rows"], **SHAPE)
        except (AssertionError, BrokenPipeError):
            processes.kill()
            if tried + 1 == PORTS_TRIED:
                raise
        else:
            return processes
    raise AssertionError


@pytest.fixture(scope="module")
def ask_both() -> Iterator[AskBoth]:
    """Runs a case on eight devices of two processes."""
    processes = joined()
    yield processes.ask
    processes.kill()


@pytest.mark.parametrize("rule", RULES)
def test_each_sharding(ask_both: AskBoth, rule: str) -> None:
    for found in ask_both(mesh={"d": 8}, specs=RULES[rule], **SHAPE, dtype="bf16"):
        require_right(found)


@pytest.mark.parametrize("rule", ["gather x by rows", "scatter rows"])
def test_collectives_of_xla(ask_both: AskBoth, rule: str) -> None:
    for found in ask_both(mesh={"d": 8}, specs=RULES[rule], **SHAPE, overlap=False):
        require_right(found)


def test_derivatives_on_two_axes_one_of_which_crosses_processes(ask_both: AskBoth) -> None:
    specs = TOGETHER["gather w while rows are added up"]
    for found in ask_both(mesh={"e": 2, "d": 4}, specs=specs, **SHAPE, gradient=True):
        require_right(found)


def test_no_process_outlives_the_tests() -> None:
    """A process that waits for one that never comes ends when nobody asks it any more."""
    processes = joined()
    try:
        first, second = processes.workers
        second.kill()
        first.ask(mesh={"d": 8}, specs=RULES["reduce"], **SHAPE)
        assert first.process.stdin is not None
        first.process.stdin.close()
        first.process.wait(timeout=60)
    finally:
        processes.kill()
