"""Wrong edits of emitted PTX: each is caught, by a message that names what is wrong or by numbers.

They are the mistakes that kernels are known for: a barrier or a wait left out, a stage too few, a
swizzle that differs between store and load, fragments in another order, an edge that is off by one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import pytest

import gemmir
from gemmir import Gemm
from gemmir.backend import Artifact
from gemmir.backends.ptx.emulator import PtxFault
from gemmir.backends.ptx.run import run_ptx
from tests.strategies import arrays_for, copied, furthest

MMA: Final = (
    Gemm(m=40, n=40, k=136, dtype="bf16"),
    "tile{loops=m,n sizes=32,32 over=blocks},tile{loops=m,n sizes=16,32 over=warps},"
    "promote{operand=c to=registers},tile{loops=k sizes=32},"
    "promote{operand=a to=shared layout=swizzle:64},"
    "promote{operand=b to=shared layout=swizzle:64},pipeline{loop=k stages=3},"
    "vectorize{with=mma width=8},unroll{loop=k factor=2}",
)
"""Tensor cores: five slices of k through three stages, two warps a block, clipped at both edges."""

SIMT: Final = (
    Gemm(m=40, n=39, k=20),
    "tile{loops=m,n sizes=32,32 over=blocks},tile{loops=m,n sizes=16,32 over=warps},"
    "tile{loops=m,n sizes=4,4 over=threads},promote{operand=c to=registers},"
    "tile{loops=k sizes=8},promote{operand=a to=shared layout=panel:36},"
    "promote{operand=b to=shared layout=panel:32},vectorize{with=fma width=4},"
    "unroll{loop=k factor=2}",
)
"""Threads: three slices of k, the last of them short, copied between two barriers."""

NUMBERS: Final = "numbers"
"""Nothing is wrong but the result."""

Edit = Callable[[str], str]


@cache
def kernel(gemm: Gemm, schedule: str) -> Artifact:
    return gemmir.lower(gemm, target="cuda:sm_80", schedule=schedule).artifact


def sub(pattern: str, by: str, number: int = 0) -> Edit:
    """Replace the match of that number, from 0, or from the end where it is negative."""

    def edit(text: str) -> str:
        found = list(re.finditer(pattern, text, re.MULTILINE))
        assert found, pattern
        at = found[number]
        return text[: at.start()] + at.expand(by) + text[at.end() :]

    return edit


def sub_all(pattern: str, by: str) -> Edit:
    return lambda text: re.sub(pattern, by, text, flags=re.MULTILINE)


def drop(pattern: str, number: int = 0) -> Edit:
    """Leave out the line of a match."""
    return sub(rf"^.*{pattern}.*\n", "", number)


@dataclass(frozen=True)
class Wrong:
    """A mistake: in which kernel, how the text is edited, and what comes of it."""

    mistake: str
    of: tuple[Gemm, str]
    edit: Edit
    code: str
    says: str = ""


WRONG: Final = (
    Wrong(
        "no barrier before the next copy", SIMT, drop(r"bar\.sync"), "GEM1003", "without a barrier"
    ),
    Wrong(
        "no barrier before the products",
        SIMT,
        drop(r"bar\.sync", 1),
        "GEM1003",
        "without a barrier",
    ),
    Wrong("no barrier in a pipeline", MMA, drop(r"bar\.sync"), "GEM1003", "without a barrier"),
    Wrong("no wait", MMA, drop(r"cp\.async\.wait_group"), "GEM1008", "yet to fill"),
    Wrong(
        "a wait for a stage too few",
        MMA,
        sub(r"(cp\.async\.wait_group\s+)1;", r"\g<1>2;"),
        "GEM1008",
        "yet to fill",
    ),
    Wrong(
        "copies in the group of later ones", MMA, drop(r"commit_group"), "GEM1008", "yet to fill"
    ),
    Wrong("copies in no group", MMA, drop(r"commit_group", -1), "GEM1008", "yet to fill"),
    Wrong(
        "fragments of A in another order",
        MMA,
        sub(r"(mma\.sync.*\n.*\n\s+\{%r\d+, )(%r\d+), (%r\d+)(, %r\d+\},)", r"\1\3, \2\4"),
        NUMBERS,
    ),
    Wrong(
        "fragments of B of each other",
        MMA,
        sub(r"(mma\.sync.*\n.*\n.*\n\s+)\{(%r\d+), (%r\d+)\}", r"\1{\3, \2}"),
        NUMBERS,
    ),
    Wrong(
        "the sum of another product goes on",
        MMA,
        sub(r"(mma\.sync.*\n.*\n.*\n.*\n\s+)\{(%r\d+), (%r\d+),", r"\1{\3, \2,"),
        NUMBERS,
    ),
    Wrong(
        "a swizzle only of what is read",
        MMA,
        sub(r"xor\.b32 (.*), (.*), .*;", r"mov.b32 \1, \2;", -1),
        NUMBERS,
    ),
    Wrong(
        "a swizzle of another chunk",
        MMA,
        sub(r"(or\.b32 .*), 2;", r"\1, 3;"),
        NUMBERS,
    ),
    Wrong("ldmatrix without .trans", MMA, sub(r"x4\.trans", "x4"), NUMBERS),
    Wrong("ldmatrix with .trans", MMA, sub(r"x4\.shared", "x4.trans.shared"), NUMBERS),
    Wrong(
        "no zeros past the edge",
        MMA,
        sub_all(r"(cp\.async.*, 16), %r\d+;", r"\1;"),
        "GEM1002",
        "cp.async",
    ),
    Wrong(
        "a copy that is left out",
        MMA,
        drop(r"cp\.async\.cg\.shared\.global \[%r\d+\+1024\]"),
        "GEM1004",
        "never written",
    ),
    Wrong(
        "a copy to an address that is not aligned",
        MMA,
        sub(r"(cp\.async\.cg\.shared\.global \[%r\d+)\+1024\]", r"\1+1032]"),
        "GEM1002",
        "no multiple of 16",
    ),
    Wrong(
        "another leading dimension of C",
        MMA,
        sub(r"(mad\.lo\.s64 .*), 160,", r"\1, 156,", -1),
        "GEM1003",
        "it writes what thread",
    ),
    Wrong(
        "an edge that is one too far",
        SIMT,
        sub_all(r"setp\.gt\.s64( .*, 0;)", r"setp.ge.s64\1"),
        "GEM1002",
        "4 bytes at 3120 of the 3120 bytes",
    ),
    Wrong(
        "an edge of C that is one too far",
        MMA,
        sub_all(r"setp\.gt\.s64( .*, 0;)", r"setp.ge.s64\1"),
        "GEM1003",
        "of another block writes",
    ),
    Wrong(
        "a store past the end of C",
        MMA,
        sub(r"(st\.global\.b32\s+\[%rd\d+\+\d+)\]", r"\g<1>00000]"),
        "GEM1002",
        "st.global",
    ),
    Wrong(
        "a barrier for the second warp only",
        SIMT,
        sub(
            r"bar\.sync \t0;",
            ".reg .b32 %q<1>;\n\tmov.u32 %q0, %tid.x;\n\tsetp.lt.u32 %p1, %q0, 32;\n"
            "\t@%p1 bra $SKIP;\n\tbar.sync 0;\n$SKIP:",
        ),
        "GEM1005",
        "barrier",
    ),
    Wrong("a tile that is not all stored", SIMT, drop(r"st\.shared", -1), "GEM1004", "never"),
    Wrong(
        "wide loads that are not aligned",
        SIMT,
        sub(r"(ld\.shared\.v4\.b32 .*\[%r\d+)\]", r"\1+8]"),
        "GEM1002",
        "no multiple of 16",
    ),
    Wrong("a sum that begins nowhere", SIMT, drop(r"mov\.b32\s+%r91, "), "GEM1004", "%r91"),
    Wrong(
        "a product left out",
        SIMT,
        sub(r"fma\.rn\.f32(\s+%r\d+), .*, (%r\d+);", r"mov.b32\1, \2;"),
        NUMBERS,
    ),
    Wrong("a slice too few", SIMT, sub(r"(setp\.lt\.s64.*), 20;", r"\1, 16;", -1), NUMBERS),
    Wrong("no such instruction", SIMT, sub(r"fma\.rn\.f32", "fma.rn.f31"), "GEM1001", "f31"),
    Wrong(
        "tensor cores for one lane",
        MMA,
        sub(r"^(\s+)(ldmatrix)", r"\1setp.eq.u32 %p1, %r7, 0;\n\t@%p1 \2"),
        "GEM1009",
        "",
    ),
)


@pytest.mark.parametrize("of", [MMA, SIMT], ids=["mma", "simt"])
def test_the_unchanged_text_is_right(of: tuple[Gemm, str]) -> None:
    assert outcome(of, kernel(*of).text) == "right"


def outcome(of: tuple[Gemm, str], text: str) -> str:
    """The fault of `text`, or what its numbers are."""
    gemm, artifact = of[0], kernel(*of)
    arrays = arrays_for(gemm)
    found = copied(arrays)
    try:
        run_ptx(artifact, text, list(found.values()))
    except PtxFault as fault:
        return f"{fault.code}: {fault.message}"
    return "right" if furthest(gemm, arrays, found["c"]) <= 1 else NUMBERS


@pytest.mark.parametrize("wrong", WRONG, ids=lambda w: w.mistake.replace(" ", "-"))
def test_a_wrong_edit_is_caught(wrong: Wrong) -> None:
    text = kernel(*wrong.of).text
    edited = wrong.edit(text)
    assert edited != text
    found = outcome(wrong.of, edited)
    assert found.startswith(wrong.code)
    assert wrong.says in found


def test_what_a_wide_load_brings_beside_is_no_access() -> None:
    """LLVM fills gaps between loads, within aligned bytes; but it is one where it is read."""
    gemm = Gemm(m=7, n=17, k=11, trans_a=True, lda=8)
    of = (
        gemm,
        (
            "tile{loops=m,n sizes=13,29 over=blocks},tile{loops=m,n sizes=8,4 over=threads},"
            "promote{operand=c to=registers},vectorize{with=fma width=1}"
        ),
    )
    text = kernel(*of).text
    wide = re.finditer(r"ld\.global\.v4\.b32\s+\{.*, (%r\d+)\}, .*\n", text)
    unread = [load for load in wide if not re.search(rf"{load[1]}[,;]", text)]
    if not unread:
        pytest.skip("this LLVM fills no gap")
    beside = unread[0]
    assert outcome(of, text) == "right"
    read = text[: beside.end()] + f"mov.b32 {beside[1]}, {beside[1]};\n" + text[beside.end() :]
    assert outcome(of, read).startswith("GEM1002: ")
