"""Machine code of the default schedule for 1024 cubed: full registers, nothing spilled."""

import re
from dataclasses import dataclass, replace

import pytest

import gemmir
from gemmir.backends.cpu.assemble import assembly
from gemmir.backends.cpu.emit import emit
from gemmir.ir.build import build
from gemmir.lowering import run_passes
from gemmir.machine import machine_for
from gemmir.passes.tile import Tile
from gemmir.passes.unroll import Unroll
from gemmir.passes.vectorize import Vectorize


@dataclass(frozen=True, kw_only=True)
class Isa:
    """How one instruction set writes what the loop over k must have, and must not have."""

    multiply_add: str
    stack: str
    jump: str


AVX2 = Isa(
    multiply_add=r"\tvfmadd\d+ps\t.*%ymm\d+$",
    stack=r"\(%rsp\).*%[xyz]mm|%[xyz]mm.*\(%rsp\)",  # rbp may be any pointer
    jump=r"\tj\w+\t",
)
AVX512 = Isa(
    multiply_add=r"\tvfmadd\d+ps\t.*%zmm\d+$",
    stack=AVX2.stack,
    jump=AVX2.jump,
)
NEON = Isa(
    multiply_add=r"\tfmla\t(v\d+\.4s, ){2}v\d+\.(4s|s\[\d\])$",
    stack=r"\t(ldr|str|ldp|stp|ldur|stur)\t[qv]\d+.*\[(sp|x29)\b",
    jump=r"\tb\.\w+\t",
)

MACHINES = {
    "cpu:x86-64-v3": AVX2,
    "cpu:znver3": AVX2,
    "cpu:x86-64-v4": AVX512,
    "cpu:znver4": AVX512,
    "cpu:znver5": AVX512,
    "cpu:icelake-server": AVX512,
    "cpu:sapphirerapids": AVX512,
    "cpu:neoverse-n1": NEON,
    "cpu:neoverse-v1": NEON,
    "cpu:neoverse-n2": NEON,
    "cpu:neoverse-v2": NEON,
}


def sum_loops(text: str, isa: Isa) -> list[list[str]]:
    """The loops of a single block that multiply and add."""
    parts = re.split(r"^(\.LBB\w+):.*$", text, flags=re.MULTILINE)
    found: list[list[str]] = []
    for label, body in zip(parts[1::2], parts[2::2], strict=True):
        lines = body.splitlines()
        back = [i for i, x in enumerate(lines) if re.match(f"{isa.jump}{re.escape(label)}$", x)]
        loop = lines[: back[0]] if back else []
        if any(re.match(isa.multiply_add, line) for line in loop):
            found.append(loop)
    return found


def products_per_iteration(lowered: gemmir.Lowered) -> tuple[int, set[int]]:
    """Multiply-adds that the schedule asks for: rows times vectors, times unrolled steps.

    Beside them all that a loop may have: the steps that are left where the unrolled ones do not
    divide a part of k, and those of last tiles of fewer rows.
    """
    sizes: dict[str, int] = {}
    width = factor = 1
    for p in lowered.schedule.passes:
        if isinstance(p, Tile):
            sizes.update(zip(p.loops, p.sizes, strict=True))
        width = p.width or width if isinstance(p, Vectorize) else width
        factor = p.factor if isinstance(p, Unroll) else factor
    assert lowered.problem is not None
    vectors, last = sizes["n"] // width, lowered.problem.m % sizes["m"]
    steps = {rows * vectors for rows in (sizes["m"], last) if rows}
    return sizes["m"] * vectors * factor, steps | {step * factor for step in steps}


@pytest.mark.parametrize("target", MACHINES)
def test_the_loop_over_k_is_multiply_adds_in_registers(target: str) -> None:
    isa = MACHINES[target]
    lowered = gemmir.lower(gemmir.Gemm(m=1024, n=1024, k=1024), target)
    loops = sum_loops(assembly(lowered.artifact), isa)
    unrolled, allowed = products_per_iteration(lowered)
    found = [sum(1 for line in loop if re.match(isa.multiply_add, line)) for loop in loops]
    assert unrolled in found
    assert set(found) <= allowed
    for loop in loops:
        assert not [line for line in loop if re.search(isa.stack, line)]


