"""Who takes part, and in which environment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import pytest

from gemmir.bench import contestants as module
from gemmir.bench.contestants import Contestant, Kind, contestants
from gemmir.errors import MissingError
from gemmir.machine import CpuMachine, machine_for
from gemmir.machine.host import host_cpu

Enter = Callable[..., dict[str, Contestant]]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Enter:
    """Those of a race on a host with the features given, by name."""

    def enter(
        target: str,
        *features: str,
        threads: int = 1,
        against: Sequence[str] | None = None,
        kinds: Collection[Kind] = ("product",),
    ) -> dict[str, Contestant]:
        host = replace(host_cpu(), features=dict.fromkeys(features, True))
        monkeypatch.setattr(module, "host_cpu", lambda: host)
        machine = machine_for(target)
        assert isinstance(machine, CpuMachine)
        found = contestants(
            against=against,
            machine=machine,
            threads=threads,
            schedules={"gemmir": None},
            kinds=kinds,
        )
        return {c.name: c for c in found}

    return enter


def test_peers_are_kept_to_the_instructions_of_the_target(on: Enter):
    found = on("cpu:x86-64-v3", "avx2", "avx512f")
    assert found["openblas"].environment["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["onednn"].environment["DNNL_MAX_CPU_ISA"] == "AVX2"
    assert found["libxsmm"].environment["LIBXSMM_TARGET"] == "hsw"
    assert "AVX2" in found["jax"].barred
    assert "openblas-skylakex" not in found


def test_nobody_is_limited_where_there_is_no_more(on: Enter):
    found = on("cpu:x86-64-v3", "avx2")
    assert not any("OPENBLAS_CORETYPE" in c.environment for c in found.values())
    assert not any(c.barred for c in found.values())


def test_openblas_takes_part_with_kernels_that_it_would_not_choose(on: Enter):
    found = on("cpu:x86-64-v4", "avx2", "avx512f")
    assert found["openblas-skylakex"].environment["OPENBLAS_CORETYPE"] == "SkylakeX"
    assert "OPENBLAS_CORETYPE" not in found["openblas"].environment


def test_everybody_has_as_many_threads(on: Enter):
    for count in (1, 2):
        for contestant in on("cpu:x86-64-v4", threads=count).values():
            assert contestant.environment["OMP_NUM_THREADS"] == str(count)
    assert "fma peak" not in on("cpu:x86-64-v4", threads=2)


def test_only_those_asked_for_take_part(on: Enter):
    found = on("cpu:x86-64-v3", against=["mkl", "numpy"], kinds=["calls", "any m"])
    own = ["gemmir.matmul", "gemmir kernel", "gemmir bound"]
    rest = ["np.matmul", "gemmir, any m", "fma peak"]
    assert list(found) == ["gemmir", "numpy", "mkl", *own, *rest]
    assert [c.kind for c in found.values()].count("calls") == 4


def test_an_unknown_peer_is_refused(on: Enter):
    with pytest.raises(MissingError, match="use openblas") as caught:
        on("cpu:x86-64-v3", against=["openblass"])
    assert caught.value.code == "GEM1371"
