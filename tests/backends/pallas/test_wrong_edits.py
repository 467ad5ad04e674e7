"""Wrong edits of emitted Pallas files: each is caught, by the check that is named.

They are the mistakes that kernels are known for: an accumulator that nobody clears, a mask on one
operand only, blocks of another step, contracted dimensions exchanged, an edge that is off by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pytest

from gemmir import Gemm
from gemmir.backend import Artifact
from gemmir.backends.pallas.export import stablehlo
from gemmir.backends.pallas.profile import compile_for
from gemmir.errors import BackendError, ProfileError
from gemmir.machine.tpu import V5E
from tests.backends.pallas.interpreted import emitted, interpreted, random_numbers, whole_numbers
from tests.backends.pallas.profile.programs import needs_libtpu
from tests.backends.pallas.test_lowered import program
from tests.backends.pallas.test_memory import CASES, Case, memories
from tests.strategies import furthest

Array = npt.NDArray[Any]
Edit = Callable[[str], str]

NUMBERS: Final = "numbers"
"""Other numbers than the evaluator has of the IR."""

UNDEFINED: Final = "undefined"
"""What nobody has written, or what is past an edge, is in the result."""

MEMORY: Final = "memory"
"""Where memories are interpreted: a read beyond a buffer, or of what nobody has written."""

ORDER: Final = "order"
"""Wrong where parallel steps run in another order; otherwise right."""

BOUND: Final = "bound"
"""More rounding than the bound allows; whole numbers would be right."""

REFUSED: Final = "refused"
"""JAX does not trace it."""

CASES_HERE: Final = {
    **CASES,
    "rounded": Case(
        gemm=Gemm(m=20, n=30, k=24, dtype="bf16x1"),
        schedule=(
            "tile{loops=m,n sizes=16,32 over=grid}",
            *(f"promote{{operand={name} to=vmem}}" for name in "cab"),
            "pipeline{loop=n stages=2 with=dma}",
            "vectorize{with=mxu}",
        ),
    ),
}


def values_of(name: str) -> dict[str, Array]:
    """Whole numbers; where they are rounded, such that have more bits than bf16."""
    values = whole_numbers(CASES_HERE[name].gemm)
    if name == "rounded":
        for operand in "ab":
            values[operand] *= 257
    return values


@cache
def kernel(name: str) -> tuple[Artifact, Array]:
    """The kernel of a case, and what is right."""
    case = CASES_HERE[name]
    artifact, expected = emitted(case.gemm, ",".join(case.schedule), V5E, values_of(name))
    assert expected is not None
    return artifact, expected


def sub(pattern: str, by: str, number: int = 0) -> Edit:
    """Replace the match of that number, from 0."""

    def edit(text: str) -> str:
        found = list(re.finditer(pattern, text, re.MULTILINE))
        assert found, pattern
        at = found[number]
        return text[: at.start()] + at.expand(by) + text[at.end() :]

    return edit


@dataclass(frozen=True)
class Wrong:
    """A mistake: in which kernel, how the text is edited, and which check catches it."""

    mistake: str
    of: str
    edit: Edit
    caught_by: str
    says: str = ""


WRONG: Final = (
    Wrong(
        "no accumulator is cleared",
        "slices",
        sub(r"jnp\.where\(p == 0, 0\.0, (acc_ref\[\.\.\.\])\)", r"\1"),
        UNDEFINED,
    ),
    Wrong("cleared in every step", "slices", sub(r"p == 0", "p >= 0"), NUMBERS),
    Wrong("cleared for every part of k", "whole operand", sub(r" & \(p_2 == 0\)", ""), NUMBERS),
    Wrong(
        "no mask along k on A", "slices", sub(r"a = jnp\.where\(.*\)$", "a = a_ref[...]"), UNDEFINED
    ),
    Wrong(
        "no mask along k on B", "slices", sub(r"b = jnp\.where\(.*\)$", "b = b_ref[...]"), UNDEFINED
    ),
    Wrong("a mask that ends too late", "slices", sub(r"< size", "<= size"), UNDEFINED),
    Wrong("a mask that ends too early", "slices", sub(r"56 - p \* 16", "55 - p * 16"), NUMBERS),
    Wrong(
        "a mask along the rows",
        "slices",
        sub(r"\(16, 16\), 1\) < size", "(16, 16), 0) < size"),
        UNDEFINED,
    ),
    Wrong(
        "A by the columns of C",
        "slices",
        sub(r"lambda i, j, p: \(i, p\)", "lambda i, j, p: (j, p)"),
        NUMBERS,
    ),
    Wrong(
        "B of the step before",
        "slices",
        sub(r"lambda i, j, p: \(p, j\)", "lambda i, j, p: (p - (p > 0), j)"),
        NUMBERS,
    ),
    Wrong(
        "a bias by rows",
        "slices",
        sub(r"lambda i, j, p: \(0, j\)", "lambda i, j, p: (0, i // 2)"),
        UNDEFINED,
    ),
    Wrong(
        "the matrix of another product of the batch",
        "batch",
        sub(r"\(s, 0, i\)", "(0, 0, i)"),
        NUMBERS,
    ),
    Wrong(
        "the blocks of C exchanged",
        "slices",
        sub(r"(out_specs=.*lambda i, j, p: )\(i, j\)", r"\1(i, 1 - j)"),
        UNDEFINED,
    ),
    Wrong(
        "the dimensions of a block exchanged",
        "slices",
        sub(r"BlockSpec\(\(16, 32\)", "BlockSpec((32, 16)"),
        REFUSED,
    ),
    Wrong(
        "contracted along the wrong dimensions",
        "batch",
        sub(r"\(\(\(0,\), \(1,\)\)", "(((1,), (0,))"),
        REFUSED,
    ),
    Wrong(
        "a transposed A taken as it lies",
        "rounded",
        sub(r"a_ref\[\.\.\.\]\.astype", "a_ref[...].reshape(24, 16).T.astype"),
        UNDEFINED,
    ),
    Wrong("a step too few along k", "slices", sub(r"\(3, 2, 4\)", "(3, 2, 3)"), UNDEFINED),
    Wrong("the last rows left out", "slices", sub(r"\(3, 2, 4\)", "(2, 2, 4)"), UNDEFINED),
    Wrong("written back before the last slice", "slices", sub(r"p == 3", "p == 2"), NUMBERS),
    Wrong("never written back", "slices", sub(r"p == 3", "p == 4"), UNDEFINED),
    Wrong(
        "parts of a block left out",
        "in place",
        sub(r"range\(0, 16, 8\)", "range(0, 8, 8)"),
        UNDEFINED,
    ),
    Wrong(
        "the same part of a block in every iteration",
        "in place",
        sub(r"a_ref\[pl\.ds\(i, 8\)", "a_ref[pl.ds(0, 8)"),
        NUMBERS,
    ),
    Wrong(
        "a part that begins too late",
        "whole operand",
        sub(r"a_ref\[pl\.ds\(i \* 16, 16\)", "a_ref[pl.ds(i * 16 + 8, 16)"),
        MEMORY,
        "Out-of-bounds read",
    ),
    Wrong(
        "slices of k in any order",
        "slices",
        sub(r'"arbitrary"', '"parallel"'),
        ORDER,
    ),
    Wrong(
        "the old C read from the block that is written",
        "in place",
        sub(r"c_old_ref\[\.\.\.\] \*", "c_ref[...] *"),
        MEMORY,
    ),
    Wrong(
        "changed in place of another array",
        "in place",
        sub(r"input_output_aliases=\{2: 0\}", "input_output_aliases={0: 0}"),
        REFUSED,
    ),
    Wrong(
        "the factor of the sum for the old C too",
        "in place",
        sub(r"\* 3\.0", "* 2.0"),
        NUMBERS,
    ),
    Wrong(
        "A not rounded",
        "rounded",
        sub(
            r"a_ref\[\.\.\.\]\.astype\(jnp\.bfloat16\),\n(\s+)b_ref\[\.\.\.\].*,",
            r"a_ref[...],\n\1b_ref[...].astype(jnp.bfloat16).astype(jnp.float32),",
        ),
        NUMBERS,
    ),
    Wrong(
        "products rounded to bf16",
        "slices",
        sub(r"\+ product$", "+ lax.reduce_precision(product, 8, 7)"),
        BOUND,
    ),
    Wrong(
        "a result that is not rounded", "one step", sub(r"\.astype\(jnp\.bfloat16\)", ""), REFUSED
    ),
)


def run(wrong: Wrong, values: dict[str, Array], how: Any = True) -> Array:
    """What the edited kernel makes of `values`."""
    artifact, _ = kernel(wrong.of)
    text = wrong.edit(artifact.text)
    assert text != artifact.text
    return interpreted(artifact, text=text, how=how)(values)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.mistake.replace(" ", "-"))
def test_it_is_caught(wrong: Wrong) -> None:
    values, (_, expected) = values_of(wrong.of), kernel(wrong.of)
    if wrong.caught_by == REFUSED:
        with pytest.raises((TypeError, ValueError)):
            run(wrong, values)
        return
    if wrong.caught_by == MEMORY and wrong.says:
        with pytest.raises(Exception, match=wrong.says):
            run(wrong, values, memories())
        return
    if wrong.caught_by == MEMORY:
        np.testing.assert_array_equal(run(wrong, values), expected)
        assert np.isnan(run(wrong, values, memories())).all()
        return
    if wrong.caught_by == ORDER:
        np.testing.assert_array_equal(run(wrong, values), expected)
        found = run(wrong, values, memories(random_seed=7))
        assert not np.array_equal(found, expected)
        return
    if wrong.caught_by == BOUND:
        gemm = CASES_HERE[wrong.of].gemm
        drawn = random_numbers(gemm)
        assert furthest(gemm, drawn, run(wrong, drawn)) > 1
        return
    found = run(wrong, values).astype(np.float64)
    is_undefined = bool(np.isnan(found).any())
    assert is_undefined == (wrong.caught_by == UNDEFINED)
    assert not np.array_equal(found, expected.astype(np.float64))


@pytest.mark.parametrize("name", CASES_HERE)
def test_unedited_kernels_pass(name: str) -> None:
    artifact, expected = kernel(name)
    np.testing.assert_array_equal(interpreted(artifact)(values_of(name)), expected)


SCHEDULE: Final = (
    "tile{loops=m,n sizes=128,128 over=grid},promote{operand=c to=vmem},"
    "promote{operand=a to=vmem},promote{operand=b to=vmem},pipeline{loop=n stages=2 with=dma},"
    "vectorize{with=mxu}"
)


def test_blocks_that_are_no_whole_tiles_are_refused() -> None:
    """Right numbers in the interpreter, and no block of a TPU."""
    artifact, _ = emitted(Gemm(m=256, n=256, k=256, dtype="bf16"), SCHEDULE, V5E)
    text = artifact.text.replace("(128, 256)", "(100, 256)", 1)
    with pytest.raises(BackendError) as found:
        stablehlo(replace(artifact, text=text))
    assert found.value.code == "GEM0477"


@needs_libtpu
def test_too_little_vmem_is_refused() -> None:
    artifact, _ = emitted(Gemm(m=1024, n=4096, k=4096, dtype="bf16"), SCHEDULE, V5E)
    text = re.sub(r"vmem_limit_bytes=\d+", "vmem_limit_bytes=65536", artifact.text)
    with pytest.raises(ProfileError) as found:
        compile_for(V5E, program(replace(artifact, text=text)))
    assert found.value.code == "GEM1103"
