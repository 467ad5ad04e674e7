"""Numbers of a problem that are known only when its kernel is called.

`ANY` stands for one in `Gemm`. It is an int, so that sizes are ints everywhere, but one that nobody
can compute with by mistake: arithmetic on it is a `ProblemError` that names it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from gemmir.errors import ProblemError


class Unknown(int):
    """A number that is known when a kernel is called; `name` is that of the argument that has it.

    Two are equal that have one name; no other number is equal to one. It is not 0: nothing may be
    left out because of it.
    """

    name: str

    def __new__(cls, name: str = "") -> Unknown:
        """One named `name`."""
        made = super().__new__(cls, -1)
        made.name = name
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unknown) and other.name == self.name

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash((Unknown, self.name))

    def __bool__(self) -> bool:
        return True

    def __repr__(self) -> str:
        return "ANY"

    def __str__(self) -> str:
        return "any"

    def __format__(self, spec: str) -> str:
        return format("any", "")

    def __reduce__(self) -> tuple[type[Unknown], tuple[str]]:
        return Unknown, (self.name,)


def _refuse(self: Unknown, *others: object) -> NoReturn:
    name = self.name or "a size"
    raise ProblemError(
        "GEM1351",
        f"{name} is known only when the kernel is called",
        f"give the number, as by gemm.at({self.name or 'm'}=64)",
    )


_ARITHMETIC: Final = (
    "add radd sub rsub mul rmul truediv rtruediv floordiv rfloordiv mod rmod divmod rdivmod pow "
    "rpow neg pos abs lt le gt ge and rand or ror xor rxor lshift rlshift rshift rrshift invert "
    "float int round trunc floor ceil"
)
"""Methods of a number, without their underscores."""

for _word in _ARITHMETIC.split(" "):
    setattr(Unknown, f"__{_word}__", _refuse)

ANY: Final[Any] = Unknown()
"""In place of m, n, k, lda, ldb, ldc, alpha or beta of `Gemm`: what a caller passes."""


def known(values: Iterable[int], decide: Callable[[Unknown], int]) -> tuple[int, ...]:
    """`values` with what `decide` makes of those that are unknown."""
    return tuple(decide(v) if isinstance(v, Unknown) else v for v in values)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The shape and strides in elements of an array, or what a function states of them."""

    name: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def unknown(self) -> tuple[str, ...]:
        """The names of what is unknown."""
        return tuple(n.name for n in (*self.shape, *self.strides) if isinstance(n, Unknown))


class DisagreementError(ValueError):
    """Two arrays say different things of one size."""


def sizes_of(
    names: Iterable[str], stated: Iterable[Layout], found: Iterable[Layout]
) -> dict[str, int]:
    """The sizes `names` where arrays lie as `found` whose layouts are `stated`.

    The stride of a dimension of at most one element says nothing; a distance of rows that no array
    says is the length of a row. Raises `DisagreementError`.
    """
    sizes: dict[str, int] = {}
    origins: dict[str, str] = {}
    lengths: dict[str, int] = {}

    def note(size: int, value: int, what: str) -> None:
        if not isinstance(size, Unknown):
            return
        if sizes.setdefault(size.name, value) != value:
            raise DisagreementError(
                f"{size.name} is {sizes[size.name]} by {origins[size.name]} and {value} by {what}"
            )
        origins.setdefault(size.name, what)

    pairs = list(zip(stated, found, strict=True))
    for own, array in pairs:
        for size, value in zip(own.shape, array.shape, strict=True):
            note(size, value, f"the shape of {own.name}")
    for own, array in pairs:
        for size, value, extent in zip(own.strides, array.strides, array.shape, strict=True):
            if extent > 1 and 0 not in array.shape:
                note(size, value, f"the strides of {own.name}")
            elif isinstance(size, Unknown):
                lengths[size.name] = max(array.shape[-1], 1)
    return {name: sizes.get(name, lengths.get(name, 1)) for name in names}
