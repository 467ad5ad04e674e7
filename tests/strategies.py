"""Hypothesis strategies: problems, arrays for them, and legal schedules for them.

`schedules` follows the passes as it draws them, so that what it gives is legal: a `ScheduleError`
for a drawn schedule is a fault, of the strategy or of the pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import hypothesis.strategies as st
import numpy as np
import numpy.typing as npt
from hypothesis import settings

from gemmir.dtypes import ELEMENTS
from gemmir.epilogue_steps import EPILOGUE_STEPS, STEP_OPERANDS
from gemmir.gemm import COUNTS, OFFSETS, Gemm
from gemmir.machine import CpuMachine
from gemmir.machine.host import host_machine
from gemmir.schedule import Schedule

Array = npt.NDArray[Any]

AROUND_TILES: Final = tuple(
    sorted(
        {
            size * tiles + extra
            for size in (4, 6, 8, 16)
            for tiles in (1, 2, 3)
            for extra in (-1, 0, 1)
        }
    )
)
"""Extents at which the last tile of a usual size is full, has one element, or lacks one."""

GUARD: Final = 16
"""Elements before and behind each array, which no call may touch."""


def examples(share: float) -> settings:
    """Settings for a test that needs `share` of the examples of the profile."""
    return settings(max_examples=max(int(settings().max_examples * share), 1))


def extents(most: int = 70) -> st.SearchStrategy[int]:
    """Extents of m, n and k: around multiples of tile sizes, 0, and anything else up to `most`."""
    edges = [extent for extent in AROUND_TILES if extent <= most]
    return st.one_of(st.sampled_from([1, 2, *edges]), st.integers(0, most))


@st.composite
def epilogues(draw: st.DrawFn) -> str:
    """Steps in any order; those with operands at most once."""
    steps = draw(st.lists(st.sampled_from(EPILOGUE_STEPS), max_size=3))
    once = [s for i, s in enumerate(steps) if s not in STEP_OPERANDS or s not in steps[:i]]
    return "+".join(once)


@st.composite
def problems(
    draw: st.DrawFn, most: int = 70, batches: Sequence[int | None] = (None, 0, 1, 3)
) -> Gemm:
    """Problems of every kind with extents up to `most`."""
    gemm = Gemm(
        m=draw(extents(most)),
        n=draw(extents(most)),
        k=draw(extents(most)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        alpha=draw(st.sampled_from([1.0, 0.0, -0.5, 0.1, 3.0])),
        beta=draw(st.sampled_from([0.0, 1.0, -0.5, 0.3])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        batch=draw(st.sampled_from([None, None, *batches])),
        epilogue=draw(epilogues()),
    )
    return draw(_with_strides(gemm))


@st.composite
def _with_strides(draw: st.DrawFn, gemm: Gemm) -> Gemm:
    """`gemm` with padded rows, padded matrices and matrices that a batch shares."""
    for name in "abc":
        extra = draw(st.sampled_from([None, 0, 1, 5]))
        if extra is not None:
            gemm = replace(gemm, **{f"ld{name}": gemm.leading(name) + extra})
    if gemm.batch is None:
        return gemm
    for name in "abc":
        extra = draw(st.sampled_from([None, 0, 7]))
        if name != "c" and draw(st.booleans()):
            gemm = replace(gemm, **{f"batch_stride_{name}": 0})
        elif extra is not None:
            gemm = replace(gemm, **{f"batch_stride_{name}": gemm.batch_stride(name) + extra})
    return gemm


def arrays_for(gemm: Gemm, seed: int = 0, offset: int = 0) -> dict[str, Array]:
    """Arrays by name, c last: random in [-1, 1), and NaN wherever nothing may be read.

    That is between rows, around the arrays, and in a c whose old value is not used. Integers are
    random too, and there the one furthest from 0. The arrays begin `offset` elements after a
    multiple of 64 bytes.
    """
    generator = np.random.default_rng(seed)
    found: dict[str, Array] = {}
    for operand in gemm.operands:
        element = ELEMENTS[operand.dtype]
        dtype = element.stored
        shape = element.stored_shape(operand.shape)
        line = 64 // dtype.itemsize
        unread = np.iinfo(dtype).min or np.iinfo(dtype).max if dtype.kind in "iu" else np.nan
        unread = 0x88 if element.per_byte > 1 else unread
        room = np.full(operand.span + 2 * GUARD + line + offset, unread, dtype)
        first = GUARD + (-(room.ctypes.data // dtype.itemsize + GUARD)) % line + offset
        strides = [s * dtype.itemsize for s in element.stored_strides(operand.strides)]
        array = np.ndarray(shape, dtype, room, first * dtype.itemsize, strides)
        if operand.name == OFFSETS:
            array[...] = _random_offsets(generator, operand.shape[0], gemm.m)
        elif operand.name == COUNTS:
            array[...] = generator.integers(0, gemm.m + 1, operand.shape)
        elif operand.access != "write":
            array[...] = _random(generator, shape, dtype)
        found[operand.name] = array
    return found


def _random(generator: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind not in "iu":
        return generator.uniform(-1, 1, shape)
    limits = np.iinfo(dtype)
    most = min(limits.max, 2**20)
    return generator.integers(max(limits.min, -most), most, shape, endpoint=True)


def _random_offsets(generator: np.random.Generator, count: int, rows: int) -> Array:
    """Where rows of products begin, some of which have none or one."""
    begins = np.sort(generator.integers(0, rows + 1, count))
    begins[0] = 0
    short = int(generator.integers(1, count))
    begins[short] = min(begins[short - 1] + generator.integers(0, 2), begins[short])
    return begins


def copied(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The same arrays in other memory, with what lies around them."""
    return {name: _in_other_memory(array) for name, array in arrays.items()}


