"""A kernel as Hopper wants it, by hand: C = A B^T of 64 by 64 by any k, in bf16.

Thread 0 is the producer: it fills two stages of 64 of k each. Warps 4 to 7 are the consumers: they
multiply, with one group of products left in flight, and store C through shared memory.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import ml_dtypes
import numpy as np
import numpy.typing as npt

from tests.backends.ptx.emulator.hopper import load, matrix_map, run, store, wait

BF16 = np.dtype(ml_dtypes.bfloat16)

Edit = Callable[[str], str]

SUMS = ", ".join(f"%a{n}" for n in range(32))

REGISTERS = ".reg .b32 %a<32>;\n.reg .b64 %e<9>;\n"

ADVANCE = """
    add.u32 %r1, %r1, 1;
    setp.eq.u32 %p, %r1, 2;
    selp.b32 %r1, 0, %r1, %p;
    selp.b32 %r3, 1, 0, %p;
    xor.b32 %r2, %r2, %r3;
"""
"""To the next stage %r1, and to the other parity %r2 after the last one."""

BARRIERS = """
    setp.ne.u32 %p, %r50, 0;
    @%p bra made;
    mbarrier.init.shared.b64 [bar], 1;
    mbarrier.init.shared.b64 [bar+8], 1;
    mbarrier.init.shared.b64 [bar+16], 4;
    mbarrier.init.shared.b64 [bar+24], 4;
    fence.mbarrier_init.release.cluster;
made:
    bar.sync 0;
    setp.ge.u32 %p, %r50, 128;
    @%p bra consumer;
"""
"""Two that are full with bytes, and two that are empty after four warps."""

PRODUCER = f"""
    setmaxnreg.dec.sync.aligned.u32 40;
    setp.ne.u32 %p, %r50, 0;
    @%p bra end;
    mov.u32 %r0, 0;
    mov.u32 %r1, 0;
    mov.u32 %r2, 1;
fill:
    shl.b32 %r4, %r1, 3;
    mov.b32 %r5, bar;
    add.u32 %r4, %r4, %r5;
    {wait("%r4+16", "%r2", "isempty")}
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r4], 16384;
    shl.b32 %r6, %r1, 13;
    mov.b32 %r5, tile;
    add.u32 %r6, %r6, %r5;
    shl.b32 %r7, %r0, 6;
    mov.u32 %r8, 0;
    {load("%r6", "%r7, %r8", "%r4", tensor="m0")}
    {load("%r6+16384", "%r7, %r8", "%r4", tensor="m1")}
    {ADVANCE}
    add.u32 %r0, %r0, 1;
    setp.lt.u32 %p, %r0, TILES;
    @%p bra fill;
    bra end;
"""

PRODUCTS = "".join(
    f"""
    add.u64 %e2, %e0, {2 * n};
    add.u64 %e3, %e1, {2 * n};
    wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {{{SUMS}}}, %e2, %e3, %q, 1, 1, 0, 0;
"""
    for n in range(4)
)

CONSUMER = f"""
consumer:
    setmaxnreg.inc.sync.aligned.u32 216;
    {"".join(f"mov.b32 %a{n}, 0;" for n in range(32))}
    and.b32 %r10, %r50, 31;
    mov.u32 %r0, 0;
    mov.u32 %r1, 0;
    mov.u32 %r2, 0;
multiply:
    shl.b32 %r4, %r1, 3;
    mov.b32 %r5, bar;
    add.u32 %r4, %r4, %r5;
    {wait("%r4", "%r2", "isfull")}
    shl.b32 %r6, %r1, 13;
    mov.b32 %r5, tile;
    add.u32 %r6, %r6, %r5;
    shr.u32 %r6, %r6, 4;
    cvt.u64.u32 %e0, %r6;
    or.b64 %e0, %e0, 0x4000004000010000;
    add.u64 %e1, %e0, 1024;
    setp.eq.u32 %q, %r0, %r0;
    wgmma.fence.sync.aligned;
    {PRODUCTS}
    wgmma.commit_group.sync.aligned;
    wgmma.wait_group.sync.aligned 1;
    setp.eq.u32 %p, %r0, 0;
    @%p bra released;
    setp.ne.u32 %p, %r10, 0;
    @%p bra released;
    mbarrier.arrive.shared::cta.b64 _, [%r9+16];
released:
    mov.u32 %r9, %r4;
    {ADVANCE}
    add.u32 %r0, %r0, 1;
    setp.lt.u32 %p, %r0, TILES;
    @%p bra multiply;
    wgmma.wait_group.sync.aligned 0;
    setp.ne.u32 %p, %r10, 0;
    @%p bra epilogue;
    mbarrier.arrive.shared::cta.b64 _, [%r9+16];
epilogue:
"""

EPILOGUE = f"""
    shr.u32 %r11, %r50, 5;
    and.b32 %r11, %r11, 3;
    and.b32 %r12, %r10, 15;
    mad.lo.u32 %r12, %r11, 16, %r12;
    and.b32 %r13, %r10, 7;
    shr.u32 %r14, %r10, 4;
    xor.b32 %r13, %r13, %r14;
    shl.b32 %r13, %r13, 4;
    mad.lo.u32 %r13, %r12, 128, %r13;
    mov.b32 %r5, tile;
    add.u32 %r13, %r13, %r5;
    add.u32 %r13, %r13, 32768;
    {
    "".join(
        f'''
    cvt.rn.bf16x2.f32 %r20, %a{8 * j + 1}, %a{8 * j};
    cvt.rn.bf16x2.f32 %r21, %a{8 * j + 3}, %a{8 * j + 2};
    cvt.rn.bf16x2.f32 %r22, %a{8 * j + 5}, %a{8 * j + 4};
    cvt.rn.bf16x2.f32 %r23, %a{8 * j + 7}, %a{8 * j + 6};
    xor.b32 %r24, %r13, {32 * j};
    stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r24], {{%r20, %r21, %r22, %r23}};
'''
        for j in range(4)
    )
}
    fence.proxy.async.shared::cta;
    bar.sync 1, 128;
    setp.ne.u32 %p, %r50, 128;
    @%p bra end;
    mov.u32 %r8, 0;
    {store("tile+32768", "%r8, %r8", tensor="m2")}
    cp.async.bulk.commit_group;
    cp.async.bulk.wait_group.read 0;
end:
"""

BODY = BARRIERS + PRODUCER + CONSUMER + EPILOGUE


def nth(pattern: str, number: int, new: str) -> Edit:
    """Puts `new` in place of the match `number` of `pattern`."""

    def edit(text: str) -> str:
        found = list(re.finditer(pattern, text))[number]
        return text[: found.start()] + found.expand(new) + text[found.end() :]

    return edit


def product(
    k: int, edit: Edit | None = None, seed: int | None = None
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What the kernel computes, and what it should."""
    rng = np.random.default_rng(k)
    a, b = (rng.uniform(-1, 1, (64, k)).astype(BF16) for _ in range(2))
    c = np.zeros((64, 64), BF16)
    maps = [
        matrix_map(a, "bf16", (64, 64)),
        matrix_map(b, "bf16", (64, 64), argument=1),
        matrix_map(c, "bf16", (64, 64), argument=2),
    ]
    body = BODY.replace("TILES", str(-(-k // 64)))
    if edit is not None:
        edited = edit(body)
        assert edited != body
        body = edited
    run(body, maps, [a, b, c], threads=256, registers=REGISTERS, seed=seed)
    return c.astype(np.float64), a.astype(np.float64) @ b.astype(np.float64).T
