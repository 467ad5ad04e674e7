"""A GEMM compiled for a GPU as a callable: arrays on the GPU where they lie, others copied over.

The arrays are checked as those of a kernel on the CPU are, and before anything runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from gemmir.backend import Loaded
from gemmir.backends.ptx.driver import LEGACY_STREAM, Driver, Gpu, Memory, runs
from gemmir.backends.ptx.load import Program
from gemmir.device_arrays import (
    DeviceArray,
    DeviceView,
    is_from,
    new_like,
    new_tensor,
    torch_key,
    view_of,
)
from gemmir.dtypes import restrided
from gemmir.errors import CallError, MissingError
from gemmir.kernel import BoundCall, Kernel, Slot
from gemmir.machine import GpuMachine, targets
from gemmir.measure import LEAST_ROUNDS, Timing, timing_of
from gemmir.signature import Signature

Array = npt.NDArray[Any]

ALIGNMENT_BYTES: Final = 16
"""What a kernel takes for granted of an address on the GPU, since it loads 128 bits at once."""

REMEMBERED: Final = 256
"""Calls with tensors of PyTorch that a kernel keeps, each by the addresses of its tensors."""

TIMED_SECONDS: Final = 1e-3
"""One timing is of about so much work: the clock of the events ticks every 0.5 us."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A call that is ready: `run` starts it, `result` is what it returns, `kept` what it needs."""

    run: Callable[[], int]
    result: Any
    kept: Sequence[object]


class GpuKernel(Kernel):
    """A compiled function of arrays, on a GPU.

    Called as every kernel is. Arrays on a GPU, of PyTorch, CuPy, JAX or any library with
    `__dlpack__` or `__cuda_array_interface__`, are used where they lie; the kernel is then only
    started, on the stream on which the library of `out`, or of the first operand, works. Without
    `out` the result is an array of that library too, or a `DeviceArray`. NumPy arrays are copied to
    the GPU and the result back. A bound call stays on the stream it was bound on.
    """

    def __init__(self, loaded: Loaded, signature: Signature) -> None:
        super().__init__(loaded, signature)
        assert isinstance(loaded.owner, Program)
        self._program = loaded.owner
        self._driver = self._program.driver
        self._starts: dict[Hashable, Callable[[], int]] = {}

    def __call__(self, *operands: object, out: Any = None, **named: object) -> Any:
        """Run on `operands`; returns `out`, or a new array where it is None."""
        target = self._tensor_like(operands) if out is None and not named else out
        key = None if named else torch_key((*operands, target))
        start = None if key is None else self._starts.get(key)
        if start is not None:
            start()
            return target
        prepared = self._prepare(self._in_order(operands, named), target)
        prepared.run()
        if key is not None:
            self._remember(key, prepared.run)
        if target is None and isinstance(prepared.result, DeviceArray):
            return _as_library(prepared.result, operands or tuple(named.values()))
        return prepared.result

    def _tensor_like(self, operands: Sequence[object]) -> Any:
        """An output where the first operand is a tensor of PyTorch on a GPU, otherwise None."""
        first: Any = operands[0] if operands else None
        if self._needs_out or not is_from("torch", first) or first.device.type != "cuda":
            return None
        slot = self._output
        return new_tensor(first, slot.dtype, slot.shape, slot.strides)

    def _remember(self, key: Hashable, start: Callable[[], int]) -> None:
        """Keep how tensors like these are started: an allocator gives the same addresses again."""
        if len(self._starts) >= REMEMBERED:
            self._starts.clear()
        self._starts[key] = start

    def bind(self, *operands: object, out: Any = None, **named: object) -> BoundCall:
        """The call of these arrays as a function without arguments, checked now and not again."""
        prepared = self._prepare(self._in_order(operands, named), out)
        return BoundCall(self, prepared.run, (), prepared.kept, prepared.result)

    def measure(self, *operands: Array, out: Array, seconds: float = 1.0) -> Timing:
        """Time the kernel alone, by events of the GPU, on copies of NumPy arrays there.

        One timing is of as many launches as take a millisecond. The operands are as warm in the
        GPU's caches as the launch before left them.
        """
        copies = self._copies(self._check(operands, {}, out)[0])
        start, driver = copies.start, self._driver

        def timed(count: int) -> float:
            first = driver.record()
            for _ in range(count):
                start()
            return driver.seconds(first, driver.record()) / count

        with driver.use(copies.gpu):
            copies.send()
            timed(1)
            count = max(int(TIMED_SECONDS / max(timed(1), 1e-9)), 1)
            end = time.perf_counter() + seconds
            times = [timed(count) for _ in range(LEAST_ROUNDS)]
            while time.perf_counter() < end:
                times.append(timed(count))
        return timing_of(times)

    def _prepare(self, operands: tuple[object, ...], out: Any) -> _Prepared:
        names = [slot.name for slot in (*self._inputs, self._output)]
        given = dict(zip(names, (*operands, out), strict=True))
        views = {name: view_of(name, value, self._driver) for name, value in given.items()}
        on_gpu = {name: view for name, view in views.items() if view is not None}
        if not on_gpu:
            return self._from_host(operands, out)
        _require_one_place(given, on_gpu)
        return self._in_place(operands, out, on_gpu)

    def _in_place(
        self, operands: tuple[object, ...], out: Any, views: dict[str, DeviceView]
    ) -> _Prepared:
        """Start the kernel on the arrays themselves."""
        last = self._output.name
        if out is None:
            out = self._new_on_gpu(operands[0], views[self._inputs[0].name])
            made = view_of(last, out, self._driver)
            assert made is not None
            views[last] = made
        order = [views[slot.name] for slot in (*self._inputs, self._output)]
        shadows = [view.shadow for view in order]
        _, addresses = self._check(tuple(shadows[:-1]), {}, shadows[-1])
        for slot, address in zip((*self._inputs, self._output), addresses, strict=True):
            _require_alignment(slot.name, address if slot.span else 0)
        gpu, stream = order[-1].gpu, order[-1].stream
        others = sorted({view.stream for view in order} - {stream})
        start = self._program.bind(addresses, gpu=gpu, stream=stream)

        def run_between() -> int:
            """Behind what other streams do to the arrays now, and before what they do next."""
            with self._driver.use(gpu):
                for other in others:
                    self._driver.wait(stream, other)
                start()
                for other in others:
                    self._driver.wait(other, stream)
            return 0

        return _Prepared(run=run_between if others else start, result=out, kept=order)

    def _new_on_gpu(self, like: object, view: DeviceView) -> Any:
        """An output of the library of `like`, on the same GPU and stream."""
        self._require_out()
        slot, driver = self._output, self._driver

        def own() -> DeviceArray:
            layout = slot.dtype, slot.shape, slot.strides, slot.span
            return DeviceArray(driver, view.gpu, view.stream, *layout)

        return new_like(like, slot.dtype, slot.shape, slot.strides, slot.span, own)

    def _from_host(self, operands: tuple[object, ...], out: Any) -> _Prepared:
        """Copy over, run, wait, and only then copy back."""
        target = self._new_output() if out is None else out
        copies = self._copies(self._check(operands, {}, target)[0])

        def run() -> int:
            with self._driver.use(copies.gpu):
                copies.send()
                copies.start()
                self._driver.synchronize(LEGACY_STREAM)
                copies.receive()
            return 0

        return _Prepared(run=run, result=target, kept=[copies])

    def _copies(self, arrays: Sequence[Array]) -> _Copies:
        """Room on the GPU for arrays of the CPU that have been checked."""
        gpu, driver = self._program.first_gpu, self._driver
        slots = (*self._inputs, self._output)
        memories = tuple(Memory(driver, gpu, slot.span) for slot in slots)
        return _Copies(
            driver=driver,
            gpu=gpu,
            arrays=tuple(arrays),
            flats=tuple(_flat(array, slot.span) for array, slot in zip(arrays, slots, strict=True)),
            memories=memories,
            are_read=tuple(argument.access != "write" for argument in self.signature.arguments),
            output=self._output,
            start=self._program.bind([memory.address for memory in memories], gpu=gpu),
        )


