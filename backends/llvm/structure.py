"""Emitters of func, scf and gemmir.forall: blocks, phis and threads."""

from __future__ import annotations

import math

from xdsl.dialects import func, memref, scf
from xdsl.ir import Operation, SSAValue

from gemmir.backend import threads_variable
from gemmir.backends.llvm.emitter import (
    Columns,
    Emitter,
    Pointer,
    Splat,
    Table,
    Value,
    Words,
    set_rows,
)
from gemmir.backends.llvm.memory import allocate, buffer_bytes
from gemmir.backends.llvm.text import FunctionText, is_literal
from gemmir.errors import BackendError
from gemmir.ir.dialect import CORES, ForallOp, YieldOp, enclosing_ops


def _for(e: Emitter, op: scf.ForOp) -> None:
    """A rotated loop; the test before the first iteration is left out where it is known."""
    text = e.text
    lb, ub, step = (e.scalar(v) for v in (op.lb, op.ub, op.step))
    inits = [e.rows(v) for v in op.iter_args]
    if is_literal(lb) and is_literal(ub) and int(lb) < int(ub) <= int(lb) + int(step):
        _once(e, op, lb, inits)
        return
    types = [e.row_type(v.type) for v in op.iter_args]
    runs = is_literal(lb) and is_literal(ub) and int(lb) < int(ub)
    counter = "i32" if runs and e.counts_in_32_bits and int(ub) + int(step) < 1 << 31 else "i64"
    body, done = text.fresh("body"), text.fresh("done")
    before = text.block
    if runs:
        text.line(f"br label %{body}")
    else:
        guard = text.value(f"icmp slt i64 {lb}, {ub}")
        text.line(f"br i1 {guard}, label %{body}, label %{done}")
    text.start(body)
    variable, *arguments = op.body.block.args
    iv = f"%{text.fresh('i')}"
    phis = [[f"%{text.fresh('x')}" for _ in rows] for rows in inits]
    at = len(text.lines)
    index = iv if counter == "i64" else text.widened(iv)
    e.values[variable] = index
    text.multiples[index] = math.gcd(text.divisor(lb), text.divisor(step))
    for argument, names in zip(arguments, phis, strict=True):
        set_rows(e, argument, names)
    e.block(op.body.block)
    assert op.body.block.last_op is not None
    finals = [e.rows(v) for v in op.body.block.last_op.operands]
    latch = text.block
    after = text.value(f"add nsw {counter} {iv}, {step}")
    again = text.value(f"icmp slt {counter} {after}, {ub}")
    text.line(f"br i1 {again}, label %{body}, label %{done}")
    heads = [f"  {iv} = phi {counter} [ {lb}, %{before} ], [ {after}, %{latch} ]"]
    for names, begin, end, t in zip(phis, inits, finals, types, strict=True):
        for name, x, y in zip(names, begin, end, strict=True):
            heads.append(f"  {name} = phi {t} [ {x}, %{before} ], [ {y}, %{latch} ]")
    text.lines[at:at] = heads
    text.start(done)
    for result, begin, end, t in zip(op.results, inits, finals, types, strict=True):
        if runs:
            set_rows(e, result, end)
            continue
        joined = [
            text.value(f"phi {t} [ {x}, %{before} ], [ {y}, %{latch} ]")
            for x, y in zip(begin, end, strict=True)
        ]
        set_rows(e, result, joined)


def _once(e: Emitter, op: scf.ForOp, lb: str, inits: list[list[str]]) -> None:
    """A loop of one iteration: just its body."""
    variable, *arguments = op.body.block.args
    e.values[variable] = lb
    for argument, rows in zip(arguments, inits, strict=True):
        set_rows(e, argument, rows)
    e.block(op.body.block)
    assert op.body.block.last_op is not None
    for result, value in zip(op.results, op.body.block.last_op.operands, strict=True):
        set_rows(e, result, e.rows(value))


def _if(e: Emitter, op: scf.IfOp) -> None:
    text = e.text
    then, otherwise, done = text.fresh("then"), text.fresh("else"), text.fresh("done")
    text.line(f"br i1 {e.scalar(op.cond)}, label %{then}, label %{otherwise}")
    for label, region in ((then, op.true_region), (otherwise, op.false_region)):
        text.start(label)
        for block in region.blocks:
            e.block(block)
        text.line(f"br label %{done}")
    text.start(done)


def _nothing(e: Emitter, op: Operation) -> None:
    """Terminators are emitted by the op that they end."""


def _return(e: Emitter, op: func.ReturnOp) -> None:
    for buffer in e.buffers:
        e.text.line(f"call void @free(ptr {buffer})")
    e.text.line("ret i32 0")


