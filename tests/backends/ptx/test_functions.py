"""Exponentials and reciprocals by the units of a GPU: how far they are off, and where."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.backend import Artifact
from gemmir.backends.ptx.emit import emit
from gemmir.backends.ptx.run import run_ptx
from gemmir.errors import BackendError
from gemmir.ir.context import parse_module
from gemmir.machine import machine_for

Array = npt.NDArray[Any]

KERNEL: Final = """
func.func @f(%a: memref<128x4xf32> {gemmir.name = "a", gemmir.access = "read"},
             %c: memref<128x4xf32> {gemmir.name = "c", gemmir.access = "write"}) {
  %0 = arith.constant 0 : index
  %1 = arith.constant 1 : index
  %128 = arith.constant 128 : index
  %zero = arith.constant 0.0 : f32
  %one = arith.constant dense<1.0> : vector<1x4xf32>
  gemmir.forall %i = %0 to %128 step %1 over threads {
    %x = vector.transfer_read %a[%i, %0], %zero {in_bounds = [true, true]}
      : memref<128x4xf32>, vector<1x4xf32>
    BODY
    vector.transfer_write %y, %c[%i, %0] {in_bounds = [true, true]}
      : vector<1x4xf32>, memref<128x4xf32>
  }
  func.return
}
"""

EXP: Final = "%y = math.exp %x : vector<1x4xf32>"
LOGISTIC: Final = """
    %e = math.exp %x : vector<1x4xf32>
    %d = arith.addf %one, %e : vector<1x4xf32>
    %y = arith.divf %x, %d : vector<1x4xf32>
"""


def emitted(body: str) -> Artifact:
    return emit(parse_module(KERNEL.replace("BODY", body)), machine_for("cuda:sm_80"))


def computed(body: str, values: Array) -> Array:
    artifact = emitted(body)
    found = np.zeros((128, 4), np.float32)
    run_ptx(artifact, artifact.text, [values.reshape(128, 4).copy(), found])
    return found.ravel()


def test_exp_is_right_to_a_few_units() -> None:
    values = np.linspace(-87, 88, 512, dtype=np.float32)
    exact = np.exp(values.astype(np.float64))
    assert np.max(np.abs(computed(EXP, values) / exact - 1)) < 4 * 2.0**-24


def test_exp_is_finite_and_keeps_nan() -> None:
    values = np.full(512, np.nan, np.float32)
    values[:4] = [np.inf, -np.inf, 1e6, -1e6]
    found = computed(EXP, values)
    assert np.isfinite(found[:4]).all() and found[0] > 3e38 and 0 < found[1] < 2e-38
    assert np.isnan(found[4:]).all()


def test_a_quotient_by_one_plus_exp_is_a_product() -> None:
    text = emitted(LOGISTIC).text
    assert text.count("rcp.approx.ftz.f32") == text.count("ex2.approx.ftz.f32") == 4
    assert "div." not in text and "fma" not in text
    values = np.linspace(-120, 120, 512, dtype=np.float32)
    wide = values.astype(np.float64)
    exact = wide / (1 + np.exp(wide))
    error = np.abs(computed(LOGISTIC, values) - exact)
    assert np.max(error / (np.abs(wide) + np.abs(exact))) < 4 * 2.0**-24


@pytest.mark.parametrize(
    "body",
    [
        LOGISTIC.replace("%one, %e", "%x, %e"),
        LOGISTIC.replace("arith.divf %x, %d", "arith.divf %d, %x"),
        LOGISTIC.replace("arith.addf %one, %e", "arith.subf %one, %e"),
    ],
)
def test_other_quotients_are_divided(body: str) -> None:
    text = emitted(body).text
    assert text.count("div.rn.f32") == 4
    assert "rcp" not in text
    assert text.count("fma.rn.f32") == 12


def test_exponentials_of_f64_are_to_be_expanded() -> None:
    kernel = KERNEL.replace("f32", "f64").replace("BODY", EXP.replace("f32", "f64"))
    with pytest.raises(BackendError, match=r"GEM0421: math.exp has no .*expand-math"):
        emit(parse_module(kernel), machine_for("cuda:sm_80"))
