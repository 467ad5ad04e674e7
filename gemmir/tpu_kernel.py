"""A GEMM compiled for a TPU as a function of JAX.

It is pure: no array is written but a NumPy array that is given as `out`. Shapes and types are
checked when it is called or traced, and before anything runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Final, cast

import numpy as np

from gemmir.backend import Loaded
from gemmir.errors import CallError, MissingError
from gemmir.gemm import Gemm
from gemmir.jax_modules import is_traced, jax, pallas_tpu
from gemmir.kernel import BoundCall, Kernel, Slot
from gemmir.machine import TpuMachine
from gemmir.machine.tpu import tpu_of
from gemmir.measure import LEAST_ROUNDS, Timing, timing_of
from gemmir.signature import Signature
from gemmir.tpu_derivative import differentiable

TPU: Final = "tpu"
"""What JAX calls the platform."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a kernel runs, and how those of its derivative are made.

    `interpret` is that of `pl.pallas_call`: False for a TPU, True or `pltpu.InterpretParams` to run
    on any device. `problem` is None where it is not known. `compile` makes a kernel that runs in
    the same way.
    """

    machine: TpuMachine
    interpret: Any
    problem: Gemm | None
    compile: Callable[[Gemm], Kernel]


class TpuKernel(Kernel):
    """A compiled function of arrays, on a TPU or in Pallas's interpreter.

    `kernel(a, b, bias)` takes arrays of JAX or NumPy, in the order of the signature or by name, and
    returns an array of JAX. Where C is read, `out=c` gives its old values, and the result is the
    new C. Where `out` is a NumPy array the result is copied into it, and it is returned.

    It may be called under `jax.jit`, `jax.vmap`, `jax.grad`, `jax.vjp` and `shard_map`. The
    products of its derivative are kernels of gemmir too. There is no forward-mode derivative.
    """

    def __init__(self, loaded: Loaded, signature: Signature, way: Way) -> None:
        super().__init__(loaded, signature)
        if not isinstance(way.interpret, bool | pallas_tpu().InterpretParams):
            raise CallError(
                "GEM0546",
                f"interpret={way.interpret!r}",
                "use True, or pltpu.InterpretParams(…), or False on a TPU",
            )
        self.way = way

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function of arrays of JAX alone, C last where it is read; jitted, and not checked."""
        plain = _batched(partial(self._entry, interpret=self.way.interpret))
        return jax().jit(differentiable(plain, self.way.problem, self.way.compile))

    def __call__(self, *operands: object, out: Any = None, **named: object) -> Any:
        """The result for `operands`; `out` where that is a NumPy array."""
        values = self._checked(operands, named, out)
        if not any(is_traced(value) for value in values):
            self._require_device(values)
        result = self.function(*values)
        if not isinstance(out, np.ndarray):
            return result
        out[...] = _host_copy(self._output.name, result)
        return cast("Any", out)

    def bind(self, *operands: object, out: Any = None, **named: object) -> BoundCall:
        """The call of these arrays as a function without arguments, into `out` or a NumPy array.

        Arrays of JAX never change; so it is for NumPy arrays, whose elements may.
        """
        target = self._new_output() if out is None else out
        self._checked(operands, named, target)
        ordered = self._in_order(operands, named)

        def run() -> int:
            self(*ordered, out=target)
            return 0

        return BoundCall(self, run, (), ordered, target)

    def measure(self, *operands: Any, out: Any = None, seconds: float = 1.0) -> Timing:
        """Time calls on arrays that are on the device, each until its result is there."""
        values = [jax().device_put(value) for value in self._checked(operands, {}, out)]
        self._require_device(values)

        def timed() -> float:
            start = time.perf_counter()
            jax().block_until_ready(self.function(*values))
            return time.perf_counter() - start

        timed()
        end = time.perf_counter() + seconds
        times = [timed() for _ in range(LEAST_ROUNDS)]
        while time.perf_counter() < end:
            times.append(timed())
        return timing_of(times)

    def _checked(
        self, operands: tuple[object, ...], named: Mapping[str, object], out: Any
    ) -> list[Any]:
        """The arrays of a call in order, C last where it is read; none is wrong."""
        if out is None:
            if self._needs_out:
                self._require_out()
        elif not self._needs_out and not isinstance(out, np.ndarray):
            raise CallError(
                "GEM0541",
                f"out is a {type(out).__name__}, which cannot be written",
                f"leave out= away: the call returns {self._output.name}",
            )
        values = list(self._in_order(operands, named))
        for slot, value in zip(self._inputs, values, strict=True):
            _check(slot, value)
        if out is not None:
            _check(self._output, out)
        if isinstance(out, np.ndarray) and not out.flags.writeable:
            raise CallError("GEM0542", f"{self._output.name} is read-only", "pass a writable array")
        return [*values, out] if self._needs_out else values

    def _require_device(self, values: Sequence[Any]) -> None:
        """`MissingError` where the arrays are not where the kernel can run.

        GEM0613 where that is no TPU, and GEM0614 where it is one of another generation.
        """
        if self.way.interpret is not False:
            return
        machine = self.way.machine
        placed = (d for v in values if not isinstance(v, np.ndarray) for d in v.devices())
        device: Any = next(placed, None) or jax().devices()[0]
        if device.platform != TPU:
            raise MissingError(
                "GEM0613",
                f"a kernel for {machine.target} on {device.platform}",
                "interpret=True, or gemmir run --interpret, runs it in Pallas's interpreter",
            )
        there = tpu_of(device.device_kind)
        if there != machine:
            raise MissingError(
                "GEM0614",
                f"a kernel for {machine.product} ({machine.device_kind}) on {device.device_kind}",
                f"compile for {there.target}" if there else "there is no target for that device",
            )


def _batched(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which `jax.vmap` makes many of at once where JAX can, or else one by one.

    Pallas gives the grid of a kernel one more dimension. JAX 0.10.2 cannot where an operand is in
    VMEM as a whole.
    """
    result: Any = jax().custom_batching.custom_vmap(function)

    def rule(count: int, is_batched: Sequence[bool], *arrays: Any) -> tuple[Any, bool]:
        axes = [0 if batched else None for batched in is_batched]
        try:
            return _batched(jax().vmap(function, axes, axis_size=count))(*arrays), True
        except NotImplementedError:
            moving = [x for x, axis in zip(arrays, axes, strict=True) if axis == 0]

        def one(parts: Sequence[Any]) -> Any:
            rest = iter(parts)
            own = (next(rest) if axis == 0 else x for x, axis in zip(arrays, axes, strict=True))
            return result(*own)

        return jax().lax.map(one, moving), True

    result.def_vmap(rule)
    return result


def _check(slot: Slot, value: Any) -> None:
    """`CallError` where an array does not fit; nothing is converted."""
    kinds: tuple[Any, ...] = (jax().Array, np.ndarray)
    if not isinstance(value, kinds):
        raise CallError(
            "GEM0540",
            f"{slot.name} is a {type(value).__name__}, not an array of JAX or NumPy",
            "pass jnp.asarray(value)",
        )
    slot.check_type(value.dtype)
    slot.check_shape(value.shape)


def _host_copy(name: str, result: Any) -> Any:
    """A result in the memory of the CPU."""
    if is_traced(result):
        raise CallError(
            "GEM0543",
            f"out={name} is a NumPy array, and the call is traced by JAX, which runs it later",
            "leave out= away, or pass an array of JAX",
        )
    return np.asarray(result)
