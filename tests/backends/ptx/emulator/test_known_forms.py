"""What the emulator takes is PTX: NVIDIA's assembler takes it too, where one is found.

Names are put together from modifiers and types without asking which of them go together; each that
the emulator knows is assembled.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Final

import pytest

from gemmir.backends.ptx.assemble import find_ptxas
from gemmir.backends.ptx.emulator import PtxFault
from gemmir.backends.ptx.emulator.parse import parse
from gemmir.backends.ptx.emulator.program import program_of
from gemmir.backends.ptx.emulator.values import WIDTHS

HEAD: Final = ".version 9.0\n.target sm_90a\n.address_size 64\n"
REGISTERS: Final = ".reg .pred %p<9>; .reg .b16 %h<20>; .reg .b32 %r<20>; .reg .b64 %d<20>;"
KINDS: Final = sorted(set(WIDTHS) - {"f32x2"})
"""Two f32 at once need sm_100."""

EIGHT: Final = {"e4m3x2": 2, "e5m2x2": 2, "tf32": 4}

WAYS: Final = (
    "", "rn", "rz", "approx", "full", "ftz", "sat", "NaN", "rn.ftz", "rn.sat", "rn.ftz.sat",
    "approx.ftz", "full.ftz", "ftz.NaN", "rn.relu", "sat.rn", "lo", "hi", "wide",
)  # fmt: skip
OPERANDS: Final = {
    1: "abs neg not cnot mov ex2 lg2 rcp rsqrt sqrt sin cos tanh popc clz brev",
    2: "add sub mul mul24 div rem min max and or xor copysign",
    3: "fma mad mad24",
}
COMPARISONS: Final = "eq ne lt le gt ge lo ls hi hs equ neu ltu leu gtu geu num nan"
CONVERSIONS: Final = (
    "", "rn", "rz", "rna", "rni", "rzi", "sat", "rn.sat", "rzi.sat", "rni.ftz", "ftz", "rn.ftz",
    "rn.satfinite", "rn.relu", "rn.relu.satfinite", "rna.satfinite", "rn.ftz.sat",
)  # fmt: skip
ORDERS: Final = ("", "weak", "volatile", "relaxed.gpu", "acquire.sys", "release.gpu")
SPACES: Final = ("", "global", "shared", "shared::cta")
CACHES: Final = ("", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "L1::evict_last", "L2::128B")


def register(kind: str, number: int = 1) -> str:
    """A register that is wide enough for values of `kind`."""
    if kind == "pred":
        return f"%p{number}"
    letters = {1: "h", 2: "h", 4: "r", 8: "d"}
    return f"%{letters[WIDTHS.get(kind, EIGHT.get(kind, 4))]}{number}"


def dotted(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def arithmetic() -> Iterator[str]:
    for count, names in OPERANDS.items():
        for name, way, kind in product(names.split(), WAYS, KINDS):
            wide = way == "wide" and kind in ("u16", "s16", "u32", "s32")
            to = f"{kind[0]}{16 * WIDTHS[kind]}" if wide else kind
            to = "u32" if name in ("popc", "clz") else to
            operands = [register(to), *[register(kind, 2)] * count]
            operands[3:] = [register(to, 3)] * (count == 3)
            yield f"{dotted(name, way, kind)} {', '.join(operands)};"
    for kind in KINDS:
        a, b, c = (register(kind, n) for n in (1, 2, 3))
        yield from (f"{name}.{kind} {a}, {b}, %r3;" for name in ("shl", "shr"))
        yield from (f"selp.{kind} {a}, {b}, {c}, %p1;", f"bfe.{kind} {a}, {b}, 1, 2;")
        yield f"bfi.{kind} {a}, {b}, {c}, 1, 2;"
        for name, way in product(COMPARISONS.split(), ("", "ftz")):
            yield f"{dotted('setp', name, way, kind)} %p1, {a}, {b};"
            for to in ("u32", "s32", "f32"):
                yield f"{dotted('set', name, way, to, kind)} {register(to)}, {b}, {c};"
            yield f"{dotted('setp', name, 'and', way, kind)} %p1|%p2, {a}, {b}, !%p3;"


def conversions() -> Iterator[str]:
    kinds = [*KINDS, *EIGHT]
    for to, of, way in product(kinds, kinds, CONVERSIONS):
        pair = of == "f32" and to.endswith("x2")
        operands = [register(to), *[register(of, 2)] * (2 if pair else 1)]
        yield f"{dotted('cvt', way, to, of)} {', '.join(operands)};"


def accesses() -> Iterator[str]:
    kinds = ("b8", "u16", "s32", "b64", "f32", "f16")
    for order, space, cache, count, kind in product(ORDERS, SPACES, CACHES, (1, 2, 4), kinds):
        names = ", ".join(register(kind, n) for n in range(count))
        values = names if count == 1 else "{" + names + "}"
        form = dotted(order, space, cache, "" if count == 1 else f"v{count}", kind)
        yield f"ld.{form} {values}, [%d9];"
        yield f"st.{form} [%d9], {values};"
    for name, kind, quiet in product(
        ["add", "and", "cas", "dec", "exch", "inc", "max", "min", "or", "xor"], KINDS, ("", "noftz")
    ):
        values = ", ".join([register(kind)] * (2 if name == "cas" else 1))
        form = dotted("global", name, quiet, kind)
        yield f"atom.{form} {register(kind, 2)}, [%d9], {values};"
        yield f"red.{form} [%d9], {values};"
    for name, width, size in product(("ca", "cg"), (4, 8, 16), ("", ", %r1", ", %p1")):
        yield f"cp.async.{name}.shared.global [%r1], [%d1], {width}{size};"


def of_warps() -> Iterator[str]:
    bytes_ = {"f16": 2, "bf16": 2, "tf32": 4, "f64": 8, "s8": 1, "u8": 1, "e4m3": 1, "e5m2": 1}
    shapes = ((8, 4), (8, 16), (16, 4), (16, 8), (16, 16), (16, 32))
    sums = {"f16": 2, "f32": 4, "s32": 4, "f64": 8}
    for (m, k), a, b, c, d in product(shapes, bytes_, bytes_, sums, sums):
        word = 8 if a == "f64" else 4
        sizes = (m * 8 * sums[d], m * k * bytes_[a], k * 8 * bytes_[b], m * 8 * sums[c])
        letter = "d" if a == "f64" else "r"
        lists = [", ".join(f"%{letter}{n}" for n in range(s // 32 // word)) for s in sizes]
        if all(lists):
            operands = ", ".join("{" + one + "}" for one in lists)
            for word_ in ("", "satfinite"):
                name = dotted("mma.sync.aligned", f"m{m}n8k{k}", "row.col", word_, d, a, b, c)
                yield f"{name} {operands};"
    for count, trans in product((1, 2, 4), ("", "trans")):
        names = "{" + ", ".join(f"%r{n}" for n in range(count)) + "}"
        form = dotted("sync.aligned.m8n8", f"x{count}", trans, "shared.b16")
        yield f"ldmatrix.{form} {names}, [%r9];"
        yield f"stmatrix.{form} [%r9], {names};"
    yield from (f"shfl.sync.{mode}.b32 %r1|%p1, %r2, 1, 31, -1;" for mode in ("up", "down", "bfly"))
    yield from (f"vote.sync.{mode}.pred %p1, %p2, -1;" for mode in ("all", "any", "uni"))
    yield from (
        f"redux.sync.{name}.{kind} %r1, %r2, -1;"
        for name, kind in product(("add", "min", "xor"), ("u32", "s32", "b32"))
    )
    yield from ("elect.sync %r1|%p1, -1;", "activemask.b32 %r1;", "bar.warp.sync -1;")
    yield from ("membar.gl;", "fence.acq_rel.gpu;", "fence.sc.cta;", "barrier.sync 0;")
    yield from ("bar.sync 0, 32;", "barrier.cta.sync.aligned 0;", "bar.cta.sync 0;")


def of_barriers() -> Iterator[str]:
    spaces = ("", "shared", "shared::cta", "shared::cluster")
    orders = ("", "release.cta", "release.cluster", "acquire.cta", "acquire.cluster", "relaxed.cta")
    for order, space in product(orders, spaces):
        for name, operands in product(("arrive", "arrive.expect_tx"), ("", ", %r1")):
            for state in ("_", "%d1"):
                yield f"{dotted('mbarrier', name, order, space, 'b64')} {state}, [%d9]{operands};"
        yield f"{dotted('mbarrier.expect_tx', order, space, 'b64')} [%d9], %r1;"
        for name, way, limit in product(("test_wait", "try_wait"), ("parity", ""), ("", ", %r2")):
            phase = "%r1" if way else "%d1"
            form = dotted("mbarrier", name, way, order, space, "b64")
            yield f"{form} %p1, [%d9], {phase}{limit};"
    for name, space in product(("init", "inval"), spaces):
        count = ", 1" if name == "init" else ""
        yield f"{dotted('mbarrier', name, space, 'b64')} [%d9]{count};"
    for kind, register_ in (("u32", "%r"), ("u64", "%d")):
        yield f"mapa.shared::cluster.{kind} {register_}1, {register_}2, %r3;"
    for name, cta, way, aligned in product(
        ("bar", "barrier"), ("", "cta"), ("sync", "arrive"), ("", "aligned")
    ):
        yield f"{dotted(name, cta, way, aligned)} 1, 32;"
        yield f"{dotted(name, cta, way, aligned)} %r1, %r2;"
    for way, order, aligned in product(
        ("arrive", "wait"), ("", "release", "acquire", "relaxed"), ("", "aligned")
    ):
        yield f"{dotted('barrier.cluster', way, order, aligned)};"
    yield from (f"{dotted('fence.proxy.async', space)};" for space in (*spaces, "global"))
    yield "fence.mbarrier_init.release.cluster;"
    yield from ("griddepcontrol.wait;", "griddepcontrol.launch_dependents;")


def of_boxes() -> Iterator[str]:
    coordinates = ("%r1", "%r2", "%r3", "%r4", "%r5")
    for dimensions, tile, hint in product(range(1, 6), ("", "tile"), ("", "L2::cache_hint")):
        box = f"[%d1, {{{', '.join(coordinates[:dimensions])}}}]"
        last = ", %d3" if hint else ""
        for space, many in product(("shared::cta", "shared::cluster"), ("", "multicast::cluster")):
            form = dotted(
                f"cp.async.bulk.tensor.{dimensions}d", space, "global", tile,
                "mbarrier::complete_tx::bytes", many, hint,
            )  # fmt: skip
            mask = ", %h1" if many else ""
            yield f"{form} [%r9], {box}, [%r8]{mask}{last};"
        for name, adds in (("cp.async", ""), ("cp.reduce.async", "add")):
            form = dotted(
                f"{name}.bulk.tensor.{dimensions}d.global.shared::cta",
                adds,
                tile,
                "bulk_group",
                hint,
            )
            yield f"{form} {box}, [%r9]{last};"
        form = dotted(f"cp.async.bulk.prefetch.tensor.{dimensions}d.L2.global", tile)
        yield f"{form} {box};"
    yield from ("cp.async.bulk.commit_group;", "cp.async.bulk.wait_group 0;")
    yield from ("cp.async.bulk.wait_group.read 1;", "prefetch.tensormap [%d1];")


def of_warpgroups() -> Iterator[str]:
    sizes = {"f16": 16, "bf16": 16, "tf32": 8, "s8": 32, "u8": 32, "e4m3": 32, "e5m2": 32}
    a_in_registers = "{%r16, %r17, %r18, %r19}"
    for a, b, d, n, more in product(
        sizes, sizes, ("f16", "f32", "s32"), (8, 16, 24, 40), ("", "satfinite")
    ):
        count = n // 4 if d == "f16" else n // 2
        sums = "{" + ", ".join(f"%r{i}" for i in range(count)) + "}"
        form = dotted("wgmma.mma_async.sync.aligned", f"m64n{n}k{sizes[a]}", d, a, b, more)
        for left, numbers in product(
            ("%d1", a_in_registers), ("", ", 1, -1", ", 1, 1, 0", ", 1, 1, 0, 1")
        ):
            yield f"{form} {sums}, {left}, %d2, %p1{numbers};"
    yield from (f"wgmma.{name}.sync.aligned;" for name in ("fence", "commit_group"))
    yield "wgmma.wait_group.sync.aligned 1;"


def is_known(instruction: str) -> bool:
    text = f"{HEAD}.entry k()\n{{\n{REGISTERS}\n{instruction}\nret;\n}}\n"
    try:
        program_of(parse(text), 32, {}, 0, {})
    except PtxFault:
        return False
    return True


GROUPS = (arithmetic, conversions, accesses, of_warps, of_barriers, of_boxes, of_warpgroups)


@pytest.mark.parametrize("group", GROUPS)
def test_what_is_known_assembles(group: Callable[[], Iterator[str]], tmp_path: Path) -> None:
    ptxas = find_ptxas()
    if ptxas is None:
        pytest.skip("ptxas is not found")
    known = [instruction for instruction in dict.fromkeys(group()) if is_known(instruction)]
    assert len(known) > 40
    entries = [
        f".entry k{n}() {{ {REGISTERS} {instruction} ret; }}" for n, instruction in enumerate(known)
    ]
    source = tmp_path / "known.ptx"
    source.write_text(HEAD + "\n".join(entries))
    command = [ptxas, "-arch=sm_90a", str(source), "-o", str(tmp_path / "known.cubin")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    first = HEAD.count("\n") + 1
    wrong = [known[int(line) - first] for line in re.findall(r"line (\d+); error", done.stderr)]
    assert (wrong, done.returncode) == ([], 0), done.stderr
