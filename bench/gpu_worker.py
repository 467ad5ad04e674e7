"""A process that does cases of a prepared folder, one after the other, as `gpu_run` asks it to.

A fault in a kernel ends all that its process may do on the GPU, and a kernel may never end: so the
process can be replaced. Asked by a line of JSON on its input, it answers by lines of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from gemmir.backends.ptx.driver import Driver


def without_front_door() -> None:
    """Let the parts of gemmir be imported without its front door, which imports xDSL."""
    if "gemmir" in sys.modules:
        return
    package = ModuleType("gemmir")
    package.__path__ = [str(Path(__file__).parent.parent / "gemmir")]
    sys.modules["gemmir"] = package


class Worker:
    """One such process."""

    def __init__(self, folder: Path, answers: TextIO) -> None:
        self.folder = folder
        self.answers = answers
        self.kernel = ""
        self._torch: Any = None

    def say(self, event: str, **fields: Any) -> None:
        """Answer."""
        print(json.dumps({"event": event, **fields}), file=self.answers, flush=True)

    def serve(self, questions: TextIO) -> None:
        """Do what each line asks, until there are no more."""
        driver = _driver()
        gpu = driver.gpus()[0]
        cuda = ".".join(map(str, driver.cuda_version))
        python = sys.version.split()[0]
        self.say("ready", loader=driver.library, gpu=gpu.name, driver_cuda=cuda, python=python)
        for line in questions:
            asked = json.loads(line)
            try:
                self._do(asked["case"], asked["seconds"], asked["seed"])
            except Exception as error:
                # Whatever it was, the process is not used any more.
                self.say("failed", kernel=self.kernel, error=f"{type(error).__name__}: {error}")
                return
            self.say("done")

    def _do(self, case: Mapping[str, Any], seconds: float, seed: int) -> None:
        self.kernel = ""
        if case["task"] == "check":
            self._check(case, seed)
            return
        torch = self._find_torch()
        torch.manual_seed(seed)
        for row in self._timed(torch, case, seconds):
            self.say("row", row=row)
        torch.cuda.empty_cache()

    def _check(self, case: Mapping[str, Any], seed: int) -> None:
        from gpu_check import checked

        from gemmir.errors import DeviceError

        for name, kernel in case["kernels"].items():
            self._start(name)
            start = time.perf_counter()
            row = {"name": name, "schedule": kernel["schedule"], "launch": kernel["launch"]}
            try:
                row |= checked(self.folder, kernel, seed)
            except DeviceError as error:
                if error.code == "GEM0526":
                    raise
                row |= {"wrong": True, "error": str(error)}
            self.say("row", row={**row, "check_seconds": time.perf_counter() - start})

    def _timed(self, torch: Any, case: Mapping[str, Any], seconds: float) -> list[dict[str, Any]]:
        if case["task"] == "launch":
            from gpu_launch import launch_cost

            return launch_cost(torch, self.folder, case, self._start)
        from race import race

        return race(torch, self.folder, case, seconds=seconds, say=self._start)

    def _start(self, kernel: str) -> None:
        self.kernel = kernel
        self.say("start", kernel=kernel)

    def _find_torch(self) -> Any:
        if self._torch is None:
            self.say("about")
            torch: Any = import_module("torch")
            found = torch.cuda.get_device_properties(0)
            version = {"torch": torch.__version__, "cuda": torch.version.cuda}
            self.say("about", l2_bytes=found.L2_cache_size, **version)
            self._torch = torch
        return self._torch


def _driver() -> Driver:
    """The driver of this computer; where there is none, that is said."""
    from gemmir.backends.ptx.driver import find_driver
    from gemmir.errors import MissingError

    try:
        return find_driver()
    except MissingError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def main() -> None:
    """Answers go to the standard output; what libraries print there, to the error output."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    without_front_door()
    Worker(Path(sys.argv[1]), answers).serve(sys.stdin)


if __name__ == "__main__":
    main()
