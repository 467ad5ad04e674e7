"""Wrong edits of the PTX of warpgroups: each is caught, by a fault that names it or by numbers.

They are the mistakes that such kernels are known for: a phase awaited too early, a stage given back
too early, a fence left out, a descriptor that steps otherwise than the data lie.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

import pytest

from gemmir import Gemm
from gemmir.backends.ptx.emulator import PtxFault
from gemmir.backends.ptx.run import run_ptx
from tests.backends.ptx.hopper import LARGE, Tiles, lowered
from tests.backends.ptx.test_wrong_edits import NUMBERS, Edit, drop, sub, sub_all
from tests.strategies import arrays_for, copied, furthest

Kernel = tuple[Gemm, Tiles]

STORED: Final[Kernel] = (
    replace(LARGE, m=200, n=264, k=448, out="bf16"),
    Tiles(n=128, stages=2, blocks=2, stored=True),
)
"""Seven slices of k through two stages; six tiles for two blocks, two pieces of C each."""

ALONG_N: Final[Kernel] = (
    replace(LARGE, m=128, n=128, k=320, trans_b=False),
    Tiles(n=128, stages=2),
)
"""B is adjacent along n, in two panels; sums are stored from registers."""

CLUSTER: Final[Kernel] = (replace(LARGE, m=512, n=64, k=448), Tiles(n=64, cluster=2, stages=2))
"""Two blocks share B."""


@dataclass(frozen=True)
class Wrong:
    """A mistake: in which kernel, how the text is edited, and what comes of it."""

    mistake: str
    of: Kernel
    edit: Edit
    code: str
    says: str = ""


NO_WAIT: Final = r"(try_wait.*\n.*\n)\t@%p\d+ bra .*\n"
CLUSTER_BARRIER: Final = r"barrier\.cluster\.arrive;\n\tbarrier\.cluster\.wait;"
HIGH: Final = str((1 << 62) + (64 << 32))
"""The upper half of descriptors: rows of 128 bytes, swizzled, in groups of 1024 bytes."""

WRONG: Final = (
    Wrong("sums read too early", STORED, drop(r"wait_group\.sync\.aligned 0"), "GEM1015", "%r"),
    Wrong(
        "a stage given back too early",
        STORED,
        sub(r"(wgmma\.wait_group\.sync\.aligned) 1", r"\1 2"),
        "GEM1008",
        "it overwrites what the wgmma",
    ),
    Wrong("no fence before products", STORED, drop(r"wgmma\.fence"), "GEM1015", "wgmma.fence"),
    Wrong("products in no group", STORED, drop(r"commit_group\.sync"), "GEM1008", "it overwrites"),
    Wrong("an old sum left out", STORED, sub(r"p, 1, 0;", "p, 0, 0;"), NUMBERS),
    Wrong("a part of k twice", STORED, sub(r"(add\.s32 \t%r\d+, %r\d+), 4;", r"\1, 6;"), NUMBERS),
    Wrong(
        "rows that are swizzled otherwise",
        STORED,
        sub_all(HIGH, str((64 << 32) + (1 << 63) - (1 << 64))),
        "GEM1013",
        "descriptor",
    ),
    Wrong(
        "groups of rows at other distances",
        STORED,
        sub_all(HIGH, str((1 << 62) + (32 << 32))),
        "GEM1013",
        "descriptor",
    ),
    Wrong(
        "no fence between threads and the TMA",
        STORED,
        drop(r"fence\.proxy\.async"),
        "GEM1014",
        "without fence.proxy.async",
    ),
    Wrong(
        "a store before all have written",
        STORED,
        drop(r"bar\.sync \t%r", 1),
        "GEM1003",
        "without a barrier",
    ),
    Wrong(
        "a piece written before all know that it is read",
        STORED,
        drop(r"bar\.sync \t%r"),
        "GEM1003",
        "no barrier makes known",
    ),
    Wrong(
        "a piece written before it is read", STORED, drop(r"wait_group\.read"), "GEM1008", "yet to"
    ),
    Wrong("stores in no group", STORED, drop(r"bulk\.commit_group"), "GEM1008", "yet to read"),
    Wrong(
        "matrices in another order",
        STORED,
        sub(r"(stmatrix.*\{)(%r\d+), (%r\d+)", r"\1\3, \2"),
        NUMBERS,
    ),
    Wrong("a swizzle that only the TMA has", STORED, sub(r"xor\.b", "or.b"), "GEM1003", "stmatrix"),
    Wrong(
        "barriers that the TMA does not see",
        STORED,
        sub_all(r"fence\.mbarrier_init.*;", ""),
        "GEM1014",
        "mbarrier",
    ),
    Wrong(
        "phases of 7 warps",
        STORED,
        sub(r"mov\.b32 \t(%r\d+), 8;", r"mov.b32 \t\1, 7;"),
        "GEM1011",
        "no thread can go on",
    ),
    Wrong("half of the bytes", STORED, sub("32768;", "16384;"), "GEM1004", "never written"),
    Wrong("stages that are full at once", STORED, sub(NO_WAIT, r"\1"), "GEM1008", "yet to fill"),
    Wrong("stages that are free at once", STORED, sub(NO_WAIT, r"\1", -1), "GEM1012", "takes only"),
    Wrong(
        "stages never given back",
        STORED,
        drop(r"mbarrier\.arrive\.shared"),
        "GEM1011",
        "no thread can go on",
    ),
    Wrong(
        "the last stage of a tile not given back",
        STORED,
        drop(r"mbarrier\.arrive\.shared", 1),
        "GEM1011",
        "no thread can go on",
    ),
    Wrong(
        "a whole warp that copies",
        STORED,
        sub(r"elect\.sync \t%r\d+\|(%p\d+), -1;", r"setp.eq.b32 \1, 0, 0;"),
        "GEM10",
    ),
    Wrong(
        "panels of B at other distances",
        ALONG_N,
        sub(r"(add\.s32 \t%r\d+, %r\d+), 256;", r"\1, 384;"),
        NUMBERS,
    ),
    Wrong("B along k", ALONG_N, sub("p, 1, 1, 0, 1;", "p, 1, 1, 0, 0;"), "GEM1008", "yet to fill"),
    Wrong(
        "sums in each other's registers",
        ALONG_N,
        sub(r"(wgmma\.mma_async\S* \{)(%r\d+), (%r\d+)", r"\1\3, \2"),
        "GEM1015",
        "in flight",
    ),
    Wrong(
        "half of B for one block only",
        CLUSTER,
        sub(r"(mov\.b16 \t%rs\d+), 3;", r"\1, 1;"),
        "GEM1011",
        "no thread can go on",
    ),
    Wrong(
        "blocks that end before the other",
        CLUSTER,
        sub(CLUSTER_BARRIER, "", -1),
        "GEM1016",
        "block",
    ),
    Wrong(
        "barriers of a block that has not begun",
        CLUSTER,
        sub(CLUSTER_BARRIER, ""),
        "GEM1012",
        "no mbarrier is initialised",
    ),
)


def outcome(of: Kernel, text: str) -> str:
    """The fault of `text`, or what its numbers are."""
    gemm, artifact = of[0], lowered(*of).artifact
    arrays = arrays_for(gemm)
    found = copied(arrays)
    try:
        run_ptx(artifact, text, list(found.values()))
    except PtxFault as fault:
        return f"{fault.code}: {fault.message}"
    return "right" if furthest(gemm, arrays, found["c"]) <= 1 else NUMBERS


@pytest.mark.parametrize("of", [STORED, ALONG_N, CLUSTER], ids=["stored", "along n", "cluster"])
def test_the_unchanged_text_is_right(of: Kernel) -> None:
    assert outcome(of, lowered(*of).artifact.text) == "right"


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.mistake.replace(" ", "-"))
def test_a_wrong_edit_is_caught(wrong: Wrong) -> None:
    text = lowered(*wrong.of).artifact.text
    edited = wrong.edit(text)
    assert edited != text
    found = outcome(wrong.of, edited)
    assert found.startswith(wrong.code)
    assert wrong.says in found
