"""The text of a Pallas file: what stands in it, in which order, and what it refuses to say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import gemmir
from gemmir import Gemm
from gemmir.errors import BackendError
from gemmir.machine.tpu import SHIPPED_TPUS
from tests.backends.pallas.texts import DOT, OLD, READ_A, READ_B, VMEM, WRITE, emitted, module


def lines_of(text: str) -> list[str]:
    """The lines of the kernel, without its head."""
    kernel = text[text.index("_kernel(") : text.index("\n\n\ndef ", text.index("_kernel("))]
    return [line.strip() for line in kernel.split("\n")[2:]]


def test_the_whole_file() -> None:
    expected = Path(__file__).with_name("gemm.py.txt")
    assert emitted(module()).text == expected.read_text()


def test_a_file_is_what_black_and_a_reader_expect() -> None:
    """It is Python, its lines are short, and it imports what it uses and nothing else."""
    for gemm in (
        Gemm(m=300, n=260, k=520, dtype="bf16", trans_a=True, epilogue="bias+gelu+residual"),
        Gemm(m=300, n=260, k=520, dtype="bf16x3", batch=2, batch_stride_b=0, beta=0.5),
        Gemm(m=300, n=260, k=520, dtype="i8", epilogue="bias+relu"),
    ):
        text = gemmir.lower(gemm, "tpu:v5e").artifact.text
        tree = ast.parse(text)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        imported = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        assert imported <= names
        assert ast.get_docstring(tree, clean=False)
        assert max(map(len, text.split("\n"))) <= 100
        assert not any(line != line.rstrip() for line in text.split("\n"))


def test_a_transposed_operand_is_so_in_the_product_and_in_its_blocks() -> None:
    gemm = Gemm(m=256, n=256, k=256, dtype="bf16", trans_a=True, trans_b=True)
    schedule = (
        "tile{loops=m,n sizes=128,256 over=grid},promote{operand=c to=vmem},"
        "promote{operand=a to=vmem},promote{operand=b to=vmem},"
        "pipeline{loop=n stages=2 with=dma},vectorize{with=mxu}"
    )
    text = gemmir.lower(gemm, "tpu:v5e", schedule).artifact.text
    assert "(((0,), (1,)), ((), ()))" in text
    assert "pl.BlockSpec((256, 128), lambda i, j: (0, i))," in text
    assert ".T\n" not in text and "transpose" not in text


def test_a_shared_matrix_has_no_batch_and_one_buffer_says_so() -> None:
    gemm = Gemm(m=128, n=128, k=128, dtype="bf16", batch=3, batch_stride_b=0)
    schedule = (
        "tile{loops=batch,m,n sizes=1,64,128 over=grid},promote{operand=c to=vmem},"
        "promote{operand=a to=vmem},promote{operand=b to=vmem},"
        "pipeline{loop=n stages=2 with=dma},vectorize{with=mxu}"
    )
    text = gemmir.lower(gemm, "tpu:v5e", schedule).artifact.text
    assert "pl.BlockSpec((None, 64, 128), lambda s, i, j: (s, i, 0))," in text
    assert "pl.BlockSpec((128, 128), lambda s, i, j: (0, 0))," in text
    assert "pl.Buffered(1)" in emitted(module(buffers="1")).text


def test_the_old_c_is_an_operand_that_is_changed_in_place() -> None:
    gemm = Gemm(m=128, n=128, k=128, beta=0.5, epilogue="bias")
    text = gemmir.lower(gemm, "tpu:v5e").artifact.text
    assert "def gemm(a, b, bias, c, *, interpret=False):" in text
    assert "input_output_aliases={3: 0}," in text
    assert "c_old_ref, c_ref" in text


def test_what_is_read_before_a_write_is_named_before_it() -> None:
    body = (READ_A, READ_B, DOT, OLD, WRITE, OLD.replace("%old", "%new"))
    sums = "%sum = arith.addf %old, %new : vector<64x128xf32>"
    text = emitted(module(*body, sums, WRITE.replace("%product", "%sum"))).text
    assert lines_of(text)[-3:] == [
        "old = c_ref[...]",
        "c_ref[...] = product",
        "c_ref[...] = old + c_ref[...]",
    ]


def test_masks_only_where_a_read_is_not_in_bounds() -> None:
    def text(k: int) -> str:
        gemm = Gemm(m=300, n=256, k=k, dtype="bf16")
        schedule = (
            "tile{loops=m,n sizes=128,128 over=grid},promote{operand=c to=vmem},"
            "tile{loops=k sizes=128},promote{operand=a to=vmem},promote{operand=b to=vmem},"
            "pipeline{loop=k stages=2 with=dma},vectorize{with=mxu}"
        )
        return gemmir.lower(gemm, "tpu:v5e", schedule).artifact.text

    assert "iota" not in text(256)
    masks = [line for line in text(300).split("\n") if "iota" in line]
    assert [", 1) < size" in masks[0], ", 0) < size" in masks[1], len(masks)] == [True, True, 2]


def test_a_part_of_a_part_begins_where_both_do() -> None:
    body = (
        f"%part = memref.subview %b_block[%i, 0] [64, 128] [1, 1] : memref<256x128xf32, {VMEM}> "
        f"to memref<64x128xf32, strided<[128, 1], offset: ?>, {VMEM}>",
        "%c5 = arith.constant 5 : index",
        "%row = vector.transfer_read %part[%c5, %c0], %zero {in_bounds = [true, true]} : "
        f"memref<64x128xf32, strided<[128, 1], offset: ?>, {VMEM}>, vector<1x128xf32>",
        "vector.transfer_write %row, %c_block[%c5, %c0] {in_bounds = [true, true]} : "
        f"vector<1x128xf32>, memref<64x128xf32, {VMEM}>",
    )
    assert lines_of(emitted(module(*body)).text)[1:] == [
        "c_ref[5:6, :] = b_ref[pl.ds(i + 5, 1), :]"
    ]


def test_what_else_is_done_where_a_condition_does_not_hold() -> None:
    one, two = (
        f"%{name} = arith.constant dense<{value}> : vector<64x128xf32>"
        for name, value in (("one", 1.0), ("two", 2.0))
    )
    body = (
        "%flag = arith.cmpi eq, %i, %c0 : index",
        f"{one}\n    {two}",
        f"scf.if %flag {{ {WRITE.replace('%product', '%one')} }}",
        f"else {{ {WRITE.replace('%product', '%two')} }}",
    )
    assert lines_of(emitted(module(*body)).text)[2:] == [
        "@pl.when(i == 0)",
        "def _():",
        "c_ref[...] = jnp.full((64, 128), 1.0, jnp.float32)",
        "",
        "@pl.when(jnp.logical_not(i == 0))",
        "def _():",
        "c_ref[...] = jnp.full((64, 128), 2.0, jnp.float32)",
    ]


def test_a_product_of_sums_of_bf16_has_its_three_largest_parts() -> None:
    dot = DOT.replace("%right :", "%right precision <bf16x3> :")
    lines = lines_of(emitted(module(READ_A, READ_B, dot, WRITE)).text)
    assert "left_hi = left.astype(jnp.bfloat16)" in lines
    rest = "left_lo = (left - left_hi.astype(jnp.float32)).astype(jnp.bfloat16)"
    assert rest in lines
    assert lines[-1] == "c_ref[...] = product_part + (product_part_2 + product_part_3)"
    factors = [re.findall(r"\w+_[hl][io]", line) for line in lines if "product_part" in line]
    assert factors[:3] == [
        ["left_hi", "right_hi"],
        ["left_hi", "right_lo"],
        ["left_lo", "right_hi"],
    ]


def test_numbers_have_the_digits_of_their_type() -> None:
    body = (
        READ_A,
        READ_B,
        DOT,
        "%third = arith.constant dense<0.333333343> : vector<64x128xf32>",
        "%minus = arith.constant dense<-2.0> : vector<64x128xf32>",
        "%x = arith.mulf %product, %third : vector<64x128xf32>",
        "%y = arith.subf %minus, %x : vector<64x128xf32>",
    )
    text = emitted(module(*body, WRITE.replace("%product", "%y"))).text
    assert lines_of(text)[-1] == "c_ref[...] = -2.0 - product * 0.33333334"


def test_a_constant_is_written_in_full() -> None:
    zero = "%product = arith.constant dense<0.0> : vector<64x128xf32>"
    text = emitted(module(zero, WRITE)).text
    assert lines_of(text) == ["c_ref[...] = jnp.full((64, 128), 0.0, jnp.float32)"]


def test_names_are_those_of_python() -> None:
    text = emitted(module(symbol="lambda", name="jax")).text
    assert "def lambda_(jax_2, b, *, interpret=False):" in text
    assert "def _lambda__kernel(jax_2_ref, b_ref, c_ref):" in text
    ast.parse(text)


def test_nothing_to_write_is_zeros_or_the_old_array() -> None:
    gemm = Gemm(m=0, n=5, k=5)
    assert "    c = jnp.zeros((0, 5), jnp.float32)\n" in gemmir.lower(gemm, "tpu:v4").artifact.text
    kept = gemmir.lower(Gemm(m=0, n=5, k=5, beta=1.0), "tpu:v4").artifact.text
    assert kept.endswith("    return c\n") and "zeros" not in kept and "pl.pallas_call(" not in kept


def test_what_xla_is_told() -> None:
    text = emitted(module()).text
    assert f"flops={2 * 128 * 128 * 256}," in text
    assert f"bytes_accessed={4 * (128 * 256 + 256 * 128 + 128 * 128)}," in text
    gelu = gemmir.lower(Gemm(m=128, n=128, k=128, epilogue="gelu"), "tpu:v5e").artifact.text
    assert f"transcendentals={128 * 128}," in gelu


def test_a_block_is_copied_again_for_each_step_that_has_another_between() -> None:
    gemm = Gemm(m=256, n=384, k=128, dtype="bf16")
    schedule = (
        "tile{loops=m,n sizes=128,128 over=grid},promote{operand=c to=vmem},"
        "promote{operand=a to=vmem},promote{operand=b to=vmem},"
        "pipeline{loop=n stages=2 with=dma},vectorize{with=mxu}"
    )
    text = gemmir.lower(gemm, "tpu:v5e", schedule).artifact.text
    a, b, c = 2 * 256 * 128, 2 * 2 * 128 * 384, 4 * 256 * 384
    assert f"bytes_accessed={a + b + c}," in text


def test_the_limit_of_vmem_has_room_for_blocks_and_is_one_of_the_machine() -> None:
    def limit(target: str) -> int:
        gemm = Gemm(m=4096, n=4096, k=4096, dtype="bf16")
        text = gemmir.lower(gemm, target).artifact.text
        return int(text.split("vmem_limit_bytes=")[1].split(",")[0])

    for machine in SHIPPED_TPUS:
        assert 16 * 2**20 <= limit(machine.target) <= machine.vmem_bytes_per_core


ZERO = "%product = arith.constant dense<0.0> : vector<64x128xf32>"
SHARED = "memref<128x256xf32, strided<[0, 1]>>"
HALF = "memref<64x256xf32, strided<[512, 1]>>"
PADDED = "memref<128x256xf32, strided<[300, 1]>>"
ROWS = "memref<64x256xf32, strided<[0, 1]>, #gemmir.space<vmem>>"
FLAG = "%flag = arith.cmpi eq, %i, %c0 : index"
BEYOND = "%left = vector.transfer_read %a_block[%i, %c0], %zero {in_bounds = [false, true]}"


def view(result: str, sizes: str, strides: str, source: str = "memref<128x256xf32>") -> str:
    """A view of A in another shape."""
    cast = f"memref.reinterpret_cast %a to offset: [0], sizes: {sizes}, strides: {strides}"
    return f"%x = {cast} : {source} to {result}"


REFUSED = {
    "GEM0460": module(
        "%rows = vector.transfer_read %a[%c0, %c0], %zero {in_bounds = [true, true]} : "
        "memref<128x256xf32>, vector<128x256xf32>",
        ZERO,
        WRITE,
    ),
    "GEM0461": module("%root = math.sqrt %zero : f32", ZERO, WRITE),
    "GEM0462": module(
        ZERO,
        WRITE,
        a="memref<128x256xf64>",
        x="memref<128x256xf64>",
        a_block="memref<64x256xf64, #gemmir.space<vmem>>",
    ),
    "GEM0463": module("%k = arith.constant dense<[[1.0, 2.0]]> : vector<1x2xf32>", ZERO, WRITE),
    "GEM0464": module(
        f"{BEYOND} : memref<64x256xf32, #gemmir.space<vmem>>, vector<60x256xf32>",
        ZERO,
        WRITE,
    ),
    "GEM0465": module(
        READ_A.replace("64x256xf32, #", "64x256xf32, strided<[0, 1]>, #"),
        READ_B,
        DOT,
        WRITE,
        view=view(SHARED, "[128, 256]", "[0, 1]", "memref<256xf32>"),
        a="memref<256xf32>",
        x=SHARED,
        a_block=ROWS,
    ),
    "GEM0466": module(
        FLAG,
        "%v = scf.if %flag -> (index) { scf.yield %i : index } else { scf.yield %c0 : index }",
        ZERO,
        WRITE,
    ),
    "GEM0467": module(
        ZERO,
        WRITE,
        a="memref<2x64x256xf32>",
        x="memref<2x64x256xf32>",
        block="[1, 64, 256]",
        index="d0, 0, 0",
        a_block="memref<1x64x256xf32, #gemmir.space<vmem>>",
    ),
    "GEM0468": module(ZERO, WRITE, view=view(HALF, "[64, 256]", "[512, 1]"), x=HALF),
    "GEM0469": module(ZERO, WRITE, a=PADDED, x=PADDED),
    "GEM0470": module(
        ZERO,
        WRITE,
        a="memref<128x262144xf32>",
        x="memref<128x262144xf32>",
        block="[64, 262144]",
        a_block="memref<64x262144xf32, #gemmir.space<vmem>>",
    ),
    "GEM0471": module(
        ZERO,
        WRITE,
        access="readwrite",
        source="%c",
        x="memref<128x128xf32>",
        block="[32, 128]",
        a_block="memref<32x128xf32, #gemmir.space<vmem>>",
    ),
    "GEM0472": module(ZERO, WRITE, index="d0 ceildiv 2, 0"),
    "GEM0475": module("scf.for %n = %c0 to %i step %i { scf.yield }", ZERO, WRITE),
}


@pytest.mark.parametrize("code", REFUSED)
def test_what_cannot_be_said(code: str) -> None:
    with pytest.raises(BackendError) as caught:
        emitted(REFUSED[code])
    assert caught.value.code == code


def test_a_machine_multiplies_only_what_it_can() -> None:
    text = gemmir.lower(Gemm(m=128, n=128, k=128, dtype="i8"), "tpu:v5e").stages["vectorized"].text
    with pytest.raises(BackendError) as caught:
        emitted(text, "tpu:v4")
    assert caught.value.code == "GEM0476"
    assert "f32" in caught.value.hint
