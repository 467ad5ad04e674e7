"""Runs sharded products on virtual devices, in a process of its own: how many there are must be
known before JAX is first used.

Reads a case as JSON from each line of its input and writes what it found as a line of JSON. Ends
when its input does, so that it does not outlive the tests. As `worker.py PORT COUNT NUMBER` it is
one of several processes, which together have all devices.
"""

from __future__ import annotations

import json
import math
import os
import sys
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from types import ModuleType
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

import gemmir
from gemmir.dtypes import ELEMENTS, PRODUCTS
from gemmir.gemm import Gemm

Array = npt.NDArray[Any]

jax: Any = import_module("jax")
"""JAX, whose functions are annotated in part only."""

SOURCES = Path(gemmir.__file__).parent / "sharded"
MODULES = ("plan", "problem", "ring", "shard", "product")
"""The modules of sharded products, each after those that it imports."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A product and how it lies; `specs` are those of x, w and the result, an entry a list.

    With `vmap` x is the last of a stack of two; with `dma` the interpreter is the one that knows of
    copies and races. With `explicit` the axes are part of types, and the mesh is that of the
    context. Without `placed` the operands are NumPy arrays. `edit` is a file of `gemmir/sharded`, a
    text in it and what to put in its place.
    """

    mesh: dict[str, int]
    specs: tuple[list[Any], list[Any], list[Any]]
    rows: list[int]
    k: int
    n: int
    dtype: str = "f32"
    product: str | None = None
    out: str | None = None
    epilogue: str = ""
    overlap: bool | None = None
    gradient: bool = False
    whole: bool = False
    jit: bool = False
    vmap: bool = False
    dma: bool = False
    explicit: bool = False
    placed: bool = True
    edit: list[str] = field(default_factory=list[str])


def main() -> None:
    """Answer cases until there is no input. What libraries print goes with the errors."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if sys.argv[1:]:
        _join(*sys.argv[1:])
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    while True:
        print(json.dumps(found(json.loads(lines.get()))), file=answers, flush=True)


def _read(lines: SimpleQueue[str]) -> None:
    """Hand lines on, and end the process with its input, also while it waits for another one."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _join(port: str, count: str, number: str) -> None:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", int(count), int(number))


