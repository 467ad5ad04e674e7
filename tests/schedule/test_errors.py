"""Every way in which a schedule can be wrong: its code, its numbers and a legal choice nearby."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, i32
from xdsl.passes import ModulePass

import gemmir
from gemmir import ANY, Gemm, PassPipeline, Schedule
from gemmir.errors import ParseError, ScheduleError
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.lowering import run_passes, run_stages

MATRIX = Gemm(m=12, n=16, k=8)
DEEP = Gemm(m=12, n=16, k=64)
STACK = Gemm(m=12, n=16, k=8, batch=2)
NARROW = Gemm(m=1, n=8, k=1)
PRODUCTS = Gemm(m=12, n=16, k=8, groups=2)
BIASED = Gemm(m=12, n=16, k=8, epilogue="bias")
ADDED = Gemm(m=12, n=16, k=8, beta=1.0)
LARGE = Gemm(m=4096, n=4096, k=4096)
WEIGHTS = Gemm(m=12, n=16, k=8, dtype_b="i4", weight_group=4)
SCALED = Gemm(m=12, n=40, k=64, scale_block=16)

BYTES = Gemm(m=12, n=16, k=8, dtype="u8", dtype_b="i8")
TILES = "tile{loops=n,m sizes=16,4},"
SUM = "promote{operand=c to=registers},"
BEGUN = "tile{loops=m,n sizes=2,8},tile{loops=k sizes=32},"
CARRIED = "promote{operand=c to=registers carry=true}"
VECTOR = "vectorize{with=fma width=8}"


@dataclass(frozen=True)
class Wrong:
    """A schedule that is refused: with which code, and what message and hint say."""

    code: str
    gemm: Gemm
    schedule: str
    says: str
    hint: str
    target: str = "cpu:x86-64-v3"


GPU = "cuda:sm_80"
HOPPER = "cuda:sm_90a"
TPU = "tpu:v5e"
BLOCKED = "tile{loops=m,n sizes=8,8 over=blocks},tile{loops=m,n sizes=4,4 over=threads},"
HALF = Gemm(m=32, n=16, k=64, dtype="f16")
BRAIN_SQUARE = Gemm(m=64, n=64, k=64, dtype="bf16")
BRAIN = Gemm(m=32, n=16, k=64, dtype="bf16")
WARPS = "tile{loops=m,n sizes=32,16 over=blocks},tile{loops=m,n sizes=16,8 over=warps},"
SLICES = f"{WARPS}{SUM}tile{{loops=k sizes=16}},"
SHARED = (
    f"{SLICES}promote{{operand=a to=shared layout=swizzle:32}},"
    "promote{operand=b to=shared layout=swizzle:32},"
)
PIPELINE = "pipeline{loop=k stages=2},"
MMA = "vectorize{with=mma width=8}"
CLUSTERS = "tile{loops=m,n sizes=16,16 over=clusters}"
GROUPS = "tile{loops=m,n sizes=64,64 over=blocks},tile{loops=m sizes=64 over=warpgroups},"
BY_TMA = "pipeline{loop=k stages=3 with=tma specialize=true}"
WGMMA = "vectorize{with=wgmma}"

BLOCK = Gemm(m=64, n=256, k=256, dtype="bf16")
GRID = "tile{loops=m,n sizes=32,128 over=grid},"
TO_VMEM = (
    "promote{operand=c to=vmem},",
    "promote{operand=a to=vmem},",
    "promote{operand=b to=vmem},",
)
KEPT, BLOCK_A, BLOCK_B = TO_VMEM
SLICED = f"{GRID}{KEPT}tile{{loops=k sizes=128}},{BLOCK_A}{BLOCK_B}"
BLOCKS = f"{GRID}{KEPT}{BLOCK_A}{BLOCK_B}"
CALL = "pipeline{loop=n stages=2 with=dma},"
MXU = "vectorize{with=mxu}"

WIDE = Gemm(m=256, n=256, k=256, dtype="bf16")
CELLS = "tile{loops=m,n sizes=128,64 over=blocks},"
LOW = "tile{loops=m,n sizes=64,64 over=blocks},"
PAIRS = "tile{loops=m,n sizes=256,64 over=clusters},tile{loops=m sizes=128 over=blocks},"
ROWS = "tile{loops=m sizes=64 over=warpgroups},"
DEPTH = "tile{loops=k sizes=64},"
SWIZZLED = "".join(f"promote{{operand={x} to=shared layout=swizzle:128}}," for x in "ab")
OUT = "promote{operand=c to=shared layout=swizzle:128}"
KEPT_ROWS = f"{ROWS}{SUM}{DEPTH}{SWIZZLED}"
PINGPONG = "pipeline{loop=k stages=3 with=tma specialize=true pingpong=true}"

CODE = re.compile(r'"(GEM(?:03|12)\d\d)"')
"""The codes of schedules."""

WRONG = (
    Wrong("GEM0301", MATRIX, f"{TILES}{SUM}{VECTOR},{TILES}", "no gemmir.gemm", "before vectorize"),
    Wrong(
        "GEM0301", MATRIX, f"{TILES}{SUM}{VECTOR},{VECTOR}", "no gemmir.gemm", "before vectorize"
    ),
    Wrong("GEM0302", MATRIX, "tiel{loops=m sizes=4}", "no pass 'tiel'", "use tile"),
    Wrong("GEM0303", MATRIX, "tile{loops=m size=4}", "no parameter 'size'", "loops, sizes, over"),
    Wrong("GEM0303", MATRIX, "unroll{loop=k}", "unroll needs factor", "unroll{factor="),
    Wrong("GEM0304", MATRIX, "unroll{loop=k factor=two}", "'two'", "loop, factor"),
    Wrong("GEM0305", MATRIX, "unroll{loop=k", "cannot be read", "NAME{parameter=value"),
    Wrong(
        "GEM0310",
        Gemm(m=4, n=32, k=8),
        "promote{operand=b to=l3 layout=panel:8},tile{loops=n sizes=16}",
        "16 along n does not lie in one panel of 8",
        "tile n by 8",
    ),
    Wrong("GEM0311", MATRIX, f"{TILES}{SUM}vectorize{{with=fma width=3}}", "width=3", "power of"),
    Wrong("GEM0312", MATRIX, f"tile{{loops=n sizes=16}},{SUM}{VECTOR}", "12*2 + 2 + 1 = 27", "6"),
    Wrong(
        "GEM0312",
        Gemm(m=1, n=400, k=8),
        f"{SUM}{VECTOR}",
        "1*50 + 1 + 1 = 52 vector registers",
        "tile n smaller",
    ),
    Wrong(
        "GEM0313",
        LARGE,
        "promote{operand=a to=l2 layout=panel:4}",
        "a tile of 4096 x 4096 is 67108864 bytes",
        "tile m by at most",
    ),
    Wrong(
        "GEM0313",
        Gemm(m=8, n=8, k=2**24),
        "promote{operand=b to=l1 layout=panel:8}",
        "b tile of 8 x 16777216",
        "tile k smaller",
    ),
    Wrong(
        "GEM0313",
        LARGE,
        "tile{loops=m,n sizes=128,128 over=blocks per_sm=4},tile{loops=m,n sizes=8,8 over=threads},"
        "promote{operand=c to=registers},tile{loops=k sizes=32},"
        "promote{operand=a to=shared layout=panel:128},"
        "promote{operand=b to=shared layout=panel:128},pipeline{loop=k stages=2}",
        "per_sm=4 blocks with 65536 bytes of shared memory each",
        "use per_sm=",
        GPU,
    ),
    Wrong("GEM0320", MATRIX, "tile{loops=m,n sizes=4}", "2 loops and 1 sizes", "one size a loop"),
    Wrong("GEM0321", MATRIX, "tile{loops=m,m sizes=4,2}", "cannot name 'm'", "m, n, k"),
    Wrong("GEM0321", MATRIX, "tile{loops=batch sizes=1}", "cannot name 'batch'", "m, n, k"),
    Wrong("GEM0322", MATRIX, "tile{loops=m sizes=5 edges=pad}", "edges='pad'", "clip or overlap"),
    Wrong(
        "GEM1361",
        MATRIX,
        "tile{loops=m sizes=5 edges=halve least=3}",
        "least=3 with edges=halve",
        "a power of two of 4 at most",
    ),
    Wrong("GEM0318", MATRIX, f"{TILES}{SUM}{MMA}", "x86-64-v3 has no tensor cores", "with=fma"),
    Wrong("GEM0318", MATRIX, f"{TILES}{SUM}{MMA}", "f32, and cuda:sm_80 has", "with=fma", GPU),
    Wrong("GEM0318", MATRIX, f"{TILES}parallelize{{loop=n over=blocks}}", "has none", "cores"),
    Wrong("GEM0318", BRAIN, f"{SHARED}{MMA}", "sm_75 has tensor", "of f16", "cuda:sm_75"),
    Wrong("GEM0318", MATRIX, CLUSTERS, "over=clusters", "use blocks, warps", GPU),
    Wrong("GEM0318", MATRIX, GROUPS, "over=warpgroups", "use blocks, warps", GPU),
    Wrong("GEM0318", BRAIN, f"{SHARED}{BY_TMA}", "cuda:sm_80 has no TMA", "with=cp.async", GPU),
    Wrong("GEM0318", MATRIX, f"{GROUPS}{SUM}{WGMMA}", "warpgroups for bf16", "with=mma", HOPPER),
    Wrong("GEM0318", BRAIN, f"{SHARED}{WGMMA}", "cuda:sm_80 has no warpgroups", "with=mma", GPU),
    Wrong(
        "GEM0312",
        Gemm(m=512, n=512, k=64, dtype="bf16"),
        "tile{loops=m,n sizes=256,256 over=blocks},tile{loops=m sizes=128 over=warpgroups},"
        f"{SUM}{WGMMA}",
        "a tile of 128 x 256 takes 256 registers of each thread, and of 2 warpgroups a thread "
        "has 232",
        "at most 24576 elements",
        HOPPER,
    ),
    Wrong(
        "GEM0318",
        HALF,
        f"{SHARED}{PIPELINE}{MMA}",
        "cuda:sm_75 has no asynchronous copies",
        "leave pipeline out",
        "cuda:sm_75",
    ),
    Wrong("GEM0318", DEEP, "split-k{factor=2}", "slices over blocks", "leave split-k out"),
    Wrong("GEM0318", MATRIX, "tile{loops=m sizes=4 over=warps}", "x86-64-v3 has none", "cores"),
    Wrong("GEM0318", MATRIX, "tile{loops=m sizes=4 over=cores}", "over=cores", "blocks, wa", GPU),
    Wrong(
        "GEM0319", MATRIX, f"{TILES}tile{{loops=m sizes=2 over=blocks}}", "another", "first", GPU
    ),
    Wrong("GEM0319", MATRIX, "tile{loops=m sizes=2 over=threads}", "inside none", "blocks", GPU),
    Wrong(
        "GEM0319",
        BLOCK,
        f"{BLOCKS}{CALL}tile{{loops=m sizes=16 over=grid}}",
        "over=grid inside a step",
        "leave over out",
        TPU,
    ),
    Wrong(
        "GEM0319",
        BLOCK,
        "tile{loops=m sizes=24 over=grid},tile{loops=m sizes=8 over=grid}",
        "of m, which is cut already",
        "once over=grid",
        TPU,
    ),
    Wrong("GEM0323", MATRIX, "tile{loops=m sizes=4 over=tiles}", "'tiles' is no unit", "cores"),
    Wrong("GEM0324", MATRIX, "tile{loops=k sizes=4 over=cores}", "over cores", "one of m, n or"),
    Wrong("GEM0324", MATRIX, "tile{loops=m,n sizes=4,4 over=cores}", "m,n", "one of m, n or"),
    Wrong("GEM0325", STACK, "tile{loops=m sizes=4}", "of a batch", "batch first"),
    Wrong("GEM0326", MATRIX, "tile{loops=m sizes=0}", "m cannot be cut by 0", "use 1"),
    Wrong("GEM0326", STACK, "tile{loops=batch sizes=2}", "batch cannot be cut by 2", "use 1"),
    Wrong("GEM0326", Gemm(m=4, n=4, k=0), "tile{loops=k sizes=1}", "k=0", "leave k out"),
    Wrong("GEM0327", MATRIX, "tile{loops=k sizes=3 edges=overlap}", "k", "clip"),
    Wrong("GEM0327", MATRIX, "tile{loops=k sizes=3 edges=peel}", "k", "clip"),
    Wrong("GEM0327", ADDED, "tile{loops=m sizes=5 edges=overlap}", "m=12 by 5", "beta=0"),
    Wrong("GEM0327", MATRIX, "tile{loops=m sizes=5 edges=overlap over=cores}", "cores", "clip"),
    Wrong(
        "GEM0327",
        MATRIX,
        "tile{loops=m sizes=5},tile{loops=m sizes=2 edges=peel over=cores}",
        "no fixed size",
        "clip",
    ),
    Wrong(
        "GEM0327",
        MATRIX,
        "promote{operand=a to=l2 layout=panel:5},tile{loops=m sizes=5 edges=overlap}",
        "inside packed panels",
        "use clip",
    ),
    Wrong("GEM0328", MATRIX, f"{TILES}{SUM}tile{{loops=m sizes=2}}", "in registers", "before pro"),
    Wrong(
        "GEM0329",
        MATRIX,
        "promote{operand=a to=l2 layout=panel:4},tile{loops=m sizes=6}",
        "m by 6 would begin tiles inside panels of 4",
        "tile m by 4",
    ),
    Wrong("GEM0330", MATRIX, "promote{operand=a to=smem layout=panel:4}", "'smem'", "l1, l2, l3"),
    Wrong("GEM0331", MATRIX, "promote{operand=a to=l2}", "layout=None of a", "panel:16"),
    Wrong("GEM0331", MATRIX, "promote{operand=b to=l2 layout=panel:0}", "panel:0", "panel:WIDTH"),
    Wrong(
        "GEM0332",
        MATRIX,
        "promote{operand=a to=l2 layout=panel:4},promote{operand=a to=l1 layout=panel:4}",
        "a is packed already",
        "",
    ),
    Wrong("GEM0333", STACK, "promote{operand=a to=l2 layout=panel:4}", "batch", "tile batch by 1"),
    Wrong("GEM0333", STACK, SUM.rstrip(","), "batch", "tile batch by 1"),
    Wrong("GEM0334", MATRIX, "promote{operand=c to=global}", "to=global", "to=registers"),
    Wrong(
        "GEM0334", MATRIX, "promote{operand=c to=registers layout=panel:4}", "panel:4", "no layout"
    ),
    Wrong("GEM0335", MATRIX, f"{TILES}{SUM}{SUM}", "registers already", ""),
    Wrong(
        "GEM1320",
        MATRIX,
        "promote{operand=a to=l2 layout=panel:4 as=i16}",
        "as=i16 of a, whose elements are f32",
        "leave as out",
    ),
    Wrong(
        "GEM1320",
        replace(MATRIX, dtype="i8"),
        "promote{operand=b to=l2 layout=panel:4 as=i8}",
        "as=i8 of b, whose elements are i8",
        "use as=i16",
    ),
    Wrong(
        "GEM1320",
        BYTES,
        "promote{operand=a to=l2 layout=panel:4 as=f32}",
        "as=f32 of a, whose elements are ui8",
        "use as=i16",
    ),
    Wrong(
        "GEM1322",
        BYTES,
        "promote{operand=a to=l2 layout=panel:4xk}",
        "layout=panel:4xk of a",
        "use panel:WIDTHxDEPTH",
    ),
    Wrong(
        "GEM1323",
        replace(BYTES, dtype="f16", dtype_b=None),
        "tile{loops=m,n sizes=4,8},promote{operand=c to=registers},vectorize{with=dot width=8}",
        "no products of f16 and f16",
        "with=fma",
        "cpu:x86-64-v3",
    ),
    Wrong(
        "GEM1324",
        BYTES,
        "promote{operand=a to=l2 layout=panel:4x4},tile{loops=k sizes=6}",
        "slices inside groups of 4",
        "tile k by 4",
    ),
    Wrong(
        "GEM1325",
        BYTES,
        "tile{loops=m,n sizes=4,4},promote{operand=c to=registers},vectorize{with=dot width=4}",
        "b at once, and it lies in no panels",
        "layout=panel:WIDTHx4",
        "cpu:neoverse-v1",
    ),
    Wrong(
        "GEM1328",
        BYTES,
        "tile{loops=m,n sizes=4,8},promote{operand=c to=registers},vectorize{with=dot width=8}",
        "products of u8 and i8, and cpu:znver3",
        "as=i16",
        "cpu:znver3",
    ),
    Wrong(
        "GEM0312",
        BRAIN_SQUARE,
        "tile{loops=m,n sizes=32,48},promote{operand=c to=registers},vectorize{with=amx width=16}",
        "32 x 48 sums take 2*3 + 3 + 1 = 10 tiles, and sapphirerapids has 8",
        "tile m and n by 32",
        "cpu:sapphirerapids",
    ),
    Wrong(
        "GEM0318",
        BRAIN_SQUARE,
        "tile{loops=m,n sizes=32,32},promote{operand=c to=registers},vectorize{with=amx width=16}",
        "cpu:znver5 has no instruction for bf16 and bf16",
        "with=dot",
        "cpu:znver5",
    ),
    Wrong(
        "GEM1322",
        BYTES,
        "promote{operand=b to=l2 layout=panel:16x4x6}",
        "6 is no multiple of 4",
        "panel:WIDTHx4x4",
    ),
    Wrong(
        "GEM1490",
        replace(BRAIN_SQUARE, dtype="f16"),
        "tile{loops=m,n sizes=32,32},promote{operand=c to=registers},vectorize{with=amx width=16}",
        "no products of f16 and f16",
        "use bf16, i8 or u8",
        "cpu:sapphirerapids",
    ),
    Wrong(
        "GEM1491",
        BRAIN_SQUARE,
        "promote{operand=a to=l2 layout=panel:32x32},promote{operand=b to=l2 layout=panel:32x2},"
        f"tile{{loops=m,n sizes=32,32}},{SUM}vectorize{{with=amx width=16}}",
        "32 of k of b at once, and it lies in panels of depth 2, filled up by 2",
        "layout=panel:32x2x32",
        "cpu:sapphirerapids",
    ),
    Wrong(
        "GEM1492",
        BRAIN_SQUARE,
        "promote{operand=a to=l2 layout=panel:16x32},promote{operand=b to=l2 layout=panel:16x2x32},"
        f"tile{{loops=m,n sizes=16,16}},{SUM}tile{{loops=k sizes=32}},{SUM}"
        "vectorize{with=amx width=16}",
        "slices of k that are added in registers",
        "promote c once",
        "cpu:sapphirerapids",
    ),
    Wrong(
        "GEM1321",
        MATRIX,
        "promote{operand=c to=registers as=f64}",
        "as=f64 of c to registers",
        "pack a or b to l1 or l2 or l3",
    ),
    Wrong(
        "GEM1336",
        WEIGHTS,
        "promote{operand=b to=l2 layout=panel:16}",
        "b has two elements a byte",
        "as=f32",
    ),
    Wrong(
        "GEM1336",
        WEIGHTS,
        "promote{operand=b to=l2 layout=panel:5 as=f32}",
        "panels of 5 of b",
        "use panel:6",
    ),
    Wrong("GEM1338", WEIGHTS, "tile{loops=n sizes=5}", "n by 5 cuts bytes of B", "use 6"),
    Wrong(
        "GEM1338",
        replace(WEIGHTS, trans_b=True),
        "tile{loops=k sizes=1}",
        "k by 1 cuts bytes of B",
        "use 2",
    ),
    Wrong(
        "GEM1339",
        WEIGHTS,
        f"tile{{loops=k,m,n sizes=4,2,4}},{SUM}vectorize{{with=fma width=1}}",
        "width=1",
        "use 2",
    ),
    Wrong(
        "GEM1339",
        replace(WEIGHTS, trans_b=True),
        f"tile{{loops=k,m,n sizes=4,2,8}},{SUM}{VECTOR}",
        "neighbours along k",
        "promote{operand=b to=l2 layout=panel:16 as=f32}",
    ),
    Wrong(
        "GEM0375",
        replace(WEIGHTS, m=32, n=16, k=64, dtype="f16", weight_group=32),
        f"{WARPS}{SUM}tile{{loops=k sizes=32}},{SUM}vectorize{{with=mma width=4}}",
        "no instruction for f16 by i4",
        "use a CPU",
        GPU,
    ),
    Wrong("GEM1288", WEIGHTS, f"{TILES}{VECTOR}", "a scale for every 4 along k", "tile k by 4"),
    Wrong("GEM0336", MATRIX, "promote{operand=d to=l1}", "operand='d'", "use a, b or c"),
    Wrong(
        "GEM0337",
        MATRIX,
        "promote{operand=a to=l2 layout=panel:4 prefetch=true}",
        "prefetch is for operand=c",
        "leave it out",
    ),
    Wrong(
        "GEM0337",
        WIDE,
        f"{CELLS}{ROWS}{SUM}promote{{operand=c to=shared layout=swizzle:128 prefetch=true}}",
        "prefetch is for operand=c to=registers",
        "leave it out",
        HOPPER,
    ),
    Wrong(
        "GEM0338",
        MATRIX,
        f"{BLOCKED}promote{{operand=a to=shared layout=panel:8}}",
        "no thread of a block has C in registers",
        "promote c to registers, tile k",
        GPU,
    ),
    Wrong(
        "GEM0352",
        MATRIX,
        "tile{loops=m,n sizes=8,8 over=blocks per_sm=0}",
        "per_sm=0 with over=blocks",
        "1 or more",
        GPU,
    ),
    Wrong(
        "GEM0352", MATRIX, "tile{loops=m sizes=8 per_sm=2}", "over=None", "goes with over=blocks"
    ),
    Wrong(
        "GEM0339",
        MATRIX,
        f"{BLOCKED}{SUM}promote{{operand=a to=shared layout=panel:3}}",
        "tiles of 4 along m do not lie in panels of 3, and the tile of a block has 8",
        "use panel:4, or panel:8",
        GPU,
    ),
    Wrong("GEM0340", MATRIX, "interchange{order=m,n}", "of the nest none", "name the innermost"),
    Wrong("GEM0340", MATRIX, f"{TILES}interchange{{order=m}}", "order=m", "order=m,n"),
    Wrong("GEM0340", MATRIX, f"{TILES}interchange{{order=k,m}}", "of the nest n,m", "order=m,n"),
    Wrong(
        "GEM0341",
        MATRIX,
        f"{TILES}parallelize{{loop=n}},interchange{{order=m,n}}",
        "over cores stays",
        "",
    ),
    Wrong(
        "GEM0343",
        MATRIX,
        f"{TILES}interchange{{order=m,n group=2}}",
        "two loops over blocks",
        "put it behind tile{loops=m,n",
    ),
    Wrong(
        "GEM0344",
        MATRIX,
        "tile{loops=m,n sizes=8,8 over=blocks},interchange{order=m,n group=1}",
        "groups of 1",
        "use 2 or more",
        GPU,
    ),
    Wrong(
        "GEM0344", MATRIX, f"{TILES}interchange{{order=n,m}}", "already", "leave interchange out"
    ),
    Wrong("GEM0345", MATRIX, f"{TILES}split-k{{factor=2}}", "one tile", "the first pass", GPU),
    Wrong("GEM0346", DEEP, "split-k{factor=2 order=atomic}", "'atomic'", "order=fixed", GPU),
    Wrong("GEM0347", DEEP, "split-k{factor=1}", "splits nothing", "use 2", GPU),
    Wrong("GEM0348", DEEP, "split-k{factor=5}", "leaves 1 of them empty", "factor=4", GPU),
    Wrong(
        "GEM0396",
        PRODUCTS,
        "tile{loops=group,n sizes=1,8 over=blocks}",
        "the rows of all products",
        "use loops=group,m",
        GPU,
    ),
    Wrong(
        "GEM0384",
        HALF,
        f"{SHARED}tile{{loops=k sizes=8}}",
        "k, and a is in shared memory",
        "before promote{operand=a",
        GPU,
    ),
    Wrong(
        "GEM1388",
        Gemm(m=12, n=16, k=64, dtype="bf16", out="bf16"),
        "tile{loops=k sizes=16}",
        "added in bf16, and round a sum of f32 each",
        "promote{operand=c …} before it, or leave k whole",
    ),
    Wrong(
        "GEM0389",
        Gemm(m=32, n=16, k=64, dtype="f16", epilogue="relu"),
        f"{WARPS}fuse-epilogue,{SUM}tile{{loops=k sizes=16}},"
        "promote{operand=a to=shared layout=swizzle:32},"
        f"promote{{operand=b to=shared layout=swizzle:32}},{MMA}",
        "that other threads of the warps have stored",
        "put fuse-epilogue behind promote{operand=c",
        GPU,
    ),
    Wrong(
        "GEM1387",
        MATRIX,
        f"{BLOCKED}{SUM}promote{{operand=a to=shared layout=panel:8}},"
        "promote{operand=b to=shared layout=swizzle:32},vectorize{with=fma width=4}",
        "with=fma reads vectors of b, and it is swizzled",
        "promote b with layout=panel:WIDTH, or use with=mma",
        GPU,
    ),
    Wrong(
        "GEM0386",
        PRODUCTS,
        "tile{loops=group,m,n sizes=1,8,128 over=grid}",
        "visits of one tile of rows must follow one another",
        "use loops=n,group,m",
        TPU,
    ),
    Wrong(
        "GEM0388",
        Gemm(m=16, n=256, k=8, groups=2),
        "tile{loops=n,group,m sizes=128,1,8 over=grid},interchange{order=group,n},"
        "promote{operand=c to=vmem},promote{operand=a to=vmem},promote{operand=b to=vmem},"
        "pipeline{loop=n stages=2 with=dma}",
        "the loop over n is inside that over the visits",
        "use tile{loops=n,group,m",
        TPU,
    ),
    Wrong(
        "GEM0387",
        PRODUCTS,
        "promote{operand=b to=vmem},tile{loops=n,group,m sizes=128,1,8 over=grid}",
        "not all that a product has of an array",
        "make it the first pass",
        TPU,
    ),
    Wrong("GEM0350", MATRIX, "fuse-epilogue", "0 epilogues", "leave fuse-epilogue out"),
    Wrong("GEM0350", BIASED, f"{TILES}fuse-epilogue,fuse-epilogue", "0 epilogues", "leave fuse"),
    Wrong(
        "GEM0353",
        BLOCK,
        f"{GRID}{KEPT}promote{{operand=a to=vmem layout=panel:8}}",
        "layout=panel:8 of a in vmem",
        "leave layout out",
        TPU,
    ),
    Wrong("GEM0354", BLOCK, f"{KEPT}{BLOCK_A}{BLOCK_B}{CALL}", "no loop runs", "over=grid", TPU),
    Wrong(
        "GEM0355",
        BLOCK,
        f"{GRID}{KEPT}tile{{loops=m sizes=16}},{BLOCK_A}{BLOCK_B}{CALL}",
        "the loops over m inside the grid",
        "tile m and n over=grid, and k once",
        TPU,
    ),
    Wrong("GEM0356", BLOCK, f"{SLICED}{CALL}", "loop=n, and the innermost loop", "use loop=k", TPU),
    Wrong(
        "GEM0357",
        BLOCK,
        f"{GRID}{KEPT}{BLOCK_B}{CALL}",
        "a is not in vmem",
        "put promote{operand=a to=vmem} before",
        TPU,
    ),
    Wrong(
        "GEM0358",
        BLOCK,
        f"{BLOCK_A}tile{{loops=m,n sizes=24,128 over=grid}},{KEPT}{BLOCK_B}{CALL}",
        "a is in vmem as a whole, and the last of its tiles is smaller",
        "tile m by a divisor",
        TPU,
    ),
    Wrong(
        "GEM0359",
        BLOCK,
        f"{BLOCKS}pipeline{{loop=n stages=3 with=dma}}",
        "stages=3 of a grid, whose blocks have 2 buffers",
        "use stages=2",
        TPU,
    ),
    Wrong("GEM0360", MATRIX, f"{TILES}parallelize{{loop=m over=warps}}", "'warps'", "use c", GPU),
    Wrong("GEM0361", MATRIX, "tile{loops=k sizes=4},parallelize{loop=k}", "k carries", "m or n"),
    Wrong("GEM0362", MATRIX, "tile{loops=m sizes=4},parallelize{loop=n}", "no loop over n", "m"),
    Wrong("GEM0362", MATRIX, "parallelize{loop=n}", "no loop over n", "tile first"),
    Wrong("GEM0363", MATRIX, f"{TILES}parallelize{{loop=m}},parallelize{{loop=n}}", "already", ""),
    Wrong(
        "GEM0364",
        MATRIX,
        "tile{loops=m sizes=5 edges=overlap},parallelize{loop=m}",
        "two cores would write",
        "edges=clip",
    ),
    Wrong(
        "GEM0365",
        BLOCK,
        f"{BLOCKS}{CALL}vectorize{{with=mxu width=8}}",
        "width of with=mxu",
        "leave width out",
        TPU,
    ),
    Wrong(
        "GEM0365",
        BLOCK,
        f"{BLOCKS}{CALL}vectorize{{with=mxu shape=8,128,128}}",
        "shape of with=mxu",
        "leave shape out",
        TPU,
    ),
    Wrong("GEM0366", BLOCK, f"{BLOCKS}{MXU}", "and there is none", "put pipeline{loop=", TPU),
    Wrong(
        "GEM0367",
        Gemm(m=64, n=256, k=256, dtype="bf16", epilogue="relu"),
        f"{BLOCKS}{CALL}{MXU}",
        "1 epilogue stands outside the grid",
        "put fuse-epilogue before pipeline",
        TPU,
    ),
    Wrong(
        "GEM0368",
        BLOCK,
        f"{BLOCKS}{CALL}tile{{loops=m sizes=24}},{MXU}",
        "differ in size",
        "or edges=peel",
        TPU,
    ),
    Wrong(
        "GEM0368",
        Gemm(m=64, n=256, k=384, dtype="bf16"),
        f"{BLOCK_B}{GRID}{KEPT}tile{{loops=k sizes=256}},{BLOCK_A}pipeline{{loop=k stages=2 "
        f"with=dma}},{MXU}",
        "parts of 256 along k goes beyond a block of 384",
        "use a size of k that divides 384",
        TPU,
    ),
    Wrong(
        "GEM0383",
        BLOCK,
        f"{GRID}{BLOCK_A}{BLOCK_B}{CALL}{MXU}",
        "not summed in a buffer of its own",
        "put promote{operand=c to=vmem} before vectorize",
        TPU,
    ),
    Wrong(
        "GEM0369",
        BLOCK,
        f"{GRID}tile{{loops=m sizes=16 over=grid}},{KEPT}{BLOCK_A}{BLOCK_B}"
        "pipeline{loop=m stages=2 with=dma}",
        "a tile of 16 along dimension 0 of a does not begin at a multiple",
        "once over=grid",
        TPU,
    ),
    Wrong("GEM0370", MATRIX, f"{TILES}{SUM}vectorize{{with=sse width=8}}", "'sse'", "use fma"),
    Wrong("GEM0372", MATRIX, f"{TILES}{VECTOR}", "C is not in registers", "promote{operand=c"),
    Wrong(
        "GEM0373",
        MATRIX,
        f"tile{{loops=m sizes=4}},promote{{operand=a to=l2 layout=panel:2}},{SUM}{VECTOR}",
        "tiles of 4 along m read panels of 2",
        "tile m by 2, or promote with panel:4",
    ),
    Wrong("GEM0374", HALF, f"{SHARED}{VECTOR}", "not f16 in f32", "use with=mma", GPU),
    Wrong("GEM0376", HALF, f"{BLOCKED}{SUM}{MMA}", "tile is one of threads", "over warps", GPU),
    Wrong("GEM0376", HALF, f"{SUM}{MMA}", "tile is one of no unit", "over warps", GPU),
    Wrong("GEM0376", HALF, f"{SLICES}{MMA}", "reads a from shared", "promote{operand=a", GPU),
    Wrong(
        "GEM0377",
        Gemm(m=32, n=16, k=63, dtype="f16"),
        f"{SHARED}{PIPELINE}{MMA}",
        "of rows of 63 elements of f16 it can move 2",
        "leave pipeline out",
        GPU,
    ),
    Wrong(
        "GEM0377",
        HALF,
        f"{SLICES}promote{{operand=b to=shared layout=swizzle:32}},"
        f"promote{{operand=a to=shared layout=panel:32}},{PIPELINE}{MMA}",
        "of a transposed tile of f16 it can move 2",
        "leave pipeline out",
        GPU,
    ),
    Wrong(
        "GEM0378",
        MATRIX,
        f"{TILES}{SUM}vectorize{{with=fma width=8 shape=16,8,8}}",
        "shape=16,8,8 and with=fma",
        "leave shape out",
    ),
    Wrong(
        "GEM0378",
        HALF,
        f"{SHARED}vectorize{{with=mma width=8 shape=16,8,4}}",
        "shape=16,8,4 is no instruction for f16",
        "use shape=16,8,16 or shape=16,8,8",
        GPU,
    ),
    Wrong(
        "GEM0379",
        HALF,
        f"{SHARED}{MMA}",
        "f16 takes 16 elements along k, and on cuda:sm_75 8",
        "use shape=16,8,8",
        "cuda:sm_75",
    ),
    Wrong("GEM0380", MATRIX, f"{TILES}{SUM}{VECTOR},unroll{{loop=k factor=1}}", "factor=1", "2 or"),
    Wrong("GEM0380", MATRIX, f"{TILES}{SUM}{VECTOR},unroll{{loop=k factor=9}}", "of 8", "2 to 8"),
    Wrong("GEM0380", NARROW, f"{SUM}{VECTOR},unroll{{loop=k factor=2}}", "of 1", "leave unroll"),
    Wrong(
        "GEM0381", MATRIX, f"{TILES}unroll{{loop=k factor=2}}", "no innermost", "after vectorize"
    ),
    Wrong(
        "GEM0382",
        MATRIX,
        f"{TILES}{SUM}{VECTOR},unroll{{loop=k factor=2}},unroll{{loop=k factor=2}}",
        "unrolled already",
        "one factor",
    ),
    Wrong("GEM0385", MATRIX, f"{TILES}{SUM}{VECTOR},expand-math", "no math.exp", "leave it out"),
    Wrong(
        "GEM0385",
        Gemm(m=12, n=16, k=8, epilogue="gelu"),
        f"{TILES}{SUM}expand-math,{VECTOR}",
        "no math.exp on vectors",
        "after vectorize",
    ),
    Wrong(
        "GEM0391",
        BLOCK,
        f"{GRID}tile{{loops=k sizes=128}},{KEPT}{BLOCK_A}{BLOCK_B}pipeline{{loop=k stages=2 "
        "with=dma}",
        "c is promoted outside the grid, or inside the loop over k",
        "before tile{loops=k",
        TPU,
    ),
    Wrong(
        "GEM0391",
        BLOCK,
        f"{GRID}{KEPT}{BLOCK_A}tile{{loops=k sizes=128}},{BLOCK_B}pipeline{{loop=k stages=2 "
        "with=dma}",
        "a is promoted between the loops",
        "put promote{operand=a to=vmem} before the first tile or after the last",
        TPU,
    ),
    Wrong(
        "GEM0391",
        Gemm(m=64, n=256, k=256, dtype="bf16", epilogue="relu"),
        f"{GRID}fuse-epilogue,{KEPT}{BLOCK_A}{BLOCK_B}{CALL}",
        "a step writes c more than once",
        "put fuse-epilogue after promote{operand=c",
        TPU,
    ),
    Wrong("GEM0392", HALF, f"{SHARED}pipeline{{loop=k stages=2 with=bulk}}", "bulk", "cp.as", GPU),
    Wrong("GEM0393", HALF, f"{SHARED}pipeline{{loop=k stages=1}}", "stages=1", "2 or", GPU),
    Wrong("GEM0394", HALF, f"{SLICES}{PIPELINE}{MMA}", "no loop over k", "then promote", GPU),
    Wrong("GEM0395", HALF, f"{SHARED}{PIPELINE}{PIPELINE}{MMA}", "already", "one pipeline", GPU),
    Wrong(
        "GEM0397",
        Gemm(m=8192, n=8192, k=8192, dtype="bf16"),
        f"tile{{loops=m,n sizes=4096,4096 over=grid}},{KEPT}{BLOCK_A}{BLOCK_B}{CALL}",
        "VMEM of v5e holds 134217728",
        "tile k by 4096",
        TPU,
    ),
    Wrong(
        "GEM0398",
        BLOCK,
        f"tile{{loops=n sizes=96 over=grid}},{KEPT}{BLOCK_A}{BLOCK_B}{CALL}",
        "n=256 by 96, and a block is a multiple of 128",
        "use 128 or 256",
        TPU,
    ),
    Wrong(
        "GEM0398",
        Gemm(m=64, n=256, k=256, dtype="bf16", trans_a=True),
        f"tile{{loops=m sizes=32 over=grid}},{KEPT}{BLOCK_A}{BLOCK_B}pipeline{{loop=m stages=2 "
        "with=dma}",
        "m=64 by 32, and a block is a multiple of 128",
        "or 64",
        TPU,
    ),
    Wrong(
        "GEM0399",
        BLOCK,
        "tile{loops=m sizes=32 over=blocks}",
        "over=blocks, and tpu:v5e has none",
        "use over=grid",
        TPU,
    ),
    Wrong("GEM0399", BLOCK, "promote{operand=c to=registers}", "to=registers", "to=vmem", TPU),
    Wrong("GEM0399", BLOCK, "split-k{factor=2}", "slices over blocks", "tile{loops=k", TPU),
    Wrong("GEM0399", BLOCK, f"{BLOCKS}pipeline{{loop=n stages=2}}", "cp.async", "with=dma", TPU),
    Wrong("GEM0399", BLOCK, f"{BLOCKS}{CALL}{VECTOR}", "with=fma", "use with=mxu", TPU),
    Wrong(
        "GEM0399",
        Gemm(m=64, n=256, k=256, dtype="i8"),
        f"{BLOCKS}{CALL}{MXU}",
        "with=mxu multiplies i8, and tpu:v4 has none",
        "bf16, f32",
        "tpu:v4",
    ),
    Wrong("GEM1226", MATRIX, f"{TILES}swap-operands", "one tile of a problem", "first pass"),
    Wrong(
        "GEM1316",
        Gemm(m=2, n=2, k=8, trans_b=True),
        f"promote{{operand=b to=l2 layout=panel:16x4}},{SUM}vectorize{{with=fma width=8 along=k}}",
        "b is not adjacent along k",
        "layout=panel:1",
    ),
    Wrong(
        "GEM1357",
        DEEP,
        f"{BEGUN}{CARRIED},tile{{loops=k sizes=8}},{SUM}{VECTOR}",
        "slices of k are added to",
        "promote c once",
    ),
    Wrong(
        "GEM1357",
        DEEP,
        f"{BEGUN}{SUM}tile{{loops=k sizes=8}},{CARRIED},{VECTOR}",
        "slices of k are added to",
        "leave carry out",
    ),
    Wrong(
        "GEM1381",
        Gemm(m=2, n=2, k=32, trans_b=True),
        f"tile{{loops=k sizes=16}},{CARRIED},vectorize{{with=fma width=8 along=k}}",
        "goes on from what C holds",
        "leave carry out",
    ),
    Wrong("GEM1380", replace(MATRIX, lda=ANY), "swap-operands", "strided<[?, 1]>", "leave"),
    Wrong("GEM1380", replace(MATRIX, m=ANY), "swap-operands", "memref<?x8xf32>", "leave"),
    Wrong(
        "GEM1316",
        Gemm(m=2, n=2, k=8, ldb=ANY),
        f"{SUM}vectorize{{with=fma width=8 along=k}}",
        "b is not adjacent along k",
        "layout=panel:1",
    ),
    Wrong("GEM1343", MATRIX, f"{TILES}prepack{{operand=c}}", "operand='c'", "use a or b"),
    Wrong(
        "GEM1344", MATRIX, f"{TILES}prepack{{operand=b}}", "not packed as a whole", "put promote"
    ),
    Wrong("GEM1310", MATRIX, f"{TILES}prefetch{{operand=d loop=n ahead=1}}", "=d", "a, b or c"),
    Wrong(
        "GEM1311", MATRIX, "prefetch{operand=b loop=n ahead=1}", "no loop over n", "tile{loops=n"
    ),
    Wrong(
        "GEM1312",
        MATRIX,
        "tile{loops=n sizes=6},tile{loops=n sizes=4},prefetch{operand=b loop=n ahead=1}",
        "known at run time only",
        "edges=peel",
    ),
    Wrong(
        "GEM1313",
        MATRIX,
        "tile{loops=n sizes=8},prefetch{operand=b loop=n ahead=2}",
        "ahead=2, and the loop over n ends before",
        "smaller number",
    ),
    Wrong(
        "GEM1314",
        MATRIX,
        "tile{loops=k sizes=4},promote{operand=c to=l2 layout=panel:8}",
        "the whole sum of a C",
        "before tile of k",
    ),
    Wrong(
        "GEM1315",
        MATRIX,
        "tile{loops=n sizes=8},prefetch{operand=b loop=n ahead=1 during=m}",
        "no loop over m inside the other",
        "tile{loops=m",
    ),
    Wrong(
        "GEM1316",
        MATRIX,
        f"tile{{loops=m,n sizes=2,2}},{SUM}vectorize{{with=fma width=8 along=k}}",
        "b is not adjacent along k",
        "panel:1",
    ),
    Wrong(
        "GEM1316",
        MATRIX,
        f"tile{{loops=m,n sizes=2,2}},{SUM}vectorize{{with=fma width=1 along=k}}",
        "adds 1 lanes in halves",
        "use width=2",
    ),
    Wrong(
        "GEM1317",
        MATRIX,
        f"tile{{loops=m,n sizes=2,2}},{SUM}vectorize{{with=fma width=8 along=m}}",
        "along=m with=fma",
        "along=k with=fma",
    ),
    Wrong(
        "GEM0312",
        MATRIX,
        f"{TILES}{SUM}vectorize{{with=fma width=8 along=k}}",
        "4*16 + 4 + 16 = 84 vector registers",
        "smaller",
    ),
    Wrong(
        "GEM1266",
        WIDE,
        f"{CELLS}{ROWS}stream-k{{blocks=3 slice=64}}",
        "no tile of a block that is summed over all of k",
        "before tile{loops=k",
        HOPPER,
    ),
    Wrong(
        "GEM1267",
        WIDE,
        f"{CELLS}{ROWS}{SUM}stream-k{{blocks=33 slice=64}}",
        "8 tiles of k=256 in slices of 64 are not enough for 33 blocks",
        "at most 32",
        HOPPER,
    ),
    Wrong(
        "GEM1267",
        WIDE,
        f"{CELLS}{ROWS}{SUM}stream-k{{blocks=4 slice=64}}",
        "8 tiles come out even for 4 blocks",
        "persist{blocks=4}",
        HOPPER,
    ),
    Wrong(
        "GEM1268",
        Gemm(m=64, n=64, k=4096, dtype="bf16"),
        f"{CELLS}{ROWS}{SUM}stream-k{{blocks=9 slice=64}}",
        "the work of 9 blocks",
        "at most 7 blocks, or split-k",
        HOPPER,
    ),
    Wrong(
        "GEM1269",
        WIDE,
        f"{CELLS}{ROWS}{SUM}stream-k{{blocks=3 slice=64 order=any}}",
        "which block comes first",
        "order=fixed",
        HOPPER,
    ),
    Wrong("GEM1270", WIDE, "persist{blocks=2}", "one of no unit", "tile{… over=blocks}", HOPPER),
    Wrong(
        "GEM1270", WIDE, f"{CELLS}{ROWS}persist{{blocks=2}}", "warpgroups", "before tiles", HOPPER
    ),
    Wrong(
        "GEM1270",
        WIDE,
        f"{CELLS}persist{{blocks=4}},persist{{blocks=2}}",
        "take tiles in turn already",
        "one persist",
        HOPPER,
    ),
    Wrong(
        "GEM1271",
        WIDE,
        "split-k{factor=2},tile{loops=m,n sizes=128,64 over=blocks},persist{blocks=2}",
        "do not stand directly inside one another",
        "all of their loops",
        HOPPER,
    ),
    Wrong("GEM1272", WIDE, f"{CELLS}persist{{blocks=8}}", "8 for 8 tiles", "use 1 to 7", HOPPER),
    Wrong("GEM1272", WIDE, f"{CELLS}persist{{blocks=0}}", "0 for 8 tiles", "use 1 to 7", HOPPER),
    Wrong("GEM1272", BRAIN, f"{CELLS}persist{{blocks=1}}", "1 for 1 tiles", "leave", HOPPER),
    Wrong(
        "GEM1273",
        WIDE,
        f"{CELLS}tile{{loops=m,n sizes=64,32 over=warps}},{SUM}{DEPTH}{SWIZZLED}{BY_TMA}",
        "one of blocks, blocks, warps, warps",
        "over warpgroups",
        HOPPER,
    ),
    Wrong(
        "GEM1274",
        WIDE,
        f"tile{{loops=m,n sizes=128,64 over=clusters}},tile{{loops=m sizes=128 over=blocks}},"
        f"{KEPT_ROWS}{BY_TMA}",
        "clusters of 1 blocks",
        "2 to 8",
        HOPPER,
    ),
    Wrong(
        "GEM1274",
        WIDE,
        "tile{loops=m,n sizes=256,128 over=clusters},tile{loops=m,n sizes=128,64 over=blocks},"
        f"{KEPT_ROWS}{BY_TMA}",
        "share neither A nor B",
        "only m or only n",
        HOPPER,
    ),
    Wrong(
        "GEM1275",
        WIDE,
        f"{CELLS}{ROWS}{SUM}{DEPTH}promote{{operand=a to=shared layout=panel:128}},{BY_TMA}",
        "into swizzled tiles, not into memref<128x64xbf16",
        "layout=swizzle:128",
        HOPPER,
    ),
    Wrong(
        "GEM1276",
        WIDE,
        f"{PAIRS}{KEPT_ROWS}{BY_TMA}",
        "64 elements along n are not 2 parts of whole 64",
        "a multiple of 128",
        HOPPER,
    ),
    Wrong(
        "GEM1277",
        WIDE,
        f"split-k{{factor=3}},{CELLS}{KEPT_ROWS}{BY_TMA}",
        "a part of k of 96 elements is not made of slices of 64",
        "whole slices",
        HOPPER,
    ),
    Wrong(
        "GEM1277",
        WIDE,
        f"{CELLS}{ROWS}tile{{loops=k sizes=96}},{SUM}{DEPTH}{SWIZZLED}{BY_TMA}",
        "a part of k of 96 elements is not made of slices of 64",
        "whole slices",
        HOPPER,
    ),
    Wrong(
        "GEM1278",
        WIDE,
        f"{CELLS}{KEPT_ROWS}pipeline{{loop=k stages=3 with=tma}}",
        "with=tma specialize=false",
        "with=tma specialize=true",
        HOPPER,
    ),
    Wrong(
        "GEM1278",
        WIDE,
        f"{CELLS}{KEPT_ROWS}pipeline{{loop=k stages=3 pingpong=true}}",
        "with=cp.async specialize=false pingpong=true",
        "with=tma specialize=true",
        HOPPER,
    ),
    Wrong(
        "GEM1279",
        WIDE,
        f"{CELLS}persist{{blocks=3}},{KEPT_ROWS}{PINGPONG}",
        "tiles that 2 warpgroups share",
        "by the tile of a block",
        HOPPER,
    ),
    Wrong("GEM1279", WIDE, f"{LOW}{KEPT_ROWS}{PINGPONG}", "one for each block", "persist", HOPPER),
    Wrong(
        "GEM1279",
        WIDE,
        f"{LOW}persist{{blocks=3}},{ROWS}tile{{loops=k sizes=128}},{SUM}{DEPTH}{SWIZZLED}"
        f"{PINGPONG}",
        "several parts of k",
        "tile k once",
        HOPPER,
    ),
    Wrong("GEM1281", WIDE, f"{CELLS}{ROWS}{SUM}{DEPTH}{WGMMA}", "reads a", "operand=a", HOPPER),
    Wrong(
        "GEM1281", WIDE, f"{CELLS}{KEPT_ROWS}{WGMMA}", "that others copy for", "with=tma", HOPPER
    ),
    Wrong(
        "GEM1282",
        Gemm(m=256, n=256, k=256, dtype="e4m3"),
        f"{CELLS}{ROWS}{SUM}tile{{loops=k sizes=128}},{SWIZZLED}{BY_TMA},{WGMMA}",
        "reads e4m3 along k, and b is adjacent along n",
        "trans_b",
        HOPPER,
    ),
    Wrong("GEM1283", WIDE, f"{CELLS}{ROWS}{OUT}", "that are in registers", "to=registers", HOPPER),
    Wrong(
        "GEM1283",
        WIDE,
        f"{CELLS}{KEPT_ROWS}{BY_TMA},{OUT}",
        "tiles of warpgroups",
        "or leave it out",
        HOPPER,
    ),
    Wrong(
        "GEM1284",
        WIDE,
        f"{CELLS}{ROWS}{DEPTH}{SUM}{OUT}",
        "written back in 2 places",
        "tile k only once",
        HOPPER,
    ),
    Wrong(
        "GEM1264",
        Gemm(m=128, n=36, k=64, dtype="bf16", out="bf16"),
        f"tile{{loops=m,n sizes=128,64 over=blocks}},{ROWS}{SUM}{OUT}",
        "rows of C of 72 bytes, and the TMA stores whole 16",
        "n of a multiple of 8",
        HOPPER,
    ),
    Wrong(
        "GEM1285",
        WIDE,
        f"tile{{loops=m,n sizes=128,40 over=blocks}},{ROWS}{SUM}{OUT}",
        "40 columns of C are not made of rows of 32",
        "a multiple of 32",
        HOPPER,
    ),
    Wrong(
        "GEM1285",
        Gemm(m=16, n=256, k=256, dtype="bf16"),
        f"swap-operands,{CELLS}{ROWS}{SUM}{OUT}",
        "16 columns of C are not made of rows of 32 adjacent elements",
        "a narrower swizzle",
        HOPPER,
    ),
    Wrong(
        "GEM1286",
        WIDE,
        f"{CELLS}{ROWS}{SUM}promote{{operand=c to=shared layout=panel:64}}",
        "in panels",
        "swizzle:128",
        HOPPER,
    ),
    Wrong(
        "GEM1287",
        SCALED,
        "tile{loops=k sizes=24}",
        "k by 24 cuts blocks of 16",
        "use 16",
    ),
    Wrong(
        "GEM1287",
        SCALED,
        "tile{loops=n sizes=16 edges=overlap}",
        "n by 16 with edges=overlap cuts blocks",
        "edges=clip or peel",
    ),
    Wrong(
        "GEM1288",
        SCALED,
        f"{TILES}{SUM}{VECTOR}",
        "a scale for every 16 along k",
        "first tile k by 16",
    ),
    Wrong(
        "GEM1289",
        SCALED,
        "tile{loops=m,n sizes=12,16 over=grid},promote{operand=c to=vmem}",
        "to=vmem keeps one sum",
        "beforehand",
        TPU,
    ),
    Wrong(
        "GEM1291",
        Gemm(m=256, n=256, k=256, dtype="bf16", groups=2, epilogue="relu"),
        "tile{loops=group,m,n sizes=1,128,64 over=blocks},persist{blocks=2},"
        f"{KEPT_ROWS}{BY_TMA}",
        "which every warpgroup would apply",
        "fuse-epilogue before pipeline",
        HOPPER,
    ),
    Wrong(
        "GEM1292",
        Gemm(m=16, n=128, k=128, dtype="bf16", groups=2, masked=True),
        "tile{loops=group,m sizes=1,8 over=grid}",
        "room for rows of their own",
        "with offsets",
        TPU,
    ),
    Wrong(
        "GEM1295",
        WIDE,
        f"{CELLS}{ROWS}{SUM}tile{{loops=k sizes=32}},{SWIZZLED}{BY_TMA}",
        "slices of k of 32 elements in swizzled rows of 64",
        "a multiple of 64",
        HOPPER,
    ),
    Wrong(
        "GEM1295",
        Gemm(m=256, n=256, k=256, dtype="bf16", trans_a=True),
        f"{CELLS}{ROWS}{SUM}tile{{loops=k sizes=24}},{SWIZZLED}{BY_TMA}",
        "slices of k of 24 elements in instructions of 16",
        "a multiple of 16",
        HOPPER,
    ),
    Wrong(
        "GEM1296",
        WIDE,
        f"{CELLS}{ROWS}{SUM}tile{{loops=k sizes=128}},{DEPTH}{SWIZZLED}{BY_TMA}",
        "two loops over k add to one sum",
        "tile k only once",
        HOPPER,
    ),
    Wrong(
        "GEM1297",
        WIDE,
        f"{CELLS}tile{{loops=m sizes=32 over=warpgroups}},{SUM}{DEPTH}{SWIZZLED}{BY_TMA}",
        "32 of m each, and their products multiples of 64",
        "by 64",
        HOPPER,
    ),
    Wrong(
        "GEM1297",
        Gemm(m=64, n=160, k=64, dtype="i8", trans_b=True),
        "tile{loops=m,n sizes=64,80 over=blocks},tile{loops=n sizes=40 over=warpgroups},"
        f"{SUM}tile{{loops=k sizes=32}},promote{{operand=a to=shared layout=swizzle:32}},"
        f"promote{{operand=b to=shared layout=swizzle:32}},{BY_TMA}",
        "40 of n each, and their products multiples of 16",
        "by 48",
        HOPPER,
    ),
    Wrong(
        "GEM1298",
        Gemm(m=64, n=512, k=64, dtype="bf16"),
        f"tile{{loops=m,n sizes=64,264 over=blocks}},{KEPT_ROWS}{BY_TMA},{WGMMA}",
        "256 columns at once, and a tile has 264",
        "at most 256",
        HOPPER,
    ),
)
"""In the order of the codes."""


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: f"{w.code}-{w.schedule[:40]}")
def test_a_wrong_schedule(wrong: Wrong) -> None:
    with pytest.raises(ScheduleError) as found:
        gemmir.lower(wrong.gemm, target=wrong.target, schedule=wrong.schedule)
    assert found.value.code == wrong.code
    assert found.value.exit_code == 5
    assert wrong.says in found.value.message
    assert wrong.hint in found.value.hint


def code_of(call: Callable[[], object]) -> str:
    """The code of the `ScheduleError` that `call` raises."""
    with pytest.raises(ScheduleError) as found:
        call()
    return found.value.code


def test_a_stage_without_its_schedule_cannot_go_on() -> None:
    stage = gemmir.lower(MATRIX, schedule=f"{TILES}{SUM}{VECTOR}").stages["01-tile"].text
    bare = re.sub(r" attributes \{gemmir.schedule = .*\} \{", " {", stage)
    assert bare != stage
    assert code_of(lambda: gemmir.lower_text(bare)) == "GEM0314"


def test_a_schedule_file_that_cannot_be_read(tmp_path: Path) -> None:
    missing = tmp_path / "fast.schedule"
    with pytest.raises(ParseError, match="GEM0315"):
        gemmir.lower(MATRIX, schedule=missing)
    missing.write_bytes(b"\xff\xfe")
    with pytest.raises(ParseError, match="GEM0315"):
        gemmir.lower(MATRIX, schedule=missing)


def test_a_schedule_file(tmp_path: Path) -> None:
    stored = tmp_path / "small.schedule"
    stored.write_text(f"{TILES}\n{SUM}  # six by two vectors\n{VECTOR}\n")
    lowered = gemmir.lower(MATRIX, schedule=stored)
    assert str(lowered.schedule) == f"{TILES}{SUM}{VECTOR}"


def run(module: ModuleOp, schedule: str) -> None:
    """The passes alone: without what is known of the problem and the machine."""
    run_passes(module, Schedule.parse(schedule))


def test_warpgroups_multiply_no_f64() -> None:
    doubles = Gemm(m=256, n=256, k=256, dtype="f64")
    schedule = f"{CELLS}{ROWS}{SUM}tile{{loops=k sizes=16}},{SWIZZLED}{BY_TMA},{WGMMA}"
    assert code_of(lambda: run(build(doubles), schedule)) == "GEM1280"


def test_tensor_cores_multiply_no_f32() -> None:
    assert code_of(lambda: run(build(MATRIX), f"{SHARED}{MMA}")) == "GEM0375"


def test_no_default_for_products_that_a_machine_cannot_sum() -> None:
    eight = replace(HALF, dtype="e4m3")
    assert code_of(lambda: gemmir.lower(eight, target="cpu:x86-64-v3")) == "GEM0316"


def test_a_gpu_has_no_threads_to_choose() -> None:
    assert code_of(lambda: gemmir.lower(MATRIX, target=GPU, threads=2)) == "GEM0317"


def test_no_vector_has_no_lanes() -> None:
    schedule = f"{TILES}{SUM}vectorize{{with=fma width=0}}"
    assert code_of(lambda: run(build(MATRIX), schedule)) == "GEM0371"


OVERLAPPED = """
func.func @gemm(%a: memref<5x4xf32>, %b: memref<4x8xf32>, %c: memref<5x8xf32>) {
  %zero = arith.constant 0 : index
  %one = arith.constant 1 : index
  %two = arith.constant 2 : index
  %four = arith.constant 4 : index
  %five = arith.constant 5 : index
  scf.for %p = %zero to %four step %two {
    scf.for %i = %zero to %five step %four {
      %at = arith.minsi %i, %one : index
      %a1 = memref.subview %a[%at, %p] [4, 2] [1, 1]
        : memref<5x4xf32> to memref<4x2xf32, strided<[4, 1], offset: ?>>
      %b1 = memref.subview %b[%p, 0] [2, 8] [1, 1]
        : memref<4x8xf32> to memref<2x8xf32, strided<[8, 1], offset: ?>>
      %c1 = memref.subview %c[%at, 0] [4, 8] [1, 1]
        : memref<5x8xf32> to memref<4x8xf32, strided<[8, 1], offset: ?>>
      gemmir.gemm %a1, %b1, %c1 alpha 1.0 : f64 beta 0.0 : f64
        : memref<4x2xf32, strided<[4, 1], offset: ?>>,
          memref<2x8xf32, strided<[8, 1], offset: ?>>, memref<4x8xf32, strided<[8, 1], offset: ?>>
    } {gemmir.dim = "m"}
  } {gemmir.dim = "k"}
  func.return
}
"""


def test_k_cannot_move_across_tiles_that_overlap() -> None:
    module = parse_module(OVERLAPPED)
    assert code_of(lambda: run(module, "interchange{order=m,k}")) == "GEM0342"


def test_an_epilogue_of_another_array_cannot_be_fused() -> None:
    text = str(build(BIASED))
    other = re.sub(
        r"outs\(%c : (.*)\) \{", r"outs(%bias_rows : memref<12x16xf32, strided<[0, 1]>>) {", text
    )
    assert other != text
    assert code_of(lambda: run(parse_module(other), "fuse-epilogue")) == "GEM0351"


@dataclass(frozen=True)
class Broken(ModulePass):
    """Leaves a gemmir.gemm whose alpha is no number."""

    name = "gemmir-broken"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for gemm in [o for o in op.walk() if o.name == "gemmir.gemm"]:
            gemm.properties["alpha"] = i32


def test_a_pass_that_leaves_invalid_ir() -> None:
    schedule = PassPipeline([Broken()])
    assert code_of(lambda: run_passes(build(MATRIX), schedule)) == "GEM0390"
    assert code_of(lambda: list(run_stages(build(MATRIX), schedule))) == "GEM0390"


def raised_in_sources() -> set[str]:
    """The codes of schedules that occur in the package."""
    root = Path(gemmir.__file__).parent
    sources = [*root.rglob("*.py"), *(root / "passes").glob("*.py")]
    return {code for path in sources for code in CODE.findall(path.read_text())}


def test_every_code_is_provoked_here() -> None:
    here = set(CODE.findall(Path(__file__).read_text()))
    assert here == raised_in_sources()
