"""Rewrite what the pages of this folder show of the code: IR, LLVM text, tables and output.

What stands between `<!-- KIND: ARGUMENT -->` and `<!-- end -->` is made by the function of that
kind in `KINDS`; Python examples are run, one after another, and `<!-- output -->` is what the last
one printed. `python docs/regenerate.py` writes it into the pages, and tests/test_docs.py
compares it with them. Everything is made for `TARGET`, so that it is the same on every computer.

Abridged IR leaves out whole ops: `hide=OP,OP` replaces them by `// …`, `fold=OP` empties their
regions, and `within=OP` shows one of them only. An OP is a name (`scf.for`), the third op of a name
(`scf.for#3`), or the op with a result (`%b_packed`).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from statistics import geometric_mean
from typing import Any, Final, cast

import typer

import gemmir
from gemmir.backends.cpu.assemble import assembly
from gemmir.cli import app
from gemmir.cli.options import ProblemOptions
from gemmir.compiler import prepare
from gemmir.explain import explain
from gemmir.lowering import Stage
from gemmir.machine import machine_for
from gemmir.machine.cpu import SHIPPED
from gemmir.machine.gpu import SHIPPED_GPUS
from gemmir.machine.tpu import SHIPPED_TPUS
from gemmir.schedule.default import default_text
from gemmir.search.ladders import climb
from gemmir.search.spaces import default_space
from gemmir.search.spaces.names import PROBLEM

DOCS: Final = Path(__file__).parent
TARGET: Final = "cpu:x86-64-v3"
TILES_TARGET: Final = "cpu:sapphirerapids"
GPU_TARGET: Final = "cuda:sm_80"
HOPPER_TARGET: Final = "cuda:sm_90a"
TPU_TARGET: Final = "tpu:v5e"

RESULTS: Final = DOCS.parent / "bench" / "results"

FACTS: Final[Mapping[str, str]] = {
    "scalar multiply-adds": "{:.0f} scalar",
    "vector multiply-adds": "{:.0f} vector FMAs",
    "bytes into L1": "{:.3g} bytes into L1",
    "instructions of threads for each multiply-add": "{:.3g} instructions a multiply-add",
    "worst sectors touched over needed": "sectors x{:.3g}",
    "worst turns of the banks": "banks x{:.3g}",
    "registers of a thread": "{:.0f} registers",
    "steps": "{:,.0f} steps",
    "bytes of HBM": "{:.3g} bytes of HBM",
    "spills and fills in the main loop": "{} spills and fills",
}
"""What of the facts of a rung stands in tables, and how."""

WORDS: Final = ("dtype", "out", "epilogue", "dtype_b")
"""Fields of a problem that are no numbers."""

PROFILES: Final = DOCS.parent / "bench" / "results" / "tpu-static.json"
"""What `bench/tpu.py` wrote."""

TIMES: Final = DOCS.parent / "bench" / "results" / "gpu-h200.json"
"""What `bench/gpu.py` wrote on a GPU."""

DIRECTIVE: Final = re.compile(
    r"^<!-- (?P<kind>[a-z]+)(?:: (?P<argument>[^\n]*))? -->\n(?P<body>.*?)^<!-- end -->$",
    re.M | re.S,
)
PROFILE_HINT: Final = re.compile(r"^profile  .*\n", re.M)
"""What `explain` says of libtpu, which some computers have."""

PYTHON: Final = re.compile(r"^```python\n(?P<code>.*?)^```$", re.M | re.S)


def pages() -> list[Path]:
    """Every page of this folder."""
    return sorted(DOCS.rglob("*.md"))


# Abridging ---------------------------------------------------------------------------------------

_OPERATION: Final = re.compile(r"\s*(?:(?P<results>%\S+(?:, %\S+)*) = )?(?P<name>[a-z_]+\.\w+)")


@dataclass(frozen=True, kw_only=True)
class Block:
    """An op of printed IR: its first line, what stands in its regions, and its last line.

    `body` holds ops, and lines of text between the regions; `last` is "" for an op without regions.
    """

    first: str
    body: Sequence[Block | str]
    last: str
    labels: frozenset[str]

    @property
    def indent(self) -> str:
        """The spaces before it."""
        return self.first[: len(self.first) - len(self.first.lstrip())]


def _blocks(lines: Iterator[str], seen: dict[str, int]) -> Iterator[Block | str]:
    """The ops on `lines` up to the line that closes the region around them, which comes last."""
    for line in lines:
        found = _OPERATION.match(line)
        if found is None:
            yield line
            if line.lstrip().startswith("}") and not line.endswith("{"):
                return
            continue
        name = found["name"]
        seen[name] = seen.get(name, 0) + 1
        labels = {name, f"{name}#{seen[name]}", *(found["results"] or "").split(", ")}
        body = list(_blocks(lines, seen)) if line.endswith("{") else []
        last = cast("str", body.pop()) if body else ""
        yield Block(first=line, body=body, last=last, labels=frozenset(labels))


@dataclass(frozen=True, kw_only=True)
class Abridged:
    """Which ops to leave out."""

    hide: frozenset[str]
    fold: frozenset[str]

    def lines(self, blocks: Sequence[Block | str], indent: str) -> Iterator[str]:
        """The text of `blocks`, which stand `indent` deep."""
        was_hidden = False
        for block in blocks:
            is_hidden = isinstance(block, Block) and bool(block.labels & self.hide)
            if isinstance(block, str):
                yield block
            elif not is_hidden:
                yield from self._one(block)
            elif not was_hidden:
                yield f"{indent}// …"
            was_hidden = is_hidden

    def _one(self, block: Block) -> Iterator[str]:
        yield block.first
        inner = block.indent + "  "
        if block.labels & self.fold:
            yield f"{inner}// …"
        else:
            yield from self.lines(block.body, inner)
        if block.last:
            yield block.last


def _all(blocks: Sequence[Block | str]) -> Iterator[Block]:
    for block in blocks:
        if isinstance(block, Block):
            yield block
            yield from _all(block.body)


def abridged(text: str, options: Mapping[str, str]) -> str:
    """Printed IR without the ops that `options` leave out; `ValueError` where there is no such."""
    blocks: list[Block | str] = list(_blocks(iter(text.splitlines()), {}))
    known = {label for block in _all(blocks) for label in block.labels}
    sets = {word: frozenset(options.get(word, "").split(",")) - {""} for word in ("hide", "fold")}
    within = options.get("within")
    for label in (*sets["hide"], *sets["fold"], *([within] if within else [])):
        if label not in known:
            raise ValueError(f"there is no op {label} to abridge")
    if within:
        blocks = [next(block for block in _all(blocks) if within in block.labels)]
    shown = Abridged(hide=sets["hide"], fold=sets["fold"])
    lines = list(shown.lines(blocks, ""))
    deep = len(lines[0]) - len(lines[0].lstrip())
    return "\n".join(line[deep:] for line in lines)


# What is shown -----------------------------------------------------------------------------------


@dataclass
class Page:
    """A page while it is read: what `problem` said last, and what the last Python printed."""

    path: Path
    lowered: gemmir.Lowered | None = None
    printed: str = ""
    names: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def run(self, code: str) -> None:
        """Run an example, in the names of those before it."""
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, str(self.path), "exec"), self.names)
        self.printed = output.getvalue()

    def stage(self, name: str) -> Stage:
        """A stage of the lowering of this page."""
        return self.walk.stages[name]

    @property
    def walk(self) -> gemmir.Lowered:
        """The lowering of this page."""
        if self.lowered is None:
            raise ValueError(f"{self.path} shows a stage and has no `schedule` before it")
        return self.lowered


def _options(argument: str) -> tuple[list[str], dict[str, str]]:
    """The plain words of `argument`, and those of the form key=value."""
    words = argument.split()
    pairs = dict(word.split("=", 1) for word in words if "=" in word and "{" not in word)
    return [word for word in words if "=" not in word], pairs


def _number(text: str) -> float:
    """A number, or one that is known in a call only."""
    if text == "any":
        return gemmir.ANY
    return float(text) if "." in text else int(text)


def _gemm(fields: Mapping[str, str]) -> gemmir.Gemm:
    values: dict[str, Any] = {
        name: _number(text) if name not in WORDS else text for name, text in fields.items()
    }
    return gemmir.Gemm(**values)


def _target(passes: str) -> str:
    if "over=grid" in passes:
        return TPU_TARGET
    if "with=amx" in passes:
        return TILES_TARGET
    if any(word in passes for word in ("over=clusters", "over=warpgroups", "persist")):
        return HOPPER_TARGET
    on_gpu = "over=blocks" in passes or "split-k" in passes
    return GPU_TARGET if on_gpu else TARGET


@cache
def _lowered(problem: str, schedule: str) -> gemmir.Lowered:
    passes = schedule if "{" in schedule else Path(DOCS, schedule).read_text()
    return gemmir.lower(_gemm(_options(problem)[1]), _target(passes), passes)


def fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _schedule(page: Page, argument: str) -> str:
    """`FILE | PROBLEM`: the text of a schedule, which the stages that follow are made by."""
    name, problem = map(str.strip, argument.split("|"))
    page.lowered = _lowered(problem, name)
    return fenced("schedule", Path(DOCS, name).read_text())


def _stage(page: Page, argument: str) -> str:
    """`NAME hide=… fold=… within=…`: the IR of a stage."""
    (name,), options = _options(argument)
    return fenced("mlir", abridged(page.stage(name).text, options))


def _ir(page: Page, argument: str) -> str:
    """`PROBLEM | PASSES | hide=… …`: the IR after passes."""
    problem, passes, rest = map(str.strip, argument.split("|"))
    gemm = _gemm(_options(problem)[1])
    job = prepare(gemm, _target(passes), passes)
    return fenced("mlir", abridged(list(job.stages.values())[-1].text, _options(rest)[1]))


def _pallas(page: Page, argument: str) -> str:
    """The Python file of the page's lowering."""
    return fenced("py", page.walk.artifact.text)