def _in_other_memory(array: Array) -> Array:
    room = _room(array)
    first = array.ctypes.data - room.ctypes.data
    return np.ndarray(array.shape, array.dtype, room.copy(), first, array.strides)


def _room(array: Array) -> Array:
    room = array.base
    assert isinstance(room, np.ndarray)
    return room


def surroundings(array: Array) -> bytes:
    """The bytes around and between the elements of an array of `arrays_for`."""
    other = _in_other_memory(array)
    other[...] = 0
    return _room(other).tobytes()


def furthest(gemm: Gemm, arrays: Mapping[str, Array], result: Array) -> float:
    """The largest error of `result` in units of its bound; NaN where an element is NaN.

    The bound is that of code which rounds as IEEE 754 says, as the evaluator, the emulator and a
    CPU do. Where it is 0, any error is infinitely far.
    """
    if result.size == 0:
        return 0.0
    error = np.abs(result - gemm.reference(arrays))
    bound = gemm.error_bound(arrays, emulated=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(error == 0, 0, error / bound).max())


@dataclass(frozen=True, kw_only=True)
class Register:
    """A register tile: `rows` x `columns` in vectors of `width`."""

    rows: int
    columns: int
    width: int


@dataclass(frozen=True, kw_only=True)
class Extent:
    """What is known of a dimension of the innermost tile: its size, or a bound of it."""

    size: int
    is_static: bool = True

    def divides(self, tile: int) -> bool:
        """Whether all tiles of size `tile` are full, or one is the whole."""
        return self.is_static and (self.size % tile == 0 or tile >= self.size)

    def cut(self, tile: int, edges: str) -> list[Extent]:
        """The extents of the tiles, one for each version of the code."""
        if self.is_static and 0 < self.size <= tile:
            return [self]
        if self.divides(tile) or edges == "overlap":
            return [Extent(size=tile)]
        if edges == "peel":
            return [Extent(size=tile), Extent(size=self.size % tile)]
        return [Extent(size=tile, is_static=False)]


Version = dict[str, Extent]
"""The extents of the innermost tile in one version of the code."""

PACKED: Final = {"a": "m", "b": "n"}
"""The dimension along which an operand lies in panels."""


