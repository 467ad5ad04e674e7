"""Properties of the emitted LLVM text."""

import re
from collections.abc import Iterator

import pytest

import gemmir
from gemmir.backends.llvm.emit import emit_module
from gemmir.errors import BackendError
from gemmir.ir.context import parse_module

GEMM = gemmir.Gemm(m=20, n=40, k=24, epilogue="bias+relu")
EVEN = gemmir.Gemm(m=24, n=48, k=24, epilogue="residual")


def text_of(gemm: gemmir.Gemm, schedule: str) -> str:
    return gemmir.lower(gemm, "cpu:x86-64-v3", schedule).artifact.text


def blocks(text: str) -> Iterator[list[str]]:
    """The basic blocks of all functions, each from its label."""
    for body in re.findall(r"^define .*?\{\n(.*?)\n\}", text, re.MULTILINE | re.DOTALL):
        for block in re.split(r"\n(?=\w+:\n)", body):
            yield block.splitlines()


def k_loops(text: str) -> list[list[str]]:
    """The blocks that multiply and add; all are loops of a single block."""
    found = [lines for lines in blocks(text) if any("@llvm.fma" in line for line in lines)]
    for lines in found:
        label = lines[0].removesuffix(":")
        assert f"label %{label}," in lines[-1], "a multiply-add outside an innermost loop"
    return found


def having(lines: list[str], pattern: str) -> list[str]:
    return [line for line in lines if re.search(pattern, line)]


def test_accumulators_are_phis(packed: str) -> None:
    for lines in k_loops(text_of(GEMM, packed)):
        assert len(having(lines, r"= phi <8 x float>")) == 6 * 2


def test_the_stack_holds_nothing(packed: str) -> None:
    assert "alloca" not in text_of(GEMM, packed)


def test_a_team_takes_its_captures_from_a_stack_slot_of_the_entry(threaded: str) -> None:
    """An alloca inside a loop would grow the stack with every iteration."""
    text = text_of(GEMM, f"tile{{loops=n sizes=16}}\n{threaded}")
    holding = [lines for lines in blocks(text) if having(lines, "alloca")]
    assert [lines[0] for lines in holding] == ["entry:"]


def test_packed_a_is_read_by_scalars_and_packed_b_by_vectors(packed: str) -> None:
    (lines,) = k_loops(text_of(EVEN, packed))
    assert len(having(lines, r"= load float,")) == 2 * 6
    assert len(having(lines, r"= load <8 x float>,")) == 2 * 2
    assert len(having(lines, r"shufflevector .* zeroinitializer$")) == 2 * 6


def test_each_step_of_k_is_one_multiply_add_an_accumulator(packed: str) -> None:
    (lines,) = k_loops(text_of(EVEN, packed))
    assert len(having(lines, r"call <8 x float> @llvm\.fma")) == 2 * 6 * 2


def test_nothing_is_masked_where_tiles_are_even(packed: str) -> None:
    assert "masked" not in text_of(EVEN, packed)


def test_masks_are_only_at_the_edges(packed: str) -> None:
    text = text_of(GEMM, packed)
    masked = [lines for lines in blocks(text) if having(lines, "call .*masked")]
    assert masked
    assert not [lines for lines in masked if having(lines, "@llvm.fma")]
    written = [lines for lines in masked if having(lines, "call void @llvm.masked.store")]
    assert written
    assert not [lines for lines in written if having(lines, r"^ *store <8 x float>")]


def test_a_row_that_is_shared_is_read_once(packed: str) -> None:
    """bias has a stride of 0: one load serves the six rows of a tile."""
    text = text_of(gemmir.Gemm(m=24, n=48, k=8, epilogue="bias"), packed)
    adds = [lines for lines in blocks(text) if len(having(lines, "= fadd <8 x float>")) >= 12]
    assert adds
    assert {len(having(lines, r"= load <8 x float>")) for lines in adds} == {2}


