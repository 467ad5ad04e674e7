"""What a wgmma.mma_async does: when its warps issue it, and when it happens.

PTX ISA, section "Asynchronous Warpgroup Level Matrix Instructions".
"""

from __future__ import annotations

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
from gemmir.backends.ptx.emulator.scope import read as read_register
from gemmir.backends.ptx.emulator.scope import write
from gemmir.backends.ptx.emulator.state import Block, Group
from gemmir.backends.ptx.emulator.values import Array
from gemmir.backends.ptx.emulator.warpgroup import ROWS, WARPS, Factors, Product, Tile, Warpgroup
from gemmir.backends.ptx.emulator.wgmma_forms import THREADS, Form, Operands

NEVER_WRITTEN: Final = 77.0
"""What rows of integers hold that never were written, in place of no number."""


@dataclass(frozen=True, slots=True)
class Multiply:
    """One wgmma.mma_async in the code, at a place and a line."""

    form: Form
    operands: Operands
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
            own = of_warps(lanes, members)
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
            own = of_warps(lanes, fresh)
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


def of_warps(lanes: Array, warps: list[int]) -> Array:
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
