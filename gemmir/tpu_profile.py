"""libtpu's static profile of a Pallas kernel beside that of XLA's own product, in one run.

Nothing here is measured. Both are compiled by the same libtpu for the same TPU, and their figures
are compared by the best method that both have. XLA's cycles leave out its asynchronous copies; with
those, which nothing in the program hides, there is a second figure.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from gemmir.backend import Artifact
from gemmir.backends.pallas.profile import (
    METHODS,
    Array,
    Method,
    Profile,
    Program,
    profile,
    require_libtpu,
)
from gemmir.backends.pallas.profile.ahead_of_time import LIMIT_SECONDS, versions
from gemmir.cache import ObjectCache, cache_key
from gemmir.dtypes import ELEMENTS
from gemmir.errors import ProfileError
from gemmir.gemm import Gemm
from gemmir.machine import TpuMachine
from gemmir.xla_dot import FUNCTION, xla_dot

if TYPE_CHECKING:
    from gemmir.compiler import Lowered

LABEL: Final = "libtpu static profile (not measured)"

SECONDS_PER_MILLION_CYCLES: Final = 12.0
"""How long the profiler takes to simulate a program, on one core of a server."""

WORTH_SAYING_SECONDS: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The profiles of a kernel and of XLA's product for the same problem."""

    ours: Profile
    xla: Profile

    @property
    def method(self) -> Method:
        """The best method that both profiles have a figure by."""
        for method in METHODS:
            if method in self.ours.cycles_by and method in self.xla.cycles_by:
                return method
        return self.ours.method

    @property
    def mxu_utilisation(self) -> float:
        """That of the kernel, by the common method."""
        return self.ours.utilisation_by(self.method) or self.ours.mxu_utilisation

    @property
    def xla_mxu_utilisation(self) -> float:
        """That of XLA by the common method, or by its own where there is none."""
        return self.xla.utilisation_by(self.method) or self.xla.mxu_utilisation

    def to_dict(self) -> dict[str, Any]:
        """Both profiles as plain values, for JSON."""
        return {
            "label": LABEL,
            "method": self.method,
            "mxu_utilisation": self.mxu_utilisation,
            "xla_mxu_utilisation": self.xla_mxu_utilisation,
            "ratio": self.mxu_utilisation / self.xla_mxu_utilisation,
            "ours": self.ours.to_dict(),
            "xla": self.xla.to_dict(),
        }


def programs(gemm: Gemm, artifact: Artifact) -> tuple[Program, Program]:
    """The kernel of `artifact` and XLA's product for `gemm`, as programs for JAX."""
    arrays = tuple(
        Array(shape=a.shape, dtype=ELEMENTS[a.dtype].numpy.name)
        for a in artifact.signature.arguments
        if a.access != "write"
    )
    operands = tuple(
        Array(shape=o.shape, dtype=ELEMENTS[o.dtype].numpy.name)
        for o in gemm.operands
        if o.access != "write"
    )
    ours = Program(text=artifact.text, function=artifact.signature.symbol, arguments=arrays)
    return ours, Program(text=xla_dot(gemm), function=FUNCTION, arguments=operands)


def compare(
    lowered: Lowered,
    *,
    cache: ObjectCache,
    say: Callable[[str], None],
    limit_seconds: float = LIMIT_SECONDS,
) -> Comparison:
    """Profile the kernel of `lowered` and XLA's product for its problem, side by side.

    What `cache` keeps is not profiled again, unless the time was too short; `say` is told how long
    it may take. Raises
    `ProfileError` GEM1110 where the cycles depend on what is known in a call only, GEM1111 where
    the problem is not known, GEM1112 where there are no products, and as `profile` does.
    """
    gemm, artifact, machine = lowered.problem, lowered.artifact, lowered.machine
    assert isinstance(machine, TpuMachine)
    if gemm is None:
        raise ProfileError(
            "GEM1111",
            "what the text computes is not known, so there is no product of XLA to compare with",
            "give the problem, by --m --n --k or as a module at the gemm level",
        )
    if gemm.flops == 0:
        raise ProfileError(
            "GEM1112",
            f"m={gemm.m} n={gemm.n} k={gemm.k} has no products to profile",
            "use sizes of 1 and more",
        )
    if gemm.groups is not None:
        raise ProfileError(
            "GEM1110",
            f"which blocks groups={gemm.groups} products have depends on the offsets of a call",
            "profile one of the products, without groups",
        )
    require_libtpu()
    ours, xla = programs(gemm, artifact)
    found = versions()
    key = cache_key("profile", repr(machine), ours.to_json(), xla.to_json(), *found.values())
    kept = cache.get(key)
    if kept is not None:
        return _read(kept[0])
    _announce(gemm, machine, say)
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(
                profile,
                machine,
                program,
                flops=gemm.flops,
                dtype=gemm.dtype,
                limit_seconds=limit_seconds,
            )
            for program in (ours, xla)
        ]
        made = Comparison(ours=both[0].result(), xla=both[1].result())
    if not made.ours.late and not made.xla.late:
        cache.put(key, json.dumps(made.to_dict()).encode(), artifact.signature)
    return made