def _team_buffers(op: Operation) -> list[memref.AllocOp]:
    """The buffers that loops over cores in `op` allocate: every thread has its own."""
    teams = [o for o in op.walk() if isinstance(o, ForallOp)]
    return [o for team in teams for o in team.walk() if isinstance(o, memref.AllocOp)]


def reserve_teams(e: Emitter, op: func.FuncOp) -> None:
    """Decide how many threads there will be, and allocate the buffers of all before any write.

    No thread allocates, so that a call fails as a whole or not at all. The number is what the
    variable `SYMBOL_threads` of the module says, or where that is 0 what the runtime says.
    """
    if not any(isinstance(o, ForallOp) for o in op.walk()):
        return
    text = e.text
    variable = threads_variable(e.entry)
    text.declarations.add(f"@{variable} = global i32 0")
    text.declare("i32 @omp_get_max_threads()")
    asked = text.value(f"load i32, ptr @{variable}")
    most = text.value("call i32 @omp_get_max_threads()")
    is_set = text.value(f"icmp sgt i32 {asked}, 0")
    e.threads = text.value(f"select i1 {is_set}, i32 {asked}, i32 {most}")
    buffers = _team_buffers(op)
    threads = text.value(f"sext i32 {e.threads} to i64") if buffers else ""
    for alloc in buffers:
        allocate(e, alloc, e.text.mul(threads, str(buffer_bytes(alloc))))


def _forall(e: Emitter, op: ForallOp) -> None:
    """Outline the body and run it on every thread of an OpenMP team, in contiguous blocks.

    GOMP_parallel is the entry that GCC's, LLVM's and Intel's runtimes share.
    """
    if op.over.data != CORES:
        raise BackendError("GEM0424", f"a CPU has no {op.over.data} to run a loop over")
    if any(isinstance(o, ForallOp) for o in enclosing_ops(op)):
        raise BackendError("GEM0424", "a gemmir.forall inside another one has no threads left")
    captured = [*_captures(e, op), *(alloc.memref for alloc in _team_buffers(op))]
    operands = [x for value in captured for x in _operands(e, value)]
    symbol = f"{e.symbol}.forall{len(e.outlined)}"
    e.outlined.append("")
    place = len(e.outlined) - 1
    text = e.text
    fields = f"{{ {', '.join(t for t, _ in operands)} }}"
    data = text.reserve(fields)
    for number, (t, x) in enumerate(operands):
        at = text.value(f"getelementptr {fields}, ptr {data}, i64 0, i32 {number}")
        text.line(f"store {t} {x}, ptr {at}")
    text.declare("void @GOMP_parallel(ptr, ptr, i32, i32)")
    text.line(f"call void @GOMP_parallel(ptr @{symbol}, ptr {data}, i32 {e.threads}, i32 0)")
    e.outlined[place] = _team_function(e, op, symbol, captured, fields)


def _captures(e: Emitter, op: ForallOp) -> list[SSAValue]:
    """Values from outside that the loop uses, each once, in order of first use."""
    inside = {id(o) for o in op.walk()}
    found: dict[SSAValue, None] = {}
    for inner in op.walk():
        for value in inner.operands:
            owner = value.owner
            holder = owner if isinstance(owner, Operation) else owner.parent_op()
            if id(holder) not in inside:
                found.setdefault(value)
    return [v for v in found if not _is_plain(e.values[v])]


def _is_constant(operand: str) -> bool:
    return not operand.startswith("%")


def _operands(e: Emitter, captured: SSAValue) -> list[tuple[str, str]]:
    """The LLVM operands, with their types, that make up a captured value."""
    value = e.values[captured]
    if isinstance(value, Pointer):
        return [("ptr", value.address), *(("i64", s) for s in (*value.sizes, *value.strides))]
    if isinstance(value, str):
        return [(e.row_type(captured.type), value)]
    raise AssertionError("vectors are not carried into a gemmir.forall")


