"""A coordinator to be killed, with a bench that measures nothing: SPEC FILE MODE."""

from __future__ import annotations

import sys
from pathlib import Path

from gemmir.search.experiments.running import Alone, run_experiment
from gemmir.search.experiments.spec import read_spec
from tests.search.experiments.examples import FakeBench


def main() -> None:
    spec, file, mode = sys.argv[1:4]
    assert mode in ("new", "resume", "append")
    run_experiment(read_spec(Path(spec)), Path(file), Alone(FakeBench), mode=mode)


if __name__ == "__main__":
    main()
