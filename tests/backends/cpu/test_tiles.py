"""Kernels on matrix tiles: what they compute, with the instructions emulated, and who may run them.

The emitted LLVM IR is what is run; only the instructions on tiles are replaced by functions.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os

import hypothesis.strategies as st
import pytest
from hypothesis import given

import gemmir
from gemmir import Gemm
from gemmir.backend import Artifact
from gemmir.backends.cpu import load, permission
from gemmir.backends.cpu.assemble import assemble, header
from gemmir.backends.cpu.emit import emit
from gemmir.errors import BackendError, MissingError
from gemmir.ir.build import build
from gemmir.lowering import run_passes
from gemmir.machine import machine_for
from gemmir.machine.host import host_cpu, missing_features
from gemmir.schedule.default import default_schedule
from tests.strategies import arrays_for, examples, furthest
from tests.test_guard_pages import guarded_operands, status_of
from tests.tile_emulation import MACHINE, loaded, problems_in_tiles

SAPPHIRE_RAPIDS = "cpu:sapphirerapids"

runs_here = pytest.mark.skipif(
    bool({"avx2", "fma"} & set(missing_features(MACHINE))), reason="needs x86-64 with AVX2"
)


def lowered(gemm: Gemm, schedule: gemmir.Schedule) -> Artifact:
    module = build(gemm)
    run_passes(module, schedule)
    return emit(module, MACHINE)


def error_of(gemm: Gemm, artifact: Artifact, offset: int = 0) -> float:
    """How far the emulated kernel is off, in units of the bound."""
    arrays = arrays_for(gemm, offset=offset)
    before = {name: array.copy() for name, array in arrays.items()}
    addresses = [arrays[a.name].ctypes.data for a in artifact.signature.arguments]
    assert loaded(artifact)(*addresses) == 0
    return furthest(gemm, before, arrays["c"])


@runs_here
@given(problem=problems_in_tiles(), offset=st.integers(0, 3))
@examples(0.2)
def test_emitted_code_is_right(problem: tuple[Gemm, str], offset: int) -> None:
    gemm, schedule = problem
    assert error_of(gemm, lowered(gemm, gemmir.Schedule.parse(schedule)), offset) <= 1


@runs_here
@pytest.mark.parametrize(("dtype", "dtype_b"), [("bf16", None), ("u8", "i8"), ("i8", None)])
@pytest.mark.parametrize(
    ("m", "n", "k", "epilogue"),
    [(9, 300, 300, ""), (33, 31, 700, "bias+relu"), (130, 67, 65, ""), (64, 64, 64, "bias")],
)
def test_default_schedules_are_right(
    dtype: str, dtype_b: str | None, m: int, n: int, k: int, epilogue: str
) -> None:
    for trans in (False, True):
        gemm = Gemm(
            m=m,
            n=n,
            k=k,
            dtype=dtype,
            dtype_b=dtype_b,
            trans_a=trans,
            trans_b=trans and m > 16,
            epilogue=epilogue,
        )
        artifact = lowered(gemm, default_schedule(gemm, MACHINE, 1))
        assert "tdp" in artifact.text
        assert error_of(gemm, artifact) <= 1


@runs_here
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and mprotect")
@pytest.mark.parametrize(("dtype", "dtype_b"), [("bf16", None), ("u8", "i8")])
@pytest.mark.parametrize(("m", "n", "k"), [(9, 17, 97), (33, 31, 65), (47, 50, 64)])
@pytest.mark.parametrize("trans", list(itertools.product((False, True), repeat=2)))
def test_nothing_beside_the_operands_is_touched(
    dtype: str, dtype_b: str | None, m: int, n: int, k: int, trans: tuple[bool, bool]
) -> None:
    """They end, or begin, where a page begins that cannot be touched."""
    gemm = Gemm(
        m=m,
        n=n,
        k=k,
        dtype=dtype,
        dtype_b=dtype_b,
        trans_a=trans[0],
        trans_b=trans[1] and m > 16,
        beta=float(trans[0]),
    )
    artifact = lowered(gemm, default_schedule(gemm, MACHINE, 1))
    kernel = loaded(artifact)
    names = [argument.name for argument in artifact.signature.arguments]

    def at_both() -> None:
        for place in ("start", "end"):
            operands = guarded_operands(gemm, place)
            before = {name: o.array.copy() for name, o in operands.items()}
            assert kernel(*[operands[name].array.ctypes.data for name in names]) == 0
            assert furthest(gemm, before, operands["c"].array) <= 1

    assert status_of(at_both) == 0


def artifact_for_tiles() -> Artifact:
    return gemmir.lower(Gemm(m=32, n=32, k=64, dtype="bf16"), SAPPHIRE_RAPIDS).artifact


def test_other_machines_have_no_such_instruction() -> None:
    gemm = Gemm(m=32, n=32, k=64, dtype="bf16")
    module = build(gemm)
    run_passes(module, default_schedule(gemm, machine_for(SAPPHIRE_RAPIDS), 1))
    with pytest.raises(BackendError, match=r"GEM1493: amx\.tile_mulf .* amx-bf16"):
        emit(module, machine_for("cpu:znver4"))


def test_loading_asks_for_the_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only where a kernel has tiles."""
    asked: list[str] = []
    monkeypatch.setattr(load, "ask_for_tiles", lambda: asked.append("tiles"))
    artifact = artifact_for_tiles()
    load.load(assemble(artifact), artifact.signature)
    assert asked == ["tiles"]
    plain = gemmir.lower(Gemm(m=32, n=32, k=64, dtype="bf16"), "cpu").artifact
    load.load(assemble(plain), plain.signature)
    assert len(asked) == 1 + ("tdp" in plain.text)


def test_linux_is_asked_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where it says no, that is an error before any instruction on tiles."""
    calls: list[tuple[int, ...]] = []

    status = 0

    class System:
        def __init__(self, name: str | None, *, use_errno: bool) -> None:
            assert name is None
            assert use_errno

        def syscall(self, *numbers: ctypes.c_long) -> int:
            calls.append(tuple(n.value for n in numbers))
            ctypes.set_errno(errno.EINVAL)
            return status

    monkeypatch.setattr(permission.sys, "platform", "linux")
    monkeypatch.setattr(permission.ctypes, "CDLL", System)
    permission.ask_for_tiles()
    assert calls == [(158, 0x1023, 18)]
    status = -1
    with pytest.raises(MissingError, match=r"GEM0632: .* tiles: Invalid argument; use Linux 5\.16"):
        permission.ask_for_tiles()


@pytest.mark.skipif(not host_cpu().triple.startswith("x86_64"), reason="the call is of x86-64")
@pytest.mark.skipif("linux" not in host_cpu().triple, reason="the call is of Linux")
def test_this_computer_has_tiles_or_says_so() -> None:
    if host_cpu().features.get("amx-tile", False):
        permission.ask_for_tiles()
    else:
        with pytest.raises(MissingError, match="GEM0632"):
            permission.ask_for_tiles()


def test_the_header_says_what_a_process_has_to_do() -> None:
    artifact = artifact_for_tiles()
    assert "@gemm_tiles = constant i32 1" in artifact.text
    assert "syscall(SYS_arch_prctl, 0x1023, 18)" in header(artifact.signature, has_tiles=True)
    assert "arch_prctl" not in header(artifact.signature)
