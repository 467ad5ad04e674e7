"""What `gemmir.sharded_matmul` reads off its arguments, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any, Final

import ml_dtypes
import numpy as np
import pytest

import gemmir
from gemmir.errors import CallError, GemmirError, MissingError

jax: Any = pytest.importorskip("jax", reason="jax is not installed: pip install 'gemmir[tpu]'")
P: Any = jax.sharding.PartitionSpec

X: Final = np.ones((8, 6), np.float32)
W: Final = np.ones((6, 4), np.float32)


def mesh() -> Any:
    """One device; there need be no more for what is refused."""
    return jax.sharding.Mesh(np.array(jax.devices("cpu")[:1]), ("d",))


def fake(kind: str, platform: str = "tpu") -> Any:
    """A mesh of devices that are not there."""
    device = SimpleNamespace(device_kind=kind, platform=platform)
    return SimpleNamespace(devices=np.array([device]), shape={"d": 1})


def unknown() -> Any:
    """A mesh of which nobody says what its devices are."""
    return jax.sharding.AbstractMesh((1,), ("d",))


def multiply(x: Any = X, w: Any = W, **changed: Any) -> Any:
    """A product by rows, but for what is changed."""
    given: dict[str, Any] = {"mesh": mesh(), "in_specs": (P("d"), P()), "out_specs": P("d")}
    return gemmir.sharded_matmul(x, w, **given | changed)


ERRORS: Final[tuple[tuple[str, dict[str, Any], str, str], ...]] = (
    ("GEM0550", {"out_specs": P("e")}, "'e', which the mesh does not have", "use 'd'"),
    ("GEM0553", {"out_specs": P(P.UNCONSTRAINED)}, "leaves open", "use None, an axis"),
    ("GEM0553", {"out_specs": P(unreduced={"d"})}, "leaves open", "use None, an axis"),
    ("GEM0555", {"in_specs": (P("d"), P(None, None, None))}, "3 entries, and w 2", "at most 2"),
    ("GEM0557", {"mesh": fake("TPU v2")}, "kind TPU v2", "interpret=True"),
    ("GEM0557", {"mesh": fake("NVIDIA H100", "gpu")}, "kind NVIDIA H100", "interpret=True"),
    ("GEM0557", {"mesh": fake("TPU v5 lite"), "target": "tpu:v6e"}, "tpu:v6e", "'tpu:v5e'"),
    ("GEM0557", {"mesh": unknown()}, "kind unknown", "interpret=True"),
    ("GEM0558", {"epilogue": "bias"}, "bias is not given", "pass bias="),
    ("GEM0558", {"bias": np.ones(4, np.float32)}, "bias is given", "leave bias out"),
    ("GEM0559", {"w": np.ones((5, 4), np.float32)}, "(8, 6) and w of shape (5, 4)", "(k, n)"),
    ("GEM0559", {"x": np.ones(6, np.float32)}, "x of shape (6,)", "(k, n)"),
    ("GEM0559", {"w": np.ones((2, 6, 4), np.float32)}, "w of shape (2, 6, 4)", "(k, n)"),
    ("GEM0559", {"w": [[1.0, 2.0]]}, "w that is no array", "(k, n)"),
    ("GEM0565", {"in_specs": P("d", None)}, "in_specs is P('d', None)", "in_specs=(P(…), P(…))"),
    ("GEM0565", {"out_specs": "d"}, "the spec of the result is 'd'", "out_specs=P(…)"),
    ("GEM0566", {"x": X[:0]}, "nothing to share out", "1 or more"),
    ("GEM0566", {"x": X[:, :0], "w": W[:0]}, "nothing to share out", "1 or more"),
    ("GEM0106", {"epilogue": "tanh"}, "'tanh' is not known", "join any of"),
    ("GEM0560", {"x": X.astype(np.int16)}, "x of int16 and w of float32", "bfloat16"),
    ("GEM0560", {"x": X.astype(ml_dtypes.bfloat16)}, "x of bfloat16", "for both"),
    ("GEM0560", {"x": X.astype(np.float64), "w": W.astype(np.float64)}, "x of float64", "float32"),
    (
        "GEM0561",
        {"dtype": "bf16"},
        "no product of arrays of float32",
        "use f32 or bf16x1 or bf16x3",
    ),
    ("GEM0561", {"dtype": "tf32"}, "'tf32' is no product", "use f32 or bf16x1 or bf16x3"),
    ("GEM0562", {"preferred_element_type": np.int32}, "int32 of a product of f32", "float32"),
    (
        "GEM0563",
        {"epilogue": "bias", "bias": np.ones(8, np.float32)},
        "bias is float32[8]",
        "float32[4]",
    ),
    (
        "GEM0563",
        {"epilogue": "residual", "residual": np.ones((8, 4), np.float64)},
        "residual is float64[8, 4]",
        "float32[8, 4]",
    ),
)


@pytest.mark.parametrize(("code", "changed", "message", "hint"), ERRORS)
def test_errors(code: str, changed: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(GemmirError) as caught:
        multiply(**changed)
    assert caught.value.code == code
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_no_mesh_at_all() -> None:
    with pytest.raises(CallError, match="GEM0564"):
        multiply(mesh=None)


def test_one_device() -> None:
    assert np.array_equal(multiply(), X @ W)


def test_jax_refuses_derivatives_of_integers() -> None:
    whole = [array.astype(np.int8) for array in (X, W)]

    def total(x: Any) -> Any:
        return multiply(x, whole[1]).sum()

    with pytest.raises(TypeError, match="int8"):
        jax.grad(total)(whole[0])


def test_the_door_is_there_before_jax_is() -> None:
    code = "import gemmir, sys; print('jax' in sys.modules, gemmir.sharded_matmul.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "sharded_matmul"]


def test_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    with pytest.raises(MissingError, match="GEM0615"):
        multiply()
