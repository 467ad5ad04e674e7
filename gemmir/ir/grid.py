"""The grid of a TPU kernel: loops over blocks become the steps of one `pallas.call`.

    gemmir.forall %i … over grid          pallas.call grid [4, 2, 6] ins(%a, %b) outs(%c) {
      gemmir.forall %j … over grid        ^bb0(%i, %j, %p, %a_block, %b_block, %c_block, %acc):
        %acc = alloca in vmem
        scf.for %p …                ->
          pack %a[…] into %a_block
          pack %b[…] into %b_block
          gemmir.gemm on the blocks         gemmir.gemm on the blocks
        gemmir.epilogue outs(%c[…])         if last %p: gemmir.epilogue outs(%c_block)
                                          }

A loop over visits (`gemmir.ir.visits`) is a dimension of the grid too. Which product and which tile
of rows a step visits is prefetched, and blocks are found by it; a step without rows does nothing.
The block of C, of which a visit writes some rows, has the old elements at the first visit.

What was copied into VMEM, and what an epilogue touches of its arrays, becomes a block of the call,
so that the next one is copied while this one is used. A loop over k is the last dimension of the
grid. The accumulator is scratch, which one step leaves to the next. All ops take whole blocks, for
what of them is past the edge of C is not copied back; only along k the last one may be shorter. An
operand that is copied before the loops is a single block that all steps have parts of. Where C is
not summed in VMEM yet, the product is stored into its block, to be summed part by part later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from xdsl.dialects import arith, memref, scf
from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr
from xdsl.ir import Block, BlockArgument, Operation, Region, SSAValue
from xdsl.ir.affine import AffineExpr, AffineMap

from gemmir.errors import ScheduleError
from gemmir.ir.dialect import (
    GRID,
    EpilogueOp,
    ForallOp,
    GemmOp,
    Number,
    PackOp,
    Visit,
    VisitsOp,
    YieldOp,
    enclosing_ops,
    memref_type,
    static_strides,
)
from gemmir.ir.index import (
    INDEX,
    Extent,
    as_index,
    before,
    constant_of,
    equals,
    upper_bound,
)
from gemmir.ir.loops import GROUP, Loop, conditional, dimension_of, move
from gemmir.ir.pallas import ARBITRARY, PARALLEL, BlockAttr, CallOp, block_type, in_vmem
from gemmir.ir.views import chain, extents, offsets_of, sizes_of, subview
from gemmir.ir.visit_steps import visit_blocks, work_on_rows
from gemmir.ir.visits import place_in_tile, visit_number, visit_start

PURE = (
    arith.AddiOp,
    arith.CmpiOp,
    arith.IndexCastOp,
    arith.MinSIOp,
    arith.MuliOp,
    arith.SubiOp,
    memref.AllocaOp,
    memref.LoadOp,
    memref.SubviewOp,
)
"""Ops that find a tile; where nobody uses what they find they are left out."""


GEMM_C = 2
"""The place of C among the operands of a product."""


@dataclass(frozen=True, kw_only=True)
class GridPlan:
    """The loops that become the grid, outermost first, and how many buffers a block has."""

    loops: tuple[Loop, ...]
    buffers: int
    visits: VisitsOp | None

    @property
    def sequential(self) -> scf.ForOp | None:
        """The loop over k, whose steps come one after the other."""
        last = self.loops[-1]
        return last if isinstance(last, scf.ForOp) else None

    def dimension(self, name: str) -> int:
        """The dimension of the grid that is the loop over `name`."""
        return [dimension_of(loop) for loop in self.loops].index(name)

    @property
    def steps(self) -> tuple[int, ...]:
        """How far each loop goes in one iteration."""
        return tuple(constant_of(loop.step) or 1 for loop in self.loops)

    @property
    def grid(self) -> tuple[int, ...]:
        """How many iterations each loop has."""
        found: list[int] = []
        for loop, step in zip(self.loops, self.steps, strict=True):
            ub = constant_of(loop.ub)
            assert ub is not None
            found.append(-(-ub // step))
        return tuple(found)


def plan_grid(gemm: GemmOp, loop: str, buffers: int) -> GridPlan:
    """Find the grid around `gemm`, whose innermost loop is over the dimension `loop`.

    `ScheduleError` (GEM0354 to GEM0358, GEM0391) where there is none or it copies no blocks.
    """
    loops = [o for o in enclosing_ops(gemm) if isinstance(o, Loop)][::-1]
    if not loops or not _is_over_grid(loops[0]):
        raise ScheduleError(
            "GEM0354",
            "pipeline: with=dma copies the blocks of a grid, and no loop runs over one",
            "use tile{loops=m,n … over=grid} first",
        )
    inside = [o for o in loops if not _is_over_grid(o)]
    if any(dimension_of(o) != "k" for o in inside) or len(inside) > 1:
        names = ",".join(dimension_of(o) or "" for o in inside)
        raise ScheduleError(
            "GEM0355",
            f"pipeline: the loops over {names} inside the grid are not one over k",
            "tile m and n over=grid, and k once",
        )
    if dimension_of(loops[-1]) != loop:
        raise ScheduleError(
            "GEM0356",
            f"pipeline: loop={loop}, and the innermost loop around the product is over "
            f"{dimension_of(loops[-1])}",
            f"use loop={dimension_of(loops[-1])}",
        )
    names = [dimension_of(o) for o in loops if _is_over_grid(o)]
    if GROUP in names[:-1]:
        raise ScheduleError(
            "GEM0388",
            f"pipeline: the loop over {','.join(map(str, names[names.index(GROUP) + 1 :]))} is "
            "inside that over the visits of tiles of rows, which must follow one another",
            "use tile{loops=n,group,m … over=grid}, without interchange",
        )
    numbers = (visit_number(result) for op in loops[0].walk() for result in op.results)
    visits = next((found[0] for found in numbers if found is not None), None)
    needs_sum = visits is not None or bool(inside) or gemm.beta.value.data != 0
    for name, value in (("a", gemm.a), ("b", gemm.b), ("c", gemm.c)):
        if not in_vmem(chain(value)[0]) and (name != "c" or needs_sum):
            raise ScheduleError(
                "GEM0357",
                f"pipeline: with=dma, and {name} is not in vmem",
                f"put promote{{operand={name} to=vmem}} before pipeline",
            )
    _require_places(gemm, loops)
    for name, value, dim in (("a", gemm.a, 0), ("b", gemm.b, 1)):
        is_whole = not any(o in loops for o in _around(chain(value)[0]))
        if is_whole and not isinstance(extents(value)[dim], int):
            raise ScheduleError(
                "GEM0358",
                f"pipeline: {name} is in vmem as a whole, and the last of its tiles is smaller",
                f"tile {'mn'[dim]} by a divisor, or promote {name} after tile",
            )
    return GridPlan(loops=tuple(loops), buffers=buffers, visits=visits)


def _require_places(gemm: GemmOp, loops: Sequence[Loop]) -> None:
    """C is summed around the loop over k and written once; A and B come whole, or step by step."""
    k = [o for o in loops if not _is_over_grid(o)]
    around = [_around(chain(value)[0]) for value in (gemm.c, gemm.a, gemm.b)]
    is_summed = in_vmem(chain(gemm.c)[0])
    if (is_summed and loops[0] not in around[0]) or any(o in around[0] for o in k):
        raise ScheduleError(
            "GEM0391",
            "pipeline: c is promoted outside the grid, or inside the loop over k",
            "put promote{operand=c to=vmem} after tile{… over=grid} and before tile{loops=k …}",
        )
    for name, found in zip("ab", around[1:], strict=True):
        if loops[0] in found and loops[-1] not in found:
            raise ScheduleError(
                "GEM0391",
                f"pipeline: {name} is promoted between the loops of the grid",
                f"put promote{{operand={name} to=vmem}} before the first tile or after the last",
            )
    writers = [o for o in loops[0].walk() if isinstance(o, EpilogueOp)]
    if len({chain(o.output)[0] for o in writers}) < len(writers):
        raise ScheduleError(
            "GEM0391",
            "pipeline: a step writes c more than once",
            "put fuse-epilogue after promote{operand=c to=vmem}",
        )


def _around(value: SSAValue) -> list[Operation]:
    return enclosing_ops(value.owner) if isinstance(value.owner, Operation) else []


def _is_over_grid(loop: Loop) -> bool:
    return isinstance(loop, ForallOp) and loop.over.data == GRID


def make_call(plan: GridPlan) -> CallOp:
    """Replace the loops of `plan` by one call; `ScheduleError` GEM0369 where a tile is no block."""
    outer = plan.loops[0]
    body = Block([YieldOp()], arg_types=[INDEX] * len(plan.loops))
    indices: dict[SSAValue, tuple[SSAValue, int]] = {}
    for loop, index, step in zip(plan.loops, body.args, plan.steps, strict=True):
        index.name_hint = loop.body.block.args[0].name_hint
        indices[_count_steps(loop, index, step)] = (index, step)
    whole = _copied_before(outer)
    _flatten(plan, body)
    if all(in_vmem(chain(o.c)[0]) for o in body.walk() if isinstance(o, GemmOp)):
        _read_old_elements(body)
    windows = {o: _rows_of_tile(o.output) for o in body.walk() if isinstance(o, EpilogueOp)}
    arrays = [*(_whole_array(pack, plan) for pack in whole), *_arrays(body, plan, indices)]
    blocks: dict[tuple[SSAValue, bool], SSAValue] = {}
    for number, array in enumerate(arrays):
        block = body.insert_arg(array.type, len(plan.loops) + number)
        block.name_hint = f"{array.root.name_hint}_block"
        array.replace(block)
        blocks[array.root, array.is_output] = block
    _keep_accumulators(body)
    if plan.visits is not None:
        for epilogue, (begin, rows) in windows.items():
            work_on_rows(epilogue, begin, rows)
        roots = [array.root for array in arrays if array.is_output]
        number = body.args[plan.dimension(GROUP)]
        slice_ = None if plan.sequential is None else body.args[len(plan.loops) - 1]
        copied = [(blocks[r, False], blocks[r, True]) for r in roots]
        visit_blocks(body, plan.visits, number, slice_, copied)
    inputs, outputs = ([a for a in arrays if a.is_output is wanted] for wanted in (False, True))
    call = CallOp(
        [a.root for a in inputs],
        [a.root for a in outputs],
        grid=plan.grid,
        semantics=[_semantics(loop) for loop in plan.loops],
        blocks=[a.block for a in (*inputs, *outputs)],
        body=Region(body),
        prefetched=None if plan.visits is None else plan.visits.result,
        along=None if plan.visits is None else plan.dimension(GROUP),
    )
    before(outer).insert(call)
    outer.detach()
    outer.erase()
    erase_unused(body)
    return call


def _copied_before(outer: Loop) -> list[PackOp]:
    """The copies into VMEM that stand before the loops, and so bring a whole operand."""
    block = outer.parent_block()
    assert block is not None
    return [o for o in block.ops if isinstance(o, PackOp) and in_vmem(o.target)]


def _whole_array(pack: PackOp, plan: GridPlan) -> _Array:
    """An array whose only block is all of it."""
    made = memref_type(chain(pack.target)[0])
    starts = AffineMap(len(plan.loops), 0, (AffineExpr.constant(0),) * 2)
    block = BlockAttr(made.get_shape(), starts, 1)
    return _Array(root=pack.source, block=block, type=made, is_output=False, whole=pack)


def _semantics(loop: Loop) -> str:
    """Visits of one tile are one after the other, and so are steps along k."""
    return PARALLEL if _is_over_grid(loop) and dimension_of(loop) != GROUP else ARBITRARY


def _rows_of_tile(value: SSAValue) -> tuple[Extent, Extent]:
    """Where in its tile the rows of `value` begin, and how many there are."""
    return place_in_tile(value), extents(value)[-2]


def _count_steps(loop: Loop, index: SSAValue, step: int) -> SSAValue:
    """Let the body of `loop` find its induction variable from the number of the iteration."""
    variable, first = loop.body.block.args[0], loop.body.block.first_op
    assert first is not None
    for use in list(variable.uses):
        if isinstance(use.operation, arith.CmpiOp) and constant_of(use.operation.rhs) == 0:
            use.operation.operands[use.index] = index
    if step == 1 or not variable.uses:
        variable.replace_all_uses_with(index)
        return index
    product = before(first).insert(arith.MuliOp(index, as_index(loop, step))).result
    product.name_hint = f"{index.name_hint}_start"
    variable.replace_all_uses_with(product)
    return product


def _flatten(plan: GridPlan, body: Block) -> None:
    """Move the ops of all loops to `body`, in order; what follows the loop over k, to its end."""
    assert body.last_op is not None
    builder, after = before(body.last_op), list[Operation]()
    for loop, inner in zip(plan.loops, (*plan.loops[1:], None), strict=True):
        found = list(loop.body.block.ops)[:-1]
        at = len(found) if inner is None else found.index(inner)
        move(found[:at], builder)
        after = found[at + 1 :] + after
    last = plan.grid[-1] - 1
    if not after or plan.sequential is None or last < 1:
        move(after, builder)
        return
    is_last = equals(builder, plan.loops[0], body.args[len(plan.loops) - 1], last)
    builder.insert(conditional(is_last, lambda then: move(after, then), lambda otherwise: None))


def _read_old_elements(body: Block) -> None:
    """Make the old elements of C that an epilogue reads an input of it."""
    for op in [o for o in body.walk() if isinstance(o, EpilogueOp)]:
        old = op.body.block.args[-1]
        if not old.uses:
            continue
        region = op.detach_region(op.body)
        given = region.block.insert_arg(old.type, len(region.block.args) - 1)
        given.name_hint = old.name_hint
        old.replace_all_uses_with(given)
        before(op).insert(EpilogueOp([*op.inputs, op.output], op.output, region))
        op.detach()
        op.erase()


@dataclass(frozen=True, kw_only=True)
class _Array:
    """An array of the call: how it is cut into blocks, and what uses a block of it."""

    root: SSAValue
    block: BlockAttr
    type: MemRefType[Number]
    is_output: bool
    whole: PackOp | None = None
    packs: list[PackOp] = field(default_factory=list[PackOp])
    operands: list[tuple[Operation, int]] = field(default_factory=list[tuple[Operation, int]])

    def replace(self, block: SSAValue) -> None:
        """Let all that uses the tile use `block`."""
        if self.whole is not None:
            self._replace_whole(self.whole, block)
        for pack in self.packs:
            alloca = chain(pack.target)[0].owner
            assert isinstance(alloca, memref.AllocaOp)
            _give_products(pack, block)
            for op in (pack, *(u.operation for u in alloca.memref.uses), alloca):
                op.detach()
                op.erase()
        for op, number in self.operands:
            op.operands[number] = block

    def _replace_whole(self, pack: PackOp, block: SSAValue) -> None:
        """Let the parts of the copy that the steps use be parts of `block`."""
        alloca = chain(pack.target)[0].owner
        assert isinstance(alloca, memref.AllocaOp)
        pack.detach()
        pack.erase()
        for view in [use.operation for use in alloca.memref.uses]:
            view.results[0].replace_all_uses_with(block)
            view.detach()
            view.erase()
        alloca.detach()
        alloca.erase()


def _give_products(pack: PackOp, block: SSAValue) -> None:
    """Let the products that read what `pack` copies read `block`."""
    for use in list(pack.target.uses):
        if isinstance(use.operation, GemmOp):
            use.operation.operands[use.index] = _up_to_k(use.operation, use.index, block)


def _up_to_k(gemm: GemmOp, position: int, block: SSAValue) -> SSAValue:
    """`block` as an operand of `gemm`, whose extent along k is that of the operand before."""
    sizes = list[Extent](memref_type(block).get_shape())
    k = 1 - position
    sizes[k] = extents(gemm.operands[position])[k]
    is_whole = sizes[k] == memref_type(block).get_shape()[k]
    return block if is_whole else subview(before(gemm), block, (0, 0), sizes)


def _arrays(
    body: Block, plan: GridPlan, indices: Mapping[SSAValue, tuple[SSAValue, int]]
) -> list[_Array]:
    """The arrays of the call, inputs first, each as often as it is cut differently."""
    found: dict[tuple[SSAValue, BlockAttr, bool], _Array] = {}

    def array_of(tile: SSAValue, *, is_output: bool) -> _Array:
        root, block = _block_of(tile, plan, indices)
        rows, columns = block.extents[-2:]
        source = memref_type(root)
        layout = StridedLayoutAttr(static_strides(source)[-2:], None)
        matrix = MemRefType(source.element_type, source.get_shape()[-2:], layout)
        array = _Array(
            root=root,
            block=block,
            type=block_type(matrix, (rows, columns)),
            is_output=is_output,
        )
        return found.setdefault((root, block, is_output), array)

    for op in list(body.walk()):
        if isinstance(op, PackOp) and 0 in extents(op.source):
            _give_products(op, chain(op.target)[0])
            op.detach()
            op.erase()
        elif isinstance(op, PackOp):
            array_of(op.source, is_output=False).packs.append(op)
        elif isinstance(op, GemmOp) and not in_vmem(op.c):
            array_of(op.c, is_output=True).operands.append((op, GEMM_C))
        elif isinstance(op, EpilogueOp):
            for number, value in enumerate(op.operands):
                if not in_vmem(value):
                    is_output = number == len(op.inputs)
                    array_of(value, is_output=is_output).operands.append((op, number))
    for array in list(found.values()):
        if array.is_output and plan.visits is not None:  # visits leave rows as they were
            if (array.root, array.block, False) in found:
                continue
            old = replace(array, block=_old(array.block), is_output=False, packs=[], operands=[])
            found[array.root, old.block, False] = old
    return sorted(found.values(), key=lambda array: array.is_output)


def _old(block: BlockAttr) -> BlockAttr:
    """The block with the old elements that a visit leaves: it stays where the visit leaves none."""
    of = block.map.data
    tile, old = AffineExpr.symbol(Visit.TILE), AffineExpr.symbol(Visit.OLD)
    starts = tuple(old if start == tile else start for start in of.results)
    shown = AffineMap(of.num_dims, of.num_symbols, starts)
    return BlockAttr(block.extents, shown, block.buffers.data)


def _block_of(
    tile: SSAValue,
    plan: GridPlan,
    indices: Mapping[SSAValue, tuple[SSAValue, int]],
) -> tuple[SSAValue, BlockAttr]:
    """The array that `tile` is cut from, and how the grid cuts it into such tiles."""
    root, views = chain(tile)
    whole = memref_type(root).get_shape()
    shape, starts = list(whole), [AffineExpr.constant(0)] * len(whole)
    for view in views:
        sizes = sizes_of(view)
        dropped = len(whole) - len(sizes)
        for dim, (offset, size) in enumerate(zip(offsets_of(view), sizes, strict=True), dropped):
            bound = upper_bound(size)
            assert bound is not None
            shape[dim] = max(bound, 1)
            number, start = visit_number(offset), visit_start(offset)
            if constant_of(offset) == 0 or (number is not None and number[1] == Visit.BEGIN):
                continue
            if number is not None and number[1] == Visit.PRODUCT and shape[dim] == 1:
                starts[dim] = AffineExpr.symbol(Visit.PRODUCT)
                continue
            if start is not None and start.tile == shape[dim]:
                starts[dim] = AffineExpr.symbol(Visit.TILE)
                continue
            index, step = indices.get(cast("SSAValue", offset), (None, 0))
            is_cut = starts[dim] != AffineExpr.constant(0)
            if not isinstance(index, BlockArgument) or step != shape[dim] or is_cut:
                raise ScheduleError(
                    "GEM0369",
                    f"pipeline: a tile of {shape[dim]} along dimension {dim} of "
                    f"{root.name_hint} does not begin at a multiple of that",
                    "tile each of m and n once over=grid",
                )
            starts[dim] = AffineExpr.dimension(index.index)
    symbols = 0 if plan.visits is None else Visit.OLD + 1
    found = AffineMap(len(plan.loops), symbols, tuple(starts))
    return root, BlockAttr(shape, found, plan.buffers)


def _keep_accumulators(body: Block) -> None:
    """Make each accumulator a buffer of the call, and let all ops take it whole."""
    sums = {chain(o.c)[0] for o in body.walk() if isinstance(o, GemmOp)}
    for op in [o for o in body.ops if isinstance(o, memref.AllocaOp) and o.memref in sums]:
        kept = body.insert_arg(op.memref.type, len(body.args))
        kept.name_hint = op.memref.name_hint
        op.memref.replace_all_uses_with(kept)
        for view in [use.operation for use in kept.uses]:
            if isinstance(view, memref.SubviewOp):
                view.result.replace_all_uses_with(kept)
        op.detach()
        op.erase()


def erase_unused(body: Block) -> None:
    """Erase the ops that only find tiles, where nobody uses those."""
    for op in reversed(list(body.walk())):
        if isinstance(op, PURE) and not any(result.uses for result in op.results):
            op.detach()
            op.erase()
