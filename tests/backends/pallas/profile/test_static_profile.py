"""The static profile: figures of small programs by libtpu, and how they are put together."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

import pytest

from gemmir.backends.pallas.profile import Loop, Profile, hlo, profile, static_profile
from gemmir.backends.pallas.profile.ahead_of_time import EndedError
from gemmir.backends.pallas.profile.figures import Figures, Kernel, Moved
from gemmir.machine.tpu import SHIPPED_TPUS, TPU7X, V4, V5E, V5P, TpuMachine
from tests.backends.pallas.profile.programs import dot, kernel, needs_libtpu

SIZE: Final = 512
FLOPS: Final = 2 * SIZE**3
BLOCKS: Final = (256, 256, 256)

LOOP: Final = Loop(
    bundles=500,
    edge_bundles=60,
    around_bundles=0,
    mxu_busy_cycles=256.0,
    slots={"MATMUL": 0.512, "VLOAD": 0.2},
    spills=0,
    fills=0,
    depth=1,
    kernel_bundles=600,
)


@needs_libtpu
@pytest.mark.parametrize("machine", SHIPPED_TPUS, ids=lambda m: m.name)
def test_profile_of_a_kernel(machine: TpuMachine) -> None:
    """libtpu simulates all generations but v4, whose figure is that of the schedule.

    Where VMEM has room, XLA may copy A and B there before the kernel begins.
    """
    program = kernel(SIZE, SIZE, SIZE, blocks=BLOCKS)
    found = profile(machine, program, flops=FLOPS, dtype="bf16")
    assert found.method == ("schedule" if machine is V4 else "simulated")
    assert ("v4" in found.target) == ("latency model" in found.refused)
    assert found.loop is not None
    block_flops = 2 * 256**3
    assert found.loop.mxu_busy_cycles == block_flops / machine.bf16_flops_per_cycle_per_core
    assert found.grid == (2, 2, 2)
    block = 256 * 256 * 2
    fetched = 2 * 4 * block if found.copy_bytes else 2 * 8 * block
    assert found.copy_bytes in (0, fetched)
    assert found.hbm_bytes == fetched + 4 * block
    assert found.hbm_bytes_by_block
    assert 0 < found.mxu_utilisation_with_copies <= found.mxu_utilisation < 1
    assert found.cycles_by["schedule"] == pytest.approx(found.cycles, rel=0.7)
    assert found.cycles >= found.hbm_cycles
    assert Profile.from_json(found.to_json()) == found


@needs_libtpu
def test_profile_of_xla() -> None:
    found = profile(V5E, dot(SIZE, SIZE, SIZE), flops=FLOPS, dtype="bf16")
    assert found.method == "simulated"
    assert found.grid[-1] == 1
    assert found.copy_bytes in (0, SIZE * SIZE * 2)
    assert not found.hbm_bytes_by_block
    assert found.hbm_bytes == 3 * SIZE * SIZE * 2


@needs_libtpu
def test_fewer_cycles_than_hbm_takes_are_not_believed() -> None:
    """XLA copies B to VMEM first, whose time its own figure leaves out."""
    found = profile(V5E, dot(128, 2048, 2048), flops=2 * 128 * 2048**2, dtype="bf16")
    assert found.cycles >= found.hbm_cycles
    assert found.hbm_bytes == 2 * (2 * 128 * 2048 + 2048 * 2048)
    assert found.bound == "HBM"


@needs_libtpu
def test_xla_of_8_bit_floats_is_not_simulated_on_tpu7x() -> None:
    program = dot(2048, 2048, 2048)
    narrow = tuple(replace(a, dtype="float8_e4m3fn") for a in program.arguments)
    program = replace(program, arguments=narrow)
    found = profile(TPU7X, program, flops=2 * 2048**3, dtype="e4m3")
    assert found.method == "schedule"
    assert "Static LLO profiling" in found.refused
    assert {"schedule", "hlo-estimate"} == set(found.cycles_by)


@needs_libtpu
def test_a_simulation_that_takes_too_long_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The program is compiled again without it."""

    def attempted(*arguments: object, **options: object) -> None:
        raise EndedError("it was not done in 8 s", late=True)

    monkeypatch.setattr(static_profile, "attempted", attempted)
    found = profile(V5E, kernel(SIZE, SIZE, SIZE, blocks=BLOCKS), flops=FLOPS, dtype="bf16")
    assert (found.method, found.late) == ("schedule", True)
    assert found.refused == "it was not done in 8 s"


