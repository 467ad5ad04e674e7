"""Pieces of kernels for one warpgroup or more: mbarriers, copies of boxes, products.

Shared memory is `tile`, and the mbarriers are those of `bar`, of 8 bytes each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gemmir.backends.ptx.emulator import Report, emulate
from gemmir.launch import TensorMap
from tests.backends.ptx.emulator.ptx import REGISTERS

HEAD = ".version 8.6\n.target sm_90a\n.address_size 64\n"

SHARED = ".shared .align 1024 .b8 tile[65536];\n.shared .align 8 .b8 bar[128];\n"

INIT = """
    setp.ne.u32 %p, %r50, 0;
    @%p bra made;
    mbarrier.init.shared.b64 [bar], {full};
    mbarrier.init.shared.b64 [bar+8], {empty};
    fence.mbarrier_init.release.cluster;
made:
    bar.sync 0;
"""
"""Thread 0 makes two mbarriers."""


def wait(barrier: str, parity: str, label: str) -> str:
    """Spin until a phase of this parity has ended."""
    return (
        f"{label}:\nmbarrier.try_wait.parity.shared::cta.b64 %q, [{barrier}], {parity};\n"
        f"@!%q bra {label};\n"
    )


def load(
    tile: str, coordinates: str, barrier: str, *, tensor: str = "m0", multicast: str = ""
) -> str:
    """A copy of a box into shared memory, in two dimensions."""
    words, last = (".multicast::cluster", f", {multicast}") if multicast else ("", "")
    return (
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
        f"{words} [{tile}], [{tensor}, {{{coordinates}}}], [{barrier}]{last};\n"
    )


def store(tile: str, coordinates: str, *, tensor: str = "m0") -> str:
    """A copy of a box from shared memory, in two dimensions."""
    return (
        "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group "
        f"[{tensor}, {{{coordinates}}}], [{tile}];\n"
    )


def only(threads: str, body: str, label: str) -> str:
    """`body` for the threads of a comparison with %r50, as in `eq 0`."""
    word, number = threads.split()
    skip = f"setp.{word}.u32 %t, %r50, {number};\n@!%t bra {label};\n"
    return f"{skip}{body}{label}:\nbar.warp.sync -1;\n"


def matrix_map(
    array: np.ndarray[Any, Any],
    item: str,
    box: tuple[int, ...],
    *,
    argument: int = 0,
    swizzle: int = 128,
) -> TensorMap:
    """The tensor map of an array whose last dimension is the fastest."""
    return TensorMap(
        argument=argument,
        item=item,
        extents=tuple(reversed(array.shape)),
        strides_bytes=tuple(reversed(array.strides[:-1])),
        box=box,
        swizzle_bytes=swizzle,
    )


def run(
    body: str,
    maps: Sequence[TensorMap],
    arrays: Sequence[np.ndarray[Any, Any]],
    *,
    threads: int = 128,
    blocks: int = 1,
    cluster: int = 0,
    directives: str = "",
    registers: str = "",
    seed: int | None = None,
) -> Report:
    """Run `body` with tensor maps m0, m1 … and pointers %d50, %d51 … to arrays, in place."""
    declared = [f".param .align 64 .b8 m{n}[128]" for n in range(len(maps))]
    declared += [f".param .u64 p{n}" for n in range(len(arrays))]
    loads = "".join(f"ld.param.u64 %d{50 + n}, [p{n}];\n" for n in range(len(arrays)))
    words = f".explicitcluster\n.reqnctapercluster {cluster}, 1, 1\n" if cluster else ""
    text = (
        f"{HEAD}.visible .entry k({', '.join(declared)})\n.reqntid {threads}, 1, 1\n{words}"
        f"{directives}\n{{\n{REGISTERS}{registers}{SHARED}\n{loads}{body}\nret;\n}}\n"
    )
    flat = [np.ascontiguousarray(a).reshape(-1) for a in arrays]
    try:
        return emulate(text, [*maps, *flat], grid=(blocks, 1, 1), block=(threads, 1, 1), seed=seed)
    finally:
        for array, values in zip(arrays, flat, strict=True):
            array[...] = values.reshape(array.shape)
