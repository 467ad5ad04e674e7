"""libtpu's static profile of a program for a TPU: cycles, and what they are spent on.

Nothing here is measured. Cycles are known in up to three ways, the best first:

    simulated      libtpu's profiler executes the code of each op, with a model of the memories; it
                   knows neither TPU v4 nor all programs
    schedule       iterations of the main loop times its bundles, or what HBM takes where that is
                   longer, and the bundles of the first and last along k, and what is fetched
                   before and written behind all
    hlo-estimate   what XLA expects of its own products; it expects nothing of a Pallas kernel

No way sees the asynchronous copies that XLA puts between ops, nor that fewer cycles than HBM takes
for the bytes that are moved are not possible: the cycles of a profile are at least those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

from gemmir.backends.pallas.profile import hlo
from gemmir.backends.pallas.profile.ahead_of_time import (
    LIMIT_SECONDS,
    EndedError,
    attempted,
    compiled,
    versions,
)
from gemmir.backends.pallas.profile.figures import METHODS, Figures, Kernel, Method
from gemmir.backends.pallas.profile.program import Program
from gemmir.backends.pallas.profile.schedule import PASSES, Loop, listings, main_loop
from gemmir.errors import ProfileError
from gemmir.machine.tpu import TpuMachine

DUMP: Final = (
    "--xla_jf_dump_to={folder}",
    "--xla_jf_dump_llo_text=true",
    f"--xla_jf_dump_llo_pass_label_regex={PASSES}",
)
SIMULATE: Final = ("--xla_jf_dump_static_llo_profile_to={folder}",)
"""Flags of libtpu: dump the schedule; run the static profiler, which ends the process where it does
not know a program."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """The static profile of one program.

    `cycles` are those of `method`, and at least `hbm_cycles`; `cycles_by` has every figure that
    there is. `copy_bytes` are moved by copies outside of the kernels, in `copy_cycles` that are not
    in `cycles`. `hbm_bytes` counts every block that is moved where `hbm_bytes_by_block`, and
    otherwise each array once, which is the least. `shares` says what part of the cycles each unit
    is busy or each cause takes; `bound` is the largest. Each core runs `loop` `iterations` times;
    it is None where libtpu dumped no code. `refused` is why libtpu did not simulate, where it was
    asked to; `late`, that the time was too short.
    """

    target: str
    function: str
    flops: int
    ideal_cycles: int
    method: Method
    cycles: int
    cycles_by: Mapping[Method, int]
    seconds: float
    copy_bytes: int
    copy_cycles: int
    hbm_bytes: int
    hbm_bytes_by_block: bool
    hbm_cycles: int
    vmem_bytes: int
    code_bytes: int
    grid: tuple[int, ...]
    loop: Loop | None
    iterations: float
    shares: Mapping[str, float]
    bound: str
    refused: str
    late: bool
    versions: Mapping[str, str]

    @property
    def mxu_utilisation(self) -> float:
        """The part of the cycles that the matrix units need for the products."""
        return self.ideal_cycles / self.cycles

    @property
    def mxu_utilisation_with_copies(self) -> float:
        """The same where the copies outside of the kernels hide behind nothing."""
        return self.ideal_cycles / (self.cycles + self.copy_cycles)

    def utilisation_by(self, method: Method) -> float | None:
        """The utilisation by one method; None where it says nothing."""
        cycles = self.cycles_by.get(method)
        return None if cycles is None else self.ideal_cycles / max(cycles, self.hbm_cycles)

    def to_dict(self) -> dict[str, Any]:
        """This profile as plain values."""
        found = asdict(self)
        found["mxu_utilisation"] = self.mxu_utilisation
        found["mxu_utilisation_with_copies"] = self.mxu_utilisation_with_copies
        return found

    @staticmethod
    def from_dict(found: Mapping[str, Any]) -> Profile:
        """The profile that `to_dict` made; `KeyError` or `TypeError` where it is none."""
        values = {field.name: found[field.name] for field in fields(Profile)}
        loop = values["loop"]
        values["loop"] = None if loop is None else Loop(**loop)
        values["grid"] = tuple(values["grid"])
        return Profile(**values)

    def to_json(self) -> str:
        """This profile as JSON text."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> Profile:
        """The profile that `to_json` wrote; `ValueError`, `KeyError` or `TypeError` otherwise."""
        return Profile.from_dict(json.loads(text))


