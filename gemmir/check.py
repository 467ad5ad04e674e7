"""Run every stage of a lowering, and then the machine code, against wider arithmetic.

The IR after each pass is run by the evaluator on random arrays in [-1, 1), and the machine code on
the same arrays; that for a GPU in the emulator, and then on a GPU if there is one, and that for a
TPU in Pallas's interpreter, if Pallas finds nothing in it that no TPU has. Each result must lie
within the a-priori bound of the right one, and nothing outside the output may have changed. The
first stage that does not is reported with its first wrong element and the smallest problem that is
wrong in the same stage of the same schedule.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from gemmir.arrays import Operands, make_operands
from gemmir.backend import backend_for
from gemmir.compiler import Job, prepare
from gemmir.errors import (
    BackendError,
    DeviceError,
    EmulationError,
    MismatchError,
    MissingError,
    ParseError,
    ProblemError,
    ScheduleError,
)
from gemmir.evaluate import EvaluationError, evaluate
from gemmir.gemm import Gemm
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import EpilogueOp
from gemmir.jax_modules import jax
from gemmir.kernel import Kernel
from gemmir.lowering import run_pass
from gemmir.machine import HOST, CpuMachine, GpuMachine, TpuMachine
from gemmir.machine.host import missing_features
from gemmir.passes.version import Version
from gemmir.reference import Element, Reference, reference_of, reference_of_gemm, says_all
from gemmir.runtime_kernel import RuntimeKernel
from gemmir.schedule import Schedule
from gemmir.signature import Signature, signature_of
from gemmir.sizes import Unknown

MACHINE_CODE: Final = "machine-code"
"""The name of the last stage, which runs on the CPU itself."""

EMULATED: Final = "ptx"
"""The name of the last stage for a GPU, which needs none."""

INTERPRETED: Final = "pallas"
"""The name of the last stage for a TPU, which needs JAX and no TPU."""

ON_GPU: Final = "gpu"
"""The name of the stage behind it where there is a GPU that runs the code."""

SHRINK_SECONDS: Final = 3.0
SHRINK_EXAMPLES: Final = 200
"""Limits of the search for a smaller problem; what it has found by then is reported."""

INVALID_IR: Final = "GEM0390"
"""The code of a pass that left IR that does not verify: its fault, and not the schedule's."""

SAMPLE_SIZES: Final = (13, 1, 0, 70)
"""Sizes that are tried in place of those that are known in a call only."""

MOST_SAMPLED: Final = 130
"""Sizes of versions up to this one are tried too: the evaluator takes seconds for larger ones."""

SAMPLE_GAP: Final = 3
"""Elements between the end of a row and the next one, where their distance is not known."""

