"""What `gemmir tune` can be trusted with: figures of many tunes, in bench/results/tuning-*.json.

    python bench/tuning.py planted [NUMBER …]      spaces with points that are faster and wrong
    python bench/tuning.py fresh [RUNS]            one tune again and again: does the same one win?
    python bench/tuning.py best                    1024 cubed with the prior, and without
    python bench/tuning.py killed [COUNT]          kill -9 of a tune, and of the process of a trial

Each adds what it finds to the file, so that long series can be cut into pieces.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from gemmir.bench.contestants import cpu_model
from gemmir.bench.results import commit
from gemmir.lockfile import spelled
from gemmir.machine.host import host_cpu
from gemmir.search.tuning.study import read_study

ROOT: Final = Path(__file__).parents[1]
RESULTS: Final = Path(__file__).parent / "results" / f"tuning-{host_cpu().name}.json"
PLANTED: Final = ROOT / "tests" / "search" / "planted"

SMALL: Final = ("--m", "128", "--n", "128", "--k", "128")
LARGE: Final = ("--m", "1024", "--n", "1024", "--k", "1024")
TINY: Final = ("--m", "12", "--n", "32", "--k", "16")

TINY_SPACE: Final = """
?mr = 1..12
?nv = 1 | 2
?u = 2 | 4
let nr = nv * lanes
let width = lanes
where mr * nv + nv + 1 <= vector_registers
tile{loops=m,n sizes=?mr,?nr edges=peel}
promote{operand=c to=registers}
vectorize{with=fma width=?width}
unroll{loop=k factor=?u}
"""

KILLED_TRIALS: Final = 8
FIRST_KILL_SECONDS: Final = 1.0
LAST_KILL_SECONDS: Final = 6.0


def command(*arguments: str, cpu: str = "") -> list[str]:
    """`gemmir tune` on a CPU."""
    where = ["--cpu", cpu] if cpu else []
    return [sys.executable, "-m", "gemmir", "tune", *arguments, *where, "--json"]


def tuned(*arguments: str, planted: bool = False) -> dict[str, Any]:
    """What a tune prints."""
    environment = dict(os.environ)
    if planted:
        environment["PYTHONPATH"] = os.pathsep.join((str(PLANTED), str(ROOT)))
    done = subprocess.run(
        command(*arguments), capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout)


def add(kind: str, found: dict[str, Any]) -> None:
    """Add a figure to the file."""
    whole: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    whole.setdefault(kind, []).append({"cpu": cpu_model(), "commit": commit(), **found})
    lines = [
        f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(entry) for entry in entries) + "\n]"
        for name, entries in sorted(whole.items())
    ]
    RESULTS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(kind, json.dumps(found), flush=True)


def planted(numbers: Sequence[int]) -> None:
    """Tune each space; a point whose schedule has the fault must not win."""
    sys.path.insert(0, str(ROOT))
    from tests.search.planted.spaces import PLANTED as CASES

    for number in numbers or range(len(CASES)):
        case = CASES[number]
        with tempfile.TemporaryDirectory() as folder:
            space = Path(folder, "x.space")
            space.write_text(case.space())
            words = (f"--{n.replace('_', '-')}={v}" for n, v in _problem(case.problem).items())
            options = ("--study", f"{folder}/s", "--space", str(space), "--race", "16")
            found = tuned(*(w.removesuffix("=True") for w in words), *options, planted=True)
        wrong = [t for t in found["convergence"] if "hurry" in t["schedule"]]
        add(
            "planted",
            {
                "space": case.name,
                "problem": spelled(case.gemm),
                "trials": found["trials_done"],
                "with_the_fault": len(wrong),
                "of_them": dict(Counter(t["status"] for t in wrong)),
                "won": "hurry" in found["winner"],
                "winner": found["winner"],
            },
        )


def _problem(name: str) -> dict[str, Any]:
    from tests.search.planted.spaces import PROBLEMS

    return PROBLEMS[name]


def fresh(runs: int) -> None:
    """Tune 128 cubed from nothing, with the same seed."""
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            found = tuned(*SMALL, "--study", f"{folder}/s", "--trials", "16", "--race", "24")
        add("fresh", _figures(found))


def best() -> None:
    """Tune 1024 cubed from the default schedule, and without anything to begin with."""
    for more in ((), ("--no-prior",)):
        with tempfile.TemporaryDirectory() as folder:
            found = tuned(*LARGE, "--study", f"{folder}/s", "--trials", "64", *more)
        add("best", {"prior": not more, **_figures(found)})


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    keys = (
        "problem",
        "trials_done",
        "outcomes",
        "winner",
        "tie",
        "gflops",
        "is_default",
        "ratio_to_default",
        "ratio_to_default_interval",
    )
    return {**{key: found[key] for key in keys}, "tied": len(found["tied"])}


def killed(count: int) -> None:
    """Kill a tune, or the process of one of its trials, at some moment; then look at the rows."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "x.space").write_text(TINY_SPACE)
        whole = _left_alone(folder)
        for number in range(count):
            for what in ("tune", "worker"):
                add("killed", _killed(folder, f"{what}{number}", what, whole))