def _read(data: bytes) -> Comparison:
    kept: dict[str, Any] = json.loads(data)
    return Comparison(ours=Profile.from_dict(kept["ours"]), xla=Profile.from_dict(kept["xla"]))


def _announce(gemm: Gemm, machine: TpuMachine, say: Callable[[str], None]) -> None:
    cycles = gemm.flops / machine.mxu_flops_per_cycle(gemm.dtype)
    seconds = cycles / 1e6 * SECONDS_PER_MILLION_CYCLES
    if seconds > WORTH_SAYING_SECONDS:
        say(
            f"libtpu simulates {cycles / 1e6:.2g} million cycles for {machine.target}, once for "
            f"gemmir and once for XLA: about {seconds:.0f} s"
        )


# As text -----------------------------------------------------------------------------------------


def comparison_lines(found: Comparison) -> Iterator[str]:
    """Both profiles as lines of a table."""
    libtpu = found.ours.versions["libtpu"]
    yield f"profile    {LABEL}, libtpu {libtpu}"
    rows = [("", "gemmir", "XLA"), *_rows(found)]
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    for name, ours, xla in rows:
        yield f"  {name:<{widths[0]}}  {ours:<{widths[1]}}  {xla}".rstrip()
    for who, one in (("gemmir", found.ours), ("XLA", found.xla)):
        if one.refused:
            yield f"  {who} is not simulated: {one.refused}"
    if found.ours.copy_bytes or found.xla.copy_bytes:
        yield "  copies of a whole operand before a product are in the second line only"


def _rows(found: Comparison) -> Iterator[tuple[str, str, str]]:
    both = (found.ours, found.xla)
    utilisation = (found.mxu_utilisation, found.xla_mxu_utilisation)

    def row(name: str, text: Callable[[Profile], str]) -> tuple[str, str, str]:
        return name, text(both[0]), text(both[1])

    yield f"MXU utilisation, {found.method}", f"{utilisation[0]:.1%}", f"{utilisation[1]:.1%}"
    yield row("  with copies outside", lambda p: _with_copies(p, found.method))
    for method in METHODS:
        if any(method in p.cycles_by for p in both):
            yield row(f"cycles, {method}", lambda p, m=method: _count(p.cycles_by.get(m)))
    yield row("cycles that HBM needs", lambda p: _count(p.hbm_cycles))
    yield row("bound by", lambda p: p.bound)
    yield row("main loop", _loop_text)
    yield row("  busy slots", _slots_text)
    yield row("  spills + fills", _spills_text)
    yield row("VMEM", lambda p: _size(p.vmem_bytes))
    yield row("HBM traffic", _traffic_text)
    yield row("code", lambda p: _size(p.code_bytes))


def _with_copies(found: Profile, method: Method) -> str:
    cycles = max(found.cycles_by.get(method, found.cycles), found.hbm_cycles) + found.copy_cycles
    return f"{found.ideal_cycles / cycles:.1%}"


def _count(cycles: int | None) -> str:
    return "not known" if cycles is None else f"{cycles:,}"


def _loop_text(found: Profile) -> str:
    if found.loop is None:
        return "not known"
    return f"{found.loop.bundles:,} bundles, MXU busy {found.loop.mxu_occupancy:.1%}"


def _slots_text(found: Profile) -> str:
    """The three units, other than the matrix units, that an iteration keeps busiest."""
    if found.loop is None:
        return ""
    others = {name: n for name, n in found.loop.slots.items() if name != "MATMUL"}
    busiest = sorted(others, key=lambda name: -others[name])[:3]
    return ", ".join(f"{name} {others[name]:.0%}" for name in busiest)


def _spills_text(found: Profile) -> str:
    if found.loop is None:
        return ""
    spilled = (found.loop.spills + found.loop.fills) * found.iterations
    return f"{found.loop.spills} + {found.loop.fills}, {spilled:,.0f} in all"


def _traffic_text(found: Profile) -> str:
    exact = "" if found.hbm_bytes_by_block else "at least "
    copies = f", {_size(found.copy_bytes)} of it copied" if found.copy_bytes else ""
    return f"{exact}{_size(found.hbm_bytes)}{copies}"


def _size(count: int) -> str:
    if count >= 1 << 20:
        return f"{count / (1 << 20):.1f} MiB"
    return f"{count / (1 << 10):.1f} KiB"
