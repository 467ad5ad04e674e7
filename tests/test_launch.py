"""How kernels are started: kept as JSON, and refused where a field is missing."""

from __future__ import annotations

import json

import pytest

from gemmir.explain_gpu import launch_lines
from gemmir.launch import KernelLaunch, Launch, TensorMap

MAP = TensorMap(
    argument=1,
    item="tf32",
    extents=(4096, 100, 3),
    strides_bytes=(16384, 1638400),
    box=(32, 128, 1),
    swizzle_bytes=128,
    offset_bytes=64,
)

LAUNCH = Launch(
    kernels=(
        KernelLaunch(symbol="partial", blocks=12, threads=256, shared_bytes=1024),
        KernelLaunch(symbol="combine", blocks=3, threads=128, dynamic_shared_bytes=65536),
        KernelLaunch(symbol="tma", blocks=132, threads=384, tensor_maps=(MAP, MAP), cluster=2),
    ),
    workspace_bytes=(4096, 8),
)


def test_json_brings_the_same_launch_back():
    assert Launch.from_json(LAUNCH.to_json()) == LAUNCH


@pytest.mark.parametrize("field", ["kernels", "workspace_bytes"])
def test_json_without_a_field_is_refused(field: str):
    fields = json.loads(LAUNCH.to_json())
    del fields[field]
    with pytest.raises(KeyError, match=field):
        Launch.from_json(json.dumps(fields))


def test_a_block_has_static_and_dynamic_shared_memory():
    kernel = KernelLaunch(
        symbol="k", blocks=2, threads=32, shared_bytes=16, dynamic_shared_bytes=48
    )
    assert kernel.smem_bytes_per_block == 64
    assert str(kernel) == "2 blocks of 32 threads, 64 bytes of shared memory each"


def test_blocks_are_in_clusters():
    assert str(LAUNCH.kernels[2]).startswith("132 blocks in clusters of 2 of 384 threads")


@pytest.mark.parametrize(
    ("field", "value"), [("item", "f99"), ("item", 3), ("box", 4), ("swizzle_bytes", "wide")]
)
def test_a_tensor_map_of_no_sense_is_refused(field: str, value: object):
    fields = json.loads(LAUNCH.to_json())
    fields["kernels"][2]["tensor_maps"][0][field] = value
    with pytest.raises((TypeError, ValueError)):
        Launch.from_json(json.dumps(fields))


def test_a_box_has_bytes():
    assert MAP.item_bytes == 4
    assert MAP.box_bytes == 32 * 128 * 4


def test_a_tensor_map_is_described():
    assert str(MAP) == (
        "4096x100x3 tf32 with strides of 16384 and 1638400 bytes, by boxes of 32x128x1, swizzled "
        "over 128 bytes"
    )
    lines = list(launch_lines(LAUNCH))
    assert lines[3] == f"           tensor map of argument 1: {MAP}"
    assert lines[-1] == "workspace  4096 + 8 bytes of global memory"
