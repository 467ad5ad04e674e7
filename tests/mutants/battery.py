"""A few decisive problems under decisive schedules: every stage, then machine code, to the bit.

Operands are whole numbers, so that sums are exact in every order. In the evaluator an output that
is not read begins as NaN; in machine code every operand ends where a page begins that cannot be
touched, and the gaps between rows of C must keep what is in them. PTX runs in the emulator, which
knows where each operand ends.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from xdsl.dialects.builtin import ModuleOp

from gemmir.backends.cpu.assemble import assemble
from gemmir.backends.cpu.emit import emit
from gemmir.backends.cpu.load import load
from gemmir.backends.ptx.emit import emit as emit_ptx
from gemmir.backends.ptx.run import run_ptx
from gemmir.dtypes import ELEMENTS
from gemmir.evaluate import evaluate
from gemmir.gemm import OFFSETS, Gemm, Operand
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.lowering import run_pass, stage_text
from gemmir.machine import Machine, machine_for
from gemmir.schedule import Schedule
from gemmir.sizes import ANY
from tests.tile_emulation import MACHINE as TILED
from tests.tile_emulation import loaded as without_tiles

Array = npt.NDArray[Any]

A: Final = "promote{operand=a to=l2 layout=panel:3}"
B: Final = "promote{operand=b to=l3 layout=panel:8}"
C: Final = "promote{operand=c to=registers}"
V: Final = "vectorize{with=fma width=4}"
U: Final = "unroll{loop=k factor=3}"

GUARDED_HEAP: Final = """
declare ptr @mmap(ptr, i64, i32, i32, i32, i64)
declare i32 @mprotect(ptr, i64, i32)
define internal ptr @guarded_alloc(i64 %alignment, i64 %size) {
  %room = add i64 %size, 1073741824
  %made = call ptr @mmap(ptr null, i64 %room, i32 0, i32 34, i32 -1, i64 0)
  %status = call i32 @mprotect(ptr %made, i64 %size, i32 3)
  ret ptr %made
}
define internal void @guarded_free(ptr %buffer) {
  ret void
}
"""
"""Packed buffers in pages of their own, before 1 GiB that cannot be touched. Buffers are aligned
to pages; 3 is PROT_READ | PROT_WRITE and 34 is MAP_PRIVATE | MAP_ANONYMOUS on Linux."""

BY_MATRIX: Final = ("ldmatrix", "stmatrix")
"""What has no bank conflicts."""

GAP: Final = 77.0
"""What lies between the rows of an array that has gaps."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A problem, the passes it goes through, and whether one element of A is NaN.

    `offsets` say where the products of a grouped GEMM begin, `sizes` and `factors` what is known in
    a call only.
    """

    gemm: Gemm
    schedule: str
    nan: bool = False
    offsets: tuple[int, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])
    factors: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def operands(self) -> tuple[Operand, ...]:
        """The arrays of the call."""
        return self.gemm.at(**self.sizes).operands if self.sizes else self.gemm.operands

    @property
    def reads_c(self) -> bool:
        """Whether the old C counts."""
        return bool(self.factors.get("beta", self.gemm.beta)) or bool(self.offsets)


CASES: Final = (
    Case(
        gemm=Gemm(m=6, n=18, k=15, alpha=2, beta=3, ldc=21, epilogue="bias+residual"),
        schedule="promote{operand=c to=l2 layout=panel:8},tile{loops=k sizes=5},"
        f"{A},tile{{loops=n sizes=8 edges=peel}},tile{{loops=m sizes=3}},"
        f"prefetch{{operand=b loop=n ahead=1 during=m}},{C},fuse-epilogue,{V},{U}",
    ),
    Case(
        gemm=Gemm(m=6, n=16, k=8, beta=1),
        schedule=f"tile{{loops=m sizes=3}},tile{{loops=n sizes=8}},{C},tile{{loops=k sizes=4}},"
        "prefetch{operand=a loop=m ahead=1 during=n,k},"
        f"prefetch{{operand=c loop=n ahead=0 during=k}},{V},{U}",
    ),
    Case(
        gemm=Gemm(m=6, n=24, k=16),
        schedule="tile{loops=k sizes=8},tile{loops=m sizes=3},tile{loops=n sizes=8},"
        f"{C},tile{{loops=k sizes=1}},prefetch{{operand=b loop=k ahead=1 during=m,n,k}},{V}",
    ),
    Case(
        gemm=Gemm(m=7, n=11, k=22, alpha=2, beta=3, ldc=13, epilogue="bias"),
        schedule="promote{operand=b to=l2 layout=panel:1},tile{loops=m,n sizes=3,2},"
        f"{C},vectorize{{with=fma width=4 along=k}},unroll{{loop=k factor=2}}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=11, alpha=2, beta=3, ldc=21, epilogue="bias+relu+residual"),
        schedule=f"tile{{loops=k sizes=4}},{B},{A},tile{{loops=n,m sizes=8,3}},{C},"
        f"fuse-epilogue,{V},{U}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=11, trans_a=True, trans_b=True, lda=8, ldb=13, epilogue="bias"),
        schedule=f"tile{{loops=n sizes=8}},{B},tile{{loops=m,k sizes=6,6}},{A},"
        f"tile{{loops=m sizes=3}},promote{{operand=c to=registers prefetch=true}},{V},{U}",
    ),
    Case(
        gemm=Gemm(m=7, n=10, k=5, epilogue="relu+bias"),
        schedule=f"tile{{loops=m,n sizes=3,4 edges=overlap}},tile{{loops=k sizes=2}},{C},"
        f"fuse-epilogue,{V}",
        nan=True,
    ),
    Case(
        gemm=Gemm(m=5, n=6, k=7, beta=1, batch=3, batch_stride_b=0, epilogue="residual"),
        schedule=f"tile{{loops=batch,m,n sizes=1,2,4 edges=peel}},{C},{V},"
        "unroll{loop=k factor=2}",
    ),
    Case(
        gemm=Gemm(m=13, n=9, k=6, dtype="f64", alpha=2, epilogue="bias"),
        schedule=f"tile{{loops=k sizes=4}},{B},tile{{loops=m sizes=6}},{A},parallelize{{loop=m}},"
        f"tile{{loops=n,m sizes=8,3}},{C},fuse-epilogue,{V}",
    ),
    Case(
        gemm=Gemm(m=11, n=18, k=7, alpha=2, ldb=20),
        schedule=f"{B},tile{{loops=m sizes=3}},tile{{loops=n sizes=8}},{C},"
        f"tile{{loops=k sizes=2}},fuse-pack{{operand=b}},{V},{U}",
    ),
    Case(
        gemm=Gemm(m=7, n=10, k=9, lda=11),
        schedule=f"tile{{loops=m,n sizes=5,8 edges=peel}},{C},{V},unroll{{loop=k factor=4}},"
        "widen-reads{rows=2}",
    ),
    Case(
        gemm=Gemm(m=7, n=10, k=9, alpha=2, beta=1),
        schedule=f"tile{{loops=m,n sizes=4,8 edges=peel}},{C},{V},unroll{{loop=k factor=4}},"
        "peel{loop=k}",
    ),
    Case(
        gemm=Gemm(m=7, n=11, k=13, beta=2, ldc=12, epilogue="bias+relu"),
        schedule=f"part{{loop=n at=8}},tile{{loops=m,n sizes=3,8 edges=peel}},{C},fuse-epilogue,"
        f"{V},otherwise,promote{{operand=b to=l2 layout=panel:1}},"
        f"tile{{loops=m sizes=2 edges=peel}},{C},vectorize{{with=fma width=4 along=k}}",
    ),
    Case(
        gemm=Gemm(m=5, n=7, k=3, epilogue="silu+gelu"),
        schedule=f"tile{{loops=m,n sizes=3,4}},interchange{{order=n,m}},{C},fuse-epilogue,{V},"
        "expand-math",
    ),
    Case(
        gemm=Gemm(m=6, n=9, k=5, alpha=3, beta=2),
        schedule=f"tile{{loops=m,n,k sizes=4,4,2}},interchange{{order=k,n,m}},{C},"
        "vectorize{with=fma width=1}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=11, dtype="i8", dtype_b="u8", beta=3),
        schedule="promote{operand=b to=l2 layout=panel:8x4},"
        "promote{operand=a to=l2 layout=panel:3x4},tile{loops=n,m sizes=8,3},"
        f"{C},vectorize{{with=dot width=8}},{U}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=11, dtype="i8", beta=3, trans_b=True),
        schedule="tile{loops=n sizes=16},promote{operand=b to=l2 layout=panel:8x4},"
        "promote{operand=a to=l2 layout=panel:3x4},tile{loops=n,m sizes=8,3},"
        f"{C},unsign,vectorize{{with=dot width=8}},{U}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=37, dtype="i8", trans_b=True),
        schedule="promote{operand=a to=l2 layout=panel:1},tile{loops=m,n sizes=3,2},"
        f"{C},unsign,vectorize{{with=dot width=8 along=k}}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=11, dtype="bf16", trans_a=True),
        schedule="promote{operand=b to=l2 layout=panel:8 as=f32},tile{loops=n,m sizes=8,3},"
        f"{C},{V}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=12, dtype_b="i8", weight_group=4, epilogue="bias"),
        schedule=f"tile{{loops=k sizes=4}},tile{{loops=n,m sizes=8,3 edges=peel}},{C},"
        f"fuse-epilogue,{V},{U}",
    ),
    Case(
        gemm=Gemm(m=7, n=18, k=12, dtype_b="i8", weight_group=4, trans_b=True),
        schedule="promote{operand=b to=l2 layout=panel:8 as=f32},tile{loops=n,m sizes=8,3},"
        f"{C},{V}",
    ),
    Case(gemm=Gemm(m=4, n=4, k=0, beta=2, epilogue="bias"), schedule=f"{C},fuse-epilogue,{V}"),
    Case(
        gemm=Gemm(m=4, n=5, k=9, epilogue="bias+residual", batch=2),
        schedule=f"fuse-epilogue,tile{{loops=batch sizes=1}},tile{{loops=k sizes=5}},"
        f"tile{{loops=k sizes=2}},{C},{V}",
    ),
    Case(
        gemm=Gemm(m=9, n=24, k=51),
        schedule=f"tile{{loops=m sizes=6 over=cores}},{A},{B},tile{{loops=n,m sizes=8,3}},"
        f"tile{{loops=k sizes=30}},{C},{V}",
    ),
)


ANY_SIZE: Final = Gemm(m=ANY, n=ANY, k=ANY, lda=ANY, ldb=ANY, ldc=ANY, alpha=ANY, beta=ANY)
PIECES: Final = "tile{loops=n sizes=8 edges=peel},tile{loops=m sizes=6 edges=halve}"
BLOCKS: Final = (
    f"tile{{loops=m,k sizes=6,4}},{A},tile{{loops=n sizes=16}},{B},tile{{loops=n,m sizes=8,3}}"
)
CARRY: Final = "promote{operand=c to=registers carry=true}"
ANY_ROWS: Final = (
    f"version{{loops=m most=4}},tile{{loops=k sizes=3}},{PIECES},{CARRY},fuse-epilogue,{V},"
    f"otherwise,{B},tile{{loops=n sizes=8}},tile{{loops=m sizes=5 edges=overlap}},{C},"
    f"fuse-epilogue,{V},{U}"
)

RUNTIME_CASES: Final = (
    Case(gemm=Gemm(m=ANY, n=18, k=11, ldc=21, epilogue="bias"), schedule=ANY_ROWS, sizes={"m": 4}),
    Case(gemm=Gemm(m=ANY, n=18, k=11, ldc=21, epilogue="bias"), schedule=ANY_ROWS, sizes={"m": 7}),
    Case(
        gemm=Gemm(m=ANY, n=18, k=11, lda=13, epilogue="residual"),
        schedule=f"version{{loops=m sizes=1}},{C},fuse-epilogue,vectorize{{with=fma width=1}},"
        f"otherwise,tile{{loops=k sizes=4}},{PIECES},{CARRY},fuse-epilogue,{V}",
        sizes={"m": 11},
    ),
    Case(
        gemm=replace(ANY_SIZE, trans_b=True),
        schedule=f"version{{loops=m,n most=4,4}},{PIECES},{C},{V},otherwise,{BLOCKS},{C},{V}",
        sizes={"m": 7, "n": 19, "k": 9, "lda": 11, "ldb": 10, "ldc": 21},
        factors={"alpha": 2, "beta": 0},
    ),
    Case(
        gemm=replace(ANY_SIZE, trans_a=True),
        schedule=f"{PIECES},{C},{V},{U}",
        sizes={"m": 11, "n": 13, "k": 5, "lda": 12, "ldb": 15, "ldc": 14},
        factors={"alpha": -1, "beta": 3},
    ),
    Case(
        gemm=Gemm(m=ANY, n=24, k=11, ldb=25, beta=2),
        schedule="tile{loops=k sizes=3},tile{loops=m sizes=4 edges=even},tile{loops=n sizes=8},"
        f"prefetch{{operand=b loop=k ahead=1 to=l2 during=m,n}},{C},{V}",
        sizes={"m": 11},
    ),
    Case(
        gemm=ANY_SIZE,
        schedule=f"{BLOCKS},{C},{V}",
        sizes={"m": 5, "n": 6, "k": 0, "lda": 1, "ldb": 6, "ldc": 6},
        factors={"alpha": 2, "beta": 3},
    ),
)
"""Versions at their limits, pieces of every size, even tiles, blocks, an empty k; alpha and beta of
a call."""


WARPS: Final = "tile{loops=m,n sizes=32,32 over=blocks},tile{loops=m,n sizes=16,32 over=warps}"
SLICES: Final = "tile{loops=k sizes=16}"
ROWS: Final = "promote{operand=a to=shared layout=swizzle:32}"
WIDE_ROWS: Final = "promote{operand=b to=shared layout=swizzle:64}"
STAGES: Final = "pipeline{loop=k stages=3}"
MMA: Final = "vectorize{with=mma width=8}"

GPU_CASES: Final = (
    Case(
        gemm=Gemm(m=21, n=18, k=20, alpha=2, beta=3, ldc=19, epilogue="bias+relu"),
        schedule="tile{loops=m,n sizes=16,12 over=blocks},tile{loops=m,n sizes=4,4 over=threads},"
        f"{C},tile{{loops=k sizes=8}},promote{{operand=a to=shared layout=panel:20}},"
        f"promote{{operand=b to=shared layout=panel:8}},fuse-epilogue,{V},"
        "unroll{loop=k factor=2}",
    ),
    Case(
        gemm=Gemm(m=35, n=30, k=11, trans_a=True, epilogue="residual"),
        schedule="tile{loops=m,n sizes=32,32 over=blocks},interchange{order=m,n group=2},"
        "tile{loops=m,n sizes=16,32 over=warps},tile{loops=m,n sizes=4,4 over=threads},"
        f"{C},tile{{loops=k sizes=4}},promote{{operand=b to=shared layout=panel:36}},"
        "promote{operand=a to=shared layout=panel:32},pipeline{loop=k stages=2},fuse-epilogue,"
        f"{V}",
    ),
    Case(
        gemm=Gemm(m=40, n=37, k=88, dtype="bf16", ldb=40, ldc=39, beta=2),
        schedule=f"{WARPS},{C},{SLICES},{ROWS},{WIDE_ROWS},{STAGES},{MMA}",
    ),
    Case(
        gemm=Gemm(m=24, n=40, k=50, dtype="f16", trans_a=True, trans_b=True, lda=24, ldb=56),
        schedule=f"{WARPS},{C},tile{{loops=k sizes=32}},{WIDE_ROWS},"
        f"promote{{operand=a to=shared layout=swizzle:128}},pipeline{{loop=k stages=2}},{MMA},"
        "unroll{loop=k factor=2}",
    ),
    Case(
        gemm=Gemm(m=17, n=20, k=96, dtype="i8", ldb=24, batch=2, epilogue="bias"),
        schedule="split-k{factor=2},tile{loops=batch,m,n sizes=1,16,16 over=blocks},"
        f"tile{{loops=m,n sizes=16,8 over=warps}},{C},tile{{loops=k sizes=32}},{ROWS},"
        "promote{operand=b to=shared layout=panel:24},fuse-epilogue,vectorize{with=mma width=8}",
    ),
)
"""Edges in m, n and k; copies with and without a pipeline; panels and swizzles; transposes."""

WGMMA: Final = "pipeline{loop=k stages=2 with=tma specialize=true},vectorize{with=wgmma}"
WHOLE_ROWS: Final = "promote{operand=b to=shared layout=swizzle:128}"

HOPPER_CASES: Final = (
    Case(
        gemm=replace(
            Gemm(m=136, n=136, k=136, dtype="bf16", trans_a=True, ldc=144, epilogue="bias"),
            out="f16",
            alpha=2,
            beta=3,
        ),
        schedule="tile{loops=m,n sizes=128,128 over=blocks},interchange{order=m,n group=2},"
        f"persist{{blocks=3}},tile{{loops=m sizes=64 over=warpgroups}},{C},"
        "tile{loops=k sizes=64},promote{operand=a to=shared layout=swizzle:128},"
        f"{WHOLE_ROWS},fuse-epilogue,promote{{operand=c to=shared layout=swizzle:128}},{WGMMA}",
    ),
    Case(
        gemm=Gemm(m=200, n=40, k=72, dtype="tf32", trans_b=True, ldc=44, batch=2),
        schedule="tile{loops=batch,m,n sizes=1,256,32 over=clusters},"
        f"tile{{loops=m sizes=128 over=blocks}},tile{{loops=m sizes=128 over=warpgroups}},{C},"
        "tile{loops=k sizes=32},promote{operand=a to=shared layout=swizzle:64},"
        f"{WHOLE_ROWS},promote{{operand=c to=shared layout=swizzle:128}},{WGMMA}",
    ),
)
"""Operands along m, n and k; edges; pieces of C of 16 and 32 bits; blocks that share B."""

ROLES: Final = "pipeline{{loop=k stages={0} with=tma specialize=true{1}}},vectorize{{with=wgmma}}"
OUT: Final = "promote{operand=c to=shared layout=swizzle:128}"


def swizzled(operand: str, row: int) -> str:
    """The promotion of an operand in swizzled rows of so many bytes."""
    return f"promote{{operand={operand} to=shared layout=swizzle:{row}}}"


ROLE_CASES: Final = (
    Case(
        gemm=Gemm(
            m=300, n=72, k=150, dtype="bf16", lda=152, ldb=152, trans_b=True, epilogue="bias"
        ),
        schedule="tile{loops=m,n sizes=256,64 over=clusters},tile{loops=m sizes=128 over=blocks},"
        f"persist{{blocks=1}},tile{{loops=m sizes=64 over=warpgroups}},{C},"
        f"tile{{loops=k sizes=32}},{swizzled('a', 64)},{swizzled('b', 64)},"
        f"fuse-epilogue,{OUT},{ROLES.format(3, '')}",
    ),
    Case(
        gemm=Gemm(m=130, n=188, k=90, dtype="f16", lda=136, ldb=192, trans_a=True, beta=2),
        schedule="tile{loops=m,n sizes=64,96 over=blocks},persist{blocks=2},"
        f"tile{{loops=m sizes=64 over=warpgroups}},{C},tile{{loops=k sizes=32}},"
        f"{swizzled('a', 128)},{swizzled('b', 64)},{OUT},{ROLES.format(3, ' pingpong=true')}",
    ),
    Case(
        gemm=Gemm(m=160, n=140, k=40, dtype="i8", lda=48, ldb=48, trans_b=True, batch=2),
        schedule="tile{loops=batch,m,n sizes=1,128,64 over=blocks},persist{blocks=5},"
        f"tile{{loops=m,n sizes=64,32 over=warpgroups}},{C},tile{{loops=k sizes=32}},"
        f"{swizzled('b', 32)},{swizzled('a', 32)},{ROLES.format(2, '')}",
    ),
    Case(
        gemm=Gemm(
            m=150, n=72, k=40, groups=3, dtype="bf16", out="bf16", trans_b=True, epilogue="bias"
        ),
        schedule="tile{loops=group,m,n sizes=1,64,64 over=blocks},persist{blocks=2},"
        f"tile{{loops=m sizes=64 over=warpgroups}},{C},tile{{loops=k sizes=32}},"
        f"{swizzled('a', 64)},{swizzled('b', 64)},fuse-epilogue,{OUT},{ROLES.format(2, '')}",
        offsets=(0, 5, 75, 140),
    ),
)
"""Clusters, blocks that persist, warpgroups beside and below each other and in turn, a batch; C
through shared memory in whole and odd pieces; edges in m, n and k."""

AMX: Final = "vectorize{with=amx width=8}"

TILE_CASES: Final = (
    Case(
        gemm=Gemm(m=35, n=50, k=70, dtype="bf16", trans_b=True, beta=1, ldc=53),
        schedule="tile{loops=k sizes=32},promote{operand=b to=l2 layout=panel:32x2x32},"
        "promote{operand=a to=l2 layout=panel:32x32},tile{loops=m,n sizes=32,32},"
        f"promote{{operand=c to=registers carry=true}},{AMX}",
    ),
    Case(
        gemm=Gemm(m=20, n=37, k=66, dtype="u8", dtype_b="i8", lda=67, epilogue="relu"),
        schedule="promote{operand=b to=l2 layout=panel:32x4x64},"
        "promote{operand=a to=l2 layout=panel:16x64},tile{loops=m,n sizes=16,32},"
        f"{C},fuse-epilogue,{AMX}",
    ),
    Case(
        gemm=Gemm(m=9, n=48, k=40, dtype="i8", epilogue="bias"),
        schedule="promote{operand=b to=l2 layout=panel:16x4x64},"
        f"promote{{operand=a to=l2 layout=panel:16x64}},tile{{loops=n sizes=16}},{C},{AMX}",
    ),
)
"""Edges in m, n and k; sums that go on from C, and that begin at zero; C through a buffer, also
where all tiles are cut."""

GRID: Final = "tile{loops=m,n sizes=16,32 over=grid}"
KEPT: Final = "promote{operand=c to=vmem}"
BLOCK_A: Final = "promote{operand=a to=vmem}"
BLOCK_B: Final = "promote{operand=b to=vmem}"
MXU: Final = "vectorize{with=mxu}"

TPU_CASES: Final = (
    Case(
        gemm=Gemm(m=40, n=50, k=56, dtype="bf16", alpha=2, beta=3, epilogue="bias+relu+residual"),
        schedule=f"{GRID},{KEPT},tile{{loops=k sizes=16}},{BLOCK_A},{BLOCK_B},fuse-epilogue,"
        f"pipeline{{loop=k stages=2 with=dma}},{MXU}",
    ),
    Case(
        gemm=Gemm(m=24, n=48, k=21, dtype="bf16", trans_a=True, trans_b=True, out="bf16"),
        schedule=f"{BLOCK_A},tile{{loops=n,m sizes=16,8 over=grid}},{KEPT},{BLOCK_B},"
        "pipeline{loop=m stages=2 with=dma},"
        f"tile{{loops=n,k sizes=8,7}},{MXU}",
    ),
    Case(
        gemm=Gemm(m=20, n=33, k=30, dtype="i8", batch=3, batch_stride_b=0, beta=1),
        schedule="tile{loops=batch,m,n sizes=1,16,32},parallelize{loop=batch over=grid},"
        "parallelize{loop=m over=grid},parallelize{loop=n over=grid},interchange{order=n,m},"
        f"{KEPT},{BLOCK_B},{BLOCK_A},pipeline{{loop=m stages=2 with=dma}},"
        f"tile{{loops=m sizes=6 edges=peel}},{MXU}",
    ),
    Case(
        gemm=Gemm(m=17, n=9, k=33, dtype="bf16x3", epilogue="relu+bias"),
        schedule=f"tile{{loops=m sizes=8 over=grid}},{KEPT},tile{{loops=k sizes=8}},{BLOCK_B},"
        f"{BLOCK_A},fuse-epilogue,pipeline{{loop=k stages=2 with=dma}},"
        f"tile{{loops=m,n sizes=4,3}},{MXU}",
    ),
    Case(
        gemm=Gemm(m=40, n=50, k=56, groups=4, alpha=2, beta=3, epilogue="bias+relu+residual"),
        schedule=f"tile{{loops=n,group,m sizes=32,1,16 over=grid}},{KEPT},tile{{loops=k sizes=16}},"
        f"{BLOCK_A},{BLOCK_B},fuse-epilogue,pipeline{{loop=k stages=2 with=dma}},{MXU}",
        offsets=(0, 5, 5, 30, 37),
    ),
    Case(
        gemm=Gemm(m=24, n=20, k=8, groups=3, dtype="bf16", trans_b=True),
        schedule=f"tile{{loops=group,m sizes=1,8 over=grid}},{KEPT},{BLOCK_A},{BLOCK_B},"
        f"pipeline{{loop=group stages=2 with=dma}},{MXU}",
        offsets=(0, 5, 11, 20),
    ),
)
"""Edges in m, n and k; whole operands, batches, transposes; loops inside a step."""


def run(
    groups: Collection[str] | None = None,
    *,
    stages: bool = True,
    first: str = "",
    begin: Callable[[str], None] = lambda name: None,
) -> None:
    """Run the cases of some groups, of all by default; raises at the first that is wrong.

    A case is called by its group and its number there, such as "gpu 2". That called `first` is run
    before the others; `begin` is told of each. Without `stages` only machine code and PTX are run,
    which is enough where the IR is known to be right.
    """
    named = [
        (f"{group} {number}", case, check)
        for group, (cases, check) in GROUPS.items()
        for number, case in enumerate(cases)
        if groups is None or group in groups
    ]
    for name, case, check in sorted(named, key=lambda entry: entry[0] != first):
        begin(name)
        check(case, name, stages)


def check_gpu(case: Case, where: str, stages: bool, target: str = "cuda:sm_80") -> None:
    """Every stage of `case` in the evaluator, its last text read again, and its PTX."""
    module, exact, bound = lowered(case, where, stages=stages)
    artifact = emit_ptx(module, machine_for(target))
    operands = memory_for(case)
    report = run_ptx(artifact, artifact.text, list(operands.values()))
    assert report is not None
    slow = [a for a in report.shared if a.text.startswith(BY_MATRIX) and a.ratio > 1]
    require(not slow, f"{where}: bank conflicts in {slow[:1]}")
    require_close(operands["c"], exact, bound, f"{where} as PTX")
    for operand in case.gemm.operands:
        require_gaps(operand, operands[operand.name], f"{where}: {operand.name}")


def lowered(case: Case, where: str, *, stages: bool) -> tuple[ModuleOp, Array, Array | float]:
    """The module after all passes, the right answer, and how far from it one may be."""
    arrays = memory_for(case)
    exact, bound = expected(case, arrays)
    module = build(case.gemm)
    schedule = Schedule.parse(case.schedule)
    if stages:
        require_evaluated(module, case, exact, bound, where)
    for step, p in zip(schedule.steps, schedule.passes, strict=True):
        run_pass(p, module, verify=True)
        if stages:
            require_evaluated(module, case, exact, bound, f"{where} after {step}")
    if stages:
        require_round_trip(module, where)
    return module, exact, bound


def check(case: Case, where: str, stages: bool, machine: Machine | None = None) -> None:
    """Every stage of `case` in the evaluator, its last text read again, and its machine code.

    It is for `machine`, whose matrix tiles are emulated, or for this one.
    """
    module, exact, bound = lowered(case, where, stages=stages)
    arrays = memory_for(case)
    artifact = emit(module, machine or machine_for("cpu"))
    artifact = replace(artifact, text=with_guarded_buffers(artifact.text))
    loaded = without_tiles(artifact) if machine else load(assemble(artifact), artifact.signature)
    operands = [guarded(o, arrays[o.name]) for o in case.operands]
    sizes = [case.sizes[name] for name in artifact.signature.sizes]
    status = loaded(*(array.ctypes.data for array in operands), *sizes)
    require(status == 0, f"{where}: status {status}")
    require_close(operands[-1], exact, bound, f"{where} as machine code")
    for operand, array in zip(case.operands, operands, strict=True):
        require_gaps(operand, array, f"{where}: {operand.name}")


def require_round_trip(module: ModuleOp, where: str) -> None:
    text = stage_text(module, Schedule())
    again = stage_text(parse_module(text), Schedule())
    require(again == text, f"{where}: the text of the last stage is read as something else")


def with_guarded_buffers(text: str) -> str:
    """The kernel, with buffers that end where a page begins that cannot be touched."""
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith(("declare noalias ptr @al", "declare void @free"))
    ]
    kernel = "\n".join(lines).replace("@aligned_alloc(", "@guarded_alloc(")
    return GUARDED_HEAP + kernel.replace("@free(", "@guarded_free(") + "\n"


def memory_for(case: Case) -> dict[str, Array]:
    """Whole numbers from -3 to 3 by operand name, over memory whose gaps hold `GAP`."""
    generator = np.random.default_rng(1)
    arrays = {o.name: over(o, np.empty(o.span, ELEMENTS[o.dtype].numpy)) for o in case.operands}
    for array in arrays.values():
        array[...] = generator.integers(-3, 4, array.shape)
    if case.nan:
        arrays["a"][1, 2] = np.nan
    if case.offsets:
        arrays[OFFSETS][...] = case.offsets
    for name, factor in case.factors.items():
        arrays[name][...] = factor
    return arrays


def over(operand: Operand, memory: Array) -> Array:
    """`memory` as the array of `operand`, its gaps filled."""
    memory[...] = GAP
    strides = [s * memory.itemsize for s in operand.strides]
    return np.ndarray(operand.shape, memory.dtype, memory, strides=strides)


def expected(case: Case, arrays: Mapping[str, Array]) -> tuple[Array, Array | float]:
    """The right answer, and how far from it one may be."""
    with np.errstate(all="ignore"):
        exact = case.gemm.reference(arrays)
        inexact = {"gelu", "silu"} & set(case.gemm.steps)
        return exact, case.gemm.error_bound(arrays) if inexact else 0.0


def require_evaluated(
    module: ModuleOp, case: Case, exact: Array, bound: Array | float, where: str
) -> None:
    arrays = memory_for(case)
    if not case.reads_c and arrays["c"].dtype.kind == "f":
        arrays["c"][...] = np.nan
    evaluate(module, list(arrays.values()))
    require_close(arrays["c"], exact, bound, where)


def require_close(found: Array, exact: Array, bound: Array | float, where: str) -> None:
    nan = np.isnan(exact)
    require(np.array_equal(np.isnan(found), nan), f"{where}: NaN in other places")
    wrong = ~nan & ~(np.abs(found - exact) <= bound)
    require(not wrong.any(), f"{where}: wrong at {np.argwhere(wrong)[:1].tolist()}")


def guarded(operand: Operand, values: Array) -> Array:
    """A copy of `values` that ends where a page begins that cannot be touched."""
    size = operand.span * values.itemsize
    room = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    pages = mmap.mmap(-1, room + mmap.PAGESIZE)
    base = ctypes.addressof(ctypes.c_char.from_buffer(pages))
    failed = ctypes.CDLL(None).mprotect(
        ctypes.c_void_p(base + room), ctypes.c_size_t(mmap.PAGESIZE), 0
    )
    require(not failed, "mprotect")
    memory = np.frombuffer(pages, values.dtype, operand.span, room - size)
    array = over(operand, memory)
    array[...] = values
    return array


def require_gaps(operand: Operand, array: Array, where: str) -> None:
    """Between the rows there is still `GAP`."""
    if len(operand.shape) != 2 or array.size == 0 or operand.strides[0] == operand.shape[1]:
        return
    rows, columns = operand.shape
    gaps = np.lib.stride_tricks.as_strided(
        array, (rows - 1, operand.strides[0]), (array.strides[0], array.itemsize)
    )[:, columns:]
    require(bool((gaps == GAP).all()), f"{where}: written between its rows")


def require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def check_ir(case: Case, where: str, stages: bool) -> None:
    """Every stage of `case`, of which there is no code here that can be run."""
    lowered(case, where, stages=stages)


GROUPS: Final[Mapping[str, tuple[Sequence[Case], Callable[[Case, str, bool], None]]]] = {
    "cpu": ((*CASES, *RUNTIME_CASES), check),
    "tiles": (TILE_CASES, partial(check, machine=TILED)),
    "gpu": (GPU_CASES, check_gpu),
    "hopper": (HOPPER_CASES, partial(check_gpu, target="cuda:sm_90a")),
    "tpu": (TPU_CASES, check_ir),
    "roles": (ROLE_CASES, check_ir),
}
"""Cases for a CPU, for one with matrix tiles, whose instructions are emulated, for GPUs in the
emulator, for one with warpgroups, for a TPU, and for the roles of warpgroups; of the last two there
is the IR only."""