def found(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a case gives: the largest error beside its bound of each array, or an error's code."""
    case = Case(**given)
    with edited(case.edit) as sharded_matmul:
        try:
            return Run(case, sharded_matmul).ratios()
        except gemmir.GemmirError as error:
            return {"code": error.code, "message": error.message, "hint": error.hint}
        except Exception as error:
            if not case.edit:
                raise
            return {"raised": f"{type(error).__name__}: {error}"}


@contextmanager
def edited(edit: list[str]) -> Generator[Any]:
    """`sharded_matmul`, for a while of sources with a wrong edit."""
    if not edit:
        yield gemmir.sharded_matmul
        return
    file, old, new = edit
    names = [f"gemmir.sharded.{name}" for name in MODULES]
    before = {name: sys.modules.pop(name) for name in names if name in sys.modules}
    for name, short in zip(names, MODULES, strict=True):
        source = (SOURCES / f"{short}.py").read_text()
        if short == file:
            assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times in {file}"
            source = source.replace(old, new)
        module = ModuleType(name)
        module.__file__ = str(SOURCES / f"{short}.py")
        sys.modules[name] = module
        exec(compile(source, module.__file__, "exec"), vars(module))
    try:
        yield gemmir.sharded_matmul
    finally:
        for name in names:
            del sys.modules[name]
        sys.modules.update(before)


def mesh_of(case: Case) -> Mesh:
    """The first devices, in the shape that the case says."""
    names, sizes = tuple(case.mesh), tuple(case.mesh.values())
    devices = np.array(jax.devices()[: math.prod(sizes)]).reshape(sizes)
    kind = AxisType.Explicit if case.explicit else AxisType.Auto
    return Mesh(devices, names, axis_types=(kind,) * len(names))


class Run:
    """One case on its mesh, compared with float64."""

    def __init__(self, case: Case, sharded_matmul: Any) -> None:
        self.case = case
        self.sharded_matmul = sharded_matmul
        self.mesh = mesh_of(case)
        ranks = (len(case.rows) + 1, 2, len(case.rows) + 1)
        self.specs = [
            PartitionSpec(*map(_entry, spec), *(None,) * (rank - len(spec)))
            for spec, rank in zip(case.specs, ranks, strict=True)
        ]
        self.product = case.product or case.dtype
        self.out = case.out or _default_out(case.dtype)
        self.random = np.random.default_rng(0)

    def ratios(self) -> dict[str, Any]:
        """The largest error beside its bound, by array; whether all lie as the specs say."""
        operands = self._operands()
        with jax.set_mesh(self.mesh) if self.case.explicit else _nothing():
            placed = {name: self._placed(name, x) for name, x in operands.items()}
            result, pulled = self._call(placed)
        m = math.prod(self.case.rows)
        gemm = self._gemm(m=m, n=self.case.n, k=self.case.k, epilogue=self.case.epilogue)
        flat = {
            "a": operands["x"].reshape(m, self.case.k),
            "b": operands["w"],
            **{
                n: x.reshape(m, self.case.n) if n == "residual" else x
                for n, x in operands.items()
                if n in ("bias", "residual")
            },
        }
        shape = (*self.case.rows, self.case.n)
        found = {"c": _worst(result, gemm.reference(flat), gemm.error_bound(flat), shape)}
        if self.case.gradient:
            found |= self._gradient_ratios(operands, pulled)
        lies = result.sharding.is_equivalent_to(self._sharding(2), result.ndim)
        return {"ratios": found, "lies": lies, "type": str(result.dtype)}

    def _gemm(self, **sizes: Any) -> Gemm:
        return Gemm(dtype=self.product, out=self.out, **sizes)

    def _operands(self) -> dict[str, Array]:
        case = self.case
        shapes = {"x": (*case.rows, case.k), "w": (case.k, case.n)}
        if "bias" in case.epilogue:
            shapes["bias"] = (case.n,)
        if "residual" in case.epilogue:
            shapes["residual"] = (*case.rows, case.n)
        if case.gradient:
            shapes["gradient"] = (*case.rows, case.n)
        return {name: self._numbers(name, shape) for name, shape in shapes.items()}

    def _numbers(self, name: str, shape: tuple[int, ...]) -> Array:
        element = ELEMENTS[self.case.dtype if name in "xw" else self.out]
        if element.is_integer or self.case.whole:
            return self.random.integers(-1, 2, shape).astype(element.numpy)
        return self.random.uniform(-1, 1, shape).astype(element.numpy)

    def _sharding(self, number: int) -> NamedSharding:
        return NamedSharding(self.mesh, self.specs[number])

    def _placed(self, name: str, x: Array) -> Any:
        """An array as it lies; each process gives the parts of its own devices."""
        if not self.case.placed:
            return x
        if name in ("x", "w"):
            sharding = self._sharding("xw".index(name))
        elif name == "bias":
            sharding = NamedSharding(self.mesh, PartitionSpec(*self.specs[2][-1:]))
        else:
            sharding = self._sharding(2)
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    def _call(self, placed: Mapping[str, Any]) -> tuple[Any, Any]:
        """The result, and what comes back for each operand of `gradient`."""
        operands = {name: x for name, x in placed.items() if name != "gradient"}

        def call(operands: Mapping[str, Any]) -> Any:
            return self._stacked(**operands) if self.case.vmap else self._multiply(**operands)

        def both(operands: Mapping[str, Any], gradient: Any) -> Any:
            result, pull = jax.vjp(call, operands)
            return result, pull(gradient)[0]

        if self.case.gradient:
            return jax.jit(both)(operands, placed["gradient"])
        return (jax.jit(call) if self.case.jit else call)(operands), None

    def _stacked(self, x: Any, w: Any) -> Any:
        both = jax.numpy.stack([jax.numpy.zeros_like(x), x])
        return jax.vmap(self._multiply, in_axes=(0, None))(both, w)[1]

    def _multiply(self, x: Any, w: Any, **extras: Any) -> Any:
        case = self.case
        return self.sharded_matmul(
            x,
            w,
            mesh=None if case.explicit else self.mesh,
            in_specs=(self.specs[0], self.specs[1]),
            out_specs=self.specs[2],
            epilogue=case.epilogue,
            dtype=case.product,
            preferred_element_type=None if case.out is None else ELEMENTS[case.out].numpy,
            overlap=case.overlap,
            interpret=interpreter() if case.dma else None,
            **extras,
        )

    def _gradient_ratios(self, operands: Mapping[str, Array], pulled: Any) -> dict[str, float]:
        """The derivatives beside products of float64: the epilogue has none of gelu and silu."""
        case = self.case
        m, n, k = math.prod(case.rows), case.n, case.k
        x, w = operands["x"].reshape(m, k), operands["w"]
        back = operands["gradient"].reshape(m, n).astype(np.float64)
        total = x.astype(np.float64) @ w.astype(np.float64)
        found: dict[str, float] = {}
        for step in reversed(case.epilogue.split("+") if case.epilogue else ()):
            if step == "relu":
                before = total + (operands["bias"].astype(np.float64) if "bias" in operands else 0)
                back = back * (before > 0)
            else:
                exact = back.sum(axis=0) if step == "bias" else back
                # No bound: such cases have whole numbers, whose sums are exact.
                found[step] = _worst(
                    pulled[step], exact, np.zeros_like(exact), operands[step].shape
                )
        product = "bf16" if ELEMENTS[case.dtype].item_bytes == 1 else self.product
        x, w, near = (array.astype(PRODUCTS[product].element.numpy) for array in (x, w, back))
        kept: Any = {"dtype": product, "out": _default_out(product)}
        by_x = Gemm(m=m, n=k, k=n, trans_b=True, **kept)
        by_w = Gemm(m=k, n=n, k=m, trans_a=True, **kept)
        for name, gemm, a, b in (("x", by_x, near, w), ("w", by_w, x, near)):
            flat = {"a": a, "b": b}
            element, exact, bound = (
                ELEMENTS[case.dtype],
                gemm.reference(flat),
                gemm.error_bound(flat),
            )
            bound = bound + element.unit * (np.abs(exact) + bound) + element.least
            found[name] = _worst(pulled[name], exact, bound, operands[name].shape)
        return found


def interpreter() -> Any:
    """The interpreter of Pallas for TPUs."""
    return import_module("jax.experimental.pallas.tpu").InterpretParams(detect_races=True)


def _entry(entry: Any) -> Any:
    return tuple(cast("list[str]", entry)) if isinstance(entry, list) else entry


def _default_out(dtype: str) -> str:
    results = PRODUCTS[dtype].results
    return dtype if dtype in results else results[0]


@contextmanager
def _nothing() -> Generator[None]:
    yield


def _worst(result: Any, exact: Array, bound: Array, shape: tuple[int, ...]) -> float:
    """The largest error beside its bound of the parts of an array that this process has."""
    exact, bound = exact.reshape(shape), bound.reshape(shape)
    worst = 0.0
    for shard in result.addressable_shards:
        error = np.abs(np.asarray(shard.data, np.float64) - exact[shard.index])
        limit = bound[shard.index]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(error == 0, 0.0, error / limit)
        worst = max(worst, float(np.max(np.nan_to_num(ratio, nan=np.inf), initial=0.0)))
    return min(worst, 1e300)


if __name__ == "__main__":
    main()