def figures(machine: TpuMachine, *, loop: Loop | None = LOOP, grid: int = 4) -> Figures:
    """A kernel of `grid` steps along each of m, n and k, with blocks of 1000 bytes."""
    steps = grid**3
    moved = [Moved(copies=steps, bytes=1000 * steps, first_bytes=1000)] * 2
    result = Moved(copies=grid**2, bytes=1000 * grid**2, first_bytes=1000)
    value = hlo.Value(item_bits=8, elements=1000, space=hlo.HBM)
    call = hlo.Op(
        name="kernel",
        opcode=hlo.CUSTOM_CALL,
        results=(value,),
        operands=(value, value),
        simulated_cycles=None,
        estimated_cycles=None,
        windows=(),
        window_bytes=0,
        scoped_vmem_bytes=0,
    )
    return Figures(
        machine=machine,
        ops=[call],
        main="kernel",
        kernel=Kernel(grid=(grid,) * 3, blocks=(*moved, result)),
        loop=loop,
        ideal=256.0 * steps / machine.cores_per_device,
    )


def test_cycles_by_the_schedule() -> None:
    """64 iterations, 16 results, and the ends of 3000 bytes at 546 a cycle."""
    expected = 64 * 500 + 16 * 60 + 3000 / (819e9 / 1.5e9)
    assert figures(V5E).cycles_by == {"schedule": int(expected) + 1}


def test_two_cores_share_the_grid() -> None:
    found = figures(V5P)
    assert (found.iterations, found.tiles) == (32, 8)
    assert found.shares(32_000)["MXU"] == pytest.approx(256 * 32 / 32_000)


def test_a_loop_in_the_kernel_is_counted_by_its_products() -> None:
    """And what is around it in a step is done once in each of the 64 steps."""
    found = figures(V5E, loop=replace(LOOP, depth=2, mxu_busy_cycles=64.0, around_bundles=80))
    assert found.iterations == 256 * 64 / 64
    assert found.loop_cycles == 256 * 500 + 64 * 80


def test_hbm_is_the_least_that_a_schedule_takes() -> None:
    slow = replace(V5E, hbm_bytes_per_second=1_500_000_000)
    found = figures(slow)
    assert found.hbm_cycles == 1000 * (64 + 64 + 16)
    assert found.cycles_by["schedule"] == 144_000 + 16 * 60 + 3000
    assert max(found.shares(144_000).items(), key=lambda pair: pair[1])[0] == "HBM"


def test_shares_of_the_cycles() -> None:
    shares = figures(V5E).shares(64_000)
    assert shares["MXU"] == pytest.approx(256 * 64 / 64_000)
    assert shares["VLOAD"] == pytest.approx(0.2 * 0.5)
    assert shares["overhead of steps"] == pytest.approx(0.5 * (1 - 0.512))
    assert shares["prologue and waits"] == pytest.approx(0.5)


def test_arrays_in_vmem_are_not_fetched_by_block() -> None:
    found = figures(V5E)
    (call,) = found.ops
    near = replace(call.operands[0], space=hlo.VMEM)
    found = replace(found, ops=[replace(call, operands=(near, call.operands[1]))])
    assert found.hbm_bytes == 64_000 + 16_000
    assert found.end_bytes == 2000


def test_an_op_beside_the_kernel_takes_what_hbm_does() -> None:
    (call,) = figures(V5E).ops
    beside = replace(call, name="copy", opcode="copy", operands=call.operands[:1])
    both = replace(figures(V5E), ops=[call, beside])
    more = both.cycles_by["schedule"] - figures(V5E).cycles_by["schedule"]
    assert more == pytest.approx(2000 / (819e9 / 1.5e9), abs=1)


def test_nothing_is_known_without_code_and_estimates() -> None:
    assert figures(V5E, loop=None).cycles_by == {}


def test_json_of_a_profile_is_plain() -> None:
    text = json.dumps({"loop": None})
    with pytest.raises(KeyError):
        Profile.from_json(text)