def profile(
    machine: TpuMachine,
    program: Program,
    *,
    flops: int,
    dtype: str,
    simulate: bool = True,
    limit_seconds: float = LIMIT_SECONDS,
) -> Profile:
    """Profile `program`, whose products are `flops` operations on elements of `dtype`.

    Simulating takes some twelve seconds for a million cycles; where libtpu refuses, or is not done
    in `limit_seconds`, the program is compiled again without. Raises as `compile_for` does, and
    `ProfileError` GEM1106 where libtpu tells nothing of the cycles.
    """
    why: EndedError | None = None
    if simulate:
        flags = (*DUMP, *SIMULATE)
        try:
            with attempted(machine, program, flags, limit_seconds=limit_seconds) as found:
                return _read(machine, program, *found, flops=flops, dtype=dtype)
        except EndedError as error:
            why = error
    with compiled(machine, program, DUMP, limit_seconds=limit_seconds) as found:
        made = _read(machine, program, *found, flops=flops, dtype=dtype)
    return made if why is None else replace(made, refused=why.reason, late=why.late)


def _read(
    machine: TpuMachine,
    program: Program,
    folder: Path,
    result: Mapping[str, Any],
    *,
    flops: int,
    dtype: str,
) -> Profile:
    """The profile from what libtpu dumped into `folder` and what the worker found."""
    kernels = [Kernel.read(call) for call in result["calls"]]
    loops = {name: main_loop(found) for name, found in listings(folder).items()}
    main = max(loops, key=lambda name: loops[name].mxu_busy_cycles, default="")
    figures = Figures(
        machine=machine,
        ops=hlo.ops(result["hlo"]),
        kernel=kernels[0] if len(kernels) == 1 else None,
        main=main,
        loop=loops.get(main),
        ideal=flops / machine.mxu_flops_per_cycle(dtype) / machine.cores_per_device,
    )
    method = _method(figures, machine, program)
    cycles = max(figures.cycles_by[method], math.ceil(figures.hbm_cycles))
    shares = figures.shares(cycles)
    return Profile(
        target=machine.target,
        function=program.function,
        flops=flops,
        ideal_cycles=math.ceil(figures.ideal),
        method=method,
        cycles=cycles,
        cycles_by=figures.cycles_by,
        seconds=cycles / machine.clock_hz,
        copy_bytes=hlo.copy_bytes(figures.ops),
        copy_cycles=math.ceil(figures.copy_cycles),
        hbm_bytes=figures.hbm_bytes,
        hbm_bytes_by_block=figures.fetched is not None,
        hbm_cycles=math.ceil(figures.hbm_cycles),
        vmem_bytes=hlo.vmem_bytes(figures.ops),
        code_bytes=result["code_bytes"],
        grid=figures.grid,
        loop=figures.loop,
        iterations=figures.iterations,
        shares=shares,
        bound=max(shares, key=lambda name: shares[name]),
        refused="",
        late=False,
        versions=versions(),
    )


def _method(figures: Figures, machine: TpuMachine, program: Program) -> Method:
    """The best method that says something of the cycles."""
    for method in METHODS:
        if method in figures.cycles_by:
            return method
    raise ProfileError(
        "GEM1106",
        f"libtpu {versions()['libtpu']} tells nothing of the cycles of {program.function} for "
        f"{machine.target}",
        "profile a larger problem, or use a version of libtpu that writes schedules",
    )
