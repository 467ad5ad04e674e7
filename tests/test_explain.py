"""explain: the numbers that it says, and how instructions are counted."""

import json

import pytest

from gemmir.compiler import lower, lower_text, prepare
from gemmir.explain import explain, facts
from gemmir.explain_cpu import Explanation, InnerLoop, Reduction, explanation, inner_loop
from gemmir.explain_passes import Blocking
from gemmir.gemm import Gemm
from gemmir.passes import pass_class, pass_names

TARGET = "cpu:znver3"
GOTO = """
tile{loops=n,k sizes=1024,256}
promote{operand=b to=l3 layout=panel:16}
tile{loops=m sizes=96}
promote{operand=a to=l2 layout=panel:6}
tile{loops=n,m sizes=16,6}
promote{operand=c to=registers prefetch=true}
fuse-epilogue
vectorize{with=fma width=8}
unroll{loop=k factor=4}
expand-math
"""
GEMM = Gemm(m=192, n=2048, k=640, epilogue="bias+gelu")


@pytest.fixture(scope="module")
def goto() -> Explanation:
    return explanation(lower(GEMM, TARGET, GOTO))


def test_blocking_and_registers(goto: Explanation) -> None:
    assert goto.blocking == Blocking(mc=96, nc=1024, kc=256, mr=6, nr=16)
    assert goto.registers is not None
    assert (goto.registers.accumulators, goto.registers.used) == (12, 15)
    assert goto.registers.available == 16


def test_reduction_order(goto: Explanation) -> None:
    assert goto.reduction == Reduction(block=256, blocks=3, depth=258, bound_depth=644)


def test_inner_loop_and_its_limit(goto: Explanation) -> None:
    """Four steps of k: 12 multiply-adds, 2 loads of b and 6 broadcasts of a each."""
    loop = goto.inner_loop
    assert loop is not None
    assert (loop.fmas, loop.loads, loop.spills) == (48, 32, 0)
    assert 80 <= loop.instructions <= 96
    assert goto.limit is not None
    assert dict(goto.limit.cycles_by) == {
        "multiply-adds": 24,
        "loads": 16,
        "latency of the sums": 16,
    }
    assert goto.limit.flops_per_cycle == goto.limit.peak_flops_per_cycle == 32


def test_each_pass_says_what_it_holds_where(goto: Explanation) -> None:
    assert all(step.meaning for step in goto.steps)
    by_text = {step.text: step.meaning for step in goto.steps}
    assert by_text["tile{loops=n,k sizes=1024,256}"] == (
        "2 of n, 3 of k; 192 x 1024 x 256: a 192 KiB, b 1 MiB, c 768 KiB; together 6% of L3"
    )
    assert by_text["promote{operand=b to=l3 layout=panel:16}"] == (
        "b 1024 x 256 packed, 1 MiB, 3% of L3; a panel of 16 is 16 KiB, 50% of L1"
    )
    assert by_text["promote{operand=a to=l2 layout=panel:6}"] == (
        "a 96 x 256 packed, 96 KiB, 19% of L2; a panel of 6 is 6 KiB, 19% of L1"
    )
    assert "15 of 16 registers" in by_text["vectorize{with=fma width=8}"]


def test_intensity(goto: Explanation) -> None:
    assert goto.flops_per_byte == GEMM.flops / GEMM.bytes_moved


def test_every_pass_has_a_meaning() -> None:
    from gemmir.explain_passes import meaning

    for name in pass_names():
        assert pass_class(name) in meaning.registry, f"{name} is not explained"


def test_text_has_every_section() -> None:
    text = lower(GEMM, TARGET, GOTO).explain()
    for line in (
        "problem    m=192 n=2048 k=640 f32 alpha=1 beta=0 epilogue=bias+gelu",
        "machine    cpu:znver3 (znver3): L1 32 KiB, L2 512 KiB, L3 32 MiB",
        "blocking   mc=96 nc=1024 kc=256 mr=6 nr=16",
        "registers  15 of 16 vector registers",
        "reduction  each element of c: 3 blocks of k, each up to 256 fused multiply-adds",
        "inner loop 48 vector FMAs, 32 vector loads, 0 spills",
        "bound      32.0 flops a cycle, 100% of the peak of 32",
    ):
        assert line in text


def test_numbers_are_plain_values(goto: Explanation) -> None:
    found = json.loads(json.dumps(goto.to_dict()))
    assert found["problem"]["m"] == 192
    assert found["registers"]["used"] == 15
    assert found["limit"]["flops_per_cycle"] == 32
    assert found["steps"][0]["text"] == "tile{loops=n,k sizes=1024,256}"


def test_default_schedule_is_explained_on_every_kind_of_machine() -> None:
    for target in ("cpu:x86-64-v4", "cpu:neoverse-n1"):
        found = explanation(lower(Gemm(m=256, n=256, k=256), target))
        assert found.limit is not None
        assert found.limit.flops_per_cycle > 0.5 * found.limit.peak_flops_per_cycle


