"""Problems of every kind by their default schedules, as machine code for CPUs that this one is.

Nothing here knows how a kind is scheduled: types, results, weights, scales, groups and batches are
drawn together, for code meets where nobody has looked.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import hypothesis.strategies as st
from hypothesis import example, given

import gemmir
from gemmir import Gemm
from gemmir.dtypes import FACTORS_B, WEIGHTS
from gemmir.epilogue_steps import EPILOGUE_STEPS, EXACT_STEPS, STEP_OPERANDS
from gemmir.errors import ProblemError
from gemmir.gemm import DTYPES
from gemmir.machine import CpuMachine, machine_for, targets
from gemmir.machine.host import missing_features
from tests.strategies import arrays_for, copied, examples, extents, furthest, surroundings

TYPES: Final = ("f32", "f64", "bf16", "f16", "i8", "u8")

NATIVE: Final = [
    name
    for name, machine in targets()
    if isinstance(machine, CpuMachine) and not missing_features(machine)
]


@st.composite
def steps(draw: st.DrawFn, known: tuple[str, ...]) -> str:
    drawn = draw(st.lists(st.sampled_from(known), max_size=3))
    return "+".join(s for i, s in enumerate(drawn) if s not in STEP_OPERANDS or s not in drawn[:i])


@st.composite
def any_problems(draw: st.DrawFn) -> Gemm:
    """A problem whose fields are drawn one by one, those that contradict each other left out."""
    dtype = draw(st.sampled_from(TYPES))
    exact = dtype in ("i8", "u8")
    gemm = Gemm(
        m=draw(extents()),
        n=draw(extents()),
        k=draw(extents(130)),
        dtype=dtype,
        out=draw(st.sampled_from(DTYPES[dtype])),
        alpha=draw(st.sampled_from([1.0, 0.0, -2.0])),
        beta=draw(st.sampled_from([0.0, 1.0, -2.0])),
        epilogue=draw(steps(EXACT_STEPS if exact else EPILOGUE_STEPS)),
    )
    other = draw(st.sampled_from([None, None, *FACTORS_B.get(dtype, ())]))
    kinds: list[dict[str, Any]] = [
        {"trans_a": draw(st.booleans())},
        {"trans_b": draw(st.booleans())},
        {"dtype_b": other, "weight_group": draw(st.sampled_from([2, 16, 32, 130]))}
        if other in WEIGHTS and not exact
        else {"dtype_b": other},
        {"batch": draw(st.sampled_from([None, None, 0, 3]))},
        {"groups": draw(st.sampled_from([None, None, 3])), "masked": draw(st.booleans())},
        {"scale_block": draw(st.sampled_from([None, None, 16, 128]))},
        *({f"ld{x}": draw(st.sampled_from([None, gemm.leading(x) + 3]))} for x in "abc"),
    ]
    for fields in kinds:
        try:
            gemm = replace(gemm, **fields)
        except ProblemError:
            continue
    return gemm


WEIGHTS_OF_16_BITS: Final = Gemm(
    m=8, n=48, k=390, dtype="bf16", out="f16", dtype_b="i8", weight_group=130
)
LAST_COLUMN: Final = Gemm(
    m=11, n=17, k=1, dtype="bf16", out="bf16", epilogue="bias", dtype_b="i8", weight_group=2
)


@given(
    any_problems(), st.sampled_from(NATIVE), st.sampled_from([1, 1, 2, 3]), st.sampled_from([0, 4])
)
@example(WEIGHTS_OF_16_BITS, "cpu", 1, 0)
@example(replace(WEIGHTS_OF_16_BITS, m=70, dtype_b="i4"), "cpu", 2, 4)
@example(LAST_COLUMN, NATIVE[-1], 3, 4)
@examples(1)
def test_default_schedules(gemm: Gemm, target: str, threads: int, offset: int) -> None:
    """Within the bound, with nothing around C touched, and no other array written."""
    arrays = arrays_for(gemm, offset=offset)
    found = copied(arrays)
    *inputs, c = found.values()
    kernel = gemmir.compile(gemm, target=target, threads=threads)
    kernel(*inputs, out=c)
    for name, array in found.items():
        assert surroundings(array) == surroundings(arrays[name]), f"around {name}"
        assert name == "c" or array.tobytes() == arrays[name].tobytes(), name
    assert furthest(gemm, arrays, c) <= 1
    if not gemm.has_weights and gemm.scale_block is None:
        again = copied(arrays)
        *_, c = again.values()
        packed = {"b": kernel.prepack(again["b"])}
        kernel(*({**again, **packed}[name] for name in list(again)[:-1]), out=c)
        assert furthest(gemm, arrays, c) <= 1


def test_what_is_drawn_is_of_every_kind() -> None:
    """The test above is about what it says it is."""
    kinds: set[str] = set()

    @given(any_problems())
    @examples(3)
    def look(gemm: Gemm) -> None:
        fields = ("batch", "groups", "scale_block", "dtype_b", "epilogue", "trans_a", "trans_b")
        kinds.update(name for name in fields if getattr(gemm, name) not in (None, False, ""))
        kinds.update(["narrow"] if gemm.result.item_bytes < gemm.accumulator.item_bytes else [])

    look()
    assert machine_for(NATIVE[0]).target in NATIVE
    assert len(kinds) == 8
