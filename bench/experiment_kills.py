"""Kill -9 the coordinator of an experiment, or the workers of its cluster, and look what is lost.

    python bench/experiment_kills.py coordinator --kills 20
    python bench/experiment_kills.py worker --kills 20

Cells are really measured. After each kill every cell that was done is still there, as it was; in
the end each is there once, with all of its samples, and no process is left. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast

from gemmir.search.experiments.cluster import Cluster
from gemmir.search.experiments.modules import distributed
from gemmir.search.experiments.running import Measured, run_experiment
from gemmir.search.experiments.spec import read_spec
from gemmir.search.experiments.store import Store

ROUNDS: Final = 3

SPEC: Final = """
repetitions = {repetitions}
rounds = 3
sample_seconds = 0.005
peak = false
[[problem]]
m = [32, 48]
n = 64
k = 64
[[schedule]]
[[schedule]]
name = "narrow"
text = "tile{{loops=m,n sizes=4,8}},promote{{operand=c to=registers}},vectorize{{with=fma width=4}}"
"""

Rows = Mapping[tuple[Any, ...], tuple[Any, ...]]


def main() -> None:
    """Kill as often as was asked for, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("coordinator", "worker"))
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--repetitions", type=int, default=20, help="a cell is 1/4 of one")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    chance = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="gemmir-kills-") as folder:
        spec, file = Path(folder, "kills.toml"), Path(folder, "kills.db")
        spec.write_text(SPEC.format(repetitions=given.repetitions))
        kill = kill_coordinators if given.what == "coordinator" else kill_workers
        found = kill(spec, file, given.kills, chance)
        found |= judged(file)
    print(json.dumps({"killed": given.what, **found}))
    sys.exit(0 if not found["faults"] else 1)


def kill_coordinators(spec: Path, file: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Begin, wait for some cells, kill, and go on."""
    before: Rows = {}
    done: list[int] = []
    lost: list[str] = []
    while len(done) < kills:
        process = subprocess.Popen(
            [sys.executable, "-m", "gemmir", "experiment", "run", spec, "-o", file, "--resume"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        wanted = chance.randint(0, 2)
        for line in process.stderr:
            wanted -= "GFLOP/s" in line or "cells" in line
            if wanted < 0:
                break
        time.sleep(chance.uniform(0, 0.6))
        if process.poll() is not None:
            lost.append("it came to its end before it was killed: give more --repetitions")
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
        after = rows(file)
        lost += [f"{key} was {row} and is {after.get(key)}" for key, row in before.items()
                 if after.get(key) != row]  # fmt: skip
        before = after
        done.append(len(after))
    run = [sys.executable, "-m", "gemmir", "experiment", "run", spec, "-o", file, "--resume"]
    status = subprocess.run(run, capture_output=True, check=False).returncode
    return {"kills": len(done), "done_at_each": done, "lost": lost, "status": status}


def kill_workers(spec: Path, file: Path, kills: int, chance: random.Random) -> dict[str, Any]:
    """Two workers, of which one that measures is killed again and again."""
    dask = distributed()
    killed: list[str] = []
    timers: list[threading.Timer] = []
    with (
        dask.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=None,
        ) as local,
        dask.Client(local) as client,
    ):

        def kill(address: str, pid: int) -> None:
            killed.append(address)
            os.kill(pid, signal.SIGKILL)

        def done(measured: Measured) -> None:
            if len(timers) < kills and chance.random() < 0.6:
                pids = cast("dict[str, object]", client.run(os.getpid, on_error="ignore"))
                there = {a: pid for a, pid in pids.items() if isinstance(pid, int)}
                address = chance.choice(sorted(there))
                after = chance.uniform(0, 0.4)
                timers.append(threading.Timer(after, kill, (address, there[address])))
                timers[-1].start()
                timers[-1].join()

        run_experiment(read_spec(spec), file, Cluster(client), done=done)
    return {"kills": len(killed), "lost": [], "status": 0}


def rows(file: Path) -> Rows:
    """Every cell that is done with its samples, by what it is of."""
    with Store.reader(file) as store:
        return {
            (*cell.point.words, cell.repetition): (cell.outcome.status, *cell.seconds)
            for run in store.runs()
            for cell in store.cells(run.number)
        }


def judged(file: Path) -> dict[str, Any]:
    """Whether all is there, once, and nobody is left."""
    with Store.reader(file) as store:
        runs = store.runs()
        cells = store.cells(runs[-1].number)
        sessions = store.sessions(runs[-1].number)
    counts = Counter((cell.point.words, cell.repetition) for cell in cells)
    samples = Counter(len(cell.seconds) for cell in cells)
    left = processes()
    checks: Mapping[str, Callable[[], bool]] = {
        "one run": lambda: len(runs) == 1,
        "every cell": lambda: len(cells) == runs[-1].cells,
        "each once": lambda: set(counts.values()) == {1},
        "all ok": lambda: runs[-1].statuses == {"ok": runs[-1].cells},
        "all samples": lambda: set(samples) == {ROUNDS},
        "no process is left": lambda: not left,
    }
    faults = [name for name, holds in checks.items() if not holds()]
    workers = {worker.name for session in sessions for worker in session.workers}
    return {
        "cells": len(cells),
        "sessions": len(sessions),
        "workers": len(workers),
        "statuses": dict(runs[-1].statuses),
        "faults": faults,
    }


def processes() -> list[str]:
    """Processes of trials whose coordinator is gone."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            status = (entry / "status").read_text()
        except OSError:
            continue
        is_orphan = "\nPPid:\t1\n" in status
        if is_orphan and any(b"search/trials/template.py" in word for word in words):
            found.append(entry.name)
    return found


if __name__ == "__main__":
    main()