def _llvm(page: Page, argument: str) -> str:
    """`fmas=N`: the block of LLVM text with so many fused multiply-adds that comes first."""
    count = int(_options(argument)[1]["fmas"])
    blocks = re.split(r"^(?=\w+:$)", page.walk.artifact.text, flags=re.M)
    return fenced("llvm", next(b for b in blocks if b.count(" @llvm.fma.") == count))


def _asm(page: Page, argument: str) -> str:
    """`fmas=N`: the block of assembly with so many fused multiply-adds that comes first."""
    count = int(_options(argument)[1]["fmas"])
    blocks = re.split(r"^(?=\.L\w+:)", assembly(page.walk.artifact), flags=re.M)
    found = next(b for b in blocks if b.count("vfmadd") == count)
    lines = [line.replace("\t", "    ") for line in found.splitlines()]
    return fenced("asm", "\n".join(line for line in lines if not line.startswith("    .")))


def _explain(page: Page, argument: str) -> str:
    """`PROBLEM`, or `here` for that of the page: what `gemmir explain` says."""
    lowered = (
        page.walk if argument == "here" else gemmir.lower(_gemm(_options(argument)[1]), TARGET)
    )
    text = explain(lowered)
    return fenced("text", PROFILE_HINT.sub("", text))


def _default(page: Page, argument: str) -> str:
    """`PROBLEM threads=N target=T`: the default schedule."""
    fields = _options(argument)[1]
    threads = int(fields.pop("threads", "1"))
    machine = machine_for(fields.pop("target", TARGET))
    return fenced("schedule", default_text(_gemm(fields), machine, threads))


