"""How the kernels of a GPU are launched: blocks, threads, shared memory and tensor maps.

It is kept as JSON beside the code.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gemmir.dtypes import ELEMENTS, Precision
from gemmir.signature import element_name


@dataclass(frozen=True, kw_only=True)
class TensorMap:
    """How the copy engine of a GPU sees an array: a CUtensorMap, tiled, before it is encoded.

    `argument` is an index among the pointers of the kernel; the map begins `offset_bytes` behind
    that one. `item` is an element type, or `tf32` for f32 that is rounded when it is copied.
    `extents` and `box`, what one copy moves, have the fastest dimension first; `strides_bytes` are
    those of all dimensions but that one, whose elements lie side by side. Rows of a box, 128 bytes
    at most, are swizzled over `swizzle_bytes` of shared memory, 0 for not at all. What a copy reads
    outside the array is zero.
    """

    argument: int
    item: str
    extents: tuple[int, ...]
    strides_bytes: tuple[int, ...]
    box: tuple[int, ...]
    swizzle_bytes: int
    offset_bytes: int = 0

    @property
    def item_bytes(self) -> int:
        """Bytes of one element."""
        return ELEMENTS["f32" if self.item == Precision.TF32 else self.item].item_bytes

    @property
    def box_bytes(self) -> int:
        """What one copy brings."""
        return math.prod(self.box) * self.item_bytes

    def __str__(self) -> str:
        extents, box = ("x".join(map(str, sides)) or "none" for sides in (self.extents, self.box))
        strides = " and ".join(map(str, self.strides_bytes)) or "no"
        return (
            f"{extents} {self.item} with strides of {strides} bytes, by boxes of {box}, swizzled "
            f"over {self.swizzle_bytes} bytes"
        )


@dataclass(frozen=True, kw_only=True)
class KernelLaunch:
    """How one kernel is started on a GPU: its symbol, blocks of the grid, threads of a block.

    Blocks and threads are both along x. `shared_bytes` is the static shared memory of a block,
    which the text declares; `dynamic_shared_bytes` is what the launch adds to it. The first
    parameters are `tensor_maps`, each by value in 128 bytes that are aligned to 64. So many blocks
    in a row are a `cluster`, which the text declares too.
    """

    symbol: str
    blocks: int
    threads: int
    shared_bytes: int = 0
    dynamic_shared_bytes: int = 0
    tensor_maps: tuple[TensorMap, ...] = ()
    cluster: int = 1

    @property
    def smem_bytes_per_block(self) -> int:
        """All shared memory of a block."""
        return self.shared_bytes + self.dynamic_shared_bytes

    def __str__(self) -> str:
        clusters = f" in clusters of {self.cluster}" if self.cluster > 1 else ""
        return (
            f"{self.blocks} blocks{clusters} of {self.threads} threads, "
            f"{self.smem_bytes_per_block} bytes of shared memory each"
        )


@dataclass(frozen=True, kw_only=True)
class Launch:
    """The kernels of an artifact, which run one after the other on the same arrays.

    Each takes its tensor maps, then the pointers of all arrays in the order of the signature, and
    then one to each workspace: global memory that holds nothing before the first kernel, and what
    one kernel leaves in it for the next. A workspace is aligned to 256 bytes. A kernel without
    blocks is left out.
    """

    kernels: tuple[KernelLaunch, ...]
    workspace_bytes: tuple[int, ...] = ()

    def to_json(self) -> str:
        """This launch as JSON text."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @staticmethod
    def from_json(text: str) -> Launch:
        """The launch that `to_json` wrote; `ValueError`, `KeyError` or `TypeError` otherwise."""
        fields = json.loads(text)
        kernels = tuple(map(_kernel_launch, fields["kernels"]))
        return Launch(kernels=kernels, workspace_bytes=_integers(fields["workspace_bytes"]))


def _kernel_launch(entry: Mapping[str, Any]) -> KernelLaunch:
    return KernelLaunch(
        symbol=str(entry["symbol"]),
        blocks=int(entry["blocks"]),
        threads=int(entry["threads"]),
        shared_bytes=int(entry["shared_bytes"]),
        dynamic_shared_bytes=int(entry["dynamic_shared_bytes"]),
        tensor_maps=tuple(map(_tensor_map, entry["tensor_maps"])),
        cluster=int(entry["cluster"]),
    )


def _tensor_map(entry: Mapping[str, Any]) -> TensorMap:
    return TensorMap(
        argument=int(entry["argument"]),
        item=_item(entry["item"]),
        extents=_integers(entry["extents"]),
        strides_bytes=_integers(entry["strides_bytes"]),
        box=_integers(entry["box"]),
        swizzle_bytes=int(entry["swizzle_bytes"]),
        offset_bytes=int(entry["offset_bytes"]),
    )


def _item(word: object) -> str:
    return Precision.TF32.value if word == Precision.TF32 else element_name(word)


def _integers(values: Sequence[Any]) -> tuple[int, ...]:
    return tuple(int(n) for n in values)
