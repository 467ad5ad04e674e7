"""Let `gemmir bisect` look for wrong edits, one at a time, in memory.

    python bisector.py TABLE.toml NAME …     a line of JSON for each: name, pass, fault

As `harness.py` does, a forked child forgets gemmir and imports it again with one source replaced.
Each bisects the same product, whose schedule has most passes for a CPU in it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

sys.path.insert(0, str(Path(__file__).parent))

import harness

SECONDS: Final = 60

SCHEDULE: Final = (
    "tile{loops=k sizes=4},promote{operand=b to=l3 layout=panel:8},"
    "promote{operand=a to=l2 layout=panel:3},tile{loops=n,m sizes=8,3},"
    "promote{operand=c to=registers},fuse-epilogue,vectorize{with=fma width=4},"
    "unroll{loop=k factor=3},expand-math"
)


def look(mutant: harness.Mutant, source: str, report: int) -> NoReturn:
    """In the child: bisect, write what was found to `report`, and exit."""
    signal.alarm(SECONDS)
    for name in [n for n in sys.modules if n.split(".")[0] == "gemmir"]:
        del sys.modules[name]
    harness.replace_source(mutant, source)
    try:
        found = bisected()
    except BaseException as error:
        found = {"error": f"{type(error).__name__}: {error}"[:200]}
    os.write(report, json.dumps(found).encode())
    os._exit(0)


def bisected() -> dict[str, Any]:
    """The first wrong pass of the product."""
    from gemmir.bisect import bisect
    from gemmir.gemm import Gemm

    gemm = Gemm(m=7, n=18, k=11, alpha=2, beta=3, ldc=21, epilogue="bias+silu+residual")
    found = bisect(gemm, target="cpu:x86-64-v3", schedule=SCHEDULE, shrink=False).found
    if found is None:
        return {"pass": "", "fault": ""}
    return {"pass": found.step.partition("{")[0], "fault": found.row.fault}


def main() -> None:
    """Look for each of the named mutants of a table."""
    harness.warm_up()
    wanted = sys.argv[2:]
    for mutant in harness.read_table(Path(sys.argv[1])):
        if mutant.name not in wanted:
            continue
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            look(mutant, mutant.source(), writing)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        print(json.dumps({"name": mutant.name, **json.loads(told or b"{}")}), flush=True)


if __name__ == "__main__":
    main()
