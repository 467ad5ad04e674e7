"""Arrays in the memory of a GPU, of whatever library, as a kernel sees them.

An array is described by a NumPy array over its address, a shadow, which is never read or written:
NumPy can tell of it all that is checked of an array on the CPU.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import ml_dtypes
import numpy as np
import numpy.typing as npt

from gemmir import dlpack
from gemmir.backends.ptx.driver import LEGACY_STREAM, Driver, Memory
from gemmir.errors import CallError

Array = npt.NDArray[Any]

NO_SYNCHRONISATION: Final = -1
"""What DLPack takes for a stream where the two sides agree by themselves."""

BF16_BY_INTERFACE: Final = "<V2"
"""bf16 in `__cuda_array_interface__`, which has no name for it: NumPy's, of ml_dtypes' type."""


@dataclass(frozen=True, kw_only=True)
class DeviceView:
    """One array on a GPU: its shadow, the GPU, and the stream on which its library works.

    `owner` keeps the memory.
    """

    shadow: Array
    gpu: int
    stream: int
    owner: object


def view_of(name: str, value: object, driver: Driver) -> DeviceView | None:
    """`value` as an array on a GPU, or None where it is in the memory of the CPU.

    Raises `CallError` GEM0522 where it is on a GPU and cannot be shared.
    """
    if isinstance(value, np.ndarray) or value is None:
        return None
    try:
        if _is_on_gpu(value):
            return _by_dlpack(value)
        interface = getattr(value, "__cuda_array_interface__", None)
        return None if interface is None else _by_interface(value, interface, driver)
    except (AttributeError, BufferError, RuntimeError, TypeError, ValueError) as error:
        raise CallError(
            "GEM0522",
            f"{name} is a {type(value).__name__} on a GPU that cannot be shared: {error}",
            "pass a plain array of numbers, such as a torch.Tensor after detach()",
        ) from error


def _is_on_gpu(value: Any) -> bool:
    device = getattr(value, "__dlpack_device__", None)
    return device is not None and device()[0] in (dlpack.CUDA, dlpack.CUDA_MANAGED)


def _by_dlpack(value: Any) -> DeviceView:
    """The library of `value` makes its stream known, or makes the default stream wait."""
    gpu = int(value.__dlpack_device__()[1])
    stream = _stream_of(value, gpu)
    ask = NO_SYNCHRONISATION if stream is not None else LEGACY_STREAM
    found = dlpack.read(_capsule(value, ask))
    return DeviceView(
        shadow=shadow(found.address, found.dtype, found.shape, found.strides, found.is_read_only),
        gpu=gpu,
        stream=LEGACY_STREAM if stream is None else stream,
        owner=(value, found.capsule),
    )


def _capsule(value: Any, stream: int) -> object:
    """With a version, which can tell that an array may only be read, where the library has one."""
    try:
        return value.__dlpack__(stream=stream, max_version=(1, 0))
    except TypeError:
        return value.__dlpack__(stream=stream)


def _by_interface(value: Any, interface: dict[str, Any], driver: Driver) -> DeviceView:
    address, read_only = interface["data"]
    shape = tuple(int(n) for n in interface["shape"])
    named = interface["typestr"]
    dtype = np.dtype(ml_dtypes.bfloat16) if named == BF16_BY_INTERFACE else np.dtype(named)
    strides = interface.get("strides")
    if strides is None:
        strides = tuple(s * dtype.itemsize for s in dlpack.packed_strides(shape))
    if interface.get("mask") is not None:
        raise ValueError("it has a mask, which is not read")
    return DeviceView(
        shadow=shadow(int(address or 0), dtype, shape, strides, bool(read_only)),
        gpu=driver.current(),
        stream=interface.get("stream") or LEGACY_STREAM,
        owner=value,
    )


def _stream_of(value: Any, gpu: int) -> int | None:
    """The stream on which the library of `value` works now, None where it does not tell."""
    if is_from("torch", value):
        return int(sys.modules["torch"].cuda.current_stream(gpu).cuda_stream) or LEGACY_STREAM
    if is_from("cupy", value):
        return int(sys.modules["cupy"].cuda.get_current_stream().ptr) or LEGACY_STREAM
    if isinstance(value, DeviceArray):
        return value.stream
    return None


def is_from(library: str, value: object) -> bool:
    """Whether the class of `value` is one of `library`, which is imported then."""
    return type(value).__module__.split(".")[0] == library and library in sys.modules


def torch_key(values: Sequence[Any]) -> Hashable | None:
    """All that is checked of these tensors, and their stream; None where one is none of PyTorch's.

    It takes 2 us, and looking at the arrays by DLPack 50.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    kind, parts = torch.Tensor, list[Hashable]()
    for value in values:
        if type(value) is not kind or value.requires_grad:
            return None
        parts += (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device)
    device = parts[-1] if parts else None
    if getattr(device, "type", None) != "cuda":
        return None
    parts.append(torch.cuda.current_stream(device).cuda_stream)
    return tuple(parts)


