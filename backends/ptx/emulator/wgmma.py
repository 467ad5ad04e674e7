"""wgmma: PTX ISA, section "Asynchronous Warpgroup Level Matrix Instructions"."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from gemmir.backends.ptx.emulator import fragments
from gemmir.backends.ptx.emulator.async_reads import UNIT
from gemmir.backends.ptx.emulator.bulk import require_fenced
from gemmir.backends.ptx.emulator.clocks import WARP, warps_of
from gemmir.backends.ptx.emulator.descriptors import descriptor_of, units_of
from gemmir.backends.ptx.emulator.faults import FaultError
from gemmir.backends.ptx.emulator.matrix import FACTORS, SUMS, widened
from gemmir.backends.ptx.emulator.parse import Instruction
from gemmir.backends.ptx.emulator.scope import (
    Action,
    Decode,
    Read,
    Scope,
    names_in,
    refuse,
    require_operands,
    write,
)
from gemmir.backends.ptx.emulator.scope import read as read_register
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.waiting import Waiting
from gemmir.backends.ptx.emulator.warpgroup import ROWS, WARPS, Factors, Product, Tile, Warpgroup

THREADS: Final = WARPS * WARP
NEVER_WRITTEN: Final = 77.0
"""What rows of integers hold that never were written, in place of no number."""

_SHAPE: Final = re.compile(r"m64n(\d+)k(\d+)")

_PAIRS: Final[Mapping[str, tuple[str, ...]]] = {
    "f16": ("f16",),
    "bf16": ("bf16",),
    "tf32": ("tf32",),
    "e4m3": ("e4m3", "e5m2"),
    "e5m2": ("e4m3", "e5m2"),
    "s8": ("s8", "u8"),
    "u8": ("s8", "u8"),
}
"""The types of B that go with each of A."""

_SUMS: Final[Mapping[str, tuple[str, ...]]] = {
    "f16": ("f32", "f16"),
    "bf16": ("f32",),
    "tf32": ("f32",),
    "e4m3": ("f32", "f16"),
    "e5m2": ("f32", "f16"),
    "s8": ("s32",),
    "u8": ("s32",),
}


@dataclass(frozen=True, slots=True)
class Form:
    """One form of wgmma.mma_async."""

    columns: int
    depth: int
    a: str
    b: str
    d: str
    saturates: bool

    @property
    def is_half(self) -> bool:
        """Whether operands may be MN-major: those of 16 bits."""
        return self.a in ("f16", "bf16")


def _form_of(i: Instruction) -> Form:
    words = list(i.name)
    saturates = words[-1] == "satfinite"
    if saturates:
        words.pop()
    shape = _SHAPE.fullmatch(words[4]) if len(words) == 8 else None
    if shape is None or words[2:4] != ["sync", "aligned"]:
        raise refuse(i)
    columns, depth = map(int, shape.groups())
    d, a, b = words[5:]
    fits = b in _PAIRS.get(a, ()) and d in _SUMS[a] and depth * FACTORS[a].itemsize == 2 * UNIT
    step = 16 if a in ("s8", "u8") and columns > 24 else 8
    if not fits or not 8 <= columns <= 256 or columns % step or (saturates and d != "s32"):
        raise refuse(i)
    return Form(columns, depth, a, b, d, saturates)


@dataclass(frozen=True, slots=True)
class _Operands:
    """What an instruction names: registers by number, and how the others are read."""

    slots: tuple[int, ...]
    names: tuple[str, ...]
    a_slots: tuple[int, ...]
    a_names: tuple[str, ...]
    a: Read | None
    b: Read
    adds: Read
    signs: tuple[int, int]
    transposed: tuple[bool, bool]


def _operands_of(scope: Scope, i: Instruction, form: Form) -> _Operands:
    """The sums, A, B, whether to add, and numbers that say how A and B are taken."""
    d, a, b, adds, *numbers = (*i.operands, *[""] * 4)[: len(i.operands)]
    in_registers = a.startswith("{")
    is_whole = form.d == "s32"
    count = 0 if is_whole else 2 + (form.is_half and 2 - in_registers)
    if len(numbers) != count or not all(n in ("0", "1", "-1") for n in numbers):
        raise FaultError("GEM1001", f"{'.'.join(i.name)} has other operands")
    signs = (1, 1) if is_whole else (int(numbers[0]), int(numbers[1]))
    if 0 in signs or "-1" in numbers[2:]:
        raise FaultError("GEM1001", "a sign is 1 or -1, and a transposition 0 or 1")
    flags = [n == "1" for n in numbers[2:]]
    if in_registers and flags:
        flags.insert(0, False)
    names = names_in(d)
    packed = 4 // SUMS[form.d].itemsize
    if len(names) * THREADS * packed != ROWS * form.columns:
        raise FaultError("GEM1001", f"{len(names)} registers for {ROWS} by {form.columns} sums")
    a_names = names_in(a) if in_registers else []
    if in_registers and len(a_names) != 4:
        raise FaultError("GEM1001", f"{a} is not 4 registers")
    kind = "f32" if form.d == "f32" else "s32" if is_whole else "b32"
    for name in names:
        scope.source(name, kind)
    for name in a_names:
        scope.source(name, "b32")
    return _Operands(
        tuple(scope.slots[n] for n in names),
        tuple(names),
        tuple(scope.slots[n] for n in a_names),
        tuple(a_names),
        None if in_registers else scope.source(a, "b64"),
        scope.source(b, "b64"),
        scope.predicate(adds),
        signs,
        (flags[0], flags[1]) if flags else (False, False),
    )


def _multiply(scope: Scope, i: Instruction, place: int) -> Action:
    if len(i.operands) < 4:
        raise FaultError("GEM1001", f"{'.'.join(i.name)} has at least 4 operands")
    form = _form_of(i)
    operands = _operands_of(scope, i, form)
    return _Multiply(form, operands, place, i.line).issue


@dataclass(frozen=True, slots=True)
class _Multiply:
    """One instruction in the code."""

    form: Form
    operands: _Operands
    place: int
    line: int

    def issue(self, block: Block, group: Group) -> None:
        """Each warp of the group issues the product; nothing is multiplied yet."""
        group.require_warps()
        a = None if self.operands.a is None else self.operands.a(block, group)
        b, adds = self.operands.b(block, group), self.operands.adds(block, group)
        for number in np.unique(group.lanes // THREADS).tolist():
            lanes = np.flatnonzero(group.lanes // THREADS == number)
            values = tuple(v for v in (a, b, adds) if v is not None)
            for value in values:
                if (value[lanes] != value[lanes[0]]).any():
                    raise FaultError(
                        "GEM1013",
                        "the threads of a warpgroup give different operands",
                        int(lanes[0]),
                    )
            first = lanes[0]
            factors = Factors(
                self.place,
                None if a is None else int(a[first]),
                int(b[first]),
                self.operands.a_slots,
                bool(adds[first]),
            )
            self._issue(block, number, group.lanes[lanes], factors)

    def _issue(self, block: Block, number: int, lanes: Array, factors: Factors) -> None:
        warpgroup = block.warpgroups.setdefault(number, Warpgroup(number))
        warps = warps_of(lanes)
        self._require_fence(block, warps)
        by_turn: dict[int, list[int]] = {}
        own_warps: list[int] = (warps % WARPS).tolist()
        for warp in own_warps:
            by_turn.setdefault(warpgroup.warps[warp].issued, []).append(warp)
        for turn, members in by_turn.items():
            own = _of_warps(lanes, members)
            if turn == len(warpgroup.products):
                warpgroup.products.append(self._begin(block, warpgroup, members[0], factors))
            product = warpgroup.products[turn]
            if product.factors != factors:
                raise FaultError(
                    "GEM1013",
                    f"warps of warpgroup {number} issue different products: {product.factors} and "
                    f"{factors}",
                )
            self._join(block, warpgroup, product, members, own)

    def _require_fence(self, block: Block, warps: Array) -> None:
        pins, operands = block.pins, self.operands
        if pins.are_fenced(warps):
            return
        pairs = zip(
            (*operands.slots, *operands.a_slots), (*operands.names, *operands.a_names), strict=True
        )
        for slot, name in pairs:
            warp = pins.unfenced(slot, warps)
            if warp >= 0:
                raise FaultError(
                    "GEM1015",
                    f"warp {warp} has written {name} since its last wgmma.fence, which must stand "
                    "between",
                )

    def _begin(self, block: Block, warpgroup: Warpgroup, warp: int, factors: Factors) -> Product:
        """The product as its first warp issues it."""
        slots, state = self.operands.slots, warpgroup.warps[warp]
        tile = state.tiles.get(slots)
        product = Product(self, factors, Tile(slots) if tile is None else tile)
        what = f"the wgmma.mma_async of line {self.line}"
        if factors.a is not None:
            product.a_units = self._units(factors.a, ROWS, self.operands.transposed[0])
            product.rows = self._rows_there(block, product.a_units)
        product.b_units = self._units(factors.b, self.form.columns, self.operands.transposed[1])
        assert block.shared.reads is not None
        for units in (product.a_units, product.b_units):
            if units is not None:
                block.shared.rows(units.reshape(-1), UNIT)
                rows = np.unique((units - block.shared.base) // UNIT)
                product.reads.append(block.shared.reads.begin(what, rows, WARPS))
        return product

    def _units(self, bits: int, extent: int, transposed: bool) -> Array:
        return units_of(descriptor_of(bits), extent, 2, self.form.depth if transposed else 0)

    def _join(
        self, block: Block, warpgroup: Warpgroup, product: Product, warps: list[int], lanes: Array
    ) -> None:
        """These warps have issued the product too."""
        slots, operands, tile = self.operands.slots, self.operands, product.tile
        by = f"the wgmma.mma_async of line {self.line}"
        fresh = [w for w in warps if slots not in warpgroup.warps[w].tiles]
        if any(warpgroup.warps[w].tiles.get(slots, tile) is not tile for w in warps):
            raise FaultError("GEM1013", "warps of a warpgroup have waited for different products")
        if fresh:
            own = _of_warps(lanes, fresh)
            for slot, name in zip(slots, operands.names, strict=True):
                block.pins.require_free(slot, name, own, writes=True)
                if product.factors.adds:
                    read_register(block, slot, name, Group(own, len(own) == block.count))
            for slot in slots:
                block.pins.pin(slot, own, block.count, written=True, by=by)
        for slot, name in zip(operands.a_slots, operands.a_names, strict=True):
            read_register(block, slot, name, Group(lanes, len(lanes) == block.count))
            block.pins.pin(slot, lanes, block.count, written=False, by=by)
        for warp in warps:
            state = warpgroup.warps[warp]
            state.tiles[slots] = tile
            state.issued += 1
            state.last[slots] = state.issued
            product.warps.add(warp)
        a_units = None if product.a_units is None else product.a_units[: product.rows]
        for units, bits in ((a_units, product.factors.a), (product.b_units, product.factors.b)):
            if units is not None and bits is not None:
                self._require_readable(block, units, bits, lanes)

    def _rows_there(self, block: Block, units: Array) -> int:
        """How many rows of A are there; the last of them may never have been written.

        Such rows give sums that are no numbers, and of integers odd ones: they show where they are
        stored.
        """
        if self.operands.transposed[0]:
            return ROWS
        shared = block.shared
        found = shared.written.reshape(-1, UNIT)[(units - shared.base) // UNIT]
        there = np.flatnonzero((found != 0).reshape(len(units), -1).any(axis=1))
        return int(there[-1]) + 1 if len(there) else ROWS

    def _require_readable(self, block: Block, units: Array, bits: int, lanes: Array) -> None:
        """All bytes are written, and each thread knows that."""
        shared = block.shared
        rows = ((units - shared.base) // UNIT).reshape(-1)
        found = shared.written.reshape(-1, UNIT)[rows]
        if not found.all():
            never = int(np.argmin((found != 0).all(axis=1)))
            byte = int(rows[never]) * UNIT + int(np.argmax(found[never] == 0))
            raise FaultError(
                "GEM1004", f"it multiplies byte {shared.place(byte)}, which was never written"
            )
        self._require_swizzle(block, rows, bits)
        same = found[:, 0] if (found == found[:, :1]).all() else found.reshape(-1)
        each = UNIT if same.ndim == 1 and len(same) == len(rows) else 1

        def where(at: int) -> int:
            return int(rows[at if each == UNIT else at // UNIT]) * UNIT

        clocks, threads = block.cluster.shared_clocks, lanes + block.first
        for mark in np.unique(same).tolist() if (same != same[0]).any() else same[:1].tolist():
            unaware = ~clocks.aware(threads, mark, fenced=True)
            if unaware.any():
                thread = int(threads[np.argmax(unaware)])
                stamp = block.stamp(Group(np.array([thread - block.first]), False))
                require_fenced(block, thread, same, where, stamp, "reads what")

    def _require_swizzle(self, block: Block, rows: Array, bits: int) -> None:
        swizzles, span = block.shared.swizzles, descriptor_of(bits).span
        assert swizzles is not None
        found = swizzles[rows]
        wrong = (found != 0) & (found != 1 + span)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise FaultError(
                "GEM1013",
                f"the matrix descriptor {bits:#x} says swizzle {span or 'none'}, and a copy wrote "
                f"byte {block.shared.place(int(rows[at]) * UNIT)} with swizzle "
                f"{int(found[at]) - 1 or 'none'}",
            )

    def run(self, block: Block, warpgroup: Warpgroup, product: Product) -> None:
        """Multiply now."""
        tile = product.tile
        if tile.data is None:
            first = THREADS * warpgroup.number
            tile.data = (
                self._gathered(block, first)
                if product.factors.adds
                else np.zeros((ROWS, self.form.columns), SUMS[self.form.d])
            )
        left = (
            self._a_in_registers(block, THREADS * warpgroup.number)
            if product.a_units is None
            else _matrix(block, product.a_units, self.form.a, self.operands.transposed[0])
        )
        left[product.rows :] = np.nan if self.form.d != "s32" else NEVER_WRITTEN
        assert product.b_units is not None
        right = _matrix(block, product.b_units, self.form.b, self.operands.transposed[1])
        total = (left * self.operands.signs[0]) @ (right * self.operands.signs[1]).T
        if product.factors.adds:
            total += tile.data.astype(np.float64)
        tile.data = _finished(total, self.form)

    def _gathered(self, block: Block, first: int) -> Array:
        """The sums from their registers."""
        words = np.empty((THREADS, len(self.operands.slots)), np.uint32)
        for column, slot in enumerate(self.operands.slots):
            held = block.values[slot]
            assert held is not None
            words[:, column] = held[first : first + THREADS]
        each = words.view(SUMS[self.form.d])
        rows, columns = places_of_sums(self.form.columns)
        found = np.empty((ROWS, self.form.columns), each.dtype)
        found[rows, columns] = each
        return found

    def write_back(self, block: Block, tile: Tile, lanes: Array) -> None:
        """Put the sums of these threads into their registers."""
        assert tile.data is not None
        rows, columns = places_of_sums(self.form.columns)
        own = lanes % THREADS
        each = np.ascontiguousarray(tile.data[rows[own], columns[own]])
        words = np.ascontiguousarray(each.view(np.uint32).T)
        group = Group(lanes, len(lanes) == block.count)
        for slot, word in zip(tile.slots, words, strict=True):
            write(block, slot, group, word)

    def _a_in_registers(self, block: Block, first: int) -> Array:
        dtype = FACTORS[self.form.a]
        words = np.empty((THREADS, 4), np.uint32)
        for column, slot in enumerate(self.operands.a_slots):
            held = block.values[slot]
            assert held is not None
            words[:, column] = held[first : first + THREADS].view(np.uint32)
        each = words.view(dtype).reshape(WARPS, -1)
        places = fragments.places_of_a(16, self.form.depth, max(4 // dtype.itemsize, 1))
        found = each[:, places].reshape(ROWS, self.form.depth)
        return widened(found, self.form.a == "tf32")


def _of_warps(lanes: Array, warps: list[int]) -> Array:
    """Those threads of a warpgroup that are of some of its warps."""
    if len(lanes) == WARP * len(warps):
        return lanes
    return lanes[np.isin(lanes // WARP % WARPS, warps)]


@cache
def places_of_sums(columns: int) -> tuple[Array, Array]:
    """The row and the column of each sum that each thread of a warpgroup holds."""
    thread, number = np.arange(THREADS)[:, None], np.arange(ROWS * columns // THREADS)
    row = thread // WARP * 16 + thread % WARP // 4 + 8 * (number // 2 % 2)
    column = 8 * (number // 4) + 2 * (thread % 4) + number % 2
    return np.broadcast_to(row, column.shape), column


def _matrix(block: Block, units: Array, kind: str, transposed: bool) -> Array:
    """Rows along m or n, columns along k, in f64."""
    rows = (units - block.shared.base) // UNIT
    held = block.shared.data.reshape(-1, UNIT)[rows]
    found = held.reshape(len(units), -1).view(FACTORS[kind])
    if kind == "bf16":
        wide = (found.view(np.uint16).astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    else:
        wide = widened(found, kind == "tf32")
    return wide.T if transposed else wide


def _finished(total: Array, form: Form) -> Array:
    if form.d != "s32":
        return total.astype(SUMS[form.d])
    if form.saturates:
        return np.clip(total, -(2.0**31), 2.0**31 - 1).astype(np.int32)
    return total.astype(np.int64).astype(np.int32)


def _fence(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 0)

    def run(block: Block, group: Group) -> None:
        group.require_warps()
        block.pins.fence(group.lanes, block.count)

    return run


def _commit(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 0)

    def run(block: Block, group: Group) -> None:
        group.require_warps()
        warps: list[int] = warps_of(group.lanes).tolist()
        for warp in warps:
            number = warp // WARPS
            warpgroup = block.warpgroups.setdefault(number, Warpgroup(number))
            warpgroup.warps[warp % WARPS].commit()

    return run


def _wait(scope: Scope, i: Instruction) -> Action:
    require_operands(i, 1)
    if not i.operands[0].isdigit() or int(i.operands[0]) > 7:
        raise FaultError("GEM1001", f"{i.operands[0]} is no number of groups, 0 to 7")
    left = int(i.operands[0])

    def run(block: Block, group: Group) -> Waiting | None:
        group.require_warps()
        numbers = np.unique(group.lanes // THREADS).tolist()
        asked = [(n, block.warpgroups[n]) for n in numbers if n in block.warpgroups]
        for number, warpgroup in asked:
            lanes = group.lanes[group.lanes // THREADS == number]
            bounds = _bounds(warpgroup, lanes, left)
            if not _is_whole(warpgroup, max(bounds.values())):
                return _wait_for_warps(warpgroup, max(bounds.values()))
        for number, warpgroup in asked:
            lanes = group.lanes[group.lanes // THREADS == number]
            _finish(block, warpgroup, lanes, left)
        return None

    return run


def _bounds(warpgroup: Warpgroup, lanes: Array, left: int) -> dict[int, int]:
    warps: list[int] = (warps_of(lanes) % WARPS).tolist()
    return {warp: warpgroup.warps[warp].bound(left) for warp in warps}


def _is_whole(warpgroup: Warpgroup, bound: int) -> bool:
    return all(p.is_whole for p in warpgroup.products[warpgroup.done : bound])


def _wait_for_warps(warpgroup: Warpgroup, bound: int) -> Waiting:
    def says() -> str:
        product = next(p for p in warpgroup.products[warpgroup.done : bound] if not p.is_whole)
        return f"{len(product.warps)} of 4 warps of warpgroup {warpgroup.number} issue a product"

    return Waiting(lambda: _is_whole(warpgroup, bound), says, again=True)


def _finish(block: Block, warpgroup: Warpgroup, lanes: Array, left: int) -> None:
    """Multiply what was waited for, and give the warps their sums."""
    bounds = _bounds(warpgroup, lanes, left)
    while warpgroup.done < max(bounds.values()):
        product = warpgroup.products[warpgroup.done]
        product.by.run(block, warpgroup, product)
        warpgroup.done += 1
    for warp, bound in bounds.items():
        state, own = warpgroup.warps[warp], lanes[lanes // WARP % WARPS == warp]
        for product in warpgroup.products[state.waited : bound]:
            for read in product.reads:
                read.end(own + block.first, block.now)
            for slot in product.factors.a_slots:
                block.pins.unpin(slot, own)
        state.waited = max(bound, state.waited)
        state.groups = state.groups[len(state.groups) - left :] if left else []
    _give_back(block, warpgroup, lanes, bounds)


def _give_back(block: Block, warpgroup: Warpgroup, lanes: Array, bounds: Mapping[int, int]) -> None:
    """Sums that no product of a warp is left for go back into its registers."""
    ready: dict[tuple[int, ...], list[int]] = {}
    for warp in bounds:
        state = warpgroup.warps[warp]
        for slots in [s for s, last in state.last.items() if last <= state.waited]:
            ready.setdefault(slots, []).append(warp)
    for slots, warps in ready.items():
        own = _of_warps(lanes, warps)
        tile = warpgroup.warps[warps[0]].tiles[slots]
        for slot in slots:
            block.pins.unpin(slot, own)
        last = warpgroup.warps[warps[0]].last[slots]
        warpgroup.products[last - 1].by.write_back(block, tile, own)
        for warp in warps:
            del warpgroup.warps[warp].tiles[slots], warpgroup.warps[warp].last[slots]


def require_no_products(block: Block) -> None:
    """`FaultError` GEM1016 where a warp ends and has products in flight."""
    for warpgroup in block.warpgroups.values():
        if warpgroup.unfinished:
            raise FaultError("GEM1016", warpgroup.unfinished)


_FORMS: Final[Mapping[tuple[str, ...], Callable[[Scope, Instruction], Action]]] = {
    ("fence", "sync", "aligned"): _fence,
    ("commit_group", "sync", "aligned"): _commit,
    ("wait_group", "sync", "aligned"): _wait,
}


def _wgmma(scope: Scope, i: Instruction, place: int) -> Action:
    if i.name[1:2] == ("mma_async",):
        return _multiply(scope, i, place)
    decode = _FORMS.get(i.name[1:])
    if decode is None:
        raise refuse(i)
    return decode(scope, i)


WGMMA: Final[Mapping[str, Decode]] = {"wgmma": _wgmma}
