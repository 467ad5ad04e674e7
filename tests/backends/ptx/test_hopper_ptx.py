"""PTX of products of warpgroups: instructions, tensor maps, launches, and what has none."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from xdsl.dialects import arith
from xdsl.dialects.builtin import IndexType, IntegerAttr, i32
from xdsl.ir import Block

from gemmir import Gemm
from gemmir.backend import Artifact
from gemmir.backends.ptx.assemble import assemble
from gemmir.backends.ptx.shared import STATIC_BYTES, SharedMemory
from gemmir.backends.ptx.spread import OF_GROUP, OF_WARP
from gemmir.backends.ptx.wgmma import PRODUCTS
from gemmir.backends.ptx.windows import Sum, sum_of
from gemmir.errors import BackendError
from gemmir.launch import TensorMap
from tests.backends.ptx.conftest import tool
from tests.backends.ptx.hopper import (
    LARGE,
    SMALL,
    SMALL_TILES,
    Tiles,
    emitted,
    last_stage,
    lowered,
)


def ptx(gemm: Gemm = SMALL, tiles: Tiles = SMALL_TILES) -> str:
    return lowered(gemm, tiles).artifact.text


def maps(artifact: Artifact) -> tuple[TensorMap, ...]:
    assert artifact.launch is not None
    (kernel,) = artifact.launch.kernels
    return kernel.tensor_maps


@pytest.mark.parametrize(
    ("dtype", "out", "name"),
    [
        ("bf16", "f32", "m64n64k16.f32.bf16.bf16"),
        ("f16", "f16", "m64n64k16.f32.f16.f16"),
        ("tf32", "f32", "m64n64k8.f32.tf32.tf32"),
        ("e4m3", "bf16", "m64n64k32.f32.e4m3.e4m3"),
        ("e5m2", "f16", "m64n64k32.f32.e5m2.e5m2"),
        ("i8", "i32", "m64n64k32.s32.s8.s8"),
        ("u8", "i32", "m64n64k32.s32.u8.u8"),
    ],
)
def test_products_of_all_types(dtype: str, out: str, name: str) -> None:
    gemm = replace(SMALL, dtype=dtype, out=out, m=128, n=128, k=256)
    text = ptx(gemm, replace(SMALL_TILES, blocks=0))
    found = re.findall(r"wgmma\.mma_async\.sync\.aligned\.(\S+) \{.*\}, \S+, \S+, p(.*);", text)
    flags = {2: ", 1, 1, 0, 0", 4: ", 1, 1", 1: ", 1, 1"}[gemm.element.item_bytes]
    assert found == [(name, "" if "s32" in name else flags)] * 4


@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_operands_along_m_and_n_are_transposed(trans_a: bool, trans_b: bool) -> None:
    gemm = replace(SMALL, trans_a=trans_a, trans_b=trans_b)
    found = re.findall(r"wgmma.*, p, 1, 1, (\d), (\d);", ptx(gemm))
    assert found == [(str(int(trans_a)), str(int(not trans_b)))] * 4


def descriptors(text: str) -> tuple[set[int], list[int]]:
    """The upper halves of descriptors, and what is added to the lower ones, in order."""
    high = {
        int(n) >> 32 & 0xFFFFFFFF for n in re.findall(r"or\.b64 \s*%rd\d+, %rd\d+, (-?\d+)", text)
    }
    body = text[text.index("wgmma.fence") : text.index("wgmma.commit_group")]
    return high, [int(n) for n in re.findall(r"add\.s32 \s*%r\d+, %r\d+, (\d+)", body)]


@pytest.mark.parametrize(
    ("swizzle", "high", "steps"),
    [
        (128, {1 << 30 | 64}, [2, 2, 4, 4, 6, 6]),
        (64, {2 << 30 | 32}, [2, 2, 1024, 1024, 1026, 1026]),
        (32, {3 << 30 | 16}, [512, 512, 1024, 1024, 1536, 1536]),
    ],
)
def test_descriptors_along_k(swizzle: int, high: set[int], steps: list[int]) -> None:
    """128 rows of A and B and 2 stages: 256 rows of `swizzle` bytes from panel to panel."""
    tiles = replace(SMALL_TILES, n=128, blocks=0, swizzle=swizzle)
    assert descriptors(ptx(replace(SMALL, n=128), tiles)) == (high, steps)


def test_descriptors_along_m_and_n() -> None:
    """16 rows of k are 2048 bytes on, and the next 64 columns of B 128 rows of 128 bytes."""
    text = ptx(
        replace(SMALL, n=128, trans_a=True, trans_b=False), replace(SMALL_TILES, n=128, blocks=0)
    )
    assert descriptors(text) == ({1 << 30 | 64}, [128, 128, 256, 256, 384, 384])
    assert f"{(128 * 128 >> 4) << 16}" in text


def test_a_warpgroup_may_have_128_rows() -> None:
    text = ptx(replace(SMALL, m=256), Tiles(m=256, n=64, group=128, stages=2))
    assert text.count("wgmma.mma_async") == 8
    assert text.count("wgmma.commit_group") == 1
    _, steps = descriptors(text)
    assert sorted(steps) == sorted([2, 4, 6, 2, 4, 6, *(512 + n for n in (0, 2, 4, 6))])


def test_tensor_maps_and_launch() -> None:
    artifact = lowered(SMALL, SMALL_TILES).artifact
    assert artifact.launch is not None
    (kernel,) = artifact.launch.kernels
    assert (kernel.blocks, kernel.threads, kernel.cluster) == (2, 384, 1)
    assert kernel.dynamic_shared_bytes == 2 * (128 + 64) * 128 + 2 * 128
    a, b = kernel.tensor_maps
    assert (a.argument, a.item, a.extents, a.strides_bytes) == (0, "bf16", (192, 200), (384,))
    assert (a.box, a.swizzle_bytes, a.offset_bytes) == ((64, 128), 128, 0)
    assert (b.argument, b.extents, b.box) == (1, (192, 136), (64, 64))
    parameters = re.findall(r"\.param \.\w+ (.*)", artifact.text)
    assert [p.split("_")[0] for p in parameters[:2]] == ["64 .b8 gemm"] * 2
    assert artifact.text.count("[128],") == 2
    assert ".reqntid 384, 1, 1" in artifact.text and ".minnctapersm 1" in artifact.text
    assert "setmaxnreg.dec.sync.aligned.u32 \t40" in artifact.text
    assert "setmaxnreg.inc.sync.aligned.u32 \t232" in artifact.text


def test_maps_of_batches_and_of_rounded_types() -> None:
    gemm = Gemm(m=128, n=64, k=64, dtype="tf32", trans_b=True, batch=3, batch_stride_b=0, lda=68)
    found = maps(lowered(gemm, Tiles(n=64, stages=2, batch=True)).artifact)
    assert [m.item for m in found] == ["tf32", "tf32"]
    assert found[0].extents == (64, 128, 3)
    assert found[0].strides_bytes == (68 * 4, 128 * 68 * 4)
    assert found[0].box == (32, 128, 1)


def test_clusters() -> None:
    artifact = lowered(replace(LARGE, m=512, n=512), Tiles(cluster=2)).artifact
    assert artifact.launch is not None
    (kernel,) = artifact.launch.kernels
    assert (kernel.blocks, kernel.cluster) == (8, 2)
    text = artifact.text
    assert ".reqnctapercluster 2, 1, 1" in text
    assert "%cluster_ctarank" in text
    assert "mapa.shared::cluster" in text
    assert "mbarrier.arrive.shared::cluster.b64 _," in text
    assert text.count("multicast::cluster") == 1
    assert text.count("barrier.cluster.arrive;") == text.count("barrier.cluster.wait;") == 2


def test_pieces_of_c_go_out_through_shared_memory() -> None:
    text = ptx(replace(LARGE, out="bf16"), Tiles(blocks=132, stored=True))
    assert text.count("stmatrix.sync.aligned.m8n8.x4.shared.b16") == 16
    assert text.count("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group") == 4
    assert text.count("cp.async.bulk.commit_group") == 4
    assert text.count("fence.proxy.async.shared::cta") == 4
    assert "cp.async.bulk.wait_group.read \t1" in text
    assert text.index("cp.async.bulk.wait_group \t0") < text.rindex("ret;")
    assert re.search(r"bar\.sync \s*%r\d+, 128;", text)


def test_a_warpgroup_has_16_rows_of_each_warp() -> None:
    assert OF_GROUP((128, 16)) == (8, 2)
    assert list(OF_GROUP.blocks((128, 16))) == [
        *[(0, 0), (8, 0), (0, 8), (8, 8)],
        *[(64, 0), (72, 0), (64, 8), (72, 8)],
    ]
    assert OF_WARP((8, 8)) == (1, 2)
    assert list(OF_WARP.blocks((8, 8))) == [(0, 0)]


def test_parts_of_a_sum_are_registers() -> None:
    """Rows and columns that a slice leaves out are stored nowhere."""
    text = last_stage(replace(SMALL, m=256), replace(SMALL_TILES, m=256, group=128, blocks=0))
    whole = emitted(text).text
    rows = "vector<128x64xf32>"
    (name,) = set(re.findall(rf"(%\d+) = nvgpu.warpgroup.wait groups 0 .*{rows}", text))
    edited = text.replace(
        f"arith.truncf {name} : {rows} to vector<128x64xbf16>",
        f"nvgpu.warpgroup.slice {name} row 64 : i64 column 8 : i64 : {rows} -> vector<64x16xf32>",
    )
    edited = re.sub(r"vector.transfer_write (%\d+), (%c_\d)(.*) : .*, (.*)", "", edited)
    assert "st.global" not in emitted(edited).text
    assert "st.global" in whole


def test_sums_of_indices() -> None:
    block = Block(arg_types=[IndexType(), i32])
    index, stage = block.args
    four = arith.ConstantOp(IntegerAttr(4, IndexType()))
    widened = arith.IndexCastOp(stage, IndexType())
    scaled = arith.MuliOp(four.result, widened.result)
    total, square = arith.AddiOp(scaled.result, index), arith.MuliOp(index, index)
    block.add_ops([four, widened, scaled, total, square])
    assert sum_of(total.result) == Sum(0, ((stage, 4), (index, 1)))
    assert sum_of(square.result) == Sum(0, ((square.result, 1),))
    assert sum_of(7).plus(sum_of(four.result)).times(2) == Sum(22)


def test_swizzled_buffers_begin_where_their_pattern_does() -> None:
    memory = SharedMemory(name="@s", sizes=(128, 2048, 128, 512), alignments=(128, 1024, 128, 512))
    assert memory.offsets == (2560, 0, 2688, 2048)
    assert (memory.total_bytes, memory.alignment) == (2816, 1024)
    assert memory.is_static and "align 1024" in memory.declarations()[1]
    large = replace(memory, sizes=(128, STATIC_BYTES, 128, 512))
    assert large.declarations() == ["@s = external addrspace(3) global [0 x i8], align 1024"]
    assert large.address(3).endswith(f"i64 {STATIC_BYTES})")


def test_loops_over_warpgroups_without_roles() -> None:
    """What a warpgroup does may also be one iteration of a loop over them."""
    text = last_stage(replace(SMALL, m=256), replace(SMALL_TILES, m=256, group=128, blocks=0))
    head, rest = text.split("      nvgpu.warp_specialize")
    role = rest[rest.index("^bb0") :].replace("^bb0(%warpgroup: index):\n", "")
    body, tail = role.split("        gemmir.yield\n", 1)
    loop = "gemmir.forall %warpgroup = %0 to %two step %one over warpgroups {\n"
    constants = "%two = arith.constant 2 : index\n%one = arith.constant 1 : index\n"
    artifact = emitted(f"{head}{constants}{loop}{body}nvgpu.warpgroup.barrier\n{tail}")
    assert artifact.launch is not None
    assert artifact.launch.kernels[0].threads == 256
    assert "setmaxnreg" not in artifact.text and ".minnctapersm" not in artifact.text
    assert artifact.text.count("wgmma.mma_async") == 8
    assert re.search(r"bar\.sync \s*%r\d+, 128;", artifact.text)


PRODUCT: Final = """
func.func @gemm(%c: memref<64x{n}x{sum}> {{gemmir.name = "c", gemmir.access = "write"}}) {{
  %0 = arith.constant 0 : index
  %1 = arith.constant 1 : index
  %zero = arith.constant dense<{zero}> : vector<64x{n}x{sum}>
  gemmir.forall %w = %0 to %1 step %1 over warpgroups {{
    %a = memref.alloca() : {a}
    %b = memref.alloca() : {b}
    %begun = nvgpu.warpgroup.mma %a, %b, %zero {precision} : {a}, {b}, vector<64x{n}x{sum}>
    %done = nvgpu.warpgroup.wait groups 0 : i64 %begun : vector<64x{n}x{sum}>
    vector.transfer_write %done, %c[%0, %0] {{in_bounds = [true, true]}}
      : vector<64x{n}x{sum}>, memref<64x{n}x{sum}>
  }}
  func.return
}}
"""
"""One product of a warpgroup, of shared memory as it is."""

SHARED: Final = "#gemmir.space<shared>"


def product(
    element: str = "bf16",
    *,
    n: int = 64,
    k: int = 64,
    dims: tuple[int, int] = (1, 0),
    row_bytes: int = 128,
    chunk_bytes: int = 16,
    precision: str = "",
) -> str:
    """A kernel of one product; `dims` are those in which A and B are adjacent."""
    item = {"bf16": 2, "f16": 2, "f32": 4, "f64": 8}.get(element, 1)
    wide = row_bytes // item
    layouts = [
        f"#gemmir.swizzle<{dim}, {wide}, {slow * wide}, {chunk_bytes // item}>"
        for dim, slow in zip(dims, (64 if dims[0] else k, k if dims[1] else n), strict=True)
    ]
    sums = {"i8": "i32", "ui8": "i32", "f64": "f64"}.get(element, "f32")
    return PRODUCT.format(
        n=n,
        sum=sums,
        zero="0" if sums == "i32" else "0.0",
        a=f"memref<64x{k}x{element}, {layouts[0]}, {SHARED}>",
        b=f"memref<{k}x{n}x{element}, {layouts[1]}, {SHARED}>",
        precision=precision and f"precision <{precision}>",
    )


@pytest.mark.parametrize("n", [8, 24, 32, 48, 240, 256])
def test_columns_of_products(n: int) -> None:
    for element in ("bf16", "i8"):
        text = emitted(product(element, n=n, k=128)).text
        assert (
            text.count(f"wgmma.mma_async.sync.aligned.m64n{n}k") == 128 // PRODUCTS[element].depth
        )
        assert text.count("st.global") == n // 4


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (product("f32", k=32), "multiplies f32; use bf16, f16, tf32, e4m3, e5m2, i8, u8"),
        (product("f32", k=32, precision="bf16x3"), "multiplies bf16x3"),
        (product("f64", k=16), "multiplies f64"),
        (product("i8", n=40), "has n=40 for i8; use n=32"),
        (product("bf16", k=24), "k=24, and one instruction for bf16 has k=16"),
        (product("f32", k=32, precision="tf32", dims=(0, 0)), "a is adjacent along m and not"),
        (product("f8E4M3FN", k=32, dims=(1, 1)), "b is adjacent along n and not along k"),
        (product(row_bytes=64, chunk_bytes=8), "chunks of 8 bytes"),
        (product(row_bytes=256, chunk_bytes=32), "rows of 256 bytes"),
    ],
)
def test_products_without_an_instruction(text: str, says: str) -> None:
    with pytest.raises(BackendError, match="GEM0448") as error:
        emitted(text)
    assert says in str(error.value)


def test_a_gpu_without_warpgroups_multiplies_none() -> None:
    with pytest.raises(BackendError, match=r"GEM0426: sm_80 has no nvgpu\.warpgroup\.mma"):
        emitted(product(), "cuda:sm_80")


Edit = Callable[[str], str]


def sub(old: str, new: str) -> Edit:
    """Replace what matches, at least once."""

    def edit(text: str) -> str:
        edited, count = re.subn(old, new, text)
        assert count, old
        return edited

    return edit


OWN_TILE: Final = r"(%a_shared_4 = memref.subview %a_shared_2)\[%i_2, 0\]"

WRONG: Final = {
    "registers": (sub("40 : i64, 232", "40 : i64, 240"), "GEM0446", "at most 168 and then 232"),
    "registers at the start": (sub("40 : i64, 232", "176 : i64, 160"), "GEM0446", "with 168"),
    "registers of two blocks": (
        sub(r"(func.func @gemm.*\)) \{\n", r"\1 attributes {gemmir.blocks_per_sm = 2 : i64} {\n"),
        "GEM0446",
        "begins with 80, and a block has 32768; use at most 80 and then 104",
    ),
    "a window of 4 rows on": (sub(OWN_TILE, r"\1[4, 0]"), "GEM0447", "of 4 along dimension 0"),
    "a window in a panel": (sub(OWN_TILE, r"\1[%i_2, 8]"), "GEM0447", "of 8 along dimension 1"),
    "strides of odd bytes": (
        sub(r"192\](.*strides: )\[1, 192\]|\[1, 192\]", r"\1[1, 190]"),
        "GEM0449",
        "380 bytes are no multiple of 16",
    ),
    "a store outside the roles": (
        sub(
            r"gemmir.barrier\n",
            "gemmir.barrier\n%x = arith.constant dense<0.0> : vector<1x1xbf16>\n"
            "vector.transfer_write %x, %c[%0, %0] {in_bounds = [true, true]} "
            ": vector<1x1xbf16>, memref<200x136xbf16>\n",
        ),
        "GEM0441",
        "many times",
    ),
    "a loop over threads before the roles": (
        sub(
            r"gemmir.barrier\n",
            "gemmir.barrier\ngemmir.forall %t = %0 to %4 step %6 over threads {}\n",
        ),
        "GEM0440",
        "whose warps have roles",
    ),
    "loops over warps and over warpgroups": (
        sub(
            r"gemmir.barrier\n",
            "gemmir.barrier\ngemmir.forall %t = %0 to %4 step %6 over warps {}\n"
            "gemmir.forall %u = %0 to %4 step %6 over warpgroups {}\n",
        ),
        "GEM0440",
        "over warpgroups and over warps",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit(name: str) -> None:
    edit, code, says = WRONG[name]
    with pytest.raises(BackendError, match=code) as error:
        emitted(edit(last_stage()))
    assert says in str(error.value)


DESCRIPTOR: Final = """
func.func @gemm(%a: memref<{argument}> {{gemmir.name = "a", gemmir.access = "read"}},
                %c: memref<1xf32> {{gemmir.name = "c", gemmir.access = "write"}}) {{
  %0 = arith.constant 0 : index
  %1 = arith.constant 1 : index
  %stage = arith.constant 0 : i32
  {view}
  %map = nvgpu.tma.create.descriptor %v : {type} -> !nvgpu.tensormap<memref<{box}, {space}>>
  gemmir.forall %w = %0 to %1 step %1 over warpgroups {{
    %to = memref.alloca() : memref<{box}, {space}>
    %bar = nvgpu.mbarrier.create arrivals 1 : i64 : memref<1xi64, {space}>
    nvgpu.tma.async.load %map[%0, %1], %bar[%stage] to %to
      : !nvgpu.tensormap<memref<{box}, {space}>>, memref<1xi64, {space}> to memref<{box}, {space}>
    nvgpu.mbarrier.wait %bar[%stage] parity %stage : memref<1xi64, {space}>
  }}
  func.return
}}
"""


def descriptor(view: str, of: str, argument: str = "128x128xf32", box: str = "8x32xf32") -> str:
    """A kernel that copies a box of a view of an argument."""
    return DESCRIPTOR.format(argument=argument, view=view, type=of, box=box, space=SHARED)


def subview(offsets: str, type_: str, source: str = "128x128xf32") -> tuple[str, str]:
    made = f"memref<{type_}>"
    taken = f"%v = memref.subview %a[{offsets}] [64, 64] [1, 1] : memref<{source}> to {made}"
    return taken, made


def test_a_map_may_begin_behind_its_argument() -> None:
    artifact = emitted(descriptor(*subview("2, 4", "64x64xf32, strided<[128, 1], offset: 260>")))
    (found,) = maps(artifact)
    assert (found.argument, found.offset_bytes) == (0, (2 * 128 + 4) * 4)
    assert (found.extents, found.strides_bytes, found.box) == ((64, 64), (512,), (32, 8))
    assert (found.item, found.swizzle_bytes) == ("f32", 0)


def whole(shape: str, strides: str) -> tuple[str, str]:
    made = f"memref<{shape}>"
    sizes = ", ".join(shape.split("x")[:2])
    cast = f"%v = memref.reinterpret_cast %a to offset: [0], sizes: [{sizes}], strides: [{strides}]"
    return f"{cast} : {made} to {made}", made


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            descriptor(*subview("2, 3", "64x64xf32, strided<[128, 1], offset: 259>")),
            "1036 bytes are no multiple of 16",
        ),
        (
            descriptor(*subview("%1, 0", "64x64xf32, strided<[128, 1], offset: ?>")),
            "whose place is not static",
        ),
        (
            descriptor(*whole("128x130xf32", "130, 1"), "128x130xf32"),
            "520 bytes are no multiple of 16",
        ),
        (
            descriptor(*whole("128x128xf32", "128, 1"), box="8x30xf32"),
            "30 adjacent elements of 4 bytes",
        ),
        (
            descriptor(*whole("0x128xf32", "128, 1"), "0x128xf32"),
            "boxes of memref<0x128xf32>",
        ),
        (
            descriptor("%v = memref.alloca() : memref<128x128xf32>", "memref<128x128xf32>"),
            "no array of the caller",
        ),
    ],
)
def test_matrices_that_the_tma_does_not_reach(text: str, says: str) -> None:
    with pytest.raises(BackendError, match="GEM0449") as error:
        emitted(text)
    assert says in str(error.value)


def test_rows_that_the_tma_would_store_beyond_are_refused() -> None:
    """It copies what there is of such rows, and stores whole 16 bytes."""
    view, of = subview("0, 0", "64x62xf32, strided<[128, 1]>")
    copies = descriptor(view.replace("[64, 64]", "[64, 62]"), of)
    emitted(copies)
    load = copies.index("nvgpu.tma.async.load")
    box = f"memref<8x32xf32, {SHARED}>"
    stores = f"nvgpu.tma.async.store %to to %map[%0, %1] : {box} to !nvgpu.tensormap<{box}>"
    with pytest.raises(BackendError, match=r"GEM0449.*rows of 248 bytes"):
        emitted(copies[:load] + stores + copies[copies.index("\n    nvgpu.mbarrier.wait") :])


def test_local_memory_of_warpgroups_is_an_error(ptxas: Path) -> None:
    artifact = lowered(SMALL, SMALL_TILES).artifact
    says = (
        "echo \"ptxas info : Compiling entry function 'gemm' for 'sm_90a'\"\n"
        'echo "    16 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads"'
    )
    tool(ptxas.parent, "ptxas", says)
    with pytest.raises(BackendError, match=r"GEM0452: gemm takes .* 24 bytes of local memory"):
        assemble(artifact)
    assert assemble(replace(artifact, text="// no products of warpgroups"))


def test_descriptors_leave_the_number_of_the_block_out() -> None:
    """In a cluster it stands in the upper bits of an address, where a descriptor has distances."""
    text = lowered(replace(LARGE, m=512, n=512, trans_b=False), Tiles(cluster=2)).artifact.text
    masked = re.findall(r"bfe\.u32 \s*%r\d+, %r\d+, 4, 14;|and\.b32 \s*%r\d+, %r\d+, 262143;", text)
    assert masked
