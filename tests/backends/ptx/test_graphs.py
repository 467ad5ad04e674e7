"""Graphs of launches, and what the driver says of how large a GPU is."""

from __future__ import annotations

import pytest

from gemmir.backends.ptx.driver import LEGACY_STREAM, find_driver
from gemmir.backends.ptx.driver.figures import figures
from gemmir.backends.ptx.driver.graphs import new_stream, recorded
from gemmir.errors import DeviceError
from tests.backends.ptx.conftest import Install
from tests.backends.ptx.fakes import FakeCuda, Status
from tests.backends.ptx.test_load import ONE, arrays, content, program


def test_a_graph_starts_what_was_recorded_on_the_legacy_stream(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    made = program(ONE)
    source, target = arrays(made)
    with made.driver.use(0):
        stream = made.driver.new_stream()
        calls = [
            made.bind([source.address, target.address], gpu=0, stream=stream),
            made.bind([target.address, source.address], gpu=0, stream=stream),
        ]
        replay = recorded(calls, stream)
        assert len(cuda.did("launch")) == 2 and not cuda.did("graph")
        assert {of for _, of, _ in cuda.did("launch")} == {stream} != {LEGACY_STREAM}
        assert content(made, source) == list(range(32)), "recording runs nothing"
        replay()
        replay()
    assert [of for _, of in cuda.did("graph")] == [LEGACY_STREAM, LEGACY_STREAM]
    assert content(made, source) == [n + 4.0 for n in range(32)]
    assert content(made, target) == [n + 3.0 for n in range(32)]


def test_a_call_that_fails_ends_the_recording(by_bindings: Install):
    cuda = by_bindings(FakeCuda())
    made = program(ONE)
    source, target = arrays(made)
    with made.driver.use(0):
        stream = new_stream()
        call = made.bind([source.address, target.address], gpu=0, stream=stream)
        cuda.failing["launch"] = Status.INVALID_VALUE
        with pytest.raises(DeviceError, match="GEM0526: cuLaunchKernel"):
            recorded([call], stream)
        recorded([call], stream)()
        cuda.failing["graph"] = Status.ILLEGAL_ADDRESS
        with pytest.raises(DeviceError, match="GEM0526: cuGraphLaunch failed: status 700"):
            recorded([call], stream)()


def test_pycuda_has_the_legacy_stream_alone(by_pycuda: Install):
    by_pycuda(FakeCuda())
    with find_driver().use(0):
        assert find_driver().new_stream() == LEGACY_STREAM


def test_the_driver_says_how_large_a_gpu_is(install: Install):
    install(FakeCuda())
    found = figures(0)
    assert (found.sms, found.l2_bytes) == (132, 60 << 20)
    assert found.clock_hz == 1_980_000_000
    assert found.dram_bytes_per_second == pytest.approx(4.92e12, rel=1e-3), "an H200 has 4.8"
