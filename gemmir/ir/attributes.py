"""Where data is and how it lies, carried by memref types, and how precisely it is multiplied."""

from __future__ import annotations

from collections.abc import Sequence

from xdsl.dialects.builtin import IntAttr, MemRefLayoutAttr
from xdsl.dialects.utils import EnumAttribute
from xdsl.ir import Attribute, Data, ParametrizedAttribute
from xdsl.ir.affine import AffineConstantExpr, AffineExpr, AffineMap
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException
from xdsl.utils.str_enum import StrEnum

from gemmir.dtypes import Precision


class Space(StrEnum):
    """Memory spaces, nearest first; a cache is where a buffer of a CPU is meant to stay.

    `shared` is the memory that the threads of one block of a GPU have in common, `global` that of
    all its blocks; `vmem` is the vector memory of a TPU core, `smem` its scalar memory.
    """

    REGISTERS = "registers"
    SHARED = "shared"
    VMEM = "vmem"
    SMEM = "smem"
    L1 = "l1"
    L2 = "l2"
    L3 = "l3"
    GLOBAL = "global"


@irdl_attr_definition
class SpaceAttr(EnumAttribute[Space]):
    """`#gemmir.space<l2>`: the memory space of a buffer."""

    name = "gemmir.space"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Space:
        with parser.in_angle_brackets():
            return parser.parse_str_enum(Space)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(self.data.value)


