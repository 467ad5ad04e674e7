"""The bytes that blocks move, against a walk of the grid in Python."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import pytest

from gemmir.backends.pallas.profile import Program
from gemmir.backends.pallas.profile.traffic import calls
from tests.backends.pallas.profile.programs import dot, kernel

pytest.importorskip("jax")

BF16_BYTES: Final = 2


def traced(program: Program) -> list[dict[str, Any]]:
    jax: Any = import_module("jax")
    names: dict[str, Any] = {}
    exec(program.text, names)
    arrays = [jax.ShapeDtypeStruct(a.shape, jax.numpy.dtype(a.dtype)) for a in program.arguments]
    return calls(jax.make_jaxpr(names[program.function])(*arrays))


def walked(m: int, n: int, k: int, blocks: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Copies and bytes of a, b and c, by going from step to step."""
    bm, bn, bk = blocks
    grid = [-(-size // block) for size, block in zip((m, n, k), blocks, strict=True)]
    before: list[tuple[int, int] | None] = [None] * 3
    found = [(0, 0)] * 3
    steps = [(i, j, p) for i in range(grid[0]) for j in range(grid[1]) for p in range(grid[2])]
    for i, j, p in steps:
        rows, columns, depth = min(bm, m - i * bm), min(bn, n - j * bn), min(bk, k - p * bk)
        now = [(i, p), (p, j), (i, j)]
        sizes = [rows * depth, depth * columns, rows * columns]
        for number in range(3):
            if now[number] != before[number]:
                copies, size = found[number]
                found[number] = (copies + 1, size + sizes[number] * BF16_BYTES)
        before = [*now]
    return found


@pytest.mark.parametrize(
    ("sizes", "blocks"),
    [
        ((512, 512, 512), (128, 256, 128)),
        ((512, 384, 256), (256, 128, 256)),
        ((300, 200, 500), (128, 128, 128)),
        ((128, 128, 128), (128, 128, 128)),
    ],
)
def test_every_block_is_counted_when_it_changes(
    sizes: tuple[int, int, int], blocks: tuple[int, int, int]
) -> None:
    (call,) = traced(kernel(*sizes, blocks=blocks))
    assert [(block["copies"], block["bytes"]) for block in call["blocks"]] == walked(*sizes, blocks)


def test_a_kernel_within_a_function() -> None:
    """Calls are found where `jit` hides them; a program without a kernel has none."""
    inner = kernel(256, 256, 256, blocks=(128, 128, 128))
    text = inner.text + "\n\nouter = jax.jit(lambda a, b: kernel(a, b) + 1)\n"
    (call,) = traced(Program(text=text, function="outer", arguments=inner.arguments))
    assert call["grid"] == [2, 2, 2]
    assert traced(dot(128, 128, 128)) == []


def test_a_kernel_that_copies_by_itself() -> None:
    inner = kernel(256, 256, 256, blocks=(128, 128, 128))
    text = inner.text.replace(
        "pl.BlockSpec((128, 128), lambda i, j, l: (i, l))", "pl.BlockSpec(memory_space=pl.ANY)"
    ).replace("jnp.dot(a[...], b[...],", "jnp.dot(b[...], b[...],")
    (call,) = traced(Program(text=text, function="kernel", arguments=inner.arguments))
    assert call["blocks"] is None