def test_every_element_is_read_as_its_type_aligns(packed: str) -> None:
    """User arrays are aligned to an element, so no vector may claim more."""
    for line in text_of(GEMM, packed).splitlines():
        if re.search(r"= load (<|float)|store (<|float)|masked\.(load|store)", line):
            assert "align 4" in line or line.startswith("declare")


def test_addresses_reach_llvm_as_a_base_and_a_constant(packed: str) -> None:
    """Unrolled copies add constants to one pointer; they do not multiply again."""
    (lines,) = k_loops(text_of(EVEN, packed))
    assert len(having(lines, r"= mul ")) <= 2


def test_a_kernel_without_buffers_cannot_fail() -> None:
    schedule = (
        "tile{loops=m,n sizes=4,8},promote{operand=c to=registers},vectorize{with=fma width=8}"
    )
    text = text_of(gemmir.Gemm(m=8, n=8, k=8), schedule)
    assert "ret i32 1" not in text
    assert "aligned_alloc" not in text


def test_threads_need_four_functions_of_the_runtime(threaded: str) -> None:
    text = text_of(GEMM, threaded)
    declared = set(re.findall(r"^declare .*?@((?:GOMP|omp)\w+)", text, re.MULTILINE))
    assert declared == {
        "GOMP_parallel",
        "omp_get_max_threads",
        "omp_get_num_threads",
        "omp_get_thread_num",
    }


def test_f64_is_the_same_with_double_lanes(packed: str) -> None:
    gemm = gemmir.Gemm(m=24, n=48, k=24, dtype="f64", epilogue="bias")
    schedule = packed.replace("width=8", "width=4").replace("sizes=16,6", "sizes=8,6")
    (lines,) = k_loops(text_of(gemm, schedule.replace("panel:16", "panel:8")))
    assert len(having(lines, r"= phi <4 x double>")) == 12


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("tile{loops=m sizes=4}", "gemmir.gemm has no instruction .* add promote.* and vectorize"),
        ("promote{operand=a to=l2 layout=panel:4}", "gemmir.pack has no .*add vectorize"),
        ("promote{operand=c to=registers}", "memref.alloca has no instruction"),
        (
            "promote{operand=c to=registers},vectorize{with=fma width=8}",
            "math.exp has no .*add expand-math after vectorize",
        ),
    ],
)
def test_an_op_without_an_instruction_is_an_error_with_advice(schedule: str, words: str) -> None:
    with pytest.raises(BackendError, match=words) as found:
        text_of(gemmir.Gemm(m=4, n=8, k=4, epilogue="gelu"), schedule)
    assert found.value.code == "GEM0421"


BAD = {
    "GEM0420": (
        "%v = arith.constant 1.0 : f128\n%w = arith.addf %v, %v : f128",
        "no type for f128",
    ),
    "GEM0422": (
        "%v = arith.constant dense<1.0> : vector<4xf32>\n%w = arith.addf %v, %v : vector<4xf32>",
        "not a matrix of rows and lanes",
    ),
    "GEM0424": (
        "%0 = arith.constant 0 : index\n%1 = arith.constant 1 : index\n"
        "gemmir.forall %i = %0 to %1 step %1 over cores {\n"
        "gemmir.forall %j = %0 to %1 step %1 over cores {\n}\n}",
        "inside another one",
    ),
}


@pytest.mark.parametrize("code", BAD)
def test_forms_that_have_no_instruction(code: str) -> None:
    body, words = BAD[code]
    module = parse_module(
        f"func.func @f(%c: memref<4x4xf32, strided<[1, 4]>>) {{\n{body}\nfunc.return\n}}"
    )
    with pytest.raises(BackendError, match=words) as found:
        emit_module(module)
    assert found.value.code == code


def test_only_functions_may_stand_in_a_module() -> None:
    with pytest.raises(BackendError, match="at module level") as found:
        emit_module(parse_module("%0 = arith.constant 1 : index"))
    assert found.value.code == "GEM0421"
