"""Kernels for TPUs as functions of JAX: calls, transformations, derivatives and errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
import pytest

import gemmir
from gemmir import Gemm, tpu_kernel
from gemmir.dtypes import ELEMENTS
from gemmir.epilogue_steps import STEP_OPERANDS
from gemmir.errors import CallError, GemmirError, MissingError
from gemmir.tpu_derivative import STEPS
from gemmir.tpu_kernel import TpuKernel

jax: Any = import_module("jax")  # its types are not complete
jnp: Any = import_module("jax.numpy")
pltpu: Any = import_module("jax.experimental.pallas.tpu")

TARGET: Final = "tpu:v5e"


def compiled(gemm: Gemm, schedule: str | None = None, interpret: Any = True) -> TpuKernel:
    kernel = gemmir.compile(gemm, TARGET, schedule, interpret=interpret)
    assert isinstance(kernel, TpuKernel)
    return kernel


def arrays_of(gemm: Gemm, seed: int = 0) -> dict[str, Any]:
    """An array of JAX in [-1, 1) for each operand."""
    generator = np.random.default_rng(seed)
    return {
        operand.name: jnp.asarray(
            generator.uniform(-1, 1, operand.shape), ELEMENTS[operand.dtype].numpy
        )
        for operand in gemm.operands
    }


def plain(gemm: Gemm, arrays: dict[str, Any]) -> Any:
    """What JAX makes of the problem, in f32."""
    wide = {name: array.astype(jnp.float32) for name, array in arrays.items()}
    a, b = (
        jnp.swapaxes(wide[name], -1, -2) if turned else wide[name]
        for name, turned in (("a", gemm.trans_a), ("b", gemm.trans_b))
    )
    x = gemm.alpha * jnp.matmul(a, b, precision="highest")
    if gemm.beta:
        x = x + gemm.beta * wide["c"]
    for step in gemm.steps:
        x = STEPS[step](x, *(wide[n] for n in STEP_OPERANDS.get(step, ())))
    return x


def close(got: Any, expected: Any, tolerance: float) -> bool:
    largest = float(jnp.max(jnp.abs(expected)))
    error = float(jnp.max(jnp.abs(got.astype(jnp.float32) - expected.astype(jnp.float32))))
    return error <= tolerance * largest


def square_of(kernel: Any) -> Any:
    """The sum of what a kernel makes of an array twice."""

    def total(x: Any) -> Any:
        return kernel(x, x).sum()

    return total


LAYER: Final = Gemm(m=24, n=130, k=40, dtype="bf16", out="bf16", trans_b=True, epilogue="bias+gelu")
UPDATE: Final = Gemm(m=24, n=130, k=40, beta=0.5)


class TestCalls:
    def test_arrays_of_jax_and_numpy_give_an_array_of_jax(self) -> None:
        kernel, arrays = compiled(LAYER), arrays_of(LAYER)
        inputs = [arrays[name] for name in ("a", "b", "bias")]
        got = kernel(*inputs)
        assert isinstance(got, jax.Array) and got.dtype == jnp.bfloat16
        assert close(got, plain(LAYER, arrays), 0.01)
        same = kernel(*map(np.asarray, inputs[:2]), bias=inputs[2])
        assert isinstance(same, jax.Array) and bool(jnp.all(same == got))

    def test_a_numpy_array_as_out_is_written_and_returned(self) -> None:
        kernel, arrays = compiled(LAYER), arrays_of(LAYER)
        inputs = [arrays[name] for name in ("a", "b", "bias")]
        out = np.zeros((24, 130), ELEMENTS["bf16"].numpy)
        assert kernel(*inputs, out=out) is out
        assert np.array_equal(out, np.asarray(kernel(*inputs)))

    def test_the_old_values_are_out_and_stay(self) -> None:
        kernel, arrays = compiled(UPDATE), arrays_of(UPDATE)
        before = np.array(arrays["c"])
        got = kernel(arrays["a"], arrays["b"], out=arrays["c"])
        assert close(got, plain(UPDATE, arrays), 1e-6)
        assert np.array_equal(arrays["c"], before)

    def test_a_bound_call_reads_what_is_there_then(self) -> None:
        kernel = compiled(UPDATE)
        a, b, c = (np.asarray(arrays_of(UPDATE)[name]).copy() for name in "abc")
        call = kernel.bind(a, b, out=c)
        a[...] = 0
        assert call() is c
        assert np.allclose(c, 0.5 * np.asarray(arrays_of(UPDATE)["c"]))

    def test_times_are_of_calls(self) -> None:
        arrays = arrays_of(LAYER)
        timing = compiled(LAYER).measure(arrays["a"], arrays["b"], arrays["bias"], seconds=0.0)
        assert timing.seconds > 0

    def test_the_same_problem_has_the_same_kernel(self) -> None:
        assert compiled(LAYER) is compiled(LAYER)
        assert compiled(LAYER) is not gemmir.compile(LAYER, TARGET)

    def test_a_traceback_shows_the_line_of_the_file(self) -> None:
        import traceback

        lowered = gemmir.lower(LAYER, TARGET)
        text = lowered.artifact.text.replace("jnp.exp(", "jnp.no_such_function(")
        from gemmir.backends.pallas.load import function_of

        with pytest.raises(AttributeError) as caught:
            function_of(text, "gemm")(*list(arrays_of(LAYER).values())[:3], interpret=True)
        assert any("no_such_function" in (f.line or "") for f in traceback.extract_tb(caught.tb))

    def test_interpret_params_find_nothing(self) -> None:
        gemm = Gemm(m=20, n=130, k=260, dtype="bf16", epilogue="bias")
        schedule = (
            "tile{loops=m,n sizes=16,128 over=grid},promote{operand=c to=vmem},"
            "tile{loops=k sizes=128},promote{operand=a to=vmem},promote{operand=b to=vmem},"
            "fuse-epilogue,pipeline{loop=k stages=2 with=dma},vectorize{with=mxu}"
        )
        params = pltpu.InterpretParams(detect_races=True, out_of_bounds_reads="raise")
        arrays = arrays_of(gemm)
        got = compiled(gemm, schedule=schedule, interpret=params)(
            arrays["a"], arrays["b"], arrays["bias"]
        )
        assert close(got, plain(gemm, arrays), 1e-5)


class TestTransformations:
    def test_jit(self) -> None:
        arrays = arrays_of(LAYER)

        def twice(*values: Any) -> Any:
            return compiled(LAYER)(*values) * 2

        assert close(jax.jit(twice)(*list(arrays.values())[:3]), 2 * plain(LAYER, arrays), 0.01)

    @pytest.mark.parametrize("axes", [(0, None, None), (0, 0, None), (None, 0, 0)])
    def test_vmap(self, axes: tuple[int | None, ...]) -> None:
        parts = [arrays_of(LAYER, seed) for seed in range(3)]
        given = [
            parts[0][name] if axis is None else jnp.stack([part[name] for part in parts])
            for name, axis in zip(("a", "b", "bias"), axes, strict=True)
        ]
        got = jax.vmap(compiled(LAYER), in_axes=axes)(*given)
        for row, part in zip(got, parts, strict=True):
            pairs = zip(("a", "b", "bias"), axes, strict=True)
            arrays = {name: (part if axis == 0 else parts[0])[name] for name, axis in pairs}
            assert close(row, plain(LAYER, arrays), 0.01)

    def test_vmap_over_old_values(self) -> None:
        arrays = arrays_of(UPDATE)
        old = jnp.stack([arrays["c"], 2 * arrays["c"]])
        kernel = compiled(UPDATE)

        def updated(c: Any) -> Any:
            return kernel(arrays["a"], arrays["b"], out=c)

        got = jax.vmap(updated)(old)
        assert close(got[1], plain(UPDATE, {**arrays, "c": old[1]}), 1e-6)

    def test_vmap_for_a_tpu(self) -> None:
        """Pallas gives the grid one more dimension, and a TPU still has the blocks."""
        kernel = gemmir.compile(replace(LAYER, m=300, k=900), TARGET)
        shapes = [(3, 300, 900), (130, 900), (130,)]
        arrays = [jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes]
        call = jax.jit(jax.vmap(kernel, in_axes=(0, None, None)))
        assert (
            "@tpu_custom_call" in call.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
        )

    @pytest.mark.parametrize("axes", [(0, None, None), (0, 0, None), (None, 0, 0)])
    def test_vmap_one_by_one(
        self, axes: tuple[int | None, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> Any:
            raise NotImplementedError

        arrays = list(arrays_of(LAYER).values())[:3]
        given = [
            x if axis is None else jnp.stack([x, 2 * x])
            for x, axis in zip(arrays, axes, strict=True)
        ]
        kernel = gemmir.lower(LAYER, TARGET).compile(interpret=True)
        expected = jax.vmap(kernel, axes)(*given)
        again = gemmir.lower(LAYER, TARGET).compile(interpret=True)
        monkeypatch.setattr(
            tpu_kernel, "jax", lambda: SimpleNamespace(**{**vars(jax), "vmap": refuse})
        )
        assert bool(jnp.all(jax.vmap(again, axes)(*given) == expected))

    def test_vmap_for_a_tpu_of_a_whole_operand_is_one_by_one(self) -> None:
        """What JAX has no batching rule for; a loop runs the kernel for each."""
        schedule = (
            "promote{operand=b to=vmem},tile{loops=m,n sizes=128,128 over=grid},"
            "promote{operand=c to=vmem},promote{operand=a to=vmem},"
            "pipeline{loop=n stages=2 with=dma},vectorize{with=mxu}"
        )
        gemm = Gemm(m=256, n=256, k=256, dtype="bf16")
        a, b = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in ((3, 256, 256), (256, 256)))
        kernel = compiled(gemm, schedule, interpret=False)
        for axes, arrays in (((0, None), (a, b)), ((None, 0), (b, a)), ((0, 0), (a, a))):
            call = jax.jit(jax.vmap(kernel, in_axes=axes))
            text = call.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
            assert "@tpu_custom_call" in text and "stablehlo.while" in text
        twice = jax.jit(jax.vmap(jax.vmap(kernel, (0, None)), (None, 0)))
        twice.trace(a, a).lower(lowering_platforms=("tpu",))


DERIVATIVES: Final = {
    "plain": Gemm(m=24, n=130, k=40, alpha=0.5),
    "a": replace(LAYER, dtype="f32", out=None, trans_a=True, trans_b=False),
    "b": replace(UPDATE, trans_b=True, epilogue="bias+silu+residual"),
    "ab": replace(UPDATE, trans_a=True, trans_b=True, epilogue="relu"),
    "batch": Gemm(m=24, n=130, k=40, batch=3, trans_b=True, epilogue="bias"),
    "one b": Gemm(m=24, n=130, k=40, batch=3, batch_stride_b=0, epilogue="bias+gelu"),
    "one b turned": Gemm(
        m=24, n=130, k=40, batch=3, batch_stride_b=0, trans_a=True, trans_b=True, beta=0.5
    ),
    "one a": Gemm(m=24, n=130, k=40, batch=3, batch_stride_a=0, trans_a=True, epilogue="residual"),
    "bf16": LAYER,
    "bf16x3": Gemm(m=24, n=130, k=40, dtype="bf16x3"),
    "e5m2": Gemm(m=24, n=130, k=40, dtype="e5m2", epilogue="bias"),
    "scale": Gemm(m=24, n=130, k=40, epilogue="bias+scale+silu"),
}
TOLERANCES: Final = {"bf16": 0.01, "bf16x3": 1e-4, "e5m2": 0.2}
"""Half a unit in the last place of what is multiplied, or of what the derivative is rounded to."""


class TestDerivatives:
    @pytest.mark.parametrize("name", DERIVATIVES)
    def test_are_those_of_jax(self, name: str) -> None:
        gemm = DERIVATIVES[name]
        arrays = arrays_of(gemm)
        names = [o.name for o in gemm.operands if o.access != "write"]
        weight = jnp.asarray(np.random.default_rng(9).uniform(-1, 1, arrays["c"].shape))

        def ours(*values: Any) -> Any:
            out = {"out": values[-1]} if gemm.beta else {}
            inputs = values[:-1] if gemm.beta else values
            return jnp.sum(compiled(gemm)(*inputs, **out).astype(jnp.float32) * weight)

        def theirs(*values: Any) -> Any:
            return jnp.sum(plain(gemm, dict(zip(names, values, strict=True))) * weight)

        every = tuple(range(len(names)))
        values = [arrays[n] for n in names]
        got = jax.jit(jax.grad(ours, every))(*values)
        expected = jax.grad(theirs, every)(*values)
        for mine, right, value in zip(got, expected, values, strict=True):
            assert mine.dtype == value.dtype and mine.shape == value.shape
            assert close(mine, right, TOLERANCES.get(name, 1e-5))

    def test_its_products_are_kernels(self) -> None:
        """For a TPU there are as many custom calls as products, and no product of XLA."""
        gemm = Gemm(m=256, n=384, k=512, dtype="bf16", out="bf16", epilogue="bias+gelu")
        kernel = gemmir.compile(gemm, TARGET)
        arrays = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in arrays_of(gemm).values()][:3]

        def loss(*values: Any) -> Any:
            return kernel(*values).astype(jnp.float32).sum()

        call = jax.jit(jax.grad(loss, (0, 1, 2)))
        text = call.trace(*arrays).lower(lowering_platforms=("tpu",)).as_text()
        assert text.count("@tpu_custom_call") == 3
        assert "stablehlo.dot_general" not in text

    def test_of_each_of_a_batch(self) -> None:
        arrays = arrays_of(LAYER)
        kernel = compiled(LAYER)

        def loss(a: Any, b: Any) -> Any:
            return kernel(a, b, arrays["bias"]).astype(jnp.float32).sum()

        stacked = jnp.stack([arrays["a"], 2 * arrays["a"]])
        got = jax.vmap(jax.grad(loss), in_axes=(0, None))(stacked, arrays["b"])
        assert close(got[1], jax.grad(loss)(stacked[1], arrays["b"]), 1e-6)

    def test_there_is_none_of_what_is_not_known(self) -> None:
        text = gemmir.lower(Gemm(m=8, n=8, k=8), TARGET).stages["vectorized"].text
        kernel = gemmir.lower_text(text, TARGET).compile(interpret=True)
        x = jnp.ones((8, 8))
        assert close(kernel(x, x), 8 * x, 1e-6)
        with pytest.raises(CallError, match="GEM0545"):
            jax.grad(square_of(kernel))(x)

    def test_that_of_a_text_which_says_all_is_known(self) -> None:
        text = gemmir.lower(Gemm(m=8, n=8, k=8), TARGET).stages["gemm"].text
        kernel = gemmir.lower_text(text, TARGET).compile(interpret=True)
        x = jnp.ones((8, 8))
        assert close(jax.grad(square_of(kernel))(x), 16 * x, 1e-6)


class TestErrors:
    def test_what_does_not_fit(self) -> None:
        a, b, bias = (arrays_of(LAYER)[name] for name in ("a", "b", "bias"))
        calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
            ("GEM0501", (a, b), {}),
            ("GEM0502", (a, b, bias), {"d": a}),
            ("GEM0504", (a.astype(jnp.float32), b, bias), {}),
            ("GEM0504", (a, b, bias), {"out": np.zeros((24, 130))}),
            ("GEM0506", (a[1:], b, bias), {}),
            ("GEM0506", (a, b.T, bias), {}),
            ("GEM0540", (a.tolist(), b, bias), {}),
            ("GEM0541", (a, b, bias), {"out": jnp.zeros((24, 130))}),
        ]
        for code, operands, named in calls:
            with pytest.raises(CallError) as caught:
                compiled(LAYER)(*operands, **named)
            assert caught.value.code == code

    def test_under_jit_too(self) -> None:
        arrays = arrays_of(LAYER)
        with pytest.raises(CallError, match="GEM0506"):
            jax.jit(compiled(LAYER))(arrays["a"], arrays["b"], arrays["bias"][1:])

    def test_out_must_be_there_and_writable_and_now(self) -> None:
        arrays = arrays_of(UPDATE)
        kernel = compiled(UPDATE)
        with pytest.raises(CallError, match="GEM0512"):
            kernel(arrays["a"], arrays["b"])
        with pytest.raises(CallError, match="GEM0542"):
            kernel(arrays["a"], arrays["b"], out=np.asarray(arrays["c"]))
        out = np.zeros((24, 130), np.float32)
        with pytest.raises(CallError, match="GEM0543"):
            jax.jit(partial(kernel, out=out))(arrays["a"], arrays["b"])

    def test_without_a_tpu(self) -> None:
        kernel = gemmir.compile(UPDATE, TARGET)
        arrays = arrays_of(UPDATE)
        with pytest.raises(MissingError) as caught:
            kernel(arrays["a"], arrays["b"], out=arrays["c"])
        assert caught.value.code == "GEM0613" and "interpret=True" in caught.value.hint

    def test_on_another_tpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Device:
            platform = "tpu"
            device_kind = "TPU v4"

        monkeypatch.setattr(jax, "devices", lambda: [Device()])
        a, b, c = (np.asarray(arrays_of(UPDATE)[name]) for name in "abc")
        with pytest.raises(MissingError) as caught:
            gemmir.compile(UPDATE, TARGET)(a, b, out=c.copy())
        assert caught.value.code == "GEM0614" and "TPU v4" in str(caught.value)

    def test_interpret_is_for_tpus(self) -> None:
        with pytest.raises(CallError, match="GEM0544"):
            gemmir.compile(UPDATE, interpret=True)
        with pytest.raises(CallError, match="GEM0546"):
            gemmir.compile(UPDATE, TARGET, interpret="yes")

    def test_without_jax(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "jax", None)
        with pytest.raises(GemmirError) as caught:
            gemmir.lower(replace(UPDATE, m=9), TARGET).compile()
        assert caught.value.code == "GEM0615" and "gemmir[tpu]" in caught.value.hint
