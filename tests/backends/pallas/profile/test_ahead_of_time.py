"""Compiling for a TPU that is not there, and what is said where that fails."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

import pytest

from gemmir.backends.pallas.profile import Program, compile_for
from gemmir.backends.pallas.profile.ahead_of_time import environment
from gemmir.errors import GemmirError, MissingError, ProfileError
from gemmir.machine.tpu import SHIPPED_TPUS, V5E, TpuMachine
from tests.backends.pallas.profile.programs import kernel, needs_libtpu

SMALL: Final = kernel(256, 256, 256, blocks=(128, 128, 128))


@needs_libtpu
@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_compile_for_each_generation(machine: TpuMachine) -> None:
    found = compile_for(machine, SMALL)
    assert "tpu_custom_call" in found.hlo
    assert found.code_bytes > 0
    blocks = 2 * 3 * 128 * 128 * 2 + 128 * 128 * 4
    arrays = 3 * 256 * 256 * 2
    assert blocks <= found.vmem_bytes < 2 * blocks + arrays


def failure(program: Program, **options: float) -> GemmirError:
    with pytest.raises(GemmirError) as caught:
        compile_for(V5E, program, **options)
    return caught.value


@needs_libtpu
def test_more_vmem_than_allowed() -> None:
    large = kernel(2048, 2048, 2048, blocks=(1024, 1024, 1024), vmem=4 << 20)
    error = failure(large)
    assert error.code == "GEM1103"
    assert "needs 16.00MiB of VMEM and may have 4.00MiB" in error.message
    assert "up to 128MiB" in error.hint


@needs_libtpu
def test_blocks_that_jax_does_not_lower() -> None:
    error = failure(kernel(256, 256, 256, blocks=(100, 100, 100)))
    assert error.code == "GEM1101"
    assert "divisible by 8 and 128" in error.message


@needs_libtpu
def test_a_file_that_cannot_be_run() -> None:
    error = failure(Program(text="def f(:", function="f", arguments=()))
    assert error.code == "GEM1100"
    assert "SyntaxError" in error.message


@needs_libtpu
def test_a_type_that_libtpu_refuses() -> None:
    """TPU v5e has no products of f64 in a kernel; JAX says so, or libtpu does."""
    text = SMALL.text.replace("jnp.dot(a[...]", "jnp.dot(a[...].astype(jnp.float16)")
    error = failure(Program(text=text, function="kernel", arguments=SMALL.arguments))
    assert error.code in ("GEM1101", "GEM1102")


@needs_libtpu
def test_time_runs_out() -> None:
    """The process is stopped, and with it what it would have done."""
    slow = SMALL.text + "\nimport time\ntime.sleep(60)\n"
    start = time.monotonic()
    error = failure(
        Program(text=slow, function="kernel", arguments=SMALL.arguments), limit_seconds=3
    )
    assert error.code == "GEM1105"
    assert "in 3 s" in error.message
    assert time.monotonic() - start < 20


@needs_libtpu
def test_libtpu_ends_its_process() -> None:
    text = "import os, sys\n" + SMALL.text
    text += (
        '\nsys.stderr.write("F1126 21:02:13.8 1 dumper.cc:1] it is broken\\n")\n'
        "sys.stderr.flush()\nos.abort()\n"
    )
    error = failure(Program(text=text, function="kernel", arguments=SMALL.arguments))
    assert error.code == "GEM1104"
    assert error.message.endswith("it is broken")


@needs_libtpu
def test_a_generation_that_libtpu_does_not_know() -> None:
    from dataclasses import replace

    with pytest.raises(MissingError) as caught:
        compile_for(replace(V5E, topology="v99:1x1"), SMALL)
    assert caught.value.code == "GEM0631"
    assert "v99:1x1" in caught.value.message


def test_without_libtpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "libtpu", None)
    error = failure(SMALL)
    assert error.code == "GEM0630"
    assert error.exit_code == 4
    assert "no libtpu" in error.message
    assert "gemmir[tpu-aot]" in error.hint


def test_the_worker_may_share_libtpu_and_asks_nobody() -> None:
    found = environment(Path("folder"), ("--dump={folder}", "--text"))
    assert found["JAX_PLATFORMS"] == "cpu"
    assert found["ALLOW_MULTIPLE_LIBTPU_LOAD"] == "1"
    assert found["TPU_SKIP_MDS_QUERY"] == "1"
    assert found["LIBTPU_INIT_ARGS"] == "--dump=folder --text"


def test_profile_error_is_an_error_of_gemmir() -> None:
    assert issubclass(ProfileError, GemmirError)
    assert ProfileError.exit_code == 1
