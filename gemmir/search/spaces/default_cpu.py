"""Spaces around the default schedules for CPUs.

The passes stay, and their numbers become holes: the register tile `mr` x `nr`, the tiles around it,
counted in register tiles so that they are whole, the slices of k `kc`, what is asked for ahead, how
k is unrolled and what becomes of the edges. Where a number says how wide panels are it is the same
hole as the tile that reads them. What the problem decides stays as it is: the loops over a batch
and over cores, blocks of scales, element types, and how many lanes there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from xdsl.passes import ModulePass

from gemmir.gemm import Gemm
from gemmir.ir.amx import TILE_ROWS
from gemmir.ir.amx import TILES as MATRIX_TILES
from gemmir.machine import CpuMachine
from gemmir.passes.fuse_pack import FusePack
from gemmir.passes.otherwise import Otherwise
from gemmir.passes.part import Part
from gemmir.passes.prefetch import Prefetch
from gemmir.passes.promote import Promote
from gemmir.passes.tile import Tile
from gemmir.passes.unroll import Unroll
from gemmir.passes.vectorize import AMX, Vectorize
from gemmir.passes.widen_reads import WidenReads
from gemmir.schedule import pass_text
from gemmir.schedule.cpu.in_tiles import SUMS
from gemmir.search.spaces.draft import Draft, near

MOST_ROWS: Final = 14
"""Rows of a register tile: as many as 16 registers hold beside a row of B and an element of A."""

MOST_VECTORS: Final = 4
"""Vectors of a row of a register tile."""

TILES: Final = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
"""Register tiles of a tile around them."""

STEPS: Final = (1, 2, 4, 8)
"""Steps of k in an iteration."""

MOST_WIDE_ROWS: Final = 8
"""Rows of A of which several elements are read at once."""

LEAST_SLICE: Final = 8
"""Elements of k in a slice."""

LEAST_DIRECT_SLICE: Final = 64
MOST_DIRECT_SLICE: Final = 512
"""The same where the default does not cut k."""

OUTER_LOOPS: Final = ("batch", "group")


def open_cpu(gemm: Gemm, machine: CpuMachine, passes: Sequence[ModulePass], about: str) -> str:
    """The text of the space around a default schedule of `passes`."""
    first, rest = _parts(passes)
    opening = _Opening(gemm, machine, first, Draft(about=about))
    for number, p in enumerate(first):
        opening.open(number, p)
    for p in rest:
        opening.draft.add(pass_text(p))
    return opening.draft.text


def _parts(passes: Sequence[ModulePass]) -> tuple[Sequence[ModulePass], Sequence[ModulePass]]:
    """The passes of the first part of C, which are opened, and those of others, which stay."""
    ends = (number for number, p in enumerate(passes) if isinstance(p, Otherwise))
    end = next(ends, len(passes))
    return passes[:end], passes[end:]


class _Opening:
    """A schedule while its passes are opened, one after another.

    `bound` is what a dimension is cut from where a pass stands, as the space calls it, and `whole`
    what a core has of it; `extent` are their sizes in the default schedule, and `register` those of
    its register tile.
    """

    def __init__(
        self, gemm: Gemm, machine: CpuMachine, passes: Sequence[ModulePass], draft: Draft
    ) -> None:
        self.gemm = gemm
        self.machine = machine
        self.draft = draft
        self.passes = passes
        self.bound = {d: d for d in "mnk"}
        self.extent = {"m": gemm.rows_each, "n": gemm.n, "k": gemm.k}
        if any(p.name.endswith("swap-operands") for p in passes):
            self.bound |= {"m": "n", "n": "m"}
            self.extent |= {"m": gemm.n, "n": gemm.rows_each}
        self.whole = dict(self.bound)
        tiles = [(i, p) for i, p in enumerate(passes) if isinstance(p, Tile) and p.over is None]
        self.last = {d: i for i, p in tiles for d in p.loops if d in "mn"}
        self.last_of_k = max((i for i, p in tiles if p.loops == ("k",)), default=-1)
        self.register = {
            d: s
            for i, p in tiles
            for d, s in zip(p.loops, p.sizes, strict=True)
            if self.last.get(d) == i
        }
        self.vectorize = next(p for p in passes if isinstance(p, Vectorize))
        self.uneven: set[str] = set()
        self.packed: set[str] = set()
        self.opened: dict[str, str] = {}
        self.slice = self.copies = self.steps = ""

    # Passes ---------------------------------------------------------------------------------------

    def open(self, number: int, p: ModulePass) -> None:
        """Write one pass with holes, or as it is."""
        if isinstance(p, Part):
            self._part(p)
        elif isinstance(p, Tile):
            self._tile(number, p)
        elif isinstance(p, Promote):
            self._promote(p)
        elif isinstance(p, Prefetch):
            self._prefetch(p)
        elif isinstance(p, Vectorize):
            self._vectorize(p)
        elif isinstance(p, WidenReads):
            self._widen_reads(p)
        elif isinstance(p, FusePack):
            filled = self.draft.hole("fill", "yes", ("no",), "first rows fill the panels of B")
            self.draft.add(pass_text(p), f"{filled[1:]} == 'yes'")
        elif not isinstance(p, Unroll):
            self.draft.add(pass_text(p))

    def _part(self, p: Part) -> None:
        """How far whole vectors go is decided by the problem."""
        self.draft.add(pass_text(p))
        self.extent[p.loop] = p.at
        self.bound[p.loop] = self.whole[p.loop] = str(p.at)

    def _tile(self, number: int, p: Tile) -> None:
        if (
            p.over is not None
            or p.edges in ("halve", "exact")
            or any(d in OUTER_LOOPS for d in p.loops)
        ):
            self._keep(p)
        elif all(self.last.get(d) == number for d in p.loops):
            self._register_tile(p)
        elif self._works_within_sums and number == self.last_of_k:
            self.draft.add(f"tile{{loops=k sizes=?{self._open_steps(*p.sizes)}}}")
        elif p.loops == ("k",):
            self._slices(p)
        elif len(p.loops) == 1:
            self._block(p)
        else:
            self._blocks(p)

    def _keep(self, p: Tile) -> None:
        """A tile that the problem or the number of cores decides."""
        self.draft.add(pass_text(p))
        for d, size in zip(p.loops, p.sizes, strict=True):
            if d not in self.extent:
                continue
            if self.extent[d] % size:
                self.uneven.add(d)
            self.extent[d] = min(self.extent[d], size)
            self.bound[d] = self.whole[d] = str(self.extent[d])

    def _slices(self, p: Tile) -> None:
        """Slices of k: fewer and longer ones, up to one."""
        (size,) = p.sizes
        if self._has_scales or size >= self.extent["k"]:
            self._keep(p)
            return
        name = self._depth(size)
        self.draft.add(f"tile{{loops=k sizes={name}}}", f"{name[1:]} < {self.bound['k']}")
        self._cut("k", name[1:], size)

    def _depth(self, size: int) -> str:
        whole = self.bound["k"]
        values = [*near(size, LEAST_SLICE, self.extent["k"] - 1), whole]
        return self.draft.hole("kc", size, values, "elements of k in a slice")

    def _block(self, p: Tile) -> None:
        """A tile of m or n around those in registers, of whole ones; the last may be smaller."""
        (d,), (size,) = p.loops, p.sizes
        name = self._tiles(d, size)
        if name is None:
            self._keep(p)
            return
        edges = self._last(p, {d: name[1:]})
        cuts = f"{name[1:]} < {self.bound[d]}" if size < self.extent[d] else None
        self.draft.add(f"tile{{loops={d} sizes={name}{edges}}}", cuts)
        self._cut(d, name[1:], size)

    def _blocks(self, p: Tile) -> None:
        """Tiles of m and k, whose last ones are smaller at run time."""
        names: list[str] = []
        for d, size in zip(p.loops, p.sizes, strict=True):
            name = None if d == "k" and self._has_scales else self._any_size(d, size)
            names.append(str(size) if name is None else name)
        edges = "" if p.edges == "clip" else f" edges={p.edges}"
        self.draft.add(f"tile{{loops={','.join(p.loops)} sizes={','.join(names)}{edges}}}")
        for d, name, size in zip(p.loops, names, p.sizes, strict=True):
            self._cut(d, name.removeprefix("?"), size)
            if d != "k" and p.edges == "clip":
                self.uneven.add(d)

    def _any_size(self, d: str, size: int) -> str | None:
        return self._depth(size) if d == "k" and size < self.extent["k"] else self._tiles(d, size)

    def _tiles(self, d: str, size: int) -> str | None:
        """A number of register tiles; None where the default is not made of whole ones."""
        register = self.register.get(d)
        if register is None or size % register:
            return None
        count, short = size // register, f"{d}c"
        most = -(-self.extent[d] // register)
        others = [n for n in TILES if count // 8 <= n <= min(8 * count, most)]
        tiles = self.draft.hole(f"{d}_tiles", count, others, f"register tiles of {short}")
        self._open_register(d)
        return self.draft.let(short, f"{tiles[1:]} * {self._open_register(d)}")

    # Register tiles -------------------------------------------------------------------------------

    def _register_tile(self, p: Tile) -> None:
        if self._is_direct and not self.opened:
            self._copy_or_not()
        sizes = {d: f"?{self._open_register(d)}" for d in p.loops}
        edges = self._edges(p)
        if not self._is_direct or len(p.loops) == 1:
            self.draft.add(
                f"tile{{loops={','.join(sizes)} sizes={','.join(sizes.values())}{edges}}}"
            )
            return
        order = self.draft.hole(
            "order", ",".join(p.loops), (",".join(p.loops[::-1]),), "loops, the inner one last"
        )
        for loops in (p.loops, p.loops[::-1]):
            chosen = ",".join(sizes[d] for d in loops)
            self.draft.add(
                f"tile{{loops={','.join(loops)} sizes={chosen}{edges}}}",
                f"{order[1:]} == '{','.join(loops)}'",
            )

    def _copy_or_not(self) -> None:
        """By default nothing is copied and k is not cut; both can be."""
        k = self.bound["k"]
        if self.extent["k"] > LEAST_DIRECT_SLICE:
            most = min(MOST_DIRECT_SLICE, self.extent["k"] - 1)
            values = f"powers of 2 in {LEAST_DIRECT_SLICE}..{most}"
            self.slice = self.draft.hole("kc", k, values, "elements of k in a slice")[1:]
            self.draft.add(f"tile{{loops=k sizes=?{self.slice}}}", f"{self.slice} < {k}")
        if not self.uneven and self.bound["n"] != "m":
            self.copies = self.draft.hole("copy_b", "no", ("yes",), "B in panels in L2")[1:]
            panel = f"promote{{operand=b to=l2 layout=panel:?{self._open_register('n')}}}"
            self.draft.add(panel, f"{self.copies} == 'yes'")

    def _open_register(self, d: str) -> str:
        """The hole for the rows or columns of the register tile."""
        if d in self.opened:
            return self.opened[d]
        size, extent = self.register[d], max(self.extent[d], 1)
        if self.vectorize.with_ == AMX:
            most = min(SUMS * TILE_ROWS, -(-extent // TILE_ROWS) * TILE_ROWS)
            of = "rows" if d == "m" else "columns"
            name = self.draft.hole(
                "mr" if d == "m" else "nr",
                size,
                f"{TILE_ROWS}..{most} step {TILE_ROWS}",
                f"{of} of a register tile, in matrix tiles",
            )
        elif d == "m" or self.vectorize.along is not None:
            most = min(extent, MOST_ROWS)
            name = self.draft.hole(
                "mr" if d == "m" else "nr",
                size,
                f"1..{most}",
                "rows of a register tile" if d == "m" else "columns of it",
            )
        else:
            width = self.vectorize.width or 1
            most = min(MOST_VECTORS, -(-extent // width)) * width
            name = self.draft.hole(
                "nr", size, f"{width}..{most} step {width}", "columns of it, in vectors"
            )
        self.opened[d] = name[1:]
        return self.opened[d]

    def _edges(self, p: Tile) -> str:
        """What becomes of the last tiles, where they are not whole."""
        if p.edges == "clip" and any(d in self.packed or d in self.uneven for d in p.loops):
            return ""
        return self._last(p, {d: self._open_register(d) for d in p.loops})

    def _last(self, p: Tile, names: dict[str, str]) -> str:
        """Smaller last tiles where there are any, or what the default has in their place.

        In a direct schedule they may also begin earlier and compute some elements again, or all may
        be of even sizes.
        """
        even = all(self.extent[d] % s == 0 for d, s in zip(p.loops, p.sizes, strict=True))
        if p.edges == "clip" and not even:
            return ""
        rest = " or ".join(f"{self.whole[d]} % {name}" for d, name in names.items())
        edges = "peel" if p.edges == "clip" else p.edges
        chosen = f"'{edges}'"
        if self._is_direct and self.gemm.beta == 0:
            others = ("peel", "overlap", "even")
            about = "last tiles: smaller, earlier or even"
            chosen = self.draft.hole("edges", edges, others, about)[1:]
            if self.slice:
                self.draft.where(f"{chosen} != 'overlap' or {self.slice} == {self.bound['k']}")
        if self.copies and "n" in p.loops:
            rest = f"{self.copies} == 'no' and ({rest})"
        used = self.draft.let(f"last_{'_'.join(names.values())}", f"{chosen} if {rest} else 'clip'")
        return f" edges={used}"

    # Others ---------------------------------------------------------------------------------------

    def _promote(self, p: Promote) -> None:
        text = pass_text(p)
        d = {"a": "m", "b": "n", "c": "n"}[p.operand]
        kind, _, rest = (p.layout or "").partition(":")
        width, _, depth = rest.partition("x")
        if kind == "panel":
            if width == str(self.register.get(d)):
                wide = self._panel(d, depth)
                text = text.replace(f'"{p.layout}"', p.layout or "").replace(f"{p.layout}", wide)
            self.packed |= {d} if p.operand != "c" else set()
        is_sum = p.operand == "c" and p.to == "registers" and self._sums == 1
        if is_sum and not self._works_within_sums:
            asked = str(p.prefetch).lower()
            hint = self.draft.hole(
                "ask_c", asked, ("true", "false"), "C is asked for before its sum"
            )
            carry = " carry=true" if p.carry else ""
            text = f"promote{{operand=c to=registers prefetch={hint}{carry}}}"
        self.draft.add(text)

    def _panel(self, d: str, depth: str) -> str:
        name = self._open_register(d)
        return f"panel:?{{{name}}}x{depth}" if depth else f"panel:?{name}"

    def _prefetch(self, p: Prefetch) -> None:
        if p.ahead == 0:
            asked = self.draft.hole("ask_c", "yes", ("no",), "C is asked for during its sum")
            self.draft.add(pass_text(p), f"{asked[1:]} == 'yes'")
            return
        ahead = self.draft.hole(
            "ahead",
            p.ahead,
            [0, *near(p.ahead, 1, 4 * p.ahead)],
            "tiles asked for ahead, 0 for none",
        )
        near_ = self.draft.hole("near", p.to, ("l1", "l2"), "where to")
        during = f" during={','.join(p.during)}" if p.during else ""
        text = f"prefetch{{operand={p.operand} loop={p.loop} ahead={ahead} to={near_}{during}}}"
        self.draft.add(text, f"{ahead[1:]} > 0")
        if "k" in (p.during or ()) and self.bound["k"] != self.whole["k"]:
            self.draft.where(f"{ahead[1:]} == 0 or {self.bound['k']} < {self.whole['k']}")
        if p.loop == "k":
            self.draft.where(f"{ahead[1:]} < ceil({self.whole['k']} / {self.bound['k']})")
        if p.loop in self.opened:
            bound, whole = self.bound[p.loop], self.whole[p.loop]
            most = bound if bound == whole else f"min({bound}, {whole})"
            self.draft.where(f"{ahead[1:]} < max({most} // {self.opened[p.loop]}, 1)")

    def _vectorize(self, p: Vectorize) -> None:
        self.draft.add(pass_text(p))
        self._registers(p)
        unroll = next((q for q in self.passes if isinstance(q, Unroll)), None)
        first = 1 if unroll is None else unroll.factor
        depth = self._products
        if self.gemm.k <= depth:
            return
        steps = self._open_steps(first)
        self.draft.add(f"unroll{{loop=k factor=?{steps}}}", f"{steps} > 1")
        self.draft.where(
            f"{steps} <= ceil({self.bound['k']} / {depth})"
            if depth > 1
            else f"{steps} <= {self.bound['k']}"
        )

    def _widen_reads(self, p: WidenReads) -> None:
        """Fewer and more rows than the default has, and none."""
        rows = self.draft.hole(
            "wide", p.rows, f"0..{MOST_WIDE_ROWS}", f"rows of A read {p.width} elements at a time"
        )
        self.draft.add(f"widen-reads{{rows={rows} width={p.width}}}", f"{rows[1:]} > 0")
        self.draft.where(f"{rows[1:]} < {self.opened['m']}")
        self.draft.where(f"{rows[1:]} == 0 or k_steps >= {p.width}")

    def _open_steps(self, first: int) -> str:
        """The hole for the steps of k in an iteration, in which something may be asked for."""
        if not self.steps:
            doc = "steps of k in an iteration"
            self.steps = self.draft.hole("k_steps", first, STEPS, doc)[1:]
        return self.steps

    @property
    def _works_within_sums(self) -> bool:
        """Whether iterations over k ask for lines or fill panels, for which k is cut once more."""
        asking = (p for p in self.passes if isinstance(p, Prefetch))
        asks = any(p.ahead == 0 or p.loop in (p.during or ()) for p in asking)
        return asks or any(isinstance(p, FusePack) for p in self.passes)

    @property
    def _products(self) -> int:
        """How many elements of k a step takes: those that are added at once, or the lanes."""
        if self.vectorize.along is not None:
            return self.vectorize.width or 1
        layouts = [p.layout or "" for p in self.passes if isinstance(p, Promote)]
        return max((int(text.split("x")[-1]) for text in layouts if "x" in text), default=1)

    def _registers(self, p: Vectorize) -> None:
        """The register tile fits: its sums, and a row of B and an element of A or the reverse."""
        if set(self.opened) < {"m", "n"}:
            return
        mr, nr = self.opened["m"], self.opened["n"]
        times = f"{self._sums} * " if self._sums > 1 else ""
        if self.gemm.scale_block is not None:
            self.draft.where(f"{self.gemm.scale_block} % {nr} == 0")
        if p.along is not None:
            self.draft.where(f"{times}{mr} * {nr} + {mr} + {nr} <= vector_registers")
            return
        if p.with_ == AMX:
            down, across = (f"({size} // {TILE_ROWS})" for size in (mr, nr))
            kept = f"({across} if {mr} > {TILE_ROWS} else 1)"
            self.draft.where(f"{down} * {across} + {kept} + 1 <= {MATRIX_TILES}")
            return
        vectors = f"ceil({nr} / {p.width})"
        held = f"min({mr}, {vectors})"
        self.draft.where(f"{times}{mr} * {vectors} + {held} + 1 <= vector_registers")

    @property
    def _sums(self) -> int:
        """How many sums of a tile are in registers: of slices of k, and of all of it."""
        return sum(
            isinstance(p, Promote) and p.operand == "c" and p.to == "registers" for p in self.passes
        )

    def _cut(self, d: str, name: str, size: int) -> None:
        self.bound[d] = name
        self.extent[d] = min(self.extent[d], size)

    @property
    def _has_scales(self) -> bool:
        return self.gemm.has_weights or self.gemm.scale_block is not None

    @property
    def _is_direct(self) -> bool:
        """Whether the default reads A and B where they lie, and all of k at once."""
        copies = any(isinstance(p, Promote) and p.to != "registers" for p in self.passes)
        cuts = any(isinstance(p, Tile) and "k" in p.loops for p in self.passes)
        return not copies and not cuts and self.vectorize.along is None