def _space(page: Page, argument: str) -> str:
    """`PROBLEM target=T`: the space around the default schedule."""
    fields = _options(argument)[1]
    target = fields.pop("target", TARGET)
    return fenced("space", default_space(_gemm(fields), target).text)


def _names(page: Page, argument: str) -> str:
    """The numbers of a problem that a space can use."""
    return table(["name", "is"], [[f"`{name}`", text] for name, text in PROBLEM.items()])


def _output(page: Page, argument: str) -> str:
    """What the Python example before it printed."""
    return fenced("text", page.printed)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _cli(page: Page, argument: str) -> str:
    """`COMMAND`, `GROUP COMMAND`, or `problem` for what commands share: a table of options."""
    if argument == "problem":
        return _options_table(_shared())
    shared = {p.name for p in _shared()}
    found = _parameters(argument)
    takes_problem = argument != "opt" and shared <= {p.name for p in found}
    return _options_table([p for p in found if not takes_problem or p.name not in shared])


def _parameters(command: str) -> list[Any]:
    found = cast("Any", typer.main.get_command(app))
    for name in command.split():
        found = found.commands[name]
    return list(found.params)


def _shared() -> list[Any]:
    """The options of every problem, as explain has them."""
    names = {field.name for field in fields(ProblemOptions)}
    return [p for p in _parameters("explain") if p.name in names]


