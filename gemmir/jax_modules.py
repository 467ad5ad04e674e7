"""The way to JAX, which is imported when it is first needed, and which most users of gemmir lack.

Its modules are untyped here: JAX's own types are not complete.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

from gemmir.errors import MissingError

ON_CPU: Final = {"JAX_PLATFORMS": "cpu"}
"""The environment in which JAX looks for no accelerators; it is read when JAX is first used."""


def stay_on_cpu() -> None:
    """Let JAX look for no accelerators in this process, unless its user has said where to look."""
    for name, value in ON_CPU.items():
        os.environ.setdefault(name, value)


def jax() -> Any:
    """The module `jax`; `MissingError` GEM0615 where it is not installed."""
    return _module("jax")


def jnp() -> Any:
    """The module `jax.numpy`; `MissingError` GEM0615 where JAX is not installed."""
    return _module("jax.numpy")


def pallas_tpu() -> Any:
    """The module `jax.experimental.pallas.tpu`; GEM0615 where JAX is not installed."""
    return _module("jax.experimental.pallas.tpu")


def is_traced(value: object) -> bool:
    """Whether a value stands for one that JAX has later."""
    return isinstance(value, _module("jax.core").Tracer)


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingError(
            "GEM0615",
            f"kernels for TPUs need JAX: {error}",
            "pip install gemmir[tpu]",
        ) from error