def shadow(
    address: int,
    dtype: np.dtype[Any],
    shape: Sequence[int],
    strides: Sequence[int],
    is_read_only: bool,
) -> Array:
    """A NumPy array over memory that NumPy cannot reach; strides in bytes."""
    raw = SimpleNamespace(
        __array_interface__={
            "version": 3,
            "data": (address, is_read_only),
            "typestr": f"|V{dtype.itemsize}",
            "shape": tuple(shape),
            "strides": tuple(strides),
        }
    )
    return np.asarray(raw).view(dtype)


class DeviceArray:
    """An array on a GPU that gemmir made, since no library was there to make it.

    Other libraries take it by `__dlpack__` or `__cuda_array_interface__` without a copy; `numpy()`
    copies it to the CPU.
    """

    def __init__(
        self,
        driver: Driver,
        gpu: int,
        stream: int,
        dtype: np.dtype[Any],
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        span_bytes: int,
    ) -> None:
        self.dtype = dtype
        self.shape = shape
        self.gpu = gpu
        self.stream = stream
        self._strides = strides
        self._span_bytes = span_bytes
        self._driver = driver
        self._memory = Memory(driver, gpu, span_bytes)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "version": 3,
            "data": (self._memory.address, False),
            "typestr": self.dtype.str,
            "shape": self.shape,
            "strides": self._strides,
            "stream": self.stream,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, self.gpu

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> object:
        """A capsule without a version, which every consumer must take, whatever `max_version`."""
        if dl_device not in (None, self.__dlpack_device__()) or copy:
            raise BufferError("the array is shared where it lies, and not copied")
        wanted = stream or LEGACY_STREAM
        if wanted not in (NO_SYNCHRONISATION, self.stream):
            with self._driver.use(self.gpu):
                self._driver.wait(wanted, self.stream)
        itemsize = self.dtype.itemsize
        strides = [s // itemsize for s in self._strides]
        address = self._memory.address
        return dlpack.make(address, self.dtype, self.shape, strides, self.gpu, self._memory)

    def numpy(self) -> Array:
        """A copy in the memory of the CPU, when all work on it is done."""
        flat = np.empty(self._span_bytes, np.uint8)
        with self._driver.use(self.gpu):
            self._driver.synchronize(self.stream)
            if flat.size:
                self._driver.copy_out(flat, self._memory.address)
        return np.ndarray(self.shape, self.dtype, flat, strides=self._strides)

    def __repr__(self) -> str:
        return f"<DeviceArray {self.dtype.name}{list(self.shape)} on GPU {self.gpu}>"


def new_tensor(
    like: Any, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...]
) -> Any:
    """A new tensor of PyTorch where `like` is; strides in bytes."""
    torch = sys.modules["torch"]
    counts = tuple(s // dtype.itemsize for s in strides)
    kind = getattr(torch, dtype.name)
    return torch.empty_strided(shape, counts, dtype=kind, device=like.device)


def new_like(
    like: Any,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    span_bytes: int,
    own: Callable[[], DeviceArray],
) -> Any:
    """A new array of the library of `like`, where that is PyTorch or CuPy; otherwise `own()`."""
    if is_from("torch", like):
        return new_tensor(like, dtype, shape, strides)
    if is_from("cupy", like) and dtype.kind == "f":
        cupy = sys.modules["cupy"]
        room = cupy.empty(max(span_bytes, 1), np.uint8)
        return cupy.ndarray(shape, dtype, memptr=room.data, strides=strides)
    return own()
