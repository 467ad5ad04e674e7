"""What the function of a kernel takes: its arrays and sizes, and what may be packed before a call.

It is read from the IR of any stage, and kept as JSON beside machine code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from gemmir.dtypes import BY_MLIR, ELEMENTS, ElementType
from gemmir.errors import BackendError
from gemmir.sizes import Layout, Unknown, known

if TYPE_CHECKING:
    from xdsl.dialects.builtin import DictionaryAttr, MemRefType, ModuleOp
    from xdsl.dialects.func import FuncOp
    from xdsl.ir import Attribute

Access = Literal["read", "write", "readwrite"]


@dataclass(frozen=True, kw_only=True)
class Argument:
    """One array of a compiled function: `strides` are in elements, outermost dimension first.

    An extent or stride that is known in a call only is an `Unknown` with the name of its size.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    access: Access

    @property
    def element(self) -> ElementType:
        """The element type."""
        return ELEMENTS[self.dtype]

    @property
    def item_bytes(self) -> int:
        """Bytes of one element, of which no other is a part."""
        return self.element.item_bytes

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """The shape of the array; where elements share a byte, one of bytes."""
        return self.element.stored_shape(self.shape)

    @property
    def stored_strides(self) -> tuple[int, ...]:
        """The strides of that array, in its own elements."""
        return self.element.stored_strides(self.strides)

    @property
    def span_bytes(self) -> int:
        """Bytes from the first element to one past the last; 0 where there is no element."""
        if 0 in self.shape:
            return 0
        last = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return -(-(last + 1) * self.element.bits // 8)


@dataclass(frozen=True, kw_only=True)
class Pack:
    """An operand that may be packed before a call: two functions beside the one of the signature.

    `symbol` copies the operand into `elements` elements of type `dtype`, which lie as `layout`
    says, the type in MLIR; `compute` takes those in the place of the operand. Both return a status
    as that one does.
    """

    operand: str
    symbol: str
    compute: str
    elements: int
    dtype: str
    layout: str


@dataclass(frozen=True, kw_only=True)
class Signature:
    """The symbol of a compiled function and its arrays in order, the output last.

    The function is `int32_t symbol(pointers…, int64_t sizes…)`. It returns 0, or 1 if a packed
    buffer could not be allocated; then it has written nothing.
    """

    symbol: str
    arguments: tuple[Argument, ...]
    sizes: tuple[str, ...] = ()
    packs: tuple[Pack, ...] = ()

    def of_pack(self, pack: Pack) -> Signature:
        """The function that packs."""
        (source,) = (a for a in self.arguments if a.name == pack.operand)
        packed = replace(_flat(source, pack), name="packed", access="write")
        return Signature(symbol=pack.symbol, arguments=(source, packed))

    def of_compute(self, pack: Pack) -> Signature:
        """The function that takes the packed operand, as elements in a row."""
        arguments = (_flat(a, pack) if a.name == pack.operand else a for a in self.arguments)
        return Signature(symbol=pack.compute, arguments=tuple(arguments))

    def at(self, sizes: Mapping[str, int]) -> Signature:
        """The same of arrays with these sizes: all its numbers are known."""

        def of(argument: Argument) -> Argument:
            shape, strides = (
                known(numbers, lambda n: sizes[n.name])
                for numbers in (argument.shape, argument.strides)
            )
            return replace(argument, shape=shape, strides=strides)

        return replace(self, arguments=tuple(map(of, self.arguments)), sizes=())

    def to_json(self) -> str:
        """This signature as JSON text."""
        entries = [
            {**asdict(a), "shape": _to_json(a.shape), "strides": _to_json(a.strides)}
            for a in self.arguments
        ]
        packs = [asdict(pack) for pack in self.packs]
        fields = {
            "symbol": self.symbol,
            "arguments": entries,
            "sizes": self.sizes,
            "packs": packs,
        }
        return json.dumps(fields, separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Signature:
        """The signature that `to_json` wrote; `ValueError`, `KeyError` or `TypeError` otherwise."""
        fields = json.loads(text)
        sizes = tuple(str(name) for name in fields["sizes"])
        arguments = [
            Argument(
                name=str(entry["name"]),
                dtype=element_name(entry["dtype"]),
                shape=_from_json(entry["shape"], sizes),
                strides=_from_json(entry["strides"], sizes),
                access=_access(entry["access"]),
            )
            for entry in fields["arguments"]
        ]
        return Signature(
            symbol=str(fields["symbol"]),
            arguments=tuple(arguments),
            sizes=sizes,
            packs=tuple(map(_pack, fields["packs"])),
        )


def _flat(argument: Argument, pack: Pack) -> Argument:
    return replace(argument, dtype=pack.dtype, shape=(pack.elements,), strides=(1,))


def _pack(entry: Mapping[str, Any]) -> Pack:
    words = {key: str(entry[key]) for key in ("operand", "symbol", "compute", "layout")}
    return Pack(elements=int(entry["elements"]), dtype=element_name(entry["dtype"]), **words)


def _to_json(numbers: Sequence[int]) -> list[int | str]:
    """An unknown number is its name."""
    return [n.name if isinstance(n, Unknown) else n for n in numbers]


def _from_json(found: Sequence[int | str], sizes: Sequence[str]) -> tuple[int, ...]:
    for name in found:
        if isinstance(name, str) and name not in sizes:
            raise ValueError(f"{name!r} is not a size")
    return tuple(Unknown(n) if isinstance(n, str) else int(n) for n in found)


def element_name(word: object) -> str:
    """`word` if it is an element type; `ValueError` otherwise."""
    if not isinstance(word, str) or word not in ELEMENTS:
        raise ValueError(f"{word!r} is not an element type")
    return word


def _access(word: object) -> Access:
    if word not in ("read", "write", "readwrite"):
        raise ValueError(f"{word!r} is not an access")
    return word


def signature_of(module: ModuleOp) -> Signature:
    """The signature of the only public function with a body in `module`.

    Its arguments are strided memrefs of numbers with offset 0, and behind them sizes of type index.
    They carry the attributes `gemmir.name` and `gemmir.access`, and memrefs `gemmir.sizes` where
    their types leave numbers open. Raises `BackendError`: GEM0410 where there is not one such
    function, GEM0411 where it has results, GEM0412 where an argument is another type, GEM0413 where
    an attribute is missing or wrong, GEM0414 where the output is not the last.
    """
    function = _public_function(module)
    symbol = function.sym_name.data
    if function.function_type.outputs.data:
        raise BackendError(
            "GEM0411", f"function @{symbol} returns values", "store the result into its last memref"
        )
    inputs = function.function_type.inputs.data
    attributes = function.arg_attrs.data if function.arg_attrs else ()
    if len(attributes) != len(inputs):
        raise BackendError(
            "GEM0413",
            f"function @{symbol} has {len(inputs)} arguments, {len(attributes)} with attributes",
            'give each argument {gemmir.name = "…", gemmir.access = "…"}',
        )
    end = _arrays_end(inputs, attributes)
    sizes = tuple(_word(own, "gemmir.name") for own in attributes[end:])
    arguments = tuple(map(_argument, inputs[:end], attributes[:end]))
    _require_last_output(symbol, arguments)
    for argument in arguments:
        for number in (*argument.shape, *argument.strides):
            if isinstance(number, Unknown) and number.name not in sizes:
                raise BackendError(
                    "GEM0413",
                    f"argument {argument.name} has the size {number.name}, which is no argument",
                    "give the function an argument of type index with that name",
                )
    packs = _packs(module, symbol, arguments)
    return Signature(symbol=symbol, arguments=arguments, sizes=sizes, packs=packs)


def _arrays_end(inputs: Sequence[Attribute], attributes: Sequence[DictionaryAttr]) -> int:
    """How many arguments stand before the sizes."""
    from xdsl.dialects.builtin import IndexType, StringAttr

    end, size = len(inputs), StringAttr("size")
    while (
        end
        and isinstance(inputs[end - 1], IndexType)
        and attributes[end - 1].data.get("gemmir.access") == size
    ):
        end -= 1
    return end


def _packs(module: ModuleOp, symbol: str, arguments: tuple[Argument, ...]) -> tuple[Pack, ...]:
    """The operands that functions of `module` pack."""
    from xdsl.dialects.func import FuncOp

    from gemmir.ir.packed import compute_symbol, pack_symbol, packed_elements

    functions = {op.sym_name.data: op for op in module.ops if isinstance(op, FuncOp)}
    found: list[Pack] = []
    for argument in arguments:
        filled = functions.get(pack_symbol(symbol, argument.name))
        if filled is not None:
            of = cast("MemRefType[Attribute]", filled.function_type.inputs.data[-1])
            found.append(
                Pack(
                    operand=argument.name,
                    symbol=filled.sym_name.data,
                    compute=compute_symbol(symbol, argument.name),
                    elements=packed_elements(of),
                    dtype=BY_MLIR[str(of.element_type)].name,
                    layout=str(of),
                )
            )
    return tuple(found)


def _public_function(module: ModuleOp) -> FuncOp:
    from xdsl.dialects.func import FuncOp

    functions = [
        op
        for op in module.body.block.ops
        if isinstance(op, FuncOp)
        and not op.is_declaration
        and (op.sym_visibility is None or op.sym_visibility.data == "public")
    ]
    if len(functions) != 1:
        names = ", ".join(f"@{f.sym_name.data}" for f in functions) or "none"
        raise BackendError(
            "GEM0410",
            f"the module has {len(functions)} public functions with a body ({names})",
            "a kernel is made of exactly one; mark the others private",
        )
    return functions[0]


def _argument(value_type: Attribute, attributes: DictionaryAttr) -> Argument:
    from xdsl.dialects.builtin import MemRefType

    name = _word(attributes, "gemmir.name")
    if not isinstance(value_type, MemRefType):
        raise BackendError("GEM0412", f"argument {name} is {value_type}", "use a memref")
    memref = cast("MemRefType[Attribute]", value_type)
    element = BY_MLIR.get(str(memref.element_type))
    if element is None:
        raise BackendError(
            "GEM0412",
            f"argument {name} has elements of type {memref.element_type}",
            f"use {', '.join(BY_MLIR)}",
        )
    layout = _layout(name, memref, attributes)
    return Argument(
        name=name,
        dtype=element.name,
        shape=layout.shape,
        strides=layout.strides,
        access=_access_of(name, attributes),
    )


def _access_of(name: str, attributes: DictionaryAttr) -> Access:
    word = _word(attributes, "gemmir.access")
    try:
        return _access(word)
    except ValueError as error:
        choices = ", ".join(get_args(Access))
        raise BackendError("GEM0413", f"argument {name}: {error}", f"use {choices}") from error


def _word(attributes: DictionaryAttr, key: str) -> str:
    from xdsl.dialects.builtin import StringAttr

    found = attributes.data.get(key)
    if not isinstance(found, StringAttr):
        raise BackendError("GEM0413", f"an argument has no {key}", f'add {{{key} = "…"}} to it')
    return found.data


def _layout(name: str, memref: MemRefType[Attribute], attributes: DictionaryAttr) -> Layout:
    """The shape and strides in elements; only memrefs at offset 0 can be called with arrays."""
    from xdsl.utils.exceptions import VerifyException

    from gemmir.ir.arguments import layout_of

    try:
        found = layout_of(memref, attributes.data)
    except VerifyException as error:
        raise BackendError(
            "GEM0412",
            f"argument {name} cannot be passed: {error}",
            "use a strided layout with static shape, static strides >= 0 and offset 0, or name "
            "each ? by gemmir.sizes",
        ) from error
    if any(not isinstance(s, Unknown) and s < 0 for s in found.strides):
        raise BackendError(
            "GEM0412", f"argument {name} is {memref}", "use static strides >= 0 and offset 0"
        )
    return found


def _require_last_output(symbol: str, arguments: tuple[Argument, ...]) -> None:
    written = [a.name for a in arguments if a.access != "read"]
    if not arguments or written != [arguments[-1].name]:
        raise BackendError(
            "GEM0414",
            f"function @{symbol} writes {', '.join(written) or 'no argument'}",
            "write the last argument and no other",
        )
