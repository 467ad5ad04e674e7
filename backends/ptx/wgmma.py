"""Emitters of products of a warpgroup, whose operands lie in shared memory.

LLVM has no intrinsic of `wgmma.mma_async`: each is inline assembly, with the sums tied to registers
that it reads and writes. PTX ISA 9.0, section "Asynchronous warpgroup level matrix instructions".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from xdsl.ir import SSAValue

from gemmir.backends.llvm.emitter import Emitter, Rows, Table, element_of, set_rows
from gemmir.backends.llvm.text import scalar_type
from gemmir.backends.ptx.spread import PAIR
from gemmir.backends.ptx.threads import CONVERGENT
from gemmir.backends.ptx.windows import Window, address, window_of
from gemmir.errors import BackendError
from gemmir.ir.attributes import SWIZZLE_ROWS
from gemmir.ir.dialect import memref_type, product_name
from gemmir.ir.warpgroup import WARPGROUP_ROWS, WarpgroupMmaOp, WarpgroupWaitOp

K_BYTES: Final = 32
"""What one instruction takes of each row along k."""

NEW_LINE: Final = r"\0A\09"
"""The end of a line and a tab, in a text of LLVM."""

UNIT: Final = 16
"""Bytes that addresses in a descriptor count."""

SWIZZLE_MODES: Final = {128: 1, 64: 2, 32: 3}
"""The field of a descriptor by the bytes of a swizzled row: PTX ISA 9.0, "Matrix descriptor"."""


@dataclass(frozen=True, kw_only=True)
class Product:
    """What `wgmma` multiplies, by its name there; `sums` is its type of sums there.

    Only elements of 16 bits may be adjacent along m or n, and not k. Sums of i32 have fewer n.
    """

    name: str
    item_bytes: int
    sums: str = "f32"

    @property
    def depth(self) -> int:
        """k of one instruction."""
        return K_BYTES // self.item_bytes

    @property
    def has_transposes(self) -> bool:
        """Whether operands need not be adjacent along k."""
        return self.item_bytes == 2

    def has_columns(self, n: int) -> bool:
        """Whether there is an instruction of so many columns."""
        return n % 8 == 0 and 0 < n <= 256 and (self.sums == "f32" or n % 16 == 0 or n in (8, 24))

    def immediates(self, *, transposed: Sequence[bool]) -> str:
        """What stands behind the predicate: factors of 1, and which operands are transposed."""
        if self.sums != "f32":
            return ""
        flags = "".join(f", {int(flag)}" for flag in transposed) if self.has_transposes else ""
        return f", 1, 1{flags}"


PRODUCTS: Final[Mapping[str, Product]] = {
    "bf16": Product(name="bf16", item_bytes=2),
    "f16": Product(name="f16", item_bytes=2),
    "tf32": Product(name="tf32", item_bytes=4),
    "e4m3": Product(name="e4m3", item_bytes=1),
    "e5m2": Product(name="e5m2", item_bytes=1),
    "i8": Product(name="s8", item_bytes=1, sums="s32"),
    "u8": Product(name="u8", item_bytes=1, sums="s32"),
}
"""By what is multiplied, as `Gemm.dtype` says it."""


def product_of(op: WarpgroupMmaOp) -> Product:
    """The instruction of `op`; `BackendError` GEM0448 where there is none of its kind or shape."""
    name = product_name(memref_type(op.a).element_type, op.precision)
    if name not in PRODUCTS:
        raise BackendError(
            "GEM0448",
            f"no instruction of a warpgroup multiplies {name}",
            f"use {', '.join(PRODUCTS)}, or vectorize{{with=mma}} or {{with=fma}}",
        )
    found = PRODUCTS[name]
    _, n, k = op.shape
    if not found.has_columns(n):
        near = next(m for m in range(n, 0, -8) if found.has_columns(m))
        raise BackendError(
            "GEM0448", f"no instruction of a warpgroup has n={n} for {name}", f"use n={near}"
        )
    if k % found.depth:
        raise BackendError(
            "GEM0448",
            f"a product of k={k}, and one instruction for {name} has k={found.depth}",
            f"tile k by a multiple of {found.depth}",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A or B of a product: `k` is the dimension of k of its window."""

    name: str
    window: Window
    k: int

    @property
    def is_transposed(self) -> bool:
        """Whether it is not adjacent along k."""
        layout = self.window.swizzle
        assert layout is not None
        return layout.dim.data != self.k

    @property
    def row_bytes(self) -> int:
        """Bytes of a row that is swizzled."""
        layout = self.window.swizzle
        assert layout is not None
        return layout.width.data * self.window.item_bytes

    @property
    def chunk_bytes(self) -> int:
        """Bytes of it that a swizzle moves as a whole."""
        layout = self.window.swizzle
        assert layout is not None
        return layout.chunk.data * self.window.item_bytes

    @property
    def panel_bytes(self) -> int:
        """How far apart panels are."""
        layout = self.window.swizzle
        assert layout is not None
        return layout.stride.data * self.window.item_bytes

    @property
    def low(self) -> int:
        """The lower 32 bits of the descriptor but for the address.

        They say how far apart the panels of an operand are that is not adjacent along k.
        """
        return (self.panel_bytes // UNIT if self.is_transposed else 1) << 16

    @property
    def high(self) -> int:
        """The upper 32 bits: how far apart groups of 8 rows are, and how these are swizzled."""
        step = SWIZZLE_ROWS * self.row_bytes // UNIT
        return step | SWIZZLE_MODES[self.row_bytes] << 30

    def distance(self, across: int, along: int) -> int:
        """How far the descriptor of a part is behind that of the whole: so far along m or n and k.

        In units of 16 bytes.
        """
        place = [across, across]
        place[self.k] = along
        return (self.window.bytes_at(place) - self.window.bytes_at((0, 0))) // UNIT


def _operand(e: Emitter, name: str, value: SSAValue, k: int, product: Product) -> Operand:
    found = Operand(name=name, window=window_of(e, value), k=k)
    if found.row_bytes not in SWIZZLE_MODES or found.chunk_bytes != UNIT:
        raise BackendError(
            "GEM0448",
            f"rows of {found.row_bytes} bytes of {name} in chunks of {found.chunk_bytes} bytes",
            f"promote with layout=swizzle:128, or {', '.join(map(str, SWIZZLE_MODES))}",
        )
    if found.is_transposed and not product.has_transposes:
        raise BackendError(
            "GEM0448",
            f"{name} is adjacent along {'mn'[name == 'b']} and not along k, which no instruction "
            f"for {product.name} takes",
            f"transpose {name} in memory, or vectorize{{with=mma}}",
        )
    return found


def _multiply(e: Emitter, op: WarpgroupMmaOp) -> None:
    """For each step of k one instruction for each 64 rows; the first one sees earlier writes."""
    product = product_of(op)
    m, n, k = op.shape
    a = _operand(e, "a", op.a, 1, product)
    b = _operand(e, "b", op.b, 0, product)
    starts = [address(e, x.window, unit=UNIT, plus=x.low) for x in (a, b)]
    sums = _elements(e, op.acc)
    of_rows = len(sums) * WARPGROUP_ROWS // m
    _call(e, "fence.sync.aligned")
    for along in range(0, k, product.depth):
        right = _descriptor(e, b, starts[1], b.distance(0, along))
        for number, row in enumerate(range(0, m, WARPGROUP_ROWS)):
            left = _descriptor(e, a, starts[0], a.distance(row, along))
            own = slice(number * of_rows, (number + 1) * of_rows)
            sums[own] = _instruction(e, op, product, n, sums[own], (left, right), (a, b))
    _call(e, "commit_group.sync.aligned")
    _set_elements(e, op.result, sums)


def _descriptor(e: Emitter, operand: Operand, start: str, distance: int) -> str:
    """The descriptor of a part of an operand, as i64."""
    low = e.text.value(f"add i32 {start}, {distance}") if distance else start
    wide = e.text.value(f"zext i32 {low} to i64")
    high = operand.high << 32
    return e.text.value(f"or i64 {wide}, {high - (1 << 64) if high >> 63 else high}")


def _instruction(
    e: Emitter,
    op: WarpgroupMmaOp,
    product: Product,
    n: int,
    sums: Rows,
    descriptors: Sequence[str],
    operands: Sequence[Operand],
) -> Rows:
    """One `wgmma.mma_async` on all of n: `sums` as they are afterwards."""
    listed = ", ".join(f"${number}" for number in range(len(sums)))
    first = 2 * len(sums)
    immediates = product.immediates(transposed=[x.is_transposed for x in operands])
    name = f"m64n{n}k{product.depth}.{product.sums}.{product.name}.{product.name}"
    code = NEW_LINE.join(
        [
            "{",
            ".reg .pred p;",
            "setp.ne.b32 p, 1, 0;",
            f"wgmma.mma_async.sync.aligned.{name} {{{listed}}}, ${first}, ${first + 1}, "
            f"p{immediates};",
            "}",
        ]
    )
    return _assembly(e, op.acc, code, sums, descriptors)


def _wait(e: Emitter, op: WarpgroupWaitOp) -> None:
    """The sums go through it, so that nothing reads them before."""
    code = f"wgmma.wait_group.sync.aligned {op.groups.value.data};"
    _set_elements(e, op.result, _assembly(e, op.acc, code, _elements(e, op.acc)))


def _call(e: Emitter, name: str) -> None:
    e.text.declare(f"void @llvm.nvvm.wgmma.{name}() {CONVERGENT}")
    e.text.line(f"call void @llvm.nvvm.wgmma.{name}()")


def _scalar(value: SSAValue) -> str:
    return scalar_type(element_of(value.type))


def _elements(e: Emitter, value: SSAValue) -> Rows:
    """The elements that this thread has of a sum, one by one.

    Constants go through empty assembly, so that registers have them here: LLVM would put them there
    behind the fence, where a product must find them already.
    """
    t, rows = e.row_type(value.type), e.rows(value)
    found = [
        e.text.value(f"extractelement {t} {row}, i64 {n}") for row in rows for n in range(PAIR)
    ]
    is_constant = any(not row.startswith("%") for row in rows)
    return _assembly(e, value, "", found) if is_constant else found


def _set_elements(e: Emitter, value: SSAValue, elements: Rows) -> None:
    t, scalar = e.row_type(value.type), _scalar(value)
    rows: Rows = []
    for x, y in zip(elements[::PAIR], elements[1::PAIR], strict=True):
        one = e.text.value(f"insertelement {t} poison, {scalar} {x}, i64 0")
        rows.append(e.text.value(f"insertelement {t} {one}, {scalar} {y}, i64 1"))
    set_rows(e, value, rows)


def _assembly(
    e: Emitter, sum_of: SSAValue, code: str, sums: Rows, others: Sequence[str] = ()
) -> Rows:
    """Inline assembly that changes `sums` and reads `others`, of 64 bits."""
    scalar, count = _scalar(sum_of), len(sums)
    kept = "=f" if scalar == "float" else "=r"
    tied = map(str, range(count))
    constraints = ",".join([*([kept] * count), *tied, *("l" for _ in others)])
    result = f"{{ {', '.join([scalar] * count)} }}"
    listed = ", ".join([*(f"{scalar} {x}" for x in sums), *(f"i64 {x}" for x in others)])
    made = e.text.value(
        f'call {result} asm sideeffect "{code}", "{constraints}"({listed}) {CONVERGENT}'
    )
    return [e.text.value(f"extractvalue {result} {made}, {n}") for n in range(count)]


WGMMA: Table = {
    WarpgroupMmaOp.name: _multiply,
    WarpgroupWaitOp.name: _wait,
}
