"""Profile gemmir's kernels for TPUs beside XLA's own products; see bench/README.md.

    python bench/tpu.py                                     every case of the suite
    python bench/tpu.py --list                              their names
    python bench/tpu.py --case tpu:v6e/i8/4096x4096x4096    one case; may be repeated
    python bench/tpu.py --json FILE                         write the figures into a file, too
    python bench/tpu.py --case … --blocks nm/4096x256x4096/a --store

Needs JAX and libtpu and no TPU: nothing here is measured. `--blocks` profiles other blocks than the
default ones, as ORDER/MxNxK, with the operand that is in VMEM as a whole behind another slash where
there is one; `--store` keeps them in the shipped library, which the default schedules go by.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from gemmir.cache import ObjectCache
from gemmir.compiler import lower
from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine, machine_for
from gemmir.schedule.default_tpu import TpuBlocks, spelled
from gemmir.tpu_profile import LABEL, Comparison, compare

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
    store: Annotated[bool, typer.Option("--store", help="Keep the blocks as those found.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures.")] = None,
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
        row = profiled(each, given)
        rows.append(row)
        typer.echo(line(row))
        if json_file is not None:
            write(json_file, row)
        if store and given is not None:
            keep(each, given, row)
    if strict and any(row["ratio"] < row["bar"] for row in rows):
        raise typer.Exit(MISSED)


def read_blocks(text: str) -> TpuBlocks:
    """The blocks that `ORDER/MxNxK` or `ORDER/MxNxK/OPERAND` names."""
    found = re.fullmatch(r"(mn|nm)/(\d+)x(\d+)x(\d+)(?:/([ab]))?", text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is not ORDER/MxNxK or ORDER/MxNxK/OPERAND")
    order, m, n, k, whole = found.groups()
    return TpuBlocks(order=order, m=int(m), n=int(n), k=int(k), whole=whole or "")


def profiled(case: Case, blocks: TpuBlocks | None) -> dict[str, Any]:
    """The row of a case, from the two profiles."""
    gemm, machine = case.gemm, case.machine
    schedule = None
    if blocks is not None:
        schedule = "\n".join(spelled(gemm, machine, blocks, fuse=False))
    lowered = lower(gemm, case.target, schedule)
    found = compare(lowered, cache=ObjectCache(None), say=_note, limit_seconds=LIMIT_SECONDS)
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