def test_later_stage_has_no_problem() -> None:
    job = prepare(Gemm(m=12, n=16, k=8), TARGET)
    found = explanation(lower_text(job.stages["promoted"].text, TARGET))
    assert (found.problem, found.blocking, found.limit) == (None, None, None)
    assert found.inner_loop is not None
    assert "problem    not known" in lower_text(job.stages["promoted"].text, TARGET).explain()


X86 = """
gemm:
\tvmovups\t(%rsi), %ymm9
.LBB0_1:
\tjmp\t.LBB0_3
.LBB0_2:
\tvmovups\t(%rsi,%rax), %ymm0
\tvbroadcastss\t(%rdi), %ymm1
\tvmovups\t%ymm7, 32(%rsp)
\tvfmadd231ps\t%ymm1, %ymm0, %ymm2
\tvfmadd231ps\t64(%rsi), %ymm0, %ymm3
\tvmovups\t32(%rsp), %ymm7
\taddq\t$4, %rax
\tjl\t.LBB0_2
.LBB0_4:
\tvfmadd231ps\t%ymm1, %ymm0, %ymm2
\tvfmadd231ps\t%ymm1, %ymm0, %ymm2
\tvfmadd231ps\t%ymm1, %ymm0, %ymm2
\tjge\t.LBB0_1
\tretq
"""

AARCH64 = """
.LBB0_2:
\tldr\tq0, [x0, x8]
\tldp\tq1, q2, [x1]
\tfmla\tv3.4s, v1.4s, v0.s[0]
\tfmla\tv4.4s, v2.4s, v0.s[0]
\tstr\tq3, [sp, #16]
\tb.lt\t.LBB0_2
"""


def test_innermost_loop_is_counted_and_not_the_one_around_it() -> None:
    assert inner_loop(X86) == InnerLoop(fmas=2, loads=3, spills=2, instructions=8)


def test_aarch64_is_counted() -> None:
    assert inner_loop(AARCH64) == InnerLoop(fmas=2, loads=2, spills=1, instructions=6)


def test_code_without_multiply_adds_has_no_inner_loop() -> None:
    assert inner_loop(X86.replace("vfmadd231ps", "vaddps")) is None


def test_jump_into_the_middle_is_no_loop() -> None:
    """Blocks after a loop may be laid out before it; jumping back to them is no inner loop."""
    text = "jmp\t.LBB0_2\n.LBB0_1:\n{fma}\n.LBB0_2:\n{fma}\n\tjl\t.LBB0_1\n"
    fma = "\tvfmadd231ps\t%ymm1, %ymm0, %ymm2"
    assert inner_loop("\t" + text.format(fma=fma)) is None
    assert inner_loop(text.format(fma=fma).replace("jmp\t.LBB0_2\n", "")) is not None


def test_a_gpu_says_how_it_sums() -> None:
    schedule = (
        "split-k{factor=4},tile{loops=m,n sizes=8,8 over=blocks},"
        "tile{loops=m,n sizes=4,4 over=threads},promote{operand=c to=registers},"
        "tile{loops=k sizes=16},vectorize{with=fma width=4}"
    )
    lowered = lower(Gemm(m=16, n=16, k=100), "cuda:sm_80", schedule)
    text = lowered.explain()
    assert "32 products in the order of k, from zero" in text
    assert "in each of 4 slices, which are then added in the same order" in text
    assert "workspace  4096 bytes of global memory" in text
    assert facts(lowered)["sum"] == {"slices": 4, "length": 32, "at_once": 1, "part": None}


def test_matrix_tiles_are_explained() -> None:
    """Their registers are others than vectors, and so are the products and what bounds them."""
    gemm = Gemm(m=1024, n=1024, k=1024, dtype="bf16")
    found = explanation(lower(gemm, "cpu:sapphirerapids"))
    assert found.registers is not None
    assert (found.registers.accumulators, found.registers.used) == (4, 7)
    assert (found.registers.available, found.registers.kind) == (8, "matrix tiles")
    assert found.reduction == Reduction(
        block=256, blocks=4, at_once=32, depth=16 + 1 + 8 + 3, bound_depth=1028
    )
    assert found.inner_loop is not None
    assert found.inner_loop.in_tiles
    assert (found.inner_loop.fmas, found.inner_loop.loads, found.inner_loop.spills) == (4, 4, 0)
    assert found.limit is not None
    assert found.limit.flops_per_cycle == found.limit.peak_flops_per_cycle == 1024
    assert found.limit.cycles_by["products of tiles"] == 64
    text = explain(lower(gemm, "cpu:sapphirerapids"))
    assert "32 x 32 sums in 2 x 2 matrix tiles" in text
    assert "inner loop 4 products of tiles, 4 tile loads, 0 spills" in text


def test_running_sums_take_registers_too() -> None:
    gemm = Gemm(m=4, n=16, k=64, dtype="bf16", out="bf16", dtype_b="i8", weight_group=32)
    found = explanation(lower(gemm, TARGET))
    assert found.registers is not None and found.reduction is not None
    assert found.registers.accumulators == 2 * 2 * 2  # of two rows by two vectors
    assert found.reduction.running
    assert "added to a running sum in that order" in explain(lower(gemm, TARGET))
