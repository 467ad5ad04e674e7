"""A pass whose parameters may be words of Python, as `with` and `as` are."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass
from keyword import iskeyword
from typing import Self

from xdsl.passes import ModulePass
from xdsl.utils.arg_spec import ArgSpec


@dataclass(frozen=True)
class KeywordPass(ModulePass, ABC):
    """A pass whose text form has `with` where it has the field `with_`."""

    @classmethod
    def from_spec(cls, spec: ArgSpec) -> Self:
        """The pass of a text form."""
        fields = {f"{k}_" if iskeyword(k) else k: v for k, v in spec.parameters.items()}
        return super().from_spec(ArgSpec(spec.name, fields))

    def spec(self, *, include_default: bool = False) -> ArgSpec:
        """The text form of this pass."""
        made = super().spec(include_default=include_default)
        return ArgSpec(made.name, {k.rstrip("_"): v for k, v in made.parameters.items()})