@pytest.mark.parametrize("target", MACHINES)
def test_most_instructions_of_the_loop_are_multiply_adds(target: str) -> None:
    """What else there is loads A and B, broadcasts and counts."""
    isa = MACHINES[target]
    lowered = gemmir.lower(gemmir.Gemm(m=1024, n=1024, k=1024), target)
    for loop in sum_loops(assembly(lowered.artifact), isa):
        instructions = [line for line in loop if re.match(r"\t[a-z]", line)]
        products = [line for line in loop if re.match(isa.multiply_add, line)]
        assert len(products) > len(instructions) / 2


def test_a_tile_too_large_for_the_registers_is_seen() -> None:
    """What looks for spills finds them where there are some."""
    module = build(gemmir.Gemm(m=64, n=64, k=64))
    steps = "promote{operand=c to=registers},vectorize{with=fma width=8}"
    run_passes(module, gemmir.Schedule.parse(f"tile{{loops=m,n sizes=8,16}},{steps}"))
    artifact = emit(module, machine_for("cpu:x86-64-v3"))
    (loop,) = sum_loops(assembly(artifact), AVX2)
    assert [line for line in loop if re.search(AVX2.stack, line)]


DOTS: dict[tuple[str, str, str | None], str] = {
    ("cpu:znver4", "u8", "i8"): r"\tvpdpbusd\t.*%zmm\d+$",
    ("cpu:znver5", "u8", None): r"\tvpdpwssd\t.*%zmm\d+$",
    ("cpu:znver4", "bf16", None): r"\tvdpbf16ps\t.*%zmm\d+$",
    ("cpu:icelake-server", "u8", "i8"): r"\tvpdpbusd\t.*%zmm\d+$",
    ("cpu:neoverse-n1", "i8", None): r"\tsdot\tv\d+\.4s, v\d+\.16b, v\d+\.",
    ("cpu:neoverse-v1", "u8", "i8"): r"\tusdot\tv\d+\.4s, v\d+\.16b, v\d+\.",
    ("cpu:neoverse-n2", "bf16", None): r"\tbfdot\tv\d+\.4s, v\d+\.8h, v\d+\.",
}
"""What sums products of neighbours along k, on targets that have it."""


@pytest.mark.parametrize(("target", "dtype", "dtype_b"), DOTS)
def test_dot_products_stay_in_registers(target: str, dtype: str, dtype_b: str | None) -> None:
    is_arm = target.startswith("cpu:neoverse")
    isa = replace(NEON if is_arm else AVX512, multiply_add=DOTS[target, dtype, dtype_b])
    gemm = gemmir.Gemm(m=512, n=512, k=512, dtype=dtype, dtype_b=dtype_b)
    lowered = gemmir.lower(gemm, target)
    loops = sum_loops(assembly(lowered.artifact), isa)
    unrolled, _ = products_per_iteration(lowered)
    assert unrolled in [sum(1 for x in loop if re.match(isa.multiply_add, x)) for loop in loops]
    for loop in loops:
        assert not [line for line in loop if re.search(isa.stack, line)]


TILES: dict[tuple[str, str | None], str] = {
    ("bf16", None): "tdpbf16ps",
    ("i8", None): "tdpbssd",
    ("i8", "u8"): "tdpbsud",
    ("u8", "i8"): "tdpbusd",
    ("u8", None): "tdpbuud",
}
"""Products of matrix tiles, by the elements of A and B."""


@pytest.mark.parametrize(("dtype", "dtype_b"), TILES)
@pytest.mark.parametrize("size", [512, 500])
def test_products_of_tiles_stay_in_tiles(size: int, dtype: str, dtype_b: str | None) -> None:
    """A loop of four products and four loads, and nothing spilled; one configuration a function."""
    gemm = gemmir.Gemm(m=size, n=size, k=size, dtype=dtype, dtype_b=dtype_b)
    text = assembly(gemmir.lower(gemm, "cpu:sapphirerapids").artifact)
    product = rf"\t{TILES[dtype, dtype_b]}\t%tmm\d, %tmm\d, %tmm\d$"
    loops = sum_loops(text, replace(AVX512, multiply_add=product))
    assert loops
    for loop in loops:
        words = [line.split()[0] for line in loop if re.match(r"\t[a-z]", line)]
        assert words.count(TILES[dtype, dtype_b]) == words.count("tileloadd") == 4
        assert len(words) <= 16
        assert not [line for line in loop if re.search(r"tilestored|\(%rsp", line)]
    assert len(re.findall(r"\tldtilecfg\t", text)) == 1
    assert len(re.findall(r"\ttileloadd\t", text)) == 4 * len(loops)
