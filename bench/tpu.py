"""Profile gemmir's kernels for TPUs beside XLA's own products; see bench/README.md.

    python bench/tpu.py                                     every case of the suite
    python bench/tpu.py --list                              their names
    python bench/tpu.py --case tpu:v6e/i8/4096x4096x4096    one case; may be repeated
    python bench/tpu.py --json FILE                         write the figures into a file, too
    python bench/tpu.py --case … --blocks nm/4096x256x4096/a --store

Needs JAX and libtpu and no TPU: nothing here is measured. `--blocks` profiles other blocks than the
default ones, as ORDER/MxNxK, with the operand that is in VMEM as a whole behind another slash where
there is one; `--search N` looks for some, among the windows of XLA's own product, the N best by the
model of the default schedules, and blocks beside a whole A. `--store` keeps them in the shipped
library, which the default schedules go by.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gemmir.backends.pallas.profile import Array, Program, profile
from gemmir.cache import ObjectCache
from gemmir.compiler import lower
from gemmir.errors import GemmirError
from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine, machine_for
from gemmir.schedule.default_tpu import VMEM_SHARE, TpuBlocks, ranked_blocks, spelled, vmem_bytes
from gemmir.tpu_profile import LABEL, Comparison, compare, programs
from gemmir.xla_dot import FUNCTION, xla_dot

CUBES: Final = (
    "tpu:v5e/bf16/4096x4096x4096",
    "tpu:v5p/bf16/4096x4096x4096",
    "tpu:v6e/bf16/4096x4096x4096",
    "tpu:tpu7x/bf16/4096x4096x4096",
    "tpu:v5e/i8/4096x4096x4096",
    "tpu:v6e/i8/4096x4096x4096",
    "tpu:tpu7x/e4m3/4096x4096x4096",
)
SHAPES: Final = ("8192x8192x8192", "2048x14336x4096", "2048x4096x14336")
"""m, n and k: a large cube, and two layers of a transformer."""

BARS: Final = {
    **dict.fromkeys(CUBES, 1.00),
    **{f"tpu:{name}/bf16/{shape}": 0.99 for name in ("v5e", "v6e") for shape in SHAPES},
}
"""The suite, and of how much of XLA's utilisation each case should have at least."""

RESULTS: Final = {"i8": "i32"}
"""The type of C, where it is not bf16."""

ROWS: Final = 32
"""Rows of a register of the narrowest type."""

LIMIT_SECONDS: Final = 3600.0

MISSED: Final = 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """One product on one TPU."""

    target: str
    dtype: str
    shape: tuple[int, int, int]

    @staticmethod
    def parse(text: str) -> Case:
        """The case that `TARGET/TYPE/MxNxK` names."""
        found = re.fullmatch(r"(tpu:\w+)/(\w+)/(\d+)x(\d+)x(\d+)", text)
        if found is None:
            raise typer.BadParameter(f"{text!r} is not TARGET/TYPE/MxNxK")
        target, dtype, m, n, k = found.groups()
        return Case(target=target, dtype=dtype, shape=(int(m), int(n), int(k)))

    def __str__(self) -> str:
        return f"{self.target}/{self.dtype}/{'x'.join(map(str, self.shape))}"

    @property
    def gemm(self) -> Gemm:
        """The product: dense, with no epilogue."""
        m, n, k = self.shape
        return Gemm(m=m, n=n, k=k, dtype=self.dtype, out=RESULTS.get(self.dtype, "bf16"))

    @property
    def machine(self) -> TpuMachine:
        """The TPU."""
        machine = machine_for(self.target)
        assert isinstance(machine, TpuMachine)
        return machine


