"""The numbers of a problem and of a machine, by the names that a space calls them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from gemmir.gemm import Gemm
from gemmir.machine import CpuMachine, GpuMachine, Machine, TpuMachine
from gemmir.sizes import Unknown

PROBLEM: Final[Mapping[str, str]] = {
    "m": "rows of C",
    "n": "columns of C",
    "k": "length of the sums",
    "batch": "products, 1 without a batch",
    "groups": "products of a grouped GEMM, 1 where it is none",
    "lda": "elements between rows of A as it is stored",
    "ldb": "elements between rows of B as it is stored",
    "ldc": "elements between rows of C",
    "item_bytes": "bytes of an element of A",
    "sum_bytes": "bytes of an element of the sums",
    "out_bytes": "bytes of an element of C",
    "trans_a": "1 where A is stored k x m",
    "trans_b": "1 where B is stored n x k",
    "reads_c": "1 where beta is not 0",
    "steps": "steps of the epilogue",
}
"""Names of the problem, and what they are."""

LANES: Final = "lanes"
"""On a CPU: sums in a vector register. On a TPU: columns of a tile."""


def machine_names(machine: type[Machine]) -> frozenset[str]:
    """The names of the numbers that machines of a kind have."""
    fields = dataclasses.fields(machine)
    found = {f.name for f in fields if f.type in ("int", "int | None", int, "bool")}
    return frozenset({*found, LANES} if machine is CpuMachine else found)


def known_names() -> frozenset[str]:
    """Every name that a space can use of some problem or machine."""
    kinds: tuple[type[Machine], ...] = (CpuMachine, GpuMachine, TpuMachine)
    return frozenset(PROBLEM).union(*map(machine_names, kinds))


def numbers_of(gemm: Gemm, machine: Machine) -> dict[str, int]:
    """The numbers of `gemm` and `machine`; what is known in a call only is left out."""
    problem = {
        "m": gemm.m,
        "n": gemm.n,
        "k": gemm.k,
        "batch": 1 if gemm.batch is None else gemm.batch,
        "groups": gemm.groups or 1,
        "lda": gemm.leading("a"),
        "ldb": gemm.leading("b"),
        "ldc": gemm.leading("c"),
        "item_bytes": gemm.element.item_bytes,
        "sum_bytes": gemm.accumulator.item_bytes,
        "out_bytes": gemm.result.item_bytes,
        "trans_a": int(gemm.trans_a),
        "trans_b": int(gemm.trans_b),
        "reads_c": int(isinstance(gemm.beta, Unknown) or gemm.beta != 0),
        "steps": len(gemm.steps),
    }
    found = {name: n for name, n in problem.items() if not isinstance(n, Unknown)}
    for name in machine_names(type(machine)):
        value = (
            machine.lanes(gemm.accumulator.item_bytes)
            if name == LANES and isinstance(machine, CpuMachine)
            else getattr(machine, name)
        )
        if value is not None:
            found[name] = int(value)
    return found
