"""Target strings, the shipped CPUs, and what is made of the host's description."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from gemmir.errors import MissingError, ProblemError
from gemmir.machine import machine_for, targets
from gemmir.machine.cpu import NEOVERSE_N1, SHIPPED, X86_64_V3, X86_64_V4, ZNVER3
from gemmir.machine.host import (
    HostCpu,
    detect,
    feature_string,
    host_cpu,
    host_machine,
    missing_features,
    require_runnable,
    triple_for,
)
from gemmir.machine.tpu import SHIPPED_TPUS, TPU7X, V4, V5E, V5P, V6E, TpuMachine, tpu_of

LINUX = "x86_64-unknown-linux-gnu"


def described(tmp_path: Path, *caches: tuple[int, str, str]) -> Path:
    """A folder like /sys/devices/system/cpu/cpu0/cache with (level, type, size) entries."""
    for number, (level, kind, size) in enumerate(caches):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", str(level)), ("type", kind), ("size", size)):
            (folder / name).write_text(text + "\n")
    return tmp_path


def host_with(*features: str, name: str = "haswell", triple: str = LINUX) -> HostCpu:
    return HostCpu(name=name, triple=triple, features=dict.fromkeys(features, True))


def test_every_target_names_its_machine():
    found = dict(targets())
    assert {"cpu:x86-64-v3", "cpu:znver3", "cpu:x86-64-v4", "cpu:neoverse-n1"} <= set(found)
    for target, machine in found.items():
        assert machine_for(target) == machine
        assert machine.target == target


@pytest.mark.parametrize(
    ("target", "nearest"),
    [
        ("cpu:znver9", "cpu:znver5"),
        ("cpu:neoversen1", "cpu:neoverse-n1"),
        ("cuda:sm_90", "cuda:sm_90a"),
        ("tpu:v6", "tpu:v6e"),
        ("tpu:7x", "tpu:tpu7x"),
        ("tpu", "tpu:v5e"),
        ("tpu:v5litepod", "tpu:v5e"),
        ("tpu:V5 lite", "tpu:v5e"),
        ("tpu:v7x", "tpu:tpu7x"),
    ],
)
def test_an_unknown_target_lists_all_and_names_the_nearest(target: str, nearest: str):
    with pytest.raises(MissingError, match=f"GEM0602.*cpu:x86-64-v4.*use {nearest}") as raised:
        machine_for(target)
    assert raised.value.exit_code == 4


def test_lanes_and_flops_follow_from_the_vector_unit():
    assert (ZNVER3.lanes(4), ZNVER3.lanes(8), NEOVERSE_N1.lanes(4)) == (8, 4, 4)
    assert ZNVER3.flops_per_cycle(4) == 32  # two pipes x eight lanes x multiply and add
    assert X86_64_V4.flops_per_cycle(8) == 32


@pytest.mark.parametrize(
    "wrong",
    [{"l2_bytes": 1024}, {"l3_bytes": 1}, {"vector_bytes": 24}, {"fma_per_cycle": 0}],
)
def test_a_machine_checks_its_numbers(wrong: dict[str, Any]):
    with pytest.raises(ProblemError, match="GEM0121"):
        dataclasses.replace(ZNVER3, **wrong)


@pytest.mark.parametrize(
    ("code", "wrong"),
    [
        ("GEM0124: machine v5e: mxu_size=0;", {"mxu_size": 0}),
        ("GEM0124.*i8_flops_per_cycle_per_core=-1", {"i8_flops_per_cycle_per_core": -1}),
        ("GEM0125.*262144 flops a cycle of i8", {"mxu_dtypes": ("bf16", "e4m3", "e5m2")}),
        ("GEM0125.*0 flops a cycle of e4m3", {"f8_flops_per_cycle_per_core": 0}),
    ],
)
def test_a_tpu_checks_its_numbers(code: str, wrong: dict[str, Any]):
    with pytest.raises(ProblemError, match=code):
        dataclasses.replace(V5E, **wrong)


@pytest.mark.parametrize(
    ("machine", "published"), [(V4, 275 / 2), (V5E, 197), (V5P, 459), (V6E, 918), (TPU7X, 2307 / 2)]
)
def test_units_and_clock_of_a_tpu_give_its_published_peak(machine: TpuMachine, published: float):
    assert machine.mxu_flops_per_second("bf16") / 1e12 == pytest.approx(published, rel=0.002)
    rows = 2 if machine.mxu_size == 256 else 1
    units = machine.mxus_per_core * machine.mxu_size**2 * rows
    assert machine.mxu_flops_per_cycle("bf16") == 2 * units


def test_precise_products_take_more_passes_of_the_units():
    assert V6E.mxu_flops_per_cycle("f32") * 6 == V6E.mxu_flops_per_cycle("bf16")
    assert V6E.mxu_flops_per_cycle("bf16x3") * 3 == V6E.mxu_flops_per_cycle("bf16x1")
    assert V6E.mxu_flops_per_cycle("i8") == 2 * V6E.mxu_flops_per_cycle("e5m2")
    assert TPU7X.mxu_flops_per_cycle("e4m3") == 2 * TPU7X.mxu_flops_per_cycle("bf16")


def test_cores_share_the_memory_of_a_tpu():
    assert V5P.hbm_bytes_per_cycle_per_core == pytest.approx(790)
    assert V5E.hbm_bytes_per_cycle_per_core == pytest.approx(546)


def test_the_host_has_the_caches_that_linux_describes(tmp_path: Path):
    caches = described(
        tmp_path,
        (1, "Data", "48K"),
        (1, "Instruction", "64K"),
        (2, "Unified", "2048K"),
        (3, "Unified", "30M"),
    )
    machine = detect(host_with(*X86_64_V3.llvm_features), caches)
    assert (machine.l1_bytes, machine.l2_bytes, machine.l3_bytes) == (48 << 10, 2 << 20, 30 << 20)
    assert (machine.vector_bytes, machine.vector_registers) == (32, 16)
    assert (machine.name, machine.llvm_cpu, machine.target) == ("host", "haswell", "cpu")


def test_a_host_without_an_l3_has_its_l2_there(tmp_path: Path):
    caches = described(tmp_path, (1, "Data", "32K"), (2, "Unified", "4096K"))
    assert detect(host_with(*X86_64_V3.llvm_features), caches).l3_bytes == 4 << 20


def test_a_host_with_one_cache_has_it_at_every_level(tmp_path: Path):
    machine = detect(host_with(*X86_64_V3.llvm_features), described(tmp_path, (1, "Data", "64K")))
    assert machine.l1_bytes == machine.l2_bytes == machine.l3_bytes == 64 << 10


def test_unreadable_cache_descriptions_fall_back_to_the_kind(tmp_path: Path):
    caches = described(tmp_path, (1, "Data", "what"), (2, "Unified", ""))
    machine = detect(host_with(*X86_64_V3.llvm_features), caches)
    assert machine.l1_bytes == X86_64_V3.l1_bytes
    assert detect(host_with("neon", triple="aarch64-linux-gnu"), tmp_path / "none").l2_bytes == (
        NEOVERSE_N1.l2_bytes
    )


def test_avx512_and_zen4_are_recognised(tmp_path: Path):
    server = detect(host_with(*X86_64_V4.llvm_features, name="skylake-avx512"), tmp_path)
    assert (server.vector_bytes, server.vector_registers, server.fma_per_cycle) == (64, 32, 2)
    assert detect(host_with(*X86_64_V4.llvm_features, name="znver4"), tmp_path).fma_per_cycle == 1
    narrow = detect(host_with(*X86_64_V3.llvm_features, name="znver4"), tmp_path)
    assert (narrow.vector_bytes, narrow.fma_per_cycle) == (32, 2)
    arm = host_with("neon", name="neoverse-v1", triple="aarch64-unknown-linux-gnu")
    assert (detect(arm, tmp_path).vector_bytes, detect(arm, tmp_path).fma_per_cycle) == (16, 4)


@pytest.mark.parametrize("lacks", ["fma", "avx2"])
def test_a_host_without_vector_fma_is_refused(tmp_path: Path, lacks: str):
    features = [name for name in X86_64_V3.llvm_features if name != lacks]
    with pytest.raises(MissingError, match=f"GEM0605.*has no {lacks};.*cpu:x86-64-v3"):
        detect(host_with(*features), tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path: Path):
    with pytest.raises(MissingError, match=r"GEM0605.*riscv64"):
        detect(host_with("v", triple="riscv64-unknown-linux-gnu"), tmp_path)


def test_missing_features_name_what_the_host_lacks():
    host = host_machine()
    assert missing_features(host) == ()
    foreign = NEOVERSE_N1 if host.llvm_triple.startswith("x86") else ZNVER3
    assert missing_features(foreign) == (foreign.llvm_triple.split("-")[0],)
    strange = dataclasses.replace(host, name="strange", llvm_features=("no-such-feature",))
    assert missing_features(strange) == ("no-such-feature",)
    with pytest.raises(MissingError, match=r"GEM0606.*cpu:strange.*no-such-feature"):
        require_runnable(strange)
    require_runnable(host)


def test_only_the_hosts_own_name_gets_a_feature_string():
    host = host_cpu()
    others = [machine.llvm_cpu for machine in SHIPPED if machine.llvm_cpu != host.name]
    assert [feature_string(cpu) for cpu in others] == [""] * len(others)
    stated = set(feature_string(host.name).split(","))
    assert stated == {f"{'+' if on else '-'}{name}" for name, on in host.features.items()}


def test_a_foreign_cpu_has_its_own_triple_and_others_the_hosts():
    host = host_machine()
    assert triple_for(host.llvm_cpu) == host.llvm_triple
    for machine in SHIPPED:
        assert triple_for(machine.llvm_cpu).split("-")[0] == machine.llvm_triple.split("-")[0]


def test_a_tpu_is_found_by_what_jax_calls_it():
    for machine in SHIPPED_TPUS:
        assert tpu_of(machine.device_kind) == tpu_of(machine.product) == machine
    assert tpu_of("TPU v3") is None
