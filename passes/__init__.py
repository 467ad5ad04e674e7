"""Rewritings of the IR, one a file; the folder is the registry.

A pass knows IR only: no machine, no schedule, no backend.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from xdsl.passes import ModulePass

PREFIX = "gemmir-"


def pass_names() -> tuple[str, ...]:
    """The short names of all passes: those of the files of this folder."""
    return tuple(sorted(m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)))


@cache
def pass_class(name: str) -> type[ModulePass]:
    """The pass called `name`, as in `tile` or `gemmir-tile`; KeyError if there is none."""
    short = name.removeprefix(PREFIX).replace("_", "-")
    if short not in pass_names():
        raise KeyError(name)
    module = importlib.import_module(f"{__name__}.{short.replace('-', '_')}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, ModulePass)
        and value.__module__ == module.__name__
    )