Status = Literal["ok", "wrong", "skipped"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One stage and whether it is right.

    `largest` is the element with the largest error, `first_wrong` the first that is beyond its
    bound; `message` says what else is wrong, or why the stage was skipped. `seconds` is the time it
    took to run the stage.
    """

    name: str
    step: str
    status: Status
    seconds: float
    largest: Element | None = None
    first_wrong: Element | None = None
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong; also true of what was skipped."""
        return self.status != "wrong"

    @property
    def fault(self) -> str:
        """What is wrong, or ""."""
        return self.message or ("" if self.first_wrong is None else str(self.first_wrong))


@dataclass(frozen=True, kw_only=True)
class Report:
    """All stages in order, what they were compared with, and how to see the first fault again.

    `smallest` is a command line, or "" where nothing is wrong or no smaller problem can be posed.
    """

    rows: tuple[Row, ...]
    reference: str
    smallest: str

    @property
    def ok(self) -> bool:
        """Whether no stage is wrong."""
        return self.first_wrong is None

    @property
    def first_wrong(self) -> Row | None:
        """The first stage that is wrong: its pass is at fault."""
        return next((row for row in self.rows if not row.ok), None)

    def require_ok(self) -> None:
        """`MismatchError` GEM0801 that names the first wrong stage, its pass and element."""
        row = self.first_wrong
        if row is None:
            return
        after = f"{row.name} (after {row.step})" if row.step else row.name
        hint = f"the smallest such problem: {self.smallest}" if self.smallest else ""
        raise MismatchError("GEM0801", f"stage {after}: {row.fault}", hint)

    def to_dict(self) -> dict[str, Any]:
        """This report as plain values, for JSON."""
        rows = [{**dataclasses.asdict(row), "ok": row.ok} for row in self.rows]
        return {"ok": self.ok, "reference": self.reference, "smallest": self.smallest, "rows": rows}


def check(
    subject: Gemm | Job,
    *,
    target: str = HOST,
    schedule: Schedule | str | Path | None = None,
    threads: int | None = None,
    gemm: Gemm | None = None,
    replace: Mapping[str, str] | None = None,
    ptx: str = "",
    pallas: str = "",
    seed: int = 0,
    shrink: bool = True,
    watch: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Check every stage of `subject`.

    A `Gemm` is lowered for `target` by `schedule` as by `gemmir.lower`; a `Job`, such as a
    `Lowered`, has its own. `gemm` says what a job from the text of a later level must compute.
    `replace` maps the name of a stage (`04-vectorize`, or `vectorize` where that is the only one)
    to IR that takes its place, and `ptx` or `pallas` is run in place of the PTX or the Python file
    that is emitted. `watch` sees each row as soon as it is known.

    A wrong stage is not an error here: see `Report.require_ok`. Raises `ParseError` GEM0207 for an
    unknown stage in `replace`, GEM0209 where it is not known what `subject` must compute, and as
    `gemmir.lower` does.
    """
    job = prepare(subject, target, schedule, threads) if isinstance(subject, Gemm) else subject
    texts = replacements(job.schedule, replace or {})
    samples = tuple(samples_of(job, gemm, seed))
    run = Run(
        job=job,
        samples=samples,
        texts=texts,
        emitted=ptx or pallas,
    )
    rows: list[Row] = []
    for row in run.rows():
        rows.append(row)
        watch(row)
    report = Report(rows=tuple(rows), reference=samples[0].reference(True).origin, smallest="")
    wrong = report.first_wrong
    is_unknown = bool(samples[0].sizes)
    if wrong is None or not shrink or texts or ptx or pallas or gemm is not None or is_unknown:
        return report
    return dataclasses.replace(report, smallest=_smallest_line(job, wrong, seed))


def stage_names(schedule: Schedule) -> tuple[str, ...]:
    """The names of all stages, as in `Lowered.stages`."""
    names = [step.split("{")[0] for step in schedule.steps]
    return tuple(f"{number:02}-{name}" for number, name in enumerate(["gemm", *names]))


def find_stage(schedule: Schedule, wanted: str) -> str:
    """The stage called `wanted`, or the only one whose pass is; `ParseError` GEM0207 otherwise."""
    names = stage_names(schedule)
    found = [n for n in names if wanted in (n, n.split("-", 1)[1])]
    if len(found) == 1:
        return found[0]
    nearest = found or difflib.get_close_matches(wanted, names, n=1, cutoff=0.0)
    raise ParseError(
        "GEM0207",
        f"{'several stages are' if found else 'there is no stage'} {wanted!r}; "
        f"the stages are {', '.join(names)}",
        f"use {' or '.join(nearest)}",
    )


def replacements(schedule: Schedule, replace: Mapping[str, str]) -> dict[str, str]:
    """The IR in `replace`, by the whole names of the stages; `ParseError` GEM0207 as above."""
    return {find_stage(schedule, wanted): text for wanted, text in replace.items()}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Arrays to run a job on and what must come out; `sizes` says in words what was unknown.

    `reference` is asked whether no GPU computes it.
    """

    sizes: str
    operands: Operands
    reference: Callable[[bool], Reference]

    def about(self, message: str) -> str:
        """`message` with the sizes that it is about."""
        return f"{self.sizes}: {message}" if self.sizes else message


def samples_of(job: Job, gemm: Gemm | None, seed: int) -> Iterator[Sample]:
    """Random arrays; where sizes are known in a call only, of several sizes."""
    signature = signature_of(parse_module(job.source))
    for number, sizes in enumerate(_sample_sizes(signature, job.schedule)):
        operands = make_operands(signature.at(sizes), seed)
        beta = operands.by_name.get("beta")
        if beta is not None and number == 0:
            beta.array[...] = 0
            operands.output[...] = np.nan
        yield _sample(job, gemm, operands, ", ".join(f"{n}={s}" for n, s in sizes.items()))


def _sample(job: Job, gemm: Gemm | None, operands: Operands, sizes: str) -> Sample:
    def reference(emulated: bool) -> Reference:
        if gemm is None:
            return reference_of(job.source, job.problem, operands, emulated=emulated)
        return reference_of_gemm(gemm, operands, emulated=emulated)

    return Sample(sizes=sizes, operands=operands, reference=cache(reference))


def _sample_sizes(signature: Signature, schedule: Schedule) -> Iterator[dict[str, int]]:
    """Sizes to try: small and odd ones, and those at which versions begin and end.

    Rows lie a little farther apart than they are long.
    """
    if not signature.sizes:
        yield {}
        return
    edges = [
        number + more
        for p in schedule.passes
        if isinstance(p, Version)
        for number in p.most or p.sizes or ()
        for more in (0, 1)
    ]
    values = list(dict.fromkeys((*SAMPLE_SIZES, *(n for n in edges if n <= MOST_SAMPLED))))
    extents = [name for name in signature.sizes if not name.startswith("ld")]
    for turn in range(len(values)):
        sizes = {n: values[(turn + i) % len(values)] for i, n in enumerate(extents)}
        for argument in signature.arguments:
            *_, length = argument.shape
            columns = sizes[length.name] if isinstance(length, Unknown) else length
            for stride in argument.strides[:-1]:
                if isinstance(stride, Unknown):
                    sizes.setdefault(stride.name, max(columns, 1) + SAMPLE_GAP)
        yield {name: sizes[name] for name in signature.sizes}


@dataclass(frozen=True, kw_only=True)
class Run:
    """A job with the arrays to run it on and what must come out."""

    job: Job
    samples: tuple[Sample, ...]
    texts: Mapping[str, str]
    emitted: str = ""

    def rows(self, only: str | None = None) -> Iterator[Row]:
        """Every stage in order, or just the one named `only`; all passes run in any case.

        A pass that finds nothing wrong with the IR before it but refuses it is a `ScheduleError`.
        """
        schedule = self.job.schedule
        module = parse_module(self.job.source)
        is_wrong = False
        for number, name in enumerate(stage_names(schedule)):
            step = schedule.steps[number - 1] if number else ""
            try:
                module = self._stage(name, number, module)
            except ScheduleError as error:
                if error.code != INVALID_IR and not is_wrong:
                    raise
                yield Row(name=name, step=step, status="wrong", seconds=0.0, message=str(error))
                return
            if only in (None, name):
                row = self.row(name, step, lambda arrays, m=module: evaluate(m, arrays.arrays))
                is_wrong |= only is None and not row.ok
                yield row
        if only in (None, MACHINE_CODE, EMULATED, INTERPRETED, ON_GPU):
            yield from self.last(module, only)

    def _stage(self, name: str, number: int, module: ModuleOp) -> ModuleOp:
        """The IR of a stage, made from that of the stage before, or replaced."""
        if name in self.texts:
            return parse_module(self.texts[name], f"the replacement of {name}")
        if number:
            run_pass(self.job.schedule.passes[number - 1], module, verify=True)
        return module

    def last(self, module: ModuleOp, only: str | None) -> Iterator[Row]:
        """What the backend makes; on a GPU only what the emulator has found nothing wrong with."""
        machine = self.job.machine
        if isinstance(machine, CpuMachine):
            yield self._machine_code(module, machine)
            return
        if isinstance(machine, TpuMachine):
            yield self._interpreted(module, machine)
            return
        if only != ON_GPU:
            row = self._emulated(module, machine)
            yield row
            if not row.ok:
                return
        if only in (None, ON_GPU) and _is_here(machine):
            yield self._on_gpu(module, machine)

    def _machine_code(self, module: ModuleOp, machine: CpuMachine) -> Row:
        step = f"LLVM for {machine.llvm_cpu}"
        lacking = missing_features(machine)
        if lacking:
            reason = f"this computer lacks {', '.join(lacking)}"
            return Row(name=MACHINE_CODE, step=step, status="skipped", seconds=0.0, message=reason)

        @cache
        def kernel() -> Kernel:
            backend = backend_for(machine.backend)
            artifact = backend.emit(module, machine)
            loaded = backend.load(backend.assemble(artifact), artifact.signature)
            made = RuntimeKernel if artifact.signature.sizes else Kernel
            return made(loaded, artifact.signature)

        def call(operands: Operands) -> None:
            *inputs, output = operands.arrays
            kernel()(*inputs, out=output)

        return self.row(MACHINE_CODE, step, call)

    def _interpreted(self, module: ModuleOp, machine: TpuMachine) -> Row:
        """The Pallas kernel, lowered for a TPU and then run by Pallas's interpreter."""
        step = f"Pallas for {machine.name}, lowered and interpreted"
        try:
            jax()
        except MissingError as error:
            reason = error.message
            return Row(name=INTERPRETED, step=step, status="skipped", seconds=0.0, message=reason)

        def call(operands: Operands) -> None:
            from gemmir.backends.pallas.run import run_pallas

            artifact = backend_for(machine.backend).emit(module, machine)
            run_pallas(artifact, self.emitted or artifact.text, operands.arrays)

        return self.row(INTERPRETED, step, call)

    def _emulated(self, module: ModuleOp, machine: GpuMachine) -> Row:
        """The PTX, run by the emulator: it needs no GPU."""

        def call(operands: Operands) -> None:
            from gemmir.backends.ptx.run import run_ptx

            artifact = backend_for(machine.backend).emit(module, machine)
            run_ptx(artifact, self.emitted or artifact.text, operands.arrays)

        return self.row(EMULATED, f"PTX for {machine.name}, in the emulator", call)

    def _on_gpu(self, module: ModuleOp, machine: GpuMachine) -> Row:
        """The same PTX on the GPU that is here."""
        from gemmir.gpu_kernel import GpuKernel

        def call(operands: Operands) -> None:
            backend = backend_for(machine.backend)
            artifact = backend.emit(module, machine)
            artifact = dataclasses.replace(artifact, text=self.emitted or artifact.text)
            loaded = backend.load(backend.assemble(artifact), artifact.signature)
            *inputs, output = operands.arrays
            GpuKernel(loaded, artifact.signature)(*inputs, out=output)

        step = f"PTX for {machine.name}, on the GPU"
        return self.row(ON_GPU, step, call, emulated=False)

    def row(
        self,
        name: str,
        step: str,
        run: Callable[[Operands], None],
        *,
        emulated: bool = True,
    ) -> Row:
        """Run a stage on arrays of its own and compare; the first sample that is wrong, or worst.

        `emulated` says that no GPU computes it.
        """
        rows = [self._sampled(sample, name, step, run, emulated) for sample in self.samples]
        worst = next((row for row in rows if not row.ok), None)
        if worst is None:
            worst = max(rows, key=lambda row: 0.0 if row.largest is None else row.largest.ratio)
        return dataclasses.replace(worst, seconds=sum(row.seconds for row in rows))

    def _sampled(
        self,
        sample: Sample,
        name: str,
        step: str,
        run: Callable[[Operands], None],
        emulated: bool,
    ) -> Row:
        operands = sample.operands.copy()
        start = time.perf_counter()
        try:
            run(operands)
        except (EvaluationError, BackendError, EmulationError, DeviceError) as error:
            seconds = time.perf_counter() - start
            message = sample.about(str(error))
            return Row(name=name, step=step, status="wrong", seconds=seconds, message=message)
        seconds = time.perf_counter() - start
        compared = sample.reference(emulated).compare(operands.output)
        damage = operands.damage(sample.operands)
        if sample.sizes and compared.first_wrong is not None and not damage:
            damage = sample.about(str(compared.first_wrong))
        return Row(
            name=name,
            step=step,
            status="wrong" if damage or compared.first_wrong else "ok",
            seconds=seconds,
            largest=compared.largest,
            first_wrong=compared.first_wrong,
            message=damage,
        )


def _is_here(machine: GpuMachine) -> bool:
    """Whether a GPU of this computer runs code for `machine`."""
    from gemmir.backends.ptx.driver import require_gpu

    try:
        require_gpu(machine.llvm_cpu)
    except MissingError:
        return False
    return True


def _smallest_line(job: Job, wrong: Row, seed: int) -> str:
    """The command line of the smallest problem that is wrong in the same stage, or ""."""
    problem = job.problem
    known_whole = not any(isinstance(o, EpilogueOp) for o in parse_module(job.source).walk())
    if problem is None or not (known_whole or says_all(problem, job.source)):
        return ""
    smallest = smallest_of(job, problem, wrong.name, seed)
    if smallest is None:
        return command_line(problem, job, seed) if says_all(problem, job.source) else ""
    return command_line(smallest, job, seed)


def smallest_of(job: Job, problem: Gemm, stage: str, seed: int) -> Gemm | None:
    """The smallest problem found, or None where `problem` itself is right in `stage`."""
    from hypothesis import HealthCheck, Phase, find, settings
    from hypothesis import strategies as st
    from hypothesis.errors import Flaky, NoSuchExample

    end = time.monotonic() + SHRINK_SECONDS
    seen: dict[tuple[int, int, int], bool] = {}

    def is_wrong(sizes: tuple[int, int, int]) -> bool:
        if sizes not in seen:
            if time.monotonic() > end:
                return False
            seen[sizes] = _is_wrong(job, _resized(problem, sizes), stage, seed)
        return seen[sizes]

    whole = (problem.m, problem.n, problem.k)
    if not is_wrong(whole):
        return None
    limits = settings(
        max_examples=SHRINK_EXAMPLES,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    # Half of the draws leave a size as it is, which a schedule may need.
    sizes = st.tuples(
        *(st.integers(min(1, s), 2 * s).map(lambda drawn, s=s: min(drawn, s)) for s in whole)
    )
    with contextlib.suppress(NoSuchExample, Flaky):
        find(sizes, is_wrong, settings=limits)
    wrong = [found for found, is_so in seen.items() if is_so]
    return _resized(problem, min(wrong, key=lambda s: (s[0] * s[1] * s[2], s)))


def _resized(problem: Gemm, sizes: tuple[int, int, int]) -> Gemm:
    m, n, k = sizes
    return dataclasses.replace(problem, m=m, n=n, k=k)


def _is_wrong(job: Job, problem: Gemm, stage: str, seed: int) -> bool:
    """Whether `problem` is wrong in `stage` of the schedule of `job`; illegal is not wrong."""
    try:
        smaller = prepare(problem, job.target, job.schedule)
        operands = make_operands(signature_of(parse_module(smaller.source)), seed)
        sample = _sample(smaller, problem, operands, "")
        run = Run(job=smaller, samples=(sample,), texts={})
        found = list(run.rows(only=stage))
        return any(row.name == stage and not row.ok for row in found)
    except (ScheduleError, ProblemError):
        return False


def command_line(problem: Gemm, job: Job, seed: int) -> str:
    """The command that checks `problem` with the target and schedule of `job`."""
    words = ["gemmir", "check"]
    for field in dataclasses.fields(problem):
        value = getattr(problem, field.name)
        if value == field.default:
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if value is not True:
            words.append(str(value))
    if job.target != HOST:
        words += ["--target", job.target]
    if seed:
        words += ["--seed", str(seed)]
    return shlex.join([*words, "--schedule", str(job.schedule)])
