"""How kernels are started: kept as JSON, and refused where a field is missing."""

from __future__ import annotations

import json

import pytest

from gemmir.backend import KernelLaunch, Launch

LAUNCH = Launch(
    kernels=(
        KernelLaunch(symbol="partial", blocks=12, threads=256, shared_bytes=1024),
        KernelLaunch(symbol="combine", blocks=3, threads=128, dynamic_shared_bytes=65536),
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
