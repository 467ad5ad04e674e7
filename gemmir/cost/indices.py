"""Numbers of type index in the IR: how they move with the loops around, and what they are.

A loop is seen at three of its iterations, the first, the second and the last, which stand for all:
what is smaller in the last one, and what is done in the first one only, is counted as often as it
happens. Extents that are known in a call only have the values that the caller of the model gives,
and groups, whose rows are loaded, have equal shares of them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from xdsl.dialects import arith, memref
from xdsl.dialects.builtin import DYNAMIC_INDEX, IntegerAttr, MemRefType
from xdsl.ir import BlockArgument, Operation, SSAValue

from gemmir.ir.dialect import memref_type

Sample = tuple[float, float]
"""A value of a loop variable and the share of the iterations that it stands for."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LoopVariable:
    """The variable of a loop that runs `trips` times on average, from `first` by `step`."""

    first: float
    step: float
    trips: float
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """An index as a constant and so much of each loop variable."""

    constant: float = 0.0
    of: Mapping[LoopVariable, float] = field(default_factory=dict[LoopVariable, float])

    def plus(self, other: Linear, times: float = 1.0) -> Linear:
        """The sum of this and `times` the other."""
        of = dict(self.of)
        for variable, factor in other.of.items():
            of[variable] = of.get(variable, 0.0) + factor * times
        return Linear(constant=self.constant + other.constant * times, of=of)

    def scaled(self, factor: float) -> Linear:
        """This, `factor` times."""
        return Linear().plus(self, factor)


PREDICATES: Final[tuple[Callable[[float, float], bool], ...]] = (
    lambda a, b: a == b,
    lambda a, b: a != b,
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
    lambda a, b: a < b,
    lambda a, b: a <= b,
    lambda a, b: a > b,
    lambda a, b: a >= b,
)
"""Of `arith.cmpi`, by their numbers: those of numbers without a sign are the last four."""

