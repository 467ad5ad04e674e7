"""Hypothesis strategies: problems for a TPU and legal schedules for them.

Blocks come in two kinds. Small ones say all that there is to say of the passes, and Pallas
interprets them too; those of whole tiles are what a machine has. What is drawn is legal: an error
for a drawn schedule is a fault, of the strategy or of the pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

import hypothesis.strategies as st

from gemmir.dtypes import PRODUCTS
from gemmir.epilogue_steps import EXACT_STEPS
from gemmir.gemm import DTYPES, Gemm
from gemmir.machine import TpuMachine
from gemmir.schedule import Schedule
from tests.strategies import problems

SMALL: Final = (4, 8, 12, 16, 32)
"""Extents of small blocks."""

DENSE: Final = {
    **{f"ld{name}": None for name in "abc"},
    **{f"batch_stride_{name}": None for name in "abc"},
}


@st.composite
def tpu_problems(draw: st.DrawFn, machine: TpuMachine, most: int = 48) -> Gemm:
    """Problems of every kind, of dense arrays and every element type that `machine` multiplies."""
    gemm = draw(problems(most, (None, None, None, 0, 2)))
    shared = {
        f"batch_stride_{name}": 0
        for name in "ab"
        if gemm.batch is not None and gemm.batch_stride(name) == 0
    }
    dtype = draw(st.sampled_from(machine.mxu_dtypes))
    out = draw(st.sampled_from([None, *(o for o in DTYPES[dtype] if o not in ("f16", "f64"))]))
    gemm = replace(gemm, **{**DENSE, **shared})
    gemm = _whole(gemm) if PRODUCTS[dtype].element.is_integer else gemm
    return replace(gemm, dtype=dtype, out=out)


def _whole(gemm: Gemm) -> Gemm:
    """`gemm` with whole factors, and without the steps that integers do not have."""
    steps = "+".join(step for step in gemm.steps if step in EXACT_STEPS)
    return replace(gemm, alpha=round(2 * gemm.alpha), beta=round(2 * gemm.beta), epilogue=steps)


@dataclass(kw_only=True)
class _Draft:
    """A schedule as far as it is drawn. `tile` is what a step has of each dimension.

    With a `machine` blocks are whole tiles of its memory, otherwise small ones.
    """

    draw: st.DrawFn
    gemm: Gemm
    machine: TpuMachine | None
    tile: dict[str, int] = field(init=False)
    left: list[str] = field(default_factory=lambda: ["a", "b"])
    steps: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.tile = {name: getattr(self.gemm, name) for name in "mnk"}

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def size(self, name: str, *, divides: bool = False) -> int:
        """A size of blocks along `name`: of any number of them, or of one."""
        whole = max(self.tile[name], 1)
        if self.machine is None:
            sizes = [*SMALL, whole, whole + 3]
        else:
            step = self._step(name)
            sizes = [step, 2 * step, whole]
        return self.draw(st.sampled_from([s for s in sizes if not divides or whole % s == 0]))

    def _step(self, name: str) -> int:
        """What a block that is not the whole array is a multiple of."""
        assert self.machine is not None
        gemm = self.gemm
        lanes = ["n", "m" if gemm.trans_a else "k", *(["k"] if gemm.trans_b else [])]
        return self.machine.lanes if name in lanes else 2 * self.machine.sublanes

    def promote_whole(self) -> None:
        """Perhaps bring A or B to vmem before the grid, as a whole."""
        for operand, name in (("a", "m"), ("b", "n")):
            whole = getattr(self.gemm, name)
            if self.gemm.batch is None and whole and self.gemm.k and self.chance(8):
                self.promote(operand)

    def promote(self, operand: str) -> None:
        self.left.remove(operand)
        self.steps.append(f"promote{{operand={operand} to=vmem}}")

    def over_grid(self) -> str:
        """The grid; the dimension of its innermost loop."""
        names = list(self.draw(st.permutations("mn")))
        if self.chance(6):
            names.pop()
        sizes = {
            name: self.size(name, divides=(operand not in self.left))
            for name, operand in zip("mn", "ab", strict=True)
            if name in names
        }
        batch = self.gemm.batch is not None
        whole = [(name, size) for name, size in sizes.items() if name in names]
        whole.sort(key=lambda pair: names.index(pair[0]))
        self.tile.update({name: min(size, self.tile[name]) for name, size in whole})
        form = self.draw(st.sampled_from(["one", "one", "several", "parallelize", "interchange"]))
        words = [(["batch"] if batch else []) + names, (["1"] if batch else [])]
        words[1] += [str(size) for _, size in whole]
        loops, cuts = ",".join(words[0]), ",".join(words[1])
        if form == "several":
            self.steps += [
                f"tile{{loops={d} sizes={s} over=grid}}"
                for d, s in zip(words[0], words[1], strict=True)
            ]
        elif form == "parallelize":
            self.steps.append(f"tile{{loops={loops} sizes={cuts}}}")
            self.steps += [f"parallelize{{loop={d} over=grid}}" for d in words[0]]
        else:
            self.steps.append(f"tile{{loops={loops} sizes={cuts} over=grid}}")
        if form == "interchange" and len(names) == 2:
            names.reverse()
            self.steps.append(f"interchange{{order={','.join(names)}}}")
        return names[-1]

    def over_k(self) -> bool:
        """Perhaps a loop over k."""
        if not self.gemm.k or self.chance(2):
            return False
        size = self.size("k", divides=len(self.left) < len("ab"))
        self.tile["k"] = min(size, self.tile["k"])
        self.steps.append(f"tile{{loops=k sizes={size}}}")
        return True

    def inside(self, among: str = "mnk") -> None:
        """Perhaps loops over parts of the blocks of a step, over some of the dimensions `among`."""
        if 0 in (self.gemm.m, self.gemm.n) or not self.chance(3):
            return
        if self.chance(4):
            size = self.draw(st.sampled_from(SMALL))
            self.steps.append(f"tile{{loops=m sizes={size} edges=peel}}")
            return
        names = self.draw(st.lists(st.sampled_from(among), min_size=1, unique=True))
        slices_are_whole = self.gemm.k and self.gemm.k % self.tile["k"] == 0
        names = [name for name in names if name != "k" or slices_are_whole]
        sizes = {name: self.size(name, divides=True) for name in names}
        if not sizes:
            return
        loops, cuts = ",".join(sizes), ",".join(map(str, sizes.values()))
        self.steps.append(f"tile{{loops={loops} sizes={cuts}}}")


@st.composite
def tpu_schedules(draw: st.DrawFn, gemm: Gemm, machine: TpuMachine | None = None) -> Schedule:
    """Schedules for `gemm`, of small blocks, or of blocks that `machine` has."""
    draft = _Draft(draw=draw, gemm=gemm, machine=machine)
    draft.promote_whole()
    innermost = draft.over_grid()
    if gemm.beta == 0 and draft.chance(3):
        return _summed_part_by_part(draft, innermost)
    draft.steps.append("promote{operand=c to=vmem}")
    if draft.over_k():
        innermost = "k"
    for operand in draw(st.permutations(draft.left)):
        draft.promote(operand)
    if gemm.steps:
        first = draft.steps.index("promote{operand=c to=vmem}") + 1
        draft.steps.insert(draw(st.integers(first, len(draft.steps))), "fuse-epilogue")
    draft.steps.append(f"pipeline{{loop={innermost} stages=2 with=dma}}")
    draft.inside()
    draft.steps.append("vectorize{with=mxu}")
    return Schedule.parse(",".join(draft.steps))


def _summed_part_by_part(draft: _Draft, innermost: str) -> Schedule:
    """All of k at once; C is summed in the loops inside a step, and stored straight into its block.

    So the epilogue is fused twice: into the grid, and into the parts.
    """
    for operand in draft.draw(st.permutations(draft.left)):
        draft.promote(operand)
    fused = ["fuse-epilogue"] if draft.gemm.steps else []
    draft.steps += [*fused, f"pipeline{{loop={innermost} stages=2 with=dma}}"]
    draft.inside(among="mn")
    draft.steps += ["promote{operand=c to=vmem}", *fused, "vectorize{with=mxu}"]
    return Schedule.parse(",".join(draft.steps))


@st.composite
def tpu_cases(draw: st.DrawFn, machine: TpuMachine, most: int = 48) -> tuple[Gemm, Schedule]:
    """A problem and a schedule of small blocks for it."""
    gemm = draw(tpu_problems(machine, most))
    return gemm, draw(tpu_schedules(gemm))