@dataclass(kw_only=True)
class _Draft:
    """A schedule as far as it is drawn, and what it has made of the problem."""

    draw: st.DrawFn
    gemm: Gemm
    machine: CpuMachine
    register: Register
    versions: list[Version]
    steps: list[str] = field(default_factory=list[str])
    panels: dict[str, int] = field(default_factory=dict[str, int])
    opened: dict[str, bool] = field(default_factory=dict[str, bool])
    has_first: bool = False
    has_cores: bool = False

    def chance(self, one_in: int) -> bool:
        """True in one of so many draws; Hypothesis shrinks it to False."""
        return self.draw(st.integers(0, one_in - 1)) == one_in - 1

    def tile(self, cuts: Mapping[str, int], *, may_overlap: bool = True) -> None:
        """Draw the rest of a `tile` pass with loops and sizes `cuts`, and what may follow it."""
        edges = self.draw(st.sampled_from(self._edges(cuts)))
        uneven = [d for d in cuts if not all(v[d].divides(cuts[d]) for v in self.versions)]
        over = ""
        (first, *others) = cuts
        parallel = not others and first != "k" and not self.has_cores
        if parallel and not (edges == "overlap" and uneven) and self.chance(4):
            over, self.has_cores = " over=cores", True
        moved = self._moved(cuts, uneven, over)
        self._write_tile(cuts, edges, over)
        self._follow(cuts, edges)
        if len(cuts) > 1 and not (edges == "peel" and uneven) and self.chance(3):
            self._interchange(list(cuts))
        if moved and self.chance(6):
            self._prefetch(moved)

    def _moved(self, cuts: Mapping[str, int], uneven: Sequence[str], over: str) -> dict[str, int]:
        """The loops of m and n with tiles of one size, and how many tiles come after the first."""
        if over or len(self.versions) > 1:
            return {}
        (version,) = self.versions
        later = {d: version[d].size // cuts[d] - 1 for d in cuts if d in "mn" and d not in uneven}
        return {d: count for d, count in later.items() if version[d].is_static and count > 0}

    def _prefetch(self, moved: Mapping[str, int]) -> None:
        loop = self.draw(st.sampled_from(sorted(moved)))
        ahead = self.draw(st.integers(1, moved[loop]))
        to = self.draw(st.sampled_from(["l1", "l2"]))
        operand = "a" if loop == "m" else "b"
        self.steps.append(f"prefetch{{operand={operand} loop={loop} ahead={ahead} to={to}}}")

    def _write_tile(self, cuts: Mapping[str, int], edges: str, over: str) -> None:
        loops, sizes = ",".join(cuts), ",".join(map(str, cuts.values()))
        suffix = "" if edges == "clip" else f" edges={edges}"
        self.steps.append(f"tile{{loops={loops} sizes={sizes}{over}{suffix}}}")

    def _edges(self, cuts: Mapping[str, int]) -> list[str]:
        found = ["clip"]
        pairs = [(d, v[d]) for d in cuts for v in self.versions if not v[d].divides(cuts[d])]
        dims = {d for d, _ in pairs}
        if not all(e.is_static for _, e in pairs) or dims & self._packed_dimensions():
            return found
        if "k" not in dims:
            found.append("peel")
        if self.gemm.beta == 0 and not self.has_first and "k" not in cuts:
            found.append("overlap")
        return found

    def _packed_dimensions(self) -> set[str]:
        return {PACKED[operand] for operand in self.panels}

    def _follow(self, cuts: Mapping[str, int], edges: str) -> None:
        for name, size in cuts.items():
            uneven = not all(v[name].divides(size) for v in self.versions)
            self.opened.setdefault(name, edges == "overlap" and uneven)
            if name == "k" and any(not 0 < v["k"].size <= size for v in self.versions):
                self.has_first = True
        self.versions = [made for version in self.versions for made in _cut(version, cuts, edges)]

    def _interchange(self, loops: list[str]) -> None:
        count = self.draw(st.integers(2, len(loops)))
        inner = loops[-count:]
        order = self.draw(st.permutations(inner).filter(lambda drawn: drawn != inner))
        self.steps.append(f"interchange{{order={','.join(order)}}}")

    def outer_level(self) -> None:
        """One level of tiles larger than those of the registers."""
        names = [d for d in "mnk" if self._may_cut(d)]
        if not names:
            return
        chosen = self.draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
        cuts: dict[str, int] = {}
        for name in chosen:
            most = max(max(v[name].size for v in self.versions), 1)
            cuts[name] = self.draw(st.integers(max(most // 4, 1), most + 1))
        self.tile(cuts)

    def _may_cut(self, name: str) -> bool:
        if name == "k":
            return self.gemm.k > 0 and all(
                self._bound(PACKED[operand]) <= width for operand, width in self.panels.items()
            )
        return name not in self._packed_dimensions()

    def _bound(self, name: str) -> int:
        return max(v[name].size for v in self.versions)

    def _register_size(self, name: str) -> int:
        return self.register.rows if name == "m" else self.register.columns

    def register_level(self) -> None:
        """The last level of tiles, and perhaps slices of k in the same nest."""
        must = [
            d
            for d in "mn"
            if any(not v[d].is_static or v[d].size > self._register_size(d) for v in self.versions)
        ]
        chosen = [d for d in "mn" if d in must or self.chance(2)]
        cuts = {d: self._register_size(d) for d in chosen}
        if self.gemm.k > 0 and self._may_slice(chosen) and self.chance(4):
            cuts["k"] = self.draw(st.integers(max(self.gemm.k // 4, 1), self.gemm.k + 1))
        order = self.draw(st.permutations(list(cuts)))
        if order:
            self.tile({d: cuts[d] for d in order})

    def _may_slice(self, chosen: Sequence[str]) -> bool:
        """Whether k can be cut in a nest over the dimensions `chosen`."""
        return all(
            PACKED[operand] in chosen or self._bound(PACKED[operand]) <= width
            for operand, width in self.panels.items()
        )

    def promote(self) -> None:
        """Perhaps pack a, b or both, here."""
        for operand in self.draw(st.permutations(["a", "b"])):
            if operand not in self.panels and self.chance(3):
                self._pack(operand)

    def _pack(self, operand: str) -> None:
        name = PACKED[operand]
        size = self._register_size(name)
        widths = {
            max(v[name].size, 1) if v[name].is_static and v[name].size <= size else size
            for v in self.versions
        }
        if len(widths) > 1:
            return
        (self.panels[operand],) = widths
        small = self._bound(name) * self._bound("k") * 8 <= self.machine.l1_bytes // 2
        space = self.draw(st.sampled_from(["l2", "l3", "l1"] if small else ["l2", "l3"]))
        width = self.panels[operand]
        self.steps.append(f"promote{{operand={operand} to={space} layout=panel:{width}}}")

    def epilogue(self, one_in: int = 5) -> None:
        """Perhaps fuse the epilogue, here."""
        if self.gemm.steps and "fuse-epilogue" not in self.steps and self.chance(one_in):
            self.steps.append("fuse-epilogue")

    def parallelize(self) -> None:
        """Perhaps run a loop over cores, here."""
        loops = [d for d, overlaps in self.opened.items() if d != "k" and not overlaps]
        if loops and not self.has_cores and self.chance(6):
            self.has_cores = True
            self.steps.append(f"parallelize{{loop={self.draw(st.sampled_from(loops))}}}")

    def unroll(self) -> None:
        """Perhaps unroll the loop over k."""
        k = [v["k"] for v in self.versions]
        most = max(8 if not e.is_static else min(e.size, 8) for e in k)
        if most >= 2 and self.chance(2):
            self.steps.append(f"unroll{{loop=k factor={self.draw(st.integers(2, most))}}}")


def _cut(version: Version, cuts: Mapping[str, int], edges: str) -> list[Version]:
    """The versions that a tile pass makes of one."""
    choices = [version[name].cut(size, edges) for name, size in cuts.items()]
    return [
        {**version, **dict(zip(cuts, chosen, strict=True))}
        for chosen in itertools.product(*choices)
    ]


@st.composite
def registers(draw: st.DrawFn, gemm: Gemm, machine: CpuMachine) -> Register:
    """A register tile that fits `machine`; its last vector may be ragged."""
    lanes = machine.lanes(gemm.element.item_bytes)
    widths = [2**i for i in range(lanes.bit_length())][::-1]
    width = draw(st.sampled_from(widths))
    vectors = draw(st.integers(1, 3))
    rows = draw(st.integers(1, min((machine.vector_registers - 1 - vectors) // vectors, 8)))
    missing = draw(st.integers(0, width - 1)) if draw(st.integers(0, 3)) == 3 else 0
    return Register(rows=rows, columns=width * vectors - missing, width=width)


@st.composite
def schedules(draw: st.DrawFn, gemm: Gemm, machine: CpuMachine | None = None) -> Schedule:
    """Schedules for `gemm` that are legal on `machine`, by default on this computer."""
    if machine is None:
        machine = host_machine()
    draft = _Draft(
        draw=draw,
        gemm=gemm,
        machine=machine,
        register=draw(registers(gemm, machine)),
        versions=[{d: Extent(size=getattr(gemm, d)) for d in "mnk"}],
    )
    if gemm.batch is not None:
        draft.versions[0]["batch"] = Extent(size=gemm.batch)
        draft.tile({"batch": 1})
    for _ in range(draw(st.integers(0, 2))):
        draft.outer_level()
        draft.promote()
        draft.epilogue()
    draft.register_level()
    draft.promote()
    draft.parallelize()
    draft.epilogue()
    draft.steps.append(
        f"promote{{operand=c to=registers{' prefetch=true' if draft.chance(3) else ''}}}"
    )
    draft.promote()
    draft.epilogue(one_in=2)
    draft.parallelize()
    draft.steps.append(f"vectorize{{with=fma width={draft.register.width}}}")
    draft.unroll()
    draft.parallelize()
    if {"gelu", "silu"} & set(gemm.steps):
        draft.steps.append("expand-math")
    return Schedule.parse(",".join(draft.steps))


@st.composite
def scheduled(
    draw: st.DrawFn, most: int = 70, batches: Sequence[int | None] = (None, 0, 1, 3)
) -> tuple[Gemm, Schedule]:
    """A problem and a schedule for it."""
    gemm = draw(problems(most, batches))
    return gemm, draw(schedules(gemm))