@dataclass(frozen=True, kw_only=True)
class _Copies:
    """Arrays of the CPU with room for each on a GPU; `flats` are the bytes of the arrays."""

    driver: Driver
    gpu: int
    arrays: tuple[Array, ...]
    flats: tuple[Array, ...]
    memories: tuple[Memory, ...]
    are_read: tuple[bool, ...]
    output: Slot
    start: Callable[[], int]

    def send(self) -> None:
        """Copy what the kernel reads."""
        for flat, memory, is_read in zip(self.flats, self.memories, self.are_read, strict=True):
            if is_read and flat.size:
                self.driver.copy_in(memory.address, flat)

    def receive(self) -> None:
        """Copy the output back; between the rows of a padded one lies what is not ours to write."""
        array, flat, address = self.arrays[-1], self.flats[-1], self.memories[-1].address
        if not flat.size:
            return
        if self.output.is_packed:
            self.driver.copy_out(flat, address)
            return
        room = np.empty(flat.size, np.uint8)
        self.driver.copy_out(room, address)
        array[...] = np.ndarray(array.shape, array.dtype, room, strides=self.output.strides)


def target_for(gpu: Gpu) -> str:
    """The newest target whose code `gpu` runs; GEM0611 where it is older than all."""
    machines = [m for _, m in targets() if isinstance(m, GpuMachine)]
    found = [m.target for m in machines if runs(m.llvm_cpu, gpu)]
    if not found:
        raise MissingError(
            "GEM0611",
            f"{gpu.name} ({gpu.sm}) is older than every target",
            f"the oldest is {machines[0].target}",
        )
    return found[-1]


def _flat(array: Array, span: int) -> Array:
    """The bytes from the first element of `array` to its last."""
    if not span:
        return np.empty(0, np.uint8)
    itemsize = array.dtype.itemsize
    return restrided(array, (span // itemsize,), (itemsize,)).view(np.uint8)


def _require_one_place(given: Mapping[str, object], views: Mapping[str, DeviceView]) -> None:
    places = {
        name: f"GPU {views[name].gpu}" if name in views else "the CPU"
        for name, value in given.items()
        if value is not None
    }
    if len(set(places.values())) == 1:
        return
    said = ", ".join(f"{name} on {place}" for name, place in places.items())
    raise CallError(
        "GEM0521", f"the arrays are in different memories: {said}", "move all to one GPU"
    )


def _require_alignment(name: str, address: int) -> None:
    if address % ALIGNMENT_BYTES:
        raise CallError(
            "GEM0523",
            f"{name} starts at address {address:#x} of the GPU, which is not a multiple of "
            f"{ALIGNMENT_BYTES} bytes",
            "pass a copy",
        )


def _as_library(made: DeviceArray, operands: Sequence[object]) -> Any:
    """A result as an array of JAX, whose arrays cannot be made empty and then written."""
    first = operands[0] if operands else None
    if first is None or not (is_from("jaxlib", first) or is_from("jax", first)):
        return made
    return import_module("jax.dlpack").from_dlpack(made)