@irdl_attr_definition
class PrecisionAttr(Data[Precision]):
    """`#gemmir.precision<bf16x3>`: how factors of f32 are rounded where they are multiplied."""

    name = "gemmir.precision"

    @classmethod
    def parse_parameter(cls, parser: AttrParser) -> Precision:
        with parser.in_angle_brackets():
            start = parser.pos
            word = parser.parse_identifier("a precision")
            if word not in set(Precision):
                parser.raise_error(f"{word} is not {', '.join(Precision)}", start, parser.pos)
            return Precision(word)

    def print_parameter(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_string(self.data.value)


@irdl_attr_definition
class PanelAttr(MemRefLayoutAttr, ParametrizedAttribute):
    """`#gemmir.panel<dim, width, stride, pitch>`: a matrix cut along `dim` into panels of `width`.

    Within a panel the elements along `dim` are adjacent and those along the other dimension are
    `pitch` apart, which is left out where it is the width; panels are `stride` elements apart. This
    is the packed layout of Goto and van de Geijn, Anatomy of High-Performance Matrix
    Multiplication, ACM TOMS 34(3), 2008; gaps between rows and between panels let them begin in
    different banks of a memory.

    With a fifth number, `depth`, so many neighbours along the other dimension are adjacent instead,
    for each element along `dim`: what one instruction multiplies and sums. With a sixth one,
    `step`, a multiple of the depth, there are zeros behind the last up to a multiple of that many.
    """

    name = "gemmir.panel"

    dim: IntAttr
    width: IntAttr
    stride: IntAttr
    pitch: IntAttr
    depth: IntAttr
    step: IntAttr

    def __init__(
        self,
        dim: int,
        width: int,
        stride: int,
        pitch: int | None = None,
        depth: int = 1,
        step: int | None = None,
    ) -> None:
        super().__init__(
            IntAttr(dim),
            IntAttr(width),
            IntAttr(stride),
            IntAttr(width if pitch is None else pitch),
            IntAttr(depth),
            IntAttr(depth if step is None else step),
        )

    def verify(self) -> None:
        if self.dim.data not in (0, 1):
            raise VerifyException(f"panel dimension {self.dim.data} is not 0 or 1")
        if min(self.width.data, self.depth.data) < 1:
            raise VerifyException(
                f"panel width {self.width.data} or depth {self.depth.data} is not positive"
            )
        if self.step.data < 1 or self.step.data % self.depth.data:
            raise VerifyException(
                f"panel step {self.step.data} is no multiple of the depth {self.depth.data}"
            )
        for name, distance in (("pitch", self.pitch), ("stride", self.stride)):
            if distance.data < self.width.data:
                raise VerifyException(
                    f"panel {name} {distance.data} is less than the width {self.width.data}"
                )

    def get_affine_map(self) -> AffineMap:
        along = AffineExpr.dimension(self.dim.data)
        across = AffineExpr.dimension(1 - self.dim.data)
        width, depth = AffineConstantExpr(self.width.data), self.depth.data
        offset = along // width * self.stride.data
        if depth == 1:
            return AffineMap(2, 0, (offset + across * self.pitch.data + along % width,))
        offset = offset + across // depth * (self.pitch.data * depth)
        return AffineMap(2, 0, (offset + along % width * depth + across % depth,))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            found = [parser.parse_integer()]
            for _ in range(2):
                parser.parse_punctuation(",")
                found.append(parser.parse_integer())
            while len(found) < 6 and parser.parse_optional_punctuation(",") is not None:
                found.append(parser.parse_integer())
        found += (found[1], 1)[len(found) - 3 :]
        return [IntAttr(number) for number in (*found, *found[4:][: 6 - len(found)])]

    def print_parameters(self, printer: Printer) -> None:
        numbers = [self.dim.data, self.width.data, self.stride.data]
        is_stepped = self.step != self.depth
        if self.pitch != self.width or self.depth.data > 1 or is_stepped:
            numbers.append(self.pitch.data)
        if self.depth.data > 1 or is_stepped:
            numbers.append(self.depth.data)
        if is_stepped:
            numbers.append(self.step.data)
        with printer.in_angle_brackets():
            printer.print_string(", ".join(map(str, numbers)))


SWIZZLE_CHUNK_BYTES = 16
"""What a swizzle moves as a whole: the row of an 8 x 8 matrix of 16-bit elements."""

SWIZZLE_ROWS = 8
"""Rows after which the pattern of a swizzle repeats."""


@irdl_attr_definition
class SwizzleAttr(MemRefLayoutAttr, ParametrizedAttribute):
    """`#gemmir.swizzle<dim, width, stride, chunk>`: panels along `dim` whose chunks are permuted.

    As in a panel of `PanelAttr`, `width` elements along `dim` are adjacent, those along the other
    dimension `width` apart, and panels `stride` apart. Of each such row the chunks of `chunk`
    elements are exchanged: chunk c of row r is where chunk c XOR (r * chunks / 8) mod chunks would
    be. So 8 rows of one chunk lie in different banks. With rows of 32, 64 and 128 bytes these are
    the swizzle modes of PTX ISA 9.0, section "Swizzling modes".

    A window into such a matrix has the layout of the whole: where it begins is part of its value.
    """

    name = "gemmir.swizzle"

    dim: IntAttr
    width: IntAttr
    stride: IntAttr
    chunk: IntAttr

    def __init__(self, dim: int, width: int, stride: int, chunk: int) -> None:
        super().__init__(IntAttr(dim), IntAttr(width), IntAttr(stride), IntAttr(chunk))

    @property
    def chunks(self) -> int:
        """How many chunks a row has."""
        return self.width.data // self.chunk.data

    @property
    def rows_alike(self) -> int:
        """How many neighbouring rows are permuted alike."""
        return SWIZZLE_ROWS // self.chunks

    def verify(self) -> None:
        if self.dim.data not in (0, 1):
            raise VerifyException(f"swizzle dimension {self.dim.data} is not 0 or 1")
        if self.width.data not in [self.chunk.data * n for n in (2, 4, 8)]:
            raise VerifyException(
                f"swizzle width {self.width.data} is not 2, 4 or 8 chunks of {self.chunk.data}"
            )
        if self.stride.data < 1 or self.stride.data % self.width.data:
            raise VerifyException(
                f"swizzle stride {self.stride.data} is not a positive multiple of the width "
                f"{self.width.data}"
            )

    def get_affine_map(self) -> AffineMap:
        along = AffineExpr.dimension(self.dim.data)
        across = AffineExpr.dimension(1 - self.dim.data)
        width, chunk = self.width.data, self.chunk.data
        plain = along % width
        place = plain // chunk
        turn = across // self.rows_alike
        exchanged: AffineExpr = AffineConstantExpr(0)
        for bit in (1, 2, 4):
            if bit < self.chunks:
                either = place // bit % 2 + turn // bit % 2
                exchanged = exchanged + either % 2 * bit
        row = along // width * self.stride.data + across * width
        return AffineMap(2, 0, (row + exchanged * chunk + plain % chunk,))

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        with parser.in_angle_brackets():
            found = [parser.parse_integer()]
            for _ in range(3):
                parser.parse_punctuation(",")
                found.append(parser.parse_integer())
        return [IntAttr(number) for number in found]

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            numbers = (self.dim, self.width, self.stride, self.chunk)
            printer.print_string(", ".join(str(n.data) for n in numbers))
