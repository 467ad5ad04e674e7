"""The arrays of a problem, of which every contestant has a copy in its process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gemmir.arrays import Operands, load_array, make_operands
from gemmir.gemm import Gemm
from gemmir.int4 import unpack_int4
from gemmir.signature import Argument, Signature


def make(gemm: Gemm, seed: int) -> Operands:
    """Random operands of `gemm`, and an output of what no result is."""
    return make_operands(_signature(gemm), seed)


def write(operands: Operands, folder: Path) -> None:
    """Write all that is read to files in `folder`."""
    for name, operand in operands.by_name.items():
        if operand.argument.access != "write":
            np.save(folder / f"{name}.npy", operand.array)


def read(gemm: Gemm, folder: Path) -> Operands:
    """The operands that `write` wrote, each on a cache line, and an output of what no result is."""
    given = {path.stem: load_array(path) for path in folder.glob("*.npy")}
    return make_operands(_signature(gemm), given=given)


def arguments_of(gemm: Gemm) -> tuple[Argument, ...]:
    """What each operand of `gemm` is, in order."""
    return tuple(
        Argument(
            name=operand.name,
            dtype=operand.dtype,
            shape=operand.shape,
            strides=operand.strides,
            access=operand.access,
        )
        for operand in gemm.operands
    )


def _signature(gemm: Gemm) -> Signature:
    return Signature(symbol="", arguments=arguments_of(gemm))


def dequantised(
    gemm: Gemm, arrays: Mapping[str, npt.NDArray[Any]]
) -> tuple[Gemm, dict[str, npt.NDArray[Any]]]:
    """The product in f32 of the numbers that weights and their scales stand for, and its arrays."""
    same = replace(gemm, dtype="f32", dtype_b=None, weight_group=None, lda=None, ldb=None)
    b = unpack_int4(arrays["b"]) if gemm.element_b.per_byte > 1 else arrays["b"]
    along_k = 1 if gemm.trans_b else 0
    scale = np.repeat(arrays["scale_b"], gemm.scale_depth, along_k)
    scale = scale[:, : gemm.k] if gemm.trans_b else scale[: gemm.k]
    kept = {operand.name: arrays[operand.name] for operand in same.operands}
    a = np.ascontiguousarray(arrays["a"].astype(np.float32))
    return same, {**kept, "a": a, "b": np.ascontiguousarray(b.astype(np.float32) * scale)}