def _team_function(
    e: Emitter, op: ForallOp, symbol: str, captured: list[SSAValue], fields: str
) -> str:
    """What each thread runs: its block of the iterations, on the captured values."""
    text = FunctionText(declarations=e.text.declarations)
    inner = Emitter(e.table, symbol, text, features=e.features, entry=e.entry)
    inner.outlined = e.outlined
    inner.values.update({v: x for v, x in e.values.items() if _is_plain(x)})
    number = 0
    for value in captured:
        parts: list[str] = []
        for t, _ in _operands(e, value):
            at = text.value(f"getelementptr {fields}, ptr %data, i64 0, i32 {number}")
            parts.append(text.value(f"load {t}, ptr {at}"))
            number += 1
        outside = e.values[value]
        if isinstance(outside, Pointer):
            end = 1 + len(outside.sizes)
            made = Pointer(parts[0], tuple(parts[1:end]), strides=tuple(parts[end:]))
            inner.values[value] = made
        else:
            inner.values[value] = parts[0]
    thread = _team_number(inner, "omp_get_thread_num")
    for alloc in _team_buffers(op):
        shared = inner.pointer(alloc.memref)
        offset = text.mul(thread, str(buffer_bytes(alloc)))
        own = text.value(f"getelementptr i8, ptr {shared.address}, i64 {offset}")
        inner.values[alloc.memref] = Pointer(own, shared.sizes)
    begin, end = _share(inner, op, thread)
    _count(inner, op, begin, end, inner.scalar(op.step))
    head = f"define internal void @{symbol}(ptr %data) nounwind {{"
    return "\n".join([head, "entry:", *text.stack, *text.lines, "  ret void", "}"])


def _team_number(e: Emitter, function: str) -> str:
    """What an OpenMP function without arguments says, as an index."""
    e.text.declare(f"i32 @{function}()")
    return e.text.value(f"sext i32 {e.text.value(f'call i32 @{function}()')} to i64")


def _is_plain(value: Value) -> bool:
    """Whether a value is a constant and so means the same in another function."""
    if isinstance(value, Pointer | Splat | Columns | Words):
        return isinstance(value, Splat)
    return all(_is_constant(x) for x in ([value] if isinstance(value, str) else value))


def _share(e: Emitter, op: ForallOp, thread: str) -> tuple[str, str]:
    """First and past-the-last value of the induction variable for `thread`."""
    text = e.text
    lb, ub, step = (e.scalar(v) for v in (op.lb, op.ub, op.step))
    threads = _team_number(e, "omp_get_num_threads")
    span = text.add(text.value(f"sub nsw i64 {ub}, {lb}"), str(int(step) - 1))
    trips = text.value(f"sdiv i64 {span}, {step}")
    ends: list[str] = []
    for ordinal in (thread, text.add(thread, "1")):
        dealt = text.value(f"sdiv i64 {text.mul(ordinal, trips)}, {threads}")
        ends.append(text.add(lb, text.mul(dealt, step)))
    text.declare("i64 @llvm.smin.i64(i64, i64)")
    return ends[0], text.value(f"call i64 @llvm.smin.i64(i64 {ends[1]}, i64 {ub})")


def _count(e: Emitter, op: ForallOp, begin: str, end: str, step: str) -> None:
    """The loop of one thread over its iterations."""
    text = e.text
    body, done, before = text.fresh("body"), text.fresh("done"), text.block
    guard = text.value(f"icmp slt i64 {begin}, {end}")
    text.line(f"br i1 {guard}, label %{body}, label %{done}")
    text.start(body)
    iv = f"%{text.fresh('i')}"
    e.values[op.body.block.args[0]] = iv
    at = len(text.lines)
    e.block(op.body.block)
    after = text.value(f"add nsw i64 {iv}, {step}")
    again = text.value(f"icmp slt i64 {after}, {end}")
    text.line(f"br i1 {again}, label %{body}, label %{done}")
    text.lines[at:at] = [f"  {iv} = phi i64 [ {begin}, %{before} ], [ {after}, %{text.block} ]"]
    text.start(done)


def _call(e: Emitter, op: func.CallOp) -> None:
    """Another function of the module; where it has no memory, free what is here and return 1."""
    text = e.text
    arguments = [f"{t} {x}" for value in op.operands for t, x in _passed(e, value)]
    symbol = op.callee.root_reference.data
    status = text.value(f"call i32 @{symbol}({', '.join(arguments)})")
    failed = text.value(f"icmp ne i32 {status}, 0")
    missing, present = text.fresh("missing"), text.fresh("present")
    text.line(f"br i1 {failed}, label %{missing}, label %{present}")
    text.start(missing)
    for buffer in e.buffers:
        text.line(f"call void @free(ptr {buffer})")
    text.line("ret i32 1")
    text.start(present)


def _passed(e: Emitter, value: SSAValue) -> list[tuple[str, str]]:
    """A value as an argument: of an array its address, whose sizes are arguments of their own."""
    return _operands(e, value)[:1]


STRUCTURE: Table = {
    ForallOp.name: _forall,
    YieldOp.name: _nothing,
    func.CallOp.name: _call,
    func.ReturnOp.name: _return,
    scf.ForOp.name: _for,
    scf.IfOp.name: _if,
    scf.YieldOp.name: _nothing,
}