ARITHMETIC: Final[Mapping[type[Operation], Callable[[float, float], float]]] = {
    arith.AddiOp: lambda a, b: a + b,
    arith.SubiOp: lambda a, b: a - b,
    arith.MuliOp: lambda a, b: a * b,
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
    arith.DivUIOp: lambda a, b: a // b if b else 0.0,
    arith.DivSIOp: lambda a, b: a // b if b else 0.0,
    arith.CeilDivSIOp: lambda a, b: -(-a // b) if b else 0.0,
    arith.RemUIOp: lambda a, b: a % b if b else 0.0,
    arith.RemSIOp: lambda a, b: math.fmod(a, b) if b else 0.0,
    arith.AndIOp: lambda a, b: float(bool(a) and bool(b)),
    arith.OrIOp: lambda a, b: float(bool(a) or bool(b)),
}


MOVING: Final = (arith.CmpiOp, arith.SelectOp, arith.IndexCastOp, memref.LoadOp)
"""What else has a result that moves with its operands."""


@dataclass
class Indices:
    """What is known of the indices of a function; `unknown` stands for an extent of a call."""

    unknown: float
    variables: dict[SSAValue, LoopVariable] = field(default_factory=dict[SSAValue, LoopVariable])
    given: dict[SSAValue, SSAValue] = field(default_factory=dict[SSAValue, SSAValue])
    _depends: dict[SSAValue, frozenset[LoopVariable]] = field(
        default_factory=dict[SSAValue, frozenset[LoopVariable]]
    )
    _means: dict[SSAValue, float] = field(default_factory=dict[SSAValue, float])

    def enter(self, value: SSAValue, lb: SSAValue, ub: SSAValue, step: SSAValue) -> LoopVariable:
        """The variable of a loop from `lb` to `ub` by `step`, whose argument is `value`."""
        by = max(self.mean(step), 1.0)
        first, trips = self.mean(lb), self._mean_of((lb, ub, step), _trips)
        found = LoopVariable(first=first, step=by, trips=trips, samples=_samples(first, by, trips))
        self.variables[value] = found
        return found

    def spread(self, value: SSAValue, count: float) -> None:
        """Let a value be 0 to `count` - 1, as the number of a unit is."""
        samples = _samples(0.0, 1.0, count)
        self.variables[value] = LoopVariable(first=0.0, step=1.0, trips=count, samples=samples)

    def mean(self, value: SSAValue | int) -> float:
        """The mean of an index over all iterations of the loops around it."""
        if isinstance(value, int):
            return float(value)
        if value not in self._means:
            self._means[value] = self._mean_of((value,), float)
        return self._means[value]

    def _mean_of(self, values: tuple[SSAValue, ...], function: Callable[..., float]) -> float:
        """The mean of a function of several indices, which move together."""
        variables = list(frozenset[LoopVariable]().union(*(self._variables(v) for v in values)))
        total = 0.0
        for chosen in itertools.product(*(v.samples for v in variables)):
            at = {v: number for v, (number, _) in zip(variables, chosen, strict=True)}
            share = math.prod(weight for _, weight in chosen)
            total += share * function(*(self._at(value, at) for value in values))
        return total

    def _variables(self, value: SSAValue) -> frozenset[LoopVariable]:
        """The loop variables that an index is made of."""
        if value in self.variables:
            return frozenset({self.variables[value]})
        if value in self.given:
            return self._variables(self.given[value])
        if isinstance(value, BlockArgument):
            return frozenset()
        if value not in self._depends:
            owner = value.owner
            assert isinstance(owner, Operation)
            moves = type(owner) in ARITHMETIC or isinstance(owner, MOVING)
            operands = list(owner.operands) if moves else []
            self._depends[value] = frozenset[LoopVariable]().union(
                *(self._variables(v) for v in operands)
            )
        return self._depends[value]

    def _at(self, value: SSAValue, at: Mapping[LoopVariable, float]) -> float:
        """The index where the loop variables have the values `at`."""
        if value in self.variables:
            return at[self.variables[value]]
        if value in self.given:
            return self._at(self.given[value], at)
        owner = value.owner
        if isinstance(owner, arith.ConstantOp) and isinstance(owner.value, IntegerAttr):
            return float(owner.value.value.data)
        if isinstance(owner, arith.CmpiOp):
            a, b = (self._at(v, at) for v in owner.operands)
            return float(PREDICATES[owner.predicate.value.data](a, b))
        if isinstance(owner, arith.SelectOp):
            condition, then, otherwise = owner.operands
            return self._at(then if self._at(condition, at) else otherwise, at)
        if isinstance(owner, arith.IndexCastOp):
            return self._at(owner.input, at)
        if isinstance(owner, memref.LoadOp):
            constant, each = _shares(owner)
            return constant + each * self._at(owner.indices[0], at)
        if isinstance(owner, Operation) and type(owner) in ARITHMETIC:
            a, b = (self._at(v, at) for v in owner.operands)
            return ARITHMETIC[type(owner)](a, b)
        return self.unknown

    def extent(self, of: SSAValue, dim: int) -> float:
        """An extent of a memref, as its type says it."""
        found = of.type
        assert isinstance(found, MemRefType)
        size = found.get_shape()[dim]
        return self.unknown if size == DYNAMIC_INDEX else float(size)

    def linear(self, value: SSAValue | int) -> Linear:
        """An index as a sum; what keeps it inside bounds is a line from its first to its last."""
        if isinstance(value, int):
            return Linear(constant=float(value))
        if value in self.variables:
            return Linear(of={self.variables[value]: 1.0})
        if value in self.given:
            return self.linear(self.given[value])
        if not self._variables(value):
            return Linear(constant=self.mean(value))
        owner = value.owner
        assert isinstance(owner, Operation)
        if isinstance(owner, arith.IndexCastOp):
            return self.linear(owner.input)
        if isinstance(owner, memref.LoadOp):
            constant, each = _shares(owner)
            return Linear(constant=constant).plus(self.linear(owner.indices[0]), each)
        first, second = owner.operands[0], owner.operands[-1]
        if isinstance(owner, arith.AddiOp):
            return self.linear(first).plus(self.linear(second))
        if isinstance(owner, arith.SubiOp):
            return self.linear(first).plus(self.linear(second), -1.0)
        if isinstance(owner, arith.MuliOp):
            moves = self._variables(first)
            factor = self.mean(second if moves else first)
            return self.linear(first if moves else second).scaled(factor)
        if isinstance(owner, arith.DivUIOp | arith.DivSIOp):
            return self.linear(first).scaled(1 / max(self.mean(second), 1.0))
        if isinstance(owner, arith.MinSIOp | arith.MaxSIOp):
            moving = self.linear(first if self._variables(first) else second)
            variables = self._variables(value)
            return self._between(value, *variables) if len(variables) == 1 else moving
        return Linear(constant=self.mean(value))

    def _between(self, value: SSAValue, variable: LoopVariable) -> Linear:
        """The line through an index in the first and in the last iteration of its one loop."""
        length = variable.step * max(variable.trips - 1, 1)
        begin = self._at(value, {variable: variable.first})
        slope = (self._at(value, {variable: variable.first + length}) - begin) / length
        return Linear(constant=begin - slope * variable.first, of={variable: slope})


def _shares(load: memref.LoadOp) -> tuple[float, float]:
    """What is loaded of the rows of groups, as a constant and so much of its place.

    Where each group has room of its own, all of it is used; otherwise group g begins behind g equal
    shares of the rows of the first argument.
    """
    array = load.memref
    assert isinstance(array, BlockArgument)
    *room, rows, _ = memref_type(array.block.args[0]).get_shape()
    (count,) = memref_type(array).get_shape()
    return (float(rows), 0.0) if room else (0.0, rows / (count - 1))


def _trips(lb: float, ub: float, step: float) -> float:
    return max(math.ceil((ub - lb) / max(step, 1.0)), 0.0)


def _samples(first: float, step: float, trips: float) -> tuple[Sample, ...]:
    """The first, the second and the last iteration, with what they stand for."""
    count = max(math.ceil(trips - 1e-9), 1)
    if count == 1:
        return ((first, 1.0),)
    ends = ((first, 1 / count), (first + step * (count - 1), 1 / count))
    if count == 2:
        return ends
    return (*ends, (first + step, (count - 2) / count))
