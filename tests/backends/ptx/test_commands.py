"""The commands that use a GPU, on a fake one and without any."""

from __future__ import annotations

import json

import pytest

from gemmir.cli import main
from gemmir.demo_gpu import run_gpu_demo
from gemmir.errors import MismatchError, MissingError
from gemmir.gemm import Gemm
from tests.backends.ptx.conftest import Install, hide
from tests.backends.ptx.fakes import FakeCuda

RUN = ("run", "--m", "16", "--n", "12", "--k", "8", "--target", "cuda:sm_90a", "--seconds", "0")


@pytest.fixture(autouse=True)
def no_kernels_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of a fake GPU are in no cache that others use."""
    monkeypatch.setenv("GEMMIR_CACHE", "off")


def test_run_compares_and_times(install: Install, capsys: pytest.CaptureFixture[str]):
    install(FakeCuda())
    assert main([*RUN, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["within_bound"]
    assert found["seconds"] == pytest.approx(2e-3)
    assert found["gflops"] == pytest.approx(2 * 16 * 12 * 8 / 2e-3 / 1e9)


def test_run_without_a_gpu_has_status_4(
    no_driver_kept: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    hide(monkeypatch, "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")
    assert main(RUN) == MissingError.exit_code == 4
    assert "GEM0607" in capsys.readouterr().err


def doctor(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    main(["doctor", "--json"])
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)}


def test_doctor_tries_the_gpu(install: Install, capsys: pytest.CaptureFixture[str]):
    install(FakeCuda())
    found = doctor(capsys)
    assert found["GPU"]["state"] == "ok"
    assert "Fake H200 (sm_90, 1 GiB)" in found["GPU"]["text"]
    assert found["works on GPU"]["state"] == "ok"
    assert "cuda:sm_90a" in found["works on GPU"]["text"]


def test_doctor_says_where_a_gpu_computes_something_else(
    by_bindings: Install, capsys: pytest.CaptureFixture[str]
):
    by_bindings(FakeCuda(runs=False))
    assert "is wrong on Fake H200" in doctor(capsys)["works on GPU"]["text"]


def test_doctor_says_where_a_gpu_is_too_old(
    by_bindings: Install, capsys: pytest.CaptureFixture[str]
):
    by_bindings(FakeCuda(gpus=(("Old", (3, 5)),)))
    assert "Old (sm_35) is older" in doctor(capsys)["works on GPU"]["text"]


def test_doctor_goes_on_without_a_gpu(
    no_driver_kept: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    hide(monkeypatch, "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")
    found = doctor(capsys)
    assert found["GPU"]["state"] == found["works on GPU"]["state"] == "limited"
    assert "pip install gemmir[cuda" in found["GPU"]["text"]


def test_targets_says_which_gpus_are_here(install: Install, capsys: pytest.CaptureFixture[str]):
    install(FakeCuda(gpus=(("Fake A100", (8, 0)),)))
    assert main(["targets", "--json"]) == 0
    found = {entry["target"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["cuda:sm_80"]["missing_here"] == []
    assert "Fake A100 (sm_80)" in found["cuda:sm_90a"]["missing_here"][0]


LAYER = Gemm(m=16, n=16, k=32, epilogue="bias+gelu")


def test_demo_runs_on_a_gpu(install: Install):
    install(FakeCuda())
    found = run_gpu_demo(LAYER, seconds=0)
    assert found.on_gpu is not None and not found.reason
    assert (found.on_gpu.name, found.on_gpu.target) == ("Fake H200", "cuda:sm_90a")
    assert found.on_gpu.timing.seconds == pytest.approx(2e-3)
    assert found.on_gpu.largest.error <= found.on_gpu.largest.bound


def test_demo_finds_what_a_gpu_gets_wrong(by_bindings: Install):
    by_bindings(FakeCuda(runs=False))
    with pytest.raises(MismatchError, match="GEM0802"):
        run_gpu_demo(LAYER, seconds=0)


def test_demo_says_why_nothing_runs_on_a_gpu(no_driver_kept: None, monkeypatch: pytest.MonkeyPatch):
    hide(monkeypatch, "pycuda", "pycuda.driver", "cuda", "cuda.bindings", "cuda.bindings.driver")
    found = run_gpu_demo(LAYER)
    assert found.on_gpu is None
    assert "no package is installed" in found.reason