def _options_table(parameters: Sequence[Any]) -> str:
    rows: list[list[str]] = []
    for p in parameters:
        is_argument = p.param_type_name == "argument"
        names = [p.metavar] if is_argument else [*p.opts, *p.secondary_opts]
        spelled = ", ".join(f"`{name}`" for name in names)
        takes = f" `{p.metavar}`" if p.metavar and not is_argument else ""
        rows.append([(spelled + takes).replace("|", "\\|"), p.help, _shown(p.default)])
    return table(["option", "meaning", "default"], rows)


def _shown(default: object) -> str:
    return "" if default in (None, False, "") else f"`{str(default).lower()}`"


def _gpus(page: Page, argument: str) -> str:
    """The GPUs that can be named."""
    columns = [
        "target",
        "card",
        "multiprocessors",
        "shared memory of a block",
        "L2",
        "FMA a cycle f32, f64",
        "tensor cores for",
    ]
    return table(
        columns,
        [
            [
                f"`{m.target}`",
                m.product,
                str(m.sms),
                f"{m.smem_bytes_per_block // 1024} KiB",
                f"{m.l2_bytes // 1024} KiB",
                f"{m.fma_f32_per_cycle_per_sm}, {m.fma_f64_per_cycle_per_sm}",
                ", ".join(m.mma_dtypes) or "-",
            ]
            for m in SHIPPED_GPUS
        ],
    )


def _file(page: Page, argument: str) -> str:
    """A file of the repository, whole."""
    path = DOCS.parent / argument
    return f"```{path.suffix[1:]}\n{path.read_text(encoding='utf-8')}```"


def _tpus(page: Page, argument: str) -> str:
    """The TPUs that can be named."""
    columns = [
        "target",
        "JAX calls it",
        "cores",
        "matrix units of a core",
        "VMEM of a core",
        "HBM",
        "TFLOP/s of bf16",
        "multiplies",
    ]
    return table(
        columns,
        [
            [
                f"`{m.target}`",
                m.device_kind,
                str(m.cores_per_device),
                f"{m.mxus_per_core} of {m.mxu_size} x {m.mxu_size}",
                f"{m.vmem_bytes_per_core >> 20} MiB",
                f"{m.hbm_bytes_per_second // 10**9} GB/s",
                f"{m.mxu_flops_per_second('bf16') / 1e12:.0f}",
                ", ".join(m.mxu_dtypes),
            ]
            for m in SHIPPED_TPUS
        ],
    )