def _options(folder: str, study: str) -> tuple[str, ...]:
    chosen = ("--trials", str(KILLED_TRIALS), "--sampler", "random", "--no-prior")
    few = ("--rounds", "1", "--race", "8")
    return (*TINY, "--study", f"{folder}/{study}", "--space", f"{folder}/x.space", *chosen, *few)


def _left_alone(folder: str) -> list[dict[str, Any]]:
    """The points of a tune that nobody kills."""
    tuned(*_options(folder, "alone"))
    return [row.point for row in read_study(Path(folder, "alone")).rows]


def _killed(folder: str, study: str, what: str, whole: list[dict[str, Any]]) -> dict[str, Any]:
    generator = random.Random(study)
    kills, started = 0, False
    arguments = command(*_options(folder, study))
    while True:
        resume = ["--resume"] if started else []
        with subprocess.Popen(
            [*arguments, *resume], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            first, started = not started, True
            kills += _kill(process, what, generator) if first else 0
            _, errors = process.communicate()
        if process.returncode == 0:
            break
        if process.returncode != -signal.SIGKILL:
            raise SystemExit(errors.decode())
    rows = read_study(Path(folder, study)).rows
    return {
        "killed": what,
        "kills": kills,
        "rows": len(rows),
        "lost": sum(point not in [row.point for row in rows] for point in whole),
        "doubled": len(rows) - len({json.dumps(row.point) for row in rows}),
        "not_ended": sum(row.outcome is None for row in rows),
        "same_as_left_alone": [row.point for row in rows] == whole,
        "not_ok": sum(row.value is None for row in rows),
    }


def _kill(process: subprocess.Popen[bytes], what: str, generator: random.Random) -> int:
    """Kill it at some moment, or one of the trials' processes; how many were killed."""
    if what == "tune":
        time.sleep(generator.uniform(FIRST_KILL_SECONDS, LAST_KILL_SECONDS))
        process.kill()
        return 1
    spared = generator.randrange(KILLED_TRIALS)
    seen: set[int] = set()
    while process.poll() is None:
        for worker in [w for t in _children(process.pid) for w in _children(t)]:
            seen.add(worker)
            if len(seen) > spared:
                time.sleep(generator.uniform(0.0, 0.05))
                with suppress(ProcessLookupError):
                    os.kill(worker, signal.SIGKILL)
                    return 1
        time.sleep(0.005)
    return 0


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (OSError, ValueError):
        return []


def main(arguments: Sequence[str]) -> None:
    """Do what the first word says."""
    what, *rest = arguments or [""]
    numbers = [int(word) for word in rest]
    if what == "planted":
        planted(numbers)
    elif what == "fresh":
        fresh(numbers[0] if numbers else 20)
    elif what == "best":
        best()
    elif what == "killed":
        killed(numbers[0] if numbers else 20)
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
