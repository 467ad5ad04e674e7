"""Commands for TPUs as a user meets them who has no TPU, and perhaps no JAX."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from gemmir.machine.tpu import V6E
from tests.cli.conftest import Cli

SIZES = ("--m", "16", "--n", "128", "--k", "24")
TPU = (*SIZES, "--dtype", "bf16", "--target", "tpu:v5e")


@pytest.fixture
def no_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX and libtpu are not installed."""
    for name in ("jax", "libtpu"):
        monkeypatch.setitem(sys.modules, name, None)


# With JAX


def test_check_ends_with_the_interpreter(cli: Cli) -> None:
    pytest.importorskip("jax")
    result = cli("check", *TPU, "--epilogue", "bias+gelu", "--json")
    assert result.status == 0, result.err
    last = result.json["rows"][-1]
    assert (last["name"], last["status"]) == ("pallas", "ok")


def test_check_of_a_file(cli: Cli) -> None:
    pytest.importorskip("jax")
    right = cli("compile", *TPU, "--emit", "pallas").out
    Path("kernel.py").write_text(right)
    assert cli("check", *TPU, "--pallas", "kernel.py").status == 0
    Path("kernel.py").write_text(right.replace("c_ref[...] = ", "c_ref[...] = 2 * "))
    result = cli("check", *TPU, "--pallas", "kernel.py")
    assert result.status == 3
    assert "pallas" in result.err


def test_run_in_the_interpreter(cli: Cli) -> None:
    pytest.importorskip("jax")
    np.save("b.npy", np.ones((24, 128), "f"))
    arguments = (
        *SIZES,
        "--target",
        "tpu:v5e",
        "--array",
        "b=b.npy",
        "--seconds",
        "0",
        "-o",
        "c.npy",
    )
    result = cli("run", *arguments, "--interpret", "-o", "c.npy")
    assert result.status == 0, result.err
    assert "in Pallas's interpreter, whose time says nothing of a TPU" in result.out
    assert "GFLOP/s" not in result.out
    c = np.load("c.npy")
    assert np.array_equal(c, np.broadcast_to(c[:, :1], c.shape))


def test_run_without_a_tpu(cli: Cli) -> None:
    pytest.importorskip("jax")
    result = cli("run", *TPU)
    assert (result.status, result.out) == (4, "")
    assert "error GEM0613: a kernel for tpu:v5e on cpu" in result.err
    assert "gemmir run --interpret" in result.err


def test_stablehlo(cli: Cli) -> None:
    pytest.importorskip("jax")
    assert "@tpu_custom_call" in cli("compile", *TPU, "--emit", "hlo").out


# Without


@pytest.mark.usefixtures("no_jax")
def test_pallas_is_emitted_without_jax(cli: Cli) -> None:
    assert "Python file: " in cli("compile", *TPU).out
    text = cli("compile", *TPU, "--emit", "pallas").out
    compile(text, "kernel.py", "exec")
    assert "def gemm(a, b, *, interpret=False):" in text
    assert "libtpu is not installed: pip install gemmir[tpu-aot]" in cli("explain", *TPU).out


@pytest.mark.usefixtures("no_jax")
def test_check_without_jax(cli: Cli) -> None:
    result = cli("check", *TPU)
    assert result.status == 0, result.err
    assert "skipped (kernels for TPUs need JAX: " in result.out


@pytest.mark.usefixtures("no_jax")
@pytest.mark.parametrize(
    ("arguments", "code", "package"),
    [
        (("run", *TPU), "GEM0615", "gemmir[tpu]"),
        (("run", *TPU, "--interpret"), "GEM0615", "gemmir[tpu]"),
        (("compile", *TPU, "--emit", "hlo"), "GEM0615", "gemmir[tpu]"),
        (("explain", *TPU, "--profile"), "GEM0630", "gemmir[tpu-aot]"),
    ],
)
def test_what_is_missing_is_named(
    cli: Cli, arguments: tuple[str, ...], code: str, package: str
) -> None:
    result = cli(*arguments)
    assert (result.status, result.out) == (4, "")
    assert code in result.err
    assert package in result.err


# What a TPU does not have


@pytest.mark.parametrize("dtype", ["f16", "f64", "tf32", "u8"])
def test_types_that_it_does_not_multiply(cli: Cli, dtype: str) -> None:
    result = cli("compile", *SIZES, "--dtype", dtype, "--target", "tpu:v6e")
    assert result.status == 5
    assert "GEM0316" in result.err
    hint = " ".join(result.err.split())
    for known in V6E.mxu_dtypes:
        assert known in hint


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--lda", "40"), "a has strides (40, 1), and arrays of JAX are dense"),
        (("--batch", "2", "--batch-stride-b", "9000"), "arrays of JAX are dense"),
    ],
)
def test_arrays_are_dense(cli: Cli, extra: tuple[str, ...], words: str) -> None:
    result = cli("compile", *TPU, *extra)
    assert result.status == 1
    assert words in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", *SIZES, "--interpret"),
        ("check", *SIZES, "--pallas", "kernel.py"),
        ("explain", *SIZES, "--profile"),
        ("compile", *SIZES, "--emit", "pallas", "--target", "cpu"),
        ("compile", *TPU, "--emit", "asm"),
    ],
)
def test_options_of_other_machines_are_wrong_usage(cli: Cli, arguments: tuple[str, ...]) -> None:
    result = cli(*arguments)
    assert (result.status, result.out) == (2, "")
