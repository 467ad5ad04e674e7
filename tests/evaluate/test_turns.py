"""Threads of a block in shared memory: what one touches no other may, until a barrier."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from gemmir.evaluate import EvaluationError

Run = Callable[..., None]

PIECE = "vector<1x4xf32>"
SHARED = "memref<1x16xf32, #gemmir.space<shared>>"
GLOBAL = "memref<1x16xf32>"
BARRIER = "gemmir.barrier"
INSIDE = "{in_bounds = [true, true]}"


def write(place: str) -> str:
    return f"vector.transfer_write %x, %s[%i0, {place}] {INSIDE} : {PIECE}, {SHARED}"


def read(place: str) -> str:
    return (
        f"%y_{place[1:]} = vector.transfer_read %s[%i0, {place}], %zero "
        f"{INSIDE} : {SHARED}, {PIECE}"
    )


def body(*ops: str, unit: str = "threads") -> str:
    """Four threads with four elements each: %t is the place of their own, %next of the next one."""
    inside = "\n".join(ops)
    return f"""
    %i0 = arith.constant 0 : index
    %i4 = arith.constant 4 : index
    %i16 = arith.constant 16 : index
    %zero = arith.constant 0.0 : f32
    %one = arith.constant 1 : index
    gemmir.forall %b = %i0 to %one step %one over blocks {{
      %s = memref.alloca() : {SHARED}
      gemmir.forall %t = %i0 to %i16 step %i4 over {unit} {{
        %x = vector.transfer_read %m[%i0, %t], %zero {INSIDE} : {GLOBAL}, {PIECE}
        %beyond = arith.addi %t, %i4 : index
        %next = arith.remui %beyond, %i16 : index
        {inside}
      }}
    }}"""


def touch(run: Run, *ops: str, unit: str = "threads") -> None:
    run(f"%m: {GLOBAL}", body(*ops, unit=unit), np.ones((1, 16), np.float32))


@pytest.mark.parametrize(
    "ops",
    [
        (write("%t"), read("%t"), write("%t")),
        (write("%t"), BARRIER, read("%next"), BARRIER, write("%t")),
        (write("%t"), BARRIER, read("%t"), read("%next"), read("%i0"), BARRIER, write("%next")),
    ],
)
def test_a_barrier_gives_shared_memory_to_others(run: Run, ops: tuple[str, ...]) -> None:
    touch(run, *ops)
    touch(run, *ops, unit="warps")


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ((write("%t"), read("%next")), "reads what another has written: 4 elements"),
        ((write("%t"), write("%next")), "writes what another has written: 4 elements"),
        ((write("%i0"),), "writes what another has written"),
        ((write("%t"), BARRIER, read("%next"), write("%t")), "writes what another has read"),
        ((write("%t"), BARRIER, read("%i0"), write("%t")), "writes what another has read"),
    ],
)
def test_without_one_it_is_a_race(run: Run, ops: tuple[str, ...], words: str) -> None:
    with pytest.raises(EvaluationError, match=rf"GEM0925.*a thread {words}.*no barrier in between"):
        touch(run, *ops)


def test_threads_of_warps_have_places_of_their_own(run: Run) -> None:
    """A lane writes what it writes again, in a loop of its own, and no other lane of its warp."""
    lanes = "gemmir.forall %l = %i0 to %i4 step %one over threads {{\n{}\n}}"
    mine = "%p = arith.addi %t, %l : index\n" + write("%p").replace("1x4x", "1x1x").replace(
        "%x,", "%e,"
    )
    element = mine.replace(
        "vector.transfer_write",
        "%e = vector.transfer_read %m[%i0, %p], %zero {in_bounds = [true, true]} : "
        f"{GLOBAL}, vector<1x1xf32>\nvector.transfer_write",
    )
    touch(run, lanes.format(element), lanes.format(element), BARRIER, read("%next"), unit="warps")
    with pytest.raises(EvaluationError, match=r"GEM0925.*reads what another has written"):
        touch(run, lanes.format(element), read("%next"), unit="warps")


def test_a_copy_that_has_landed_is_for_others_behind_a_barrier(run: Run) -> None:
    copy = (
        "nvgpu.device_async_copy %m[%i0, %t] to %s[%i0, %t] elements 4 : i64 along 1 : i64 "
        f"valid %i4 : {GLOBAL} to {SHARED}"
    )
    group, wait = "nvgpu.device_async_create_group", "nvgpu.device_async_wait groups 0 : i64"
    touch(run, copy, group, wait, read("%t"), BARRIER, read("%next"))
    with pytest.raises(EvaluationError, match=r"GEM0925.*reads what another has written"):
        touch(run, copy, group, wait, read("%next"))
    with pytest.raises(EvaluationError, match=r"GEM0925.*writes what another has read"):
        touch(run, write("%t"), BARRIER, read("%next"), copy, group, wait)
