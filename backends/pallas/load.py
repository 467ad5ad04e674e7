"""Python files with Pallas kernels into this process.

The text itself is run as a module, under a name of its own; tracebacks show its lines as those of
a file. A user who has saved it imports it as any other file.
"""

from __future__ import annotations

import hashlib
import linecache
import types
from typing import Any

from gemmir import jax_modules
from gemmir.backend import Loaded
from gemmir.backends.pallas.names import python_name
from gemmir.errors import BackendError
from gemmir.signature import Signature


def load(object_bytes: bytes, signature: Signature) -> Loaded:
    """The function of a file that `assemble` made, of arrays of JAX; `owner` are its globals.

    Raises `MissingError` where JAX is not installed, and `BackendError` GEM0473 where the text is
    no such file.
    """
    function = function_of(object_bytes.decode(), signature.symbol)
    return Loaded(entry=function, owner=function.__globals__)


def function_of(text: str, symbol: str) -> types.FunctionType:
    """The function of a file; errors as `load`."""
    found: Any = getattr(module_of(text, symbol), python_name(symbol))
    assert isinstance(found, types.FunctionType)
    return found


def module_of(text: str, symbol: str) -> types.ModuleType:
    """The module that `text` is; the same text has the same name."""
    jax_modules.jax()
    name = f"{python_name(symbol)}_{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    file = f"<gemmir {name}.py>"
    module = types.ModuleType(name)
    module.__file__ = file
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)
    try:
        exec(compile(text, file, "exec"), module.__dict__)
        module.__dict__[python_name(symbol)]
    except Exception as error:
        raise BackendError(
            "GEM0473", f"the file of {symbol} is not one of gemmir's: {error!r}"
        ) from error
    return module