def _profiles(page: Page, argument: str) -> str:
    """The static profiles of kernels for TPUs, beside XLA's."""
    columns = [
        "problem",
        "by",
        "gemmir",
        "XLA",
        "ratio",
        "with copies outside: gemmir",
        "XLA",
        "spills: gemmir",
        "XLA",
    ]
    rows: list[dict[str, Any]] = json.loads(PROFILES.read_text())["rows"]
    return table(columns, [_profile_cells(row) for row in rows])


def _profile_cells(row: Mapping[str, Any]) -> list[str]:
    sides = row["ours"], row["xla"]
    return [
        f"`{row['case']}`",
        row["method"],
        f"{row['mxu_utilisation']:.1%}",
        f"{row['xla_mxu_utilisation']:.1%}",
        f"{row['ratio']:.3f}",
        *(f"{side['mxu_utilisation_with_copies']:.1%}" for side in sides),
        *(str(side.get("spills", "-")) for side in sides),
    ]


def _times(page: Page, argument: str) -> str:
    """The default kernels of the suites that `argument` names, beside PyTorch's."""
    rows: list[dict[str, Any]] = json.loads(TIMES.read_text())["rows"]
    timed = [row for row in rows if row["suite"] in argument.split() and "seconds" in row]
    torch = {row["case"]: row for row in timed if row["name"] == "torch"}
    columns = ["problem", "gemmir", "TFLOP/s", "TB/s", "PyTorch", "ratio"]
    ours = [row for row in timed if row["name"] == "default" and row["case"] in torch]
    return table(columns, [_time_cells(row, torch[row["case"]]) for row in ours])


def _time_cells(row: Mapping[str, Any], torch: Mapping[str, Any]) -> list[str]:
    return [
        f"`{row['case']}`",
        f"{row['seconds']['median'] * 1e6:.1f} µs",
        f"{row['tflops']:.0f}",
        f"{row['terabytes']:.2f}",
        f"{torch['seconds']['median'] * 1e6:.1f} µs",
        f"{row['ratio']:.3f}",
    ]


def _raced(page: Page, argument: str) -> str:
    """Each class of suites that `gemmir bench` wrote: `TITLE=FILE.json …`, of bench/results.

    The geometric mean of the ratios to the fastest peer, and the problem with the least.
    """
    files = dict(part.split("=") for part in argument.split())
    suites = [json.loads((RESULTS / name).read_text())["classes"] for name in files.values()]
    kinds = [name for name in suites[0] if name != "calls"]
    rows = [[kind, *(c for suite in suites for c in _class_cells(suite[kind]))] for kind in kinds]
    for title, is_in in (("f32 and f64 together", _is_plain), ("all products", _is_product)):
        means = [_mean([r for kind in kinds for r in s[kind] if is_in(r, kind)]) for s in suites]
        rows.append([f"**{title}**", *(c for mean in means for c in (f"**{mean}**", ""))])
    return table(["class", *(c for title in files for c in (title, "worst"))], rows)


def _is_product(row: Mapping[str, Any], kind: str) -> bool:
    """Whether a row of a suite is beside other libraries."""
    return kind != "any m" and row["ratio"] is not None


def _is_plain(row: Mapping[str, Any], kind: str) -> bool:
    problem = row["problem"]
    is_wide = problem["dtype"] in ("f32", "f64") and "dtype_b" not in problem
    return is_wide and _is_product(row, kind)


def _class_cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    raced = [row for row in rows if row["ratio"] is not None]
    if not raced:
        return ["none", ""]
    worst = min(raced, key=lambda row: row["ratio"])
    return [_mean(raced), f"{worst['ratio']:.3f} {worst['spelled']} ({worst['best_peer']})"]


def _mean(rows: Sequence[Mapping[str, Any]]) -> str:
    return f"{geometric_mean([row['ratio'] for row in rows]):.3f}"