def main(
    case: Annotated[list[str] | None, typer.Option(help="TARGET/TYPE/MxNxK.")] = None,
    blocks: Annotated[str | None, typer.Option(help="ORDER/MxNxK or ORDER/MxNxK/OPERAND.")] = None,
    search: Annotated[int, typer.Option(help="Blocks of the model to choose from.")] = 0,
    store: Annotated[bool, typer.Option("--store", help="Keep the blocks as those found.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
    schedule: Annotated[
        bool, typer.Option("--schedule", help="By the schedule alone, without simulating.")
    ] = False,
    names: Annotated[bool, typer.Option("--list", help="Print the names of the suite.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 below a bar.")] = False,
) -> None:
    """Profile the cases, one after the other, and print what they are beside XLA's."""
    cases = [Case.parse(text) for text in case or BARS]
    if names:
        typer.echo("\n".join(map(str, cases)))
        return
    given = None if blocks is None else read_blocks(blocks)
    rows: list[dict[str, Any]] = []
    for each in cases:
        blocks_of = searched(each, search) if search else given
        row = profiled(each, blocks_of, simulate=not schedule)
        rows.append(row)
        typer.echo(line(row))
        if json_file is not None:
            write(json_file, row)
        if store and blocks_of is not None:
            keep(each, blocks_of, row)
    if strict and any(row["ratio"] < row["bar"] for row in rows):
        raise typer.Exit(MISSED)


def read_blocks(text: str) -> TpuBlocks:
    """The blocks that `ORDER/MxNxK` or `ORDER/MxNxK/OPERAND` names."""
    found = re.fullmatch(r"(mn|nm)/(\d+)x(\d+)x(\d+)(?:/([ab]))?", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not ORDER/MxNxK or ORDER/MxNxK/OPERAND")
    order, m, n, k, whole = found.groups()
    return TpuBlocks(order=order, m=int(m), n=int(n), k=int(k), whole=whole or "")


def searched(case: Case, count: int) -> TpuBlocks:
    """The blocks with the fewest cycles by libtpu's schedule, of those worth a try.

    As in XLA's figures, copies before the kernel are not among them.
    """
    tried = dict.fromkeys(candidates(case, count))
    return min(tried, key=lambda blocks: schedule_cycles(case, blocks))


def candidates(case: Case, count: int) -> Iterator[TpuBlocks]:
    """XLA's windows, the best blocks of the model, and columns of B beside all of A."""
    gemm, machine = case.gemm, case.machine
    arrays = (_array(gemm.m, gemm.k, gemm), _array(gemm.k, gemm.n, gemm))
    program = Program(text=xla_dot(gemm), function=FUNCTION, arguments=arrays)
    xla = profile(machine, program, flops=gemm.flops, dtype=gemm.dtype, simulate=False)
    if len(xla.grid) == len(case.shape):
        columns, rows, slices = xla.grid
        yield TpuBlocks(
            order="nm",
            m=_part(gemm.m, rows, ROWS),
            n=_part(gemm.n, columns, machine.lanes),
            k=_part(gemm.k, slices, machine.lanes),
        )
    yield from ranked_blocks(gemm, machine)[:count]
    for columns in (machine.mxu_size, 2 * machine.mxu_size):
        blocks = TpuBlocks(order="nm", m=gemm.m, n=columns, k=gemm.k, whole="a")
        if vmem_bytes(gemm, blocks) <= machine.vmem_bytes_per_core * VMEM_SHARE:
            yield blocks


def schedule_cycles(case: Case, blocks: TpuBlocks) -> float:
    """The cycles of a kernel by its schedule, which takes seconds to know."""
    gemm, machine = case.gemm, case.machine
    schedule = "\n".join(spelled(gemm, machine, blocks, fuse=False))
    try:
        program = programs(gemm, lower(gemm, case.target, schedule).artifact)[0]
        found = profile(machine, program, flops=gemm.flops, dtype=gemm.dtype, simulate=False)
    except GemmirError as error:
        _note(f"{case} {blocks}: {error}")
        return math.inf
    cycles = found.cycles_by["schedule"]
    _note(f"{case} {blocks}: {cycles:,} cycles, and {found.copy_cycles:,} of copies before")
    return cycles


def _part(extent: int, parts: int, step: int) -> int:
    """One of equal parts of a dimension, rounded up to whole registers."""
    return min(-(-extent // (parts * step)) * step, extent)


def _array(rows: int, columns: int, gemm: Gemm) -> Array:
    return Array(shape=(rows, columns), dtype=gemm.element.numpy.name)


def profiled(case: Case, blocks: TpuBlocks | None, *, simulate: bool) -> dict[str, Any]:
    """The row of a case, from the two profiles."""
    gemm, machine = case.gemm, case.machine
    schedule = None
    if blocks is not None:
        schedule = "\n".join(spelled(gemm, machine, blocks, fuse=False))
    lowered = lower(gemm, case.target, schedule)
    if simulate:
        found = compare(lowered, cache=ObjectCache(None), say=_note, limit_seconds=LIMIT_SECONDS)
    else:
        ours, xla = (
            profile(
                machine,
                program,
                flops=gemm.flops,
                dtype=gemm.dtype,
                simulate=False,
                limit_seconds=LIMIT_SECONDS,
            )
            for program in programs(gemm, lowered.artifact)
        )
        found = Comparison(ours=ours, xla=xla)
    return {
        "case": str(case),
        "schedule": list(lowered.schedule.steps),
        "bar": BARS.get(str(case), 1.0),
        "method": found.method,
        "mxu_utilisation": round(found.mxu_utilisation, 4),
        "xla_mxu_utilisation": round(found.xla_mxu_utilisation, 4),
        "ratio": round(found.mxu_utilisation / found.xla_mxu_utilisation, 4),
        "ours": figures(found, ours=True),
        "xla": figures(found, ours=False),
        "versions": dict(found.ours.versions),
    }


def figures(found: Comparison, *, ours: bool) -> dict[str, Any]:
    """What is written of one of the two profiles."""
    one = found.ours if ours else found.xla
    cycles = max(one.cycles_by.get(found.method, one.cycles), one.hbm_cycles)
    values: dict[str, Any] = {
        "cycles": dict(one.cycles_by),
        "mxu_utilisation_with_copies": round(one.ideal_cycles / (cycles + one.copy_cycles), 4),
        "copy_bytes": one.copy_bytes,
        "vmem_bytes": one.vmem_bytes,
        "grid": list(one.grid),
        "bound": one.bound,
    }
    if one.loop is not None:
        values |= {"bundles": one.loop.bundles, "spills": one.loop.spills, "fills": one.loop.fills}
    if one.refused:
        values["not_simulated"] = one.refused.strip().splitlines()[0]
    return values


def line(row: dict[str, Any]) -> str:
    """A row as text."""
    ours, xla = row["ours"], row["xla"]
    return (
        f"{row['case']:<34} {row['method']:<12} {row['mxu_utilisation']:.4f} "
        f"XLA {row['xla_mxu_utilisation']:.4f} ratio {row['ratio']:.4f} (bar {row['bar']:.2f}), "
        f"with copies {ours['mxu_utilisation_with_copies']:.4f} "
        f"XLA {xla['mxu_utilisation_with_copies']:.4f}, "
        f"spills {ours.get('spills')} XLA {xla.get('spills')}"
    )


def write(path: Path, row: dict[str, Any]) -> None:
    """Put the row of a case into the file, in place of an older one of the same case."""
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.exists() else []
    kept = {old["case"]: old for old in rows} | {row["case"]: row}
    order = [*BARS, *(name for name in kept if name not in BARS)]
    listed = [kept[name] for name in order if name in kept]
    path.write_text(json.dumps({"label": LABEL, "rows": listed}, indent=1) + "\n")


def keep(case: Case, blocks: TpuBlocks, row: dict[str, Any]) -> None:
    """Put the blocks into the shipped library, with what was profiled."""
    path = Path(str(files("gemmir.schedule.found").joinpath("tpu.json")))
    entries: list[dict[str, Any]] = json.loads(path.read_text())["entries"]
    made = {
        "target": case.target,
        "dtype": case.dtype,
        "shape": list(case.shape),
        "blocks": asdict(blocks),
        "schedule": row["schedule"],
        "profile": {
            name: row[name] for name in ("method", "mxu_utilisation", "xla_mxu_utilisation")
        }
        | {"ours": row["ours"], "xla": row["xla"]},
        "versions": row["versions"],
    }
    others = [e for e in entries if _key(e) != _key(made)]
    listed = sorted([*others, made], key=_key)
    path.write_text(json.dumps({"label": LABEL, "entries": listed}, indent=1) + "\n")


def _key(entry: dict[str, Any]) -> tuple[str, str, list[int]]:
    return entry["target"], entry["dtype"], entry["shape"]


def _note(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    typer.run(main)