def _machines(page: Page, argument: str) -> str:
    """The machines that can be named."""
    columns = ["target", "vector bytes", "vector registers", "L1", "L2", "L3", "FMA a cycle"]
    return table(
        columns,
        [
            [
                f"`{m.target}`",
                str(m.vector_bytes),
                str(m.vector_registers),
                *(f"{size // 1024} KiB" for size in (m.l1_bytes, m.l2_bytes, m.l3_bytes)),
                str(m.fma_per_cycle),
            ]
            for m in SHIPPED
        ],
    )


def _rungs(page: Page, argument: str) -> str:
    """Every rung of a ladder: what it changes in the schedule, and why."""
    fields = _options(argument)[1]
    target = fields.pop("target")
    made = climb(_gemm(fields), target, threads=2 if target.startswith("cpu") else 1)
    texts: list[str] = []
    for number, rung in enumerate(made.rungs):
        edits = "\n".join(str(edit) for edit in rung.edits)
        why = textwrap.fill(rung.why, 100, break_long_words=False)
        texts += [f"### {number}: {rung.name}, {rung.title}", fenced("diff", edits), why]
    texts += [f"No rung `{name}`: {reason}." for name, reason in made.left_out.items()]
    return "\n\n".join(texts)


def _climbed(page: Page, argument: str) -> str:
    """The figures that `gemmir ladder --json` wrote into a file of bench/results."""
    found: dict[str, Any] = json.loads((RESULTS / argument).read_text())
    columns = ["rung", "GFLOP/s", "of peak", "x before", "how", "why"]
    rows = [
        [
            f"`{rung['name']}`",
            f"{rung['gflops']:,.4g}" if rung["gflops"] < 1e4 else f"{rung['gflops']:,.0f}",
            f"{rung['of_peak']:.2%}",
            "" if rung["ratio_to_before"] is None else f"{rung['ratio_to_before']:.2f}",
            rung["how"],
            ", ".join(_fact(name, value) for name, value in rung["facts"].items() if name in FACTS),
        ]
        for rung in found["rungs"]
    ]
    return f"{found['machine']}:\n\n{table(columns, rows)}"


def _fact(name: str, value: float | str) -> str:
    """A count of a rung in a few words."""
    return FACTS[name].format(value)


KINDS: Final[Mapping[str, Callable[[Page, str], str]]] = {
    "asm": _asm,
    "cli": _cli,
    "climbed": _climbed,
    "default": _default,
    "explain": _explain,
    "file": _file,
    "gpus": _gpus,
    "ir": _ir,
    "llvm": _llvm,
    "machines": _machines,
    "names": _names,
    "output": _output,
    "pallas": _pallas,
    "profiles": _profiles,
    "raced": _raced,
    "rungs": _rungs,
    "times": _times,
    "schedule": _schedule,
    "space": _space,
    "stage": _stage,
    "tpus": _tpus,
}


def regenerated(path: Path) -> str:
    """The text of a page as it should be. Runs its Python examples."""
    text, page = path.read_text(encoding="utf-8"), Page(path)
    parts: list[str] = []
    at = 0
    matches = [*DIRECTIVE.finditer(text), *PYTHON.finditer(text)]
    for found in sorted(matches, key=re.Match[str].start):
        if found.re is PYTHON:
            page.run(found["code"])
            continue
        made = KINDS[found["kind"]](page, found["argument"] or "")
        parts += [text[at : found.start("body")], made, "\n"]
        at = found.end("body")
    return "".join([*parts, text[at:]])


def main() -> None:
    """Rewrite every page that differs."""
    for path in pages():
        made = regenerated(path)
        if made != path.read_text(encoding="utf-8"):
            path.write_text(made, encoding="utf-8")
            sys.stderr.write(f"rewrote {path.relative_to(DOCS.parent)}\n")


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu would look for a TPU, at length
    main()
