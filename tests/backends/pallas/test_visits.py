"""Grouped GEMM for a TPU: the numbers of the visits, the kernel interpreted and compiled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal

import jax
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from jax._src.pallas.mosaic.interpret import interpret_pallas_call
from jax.experimental.pallas import tpu as pltpu

import gemmir
from gemmir import Gemm
from gemmir.arrays import make_operands
from gemmir.backend import Artifact
from gemmir.backends.pallas.export import stablehlo
from gemmir.backends.pallas.profile.ahead_of_time import compile_for
from gemmir.backends.pallas.profile.program import Array as ProgramArray
from gemmir.backends.pallas.profile.program import Program
from gemmir.backends.pallas.run import run_pallas
from gemmir.backends.pallas.visits import visits_function
from gemmir.check import check
from gemmir.dtypes import ELEMENTS
from gemmir.errors import BackendError
from gemmir.gemm import OFFSETS
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.ir.dialect import VisitsOp
from gemmir.machine import TpuMachine, machine_for
from gemmir.reference import reference_of_gemm
from gemmir.signature import signature_of
from tests.backends.pallas.profile.programs import needs_libtpu
from tests.strategies import examples
from tests.test_visits import offsets_of, visited, visits_of

Array = npt.NDArray[Any]

MOE: Final = Gemm(m=200, n=160, k=192, groups=4, dtype="bf16", beta=0.5)
EPILOGUE: Final = "bias+relu+residual"

VISITS: Final = "tile{loops=n,group,m sizes=128,1,64 over=grid}"
SLICES: Final = (
    f"{VISITS},promote{{operand=c to=vmem}},tile{{loops=k sizes=128}},promote{{operand=a to=vmem}},"
    "promote{operand=b to=vmem},fuse-epilogue,pipeline{loop=k stages=2 with=dma},"
    "vectorize{with=mxu}"
)
WHOLE: Final = SLICES.replace("tile{loops=k sizes=128},", "").replace("loop=k", "loop=group")
SCHEDULES: Final = {"default": None, "slices": SLICES}

OFFSETS_OF_ROWS: Final = {
    "none": (0, 0, 0, 0, 0),
    "all of one": (0, 0, 200, 200, 200),
    "aligned": (0, 64, 128, 128, 192),
    "unaligned": (0, 5, 70, 71, 150),
    "in one tile": (0, 1, 2, 3, 4),
}


def lowered(gemm: Gemm, target: str = "tpu:v5e", schedule: str | None = None) -> Artifact:
    return gemmir.lower(gemm, target=target, schedule=schedule).artifact


def require_right(
    gemm: Gemm, artifact: Artifact, offsets: tuple[int, ...], interpret: Any = True
) -> None:
    """What the interpreter makes is right, and rows of no product are as they were."""
    operands = make_operands(signature_of(build(gemm)))
    operands.by_name[OFFSETS].array[:] = offsets
    reference, own = reference_of_gemm(gemm, operands), operands.copy()
    run_pallas(artifact, artifact.text, own.arrays, interpret=interpret)
    wrong = reference.compare(own.output).first_wrong
    assert wrong is None, str(wrong)
    np.testing.assert_array_equal(own.output[offsets[-1] :], operands.output[offsets[-1] :])


@given(visited())
@examples(0.1)
@example(([0, 0, 0], 20, 8))
@example(([0, 20, 20], 20, 8))
def test_numbers_are_those_of_the_ir(case: tuple[list[int], int, int]) -> None:
    offsets, rows, size = case
    expected = visits_of(offsets, rows, size)
    if not expected.size:
        return
    module = parse_module(
        f"""func.func @f(%offsets: memref<{len(offsets)}xi32>) {{
          %visits = gemmir.visits %offsets rows {rows} : i64 by {size} : i64
            : memref<{len(offsets)}xi32> -> memref<6x{expected.shape[1]}xi32, #gemmir.space<smem>>
          func.return
        }}"""
    )
    (op,) = (o for o in module.walk() if isinstance(o, VisitsOp))
    made: dict[str, Any] = {"jnp": jax.numpy, "lax": jax.lax}
    exec(visits_function("found", op), made)
    found = made["found"](np.array(offsets, np.int32))
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("offsets", OFFSETS_OF_ROWS.values(), ids=OFFSETS_OF_ROWS)
def test_rows_of_every_kind(name: str, offsets: tuple[int, ...]) -> None:
    gemm = replace(MOE, beta=0.5 if name == "slices" else 0.0, epilogue=EPILOGUE)
    require_right(gemm, lowered(gemm, schedule=SCHEDULES[name]), offsets)


WRONG_EDITS: Final = {
    "blocks of B by the tile": ("visits: (visits[0, v], p, j)", "visits: (visits[1, v] % 4, p, j)"),
    "rows by the visit": ("visits: (visits[1, v], p)", "visits: (v % 4, p)"),
    "all rows are stored": ("jnp.bitwise_xor(before, until)", "before | True"),
    "old elements at each visit": ("(visits_ref[4, v] == 1)", "(visits_ref[4, v] < 2)"),
    "products end in whole tiles": ("(end + 63) // 64", "end // 64"),
    "products begin in whole tiles": ("begin[product] - tile * 64", "begin[product] * 0"),
}


@pytest.mark.parametrize("name", WRONG_EDITS)
def test_wrong_edits_are_noticed(name: str) -> None:
    old, new = WRONG_EDITS[name]
    gemm = replace(MOE, epilogue="bias")
    artifact = lowered(gemm, schedule=SLICES)
    assert old in artifact.text
    wrong = replace(artifact, text=artifact.text.replace(old, new))
    with pytest.raises(AssertionError):
        require_right(gemm, wrong, OFFSETS_OF_ROWS["unaligned"])


@given(offsets_of(4, 200, 64))
@settings(max_examples=4)
def test_drawn_rows(offsets: list[int]) -> None:
    require_right(MOE, lowered(MOE), tuple(offsets))


@pytest.mark.parametrize("dtype", ["f32", "bf16x1", "bf16x3", "i8", "e4m3"])
def test_every_type(dtype: str) -> None:
    whole = dtype == "i8"
    gemm = replace(MOE, dtype=dtype, beta=2 if whole else 0.5, trans_b=True, epilogue=EPILOGUE)
    require_right(gemm, lowered(gemm), OFFSETS_OF_ROWS["unaligned"])


def test_check_runs_every_stage_and_the_kernel() -> None:
    for groups in (1, 5):
        report = check(replace(MOE, groups=groups, epilogue="bias+gelu"), target="tpu:v6e")
        assert report.ok, report.first_wrong


def test_going_on_from_text_gives_the_same_file() -> None:
    found = gemmir.lower(replace(MOE, epilogue=EPILOGUE), target="tpu:v6e", schedule=SLICES)
    for stage in found.stages.values():
        assert gemmir.lower_text(stage.text, target="tpu:v6e").artifact.text == found.artifact.text


def test_the_file_says_what_is_prefetched() -> None:
    text = lowered(replace(MOE, epilogue="bias"), schedule=SLICES).text
    for words in (
        "num_scalar_prefetch=1",
        "lambda j, v, p, visits: (visits[0, v], p, j)",
        'dimension_semantics=("parallel", "arbitrary", "arbitrary")',
        "input_output_aliases={4: 0}",
    ):
        assert words in text, words


@pytest.mark.parametrize(("mode", "beta"), [("on_wait", 0.0), ("eager", 0.0), ("on_wait", 0.5)])
@pytest.mark.parametrize("name", SCHEDULES)
def test_no_races_and_nothing_is_read_too_early(
    name: str, beta: float, mode: Literal["on_wait", "eager"]
) -> None:
    """The interpreter of Mosaic's semantics needs whole blocks of an array that is changed."""
    gemm = Gemm(m=192, n=256, k=256, groups=4, beta=beta, epilogue="bias+relu")
    artifact = lowered(gemm, schedule=SCHEDULES[name] or WHOLE)
    operands = make_operands(signature_of(build(gemm)))
    operands.by_name[OFFSETS].array[:] = (0, 5, 70, 71, 150)
    reference, own = reference_of_gemm(gemm, operands), operands.copy()
    params = pltpu.InterpretParams(detect_races=True, dma_execution_mode=mode)
    run_pallas(artifact, artifact.text, own.arrays, interpret=params)
    assert reference.compare(own.output).first_wrong is None
    found: Any = interpret_pallas_call.races
    assert not found.races_found


def test_a_block_without_its_old_elements_is_noticed() -> None:
    """Pallas's own interpreter begins with them, that of memories with NaN."""
    gemm = Gemm(m=192, n=256, k=256, groups=4)
    artifact = lowered(gemm, schedule=WHOLE.replace("fuse-epilogue,", ""))
    old, new = "(visits_ref[4, v] == 1)", "(visits_ref[4, v] == 2)"
    assert old in artifact.text
    wrong = replace(artifact, text=artifact.text.replace(old, new))
    with pytest.raises(AssertionError):
        require_right(gemm, wrong, (0, 5, 70, 71, 150), pltpu.InterpretParams())


@pytest.mark.parametrize("target", ["tpu:v4", "tpu:v5e", "tpu:v5p", "tpu:v6e", "tpu:tpu7x"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_pallas_takes_it(target: str, name: str) -> None:
    gemm = replace(MOE, m=1000, n=512, k=768, epilogue=EPILOGUE)
    assert "tpu_custom_call" in stablehlo(lowered(gemm, target, SCHEDULES[name]))


@needs_libtpu
@pytest.mark.parametrize("target", ["tpu:v5e", "tpu:v6e"])
@pytest.mark.parametrize("out", ["bf16", "f32"])
def test_libtpu_compiles_it(target: str, out: str) -> None:
    gemm = replace(MOE, m=1000, n=512, k=768, out=out, epilogue=EPILOGUE)
    artifact, machine = lowered(gemm, target), machine_for(target)
    assert isinstance(machine, TpuMachine)
    arrays = tuple(
        ProgramArray(shape=a.shape, dtype=ELEMENTS[a.dtype].numpy.name)
        for a in artifact.signature.arguments
    )
    program = Program(text=artifact.text, function=artifact.signature.symbol, arguments=arrays)
    assert compile_for(machine, program).vmem_bytes > 0


@pytest.mark.parametrize("code", ["GEM0478", "GEM0479"])
def test_what_has_no_spelling(code: str) -> None:
    module = f"""
    func.func @gemm(%a: memref<8x128xf32> {{gemmir.name = "a", gemmir.access = "read"}},
                    %c: memref<8x128xf32> {{gemmir.name = "c", gemmir.access = "write"}}) {{
      %zero = arith.constant 0 : index
      %none = arith.constant 0.0 : f32
      pallas.call grid [2 : i64] semantics ["parallel"] ins(%a : memref<8x128xf32>)
          outs(%c : memref<8x128xf32>)
          blocks [#pallas.block<[8, 128], affine_map<(d0) -> (0, 0)>, 2>,
                  #pallas.block<[8, 128], affine_map<(d0) -> (0, 0)>, 2>] {{
      ^bb0(%i: index, %x: memref<8x128xf32, #gemmir.space<vmem>>,
           %y: memref<8x128xf32, #gemmir.space<vmem>>):
        {
        "%one = memref.load %x[%zero, %i] : memref<8x128xf32, #gemmir.space<vmem>>"
        if code == "GEM0478"
        else ""
    }
        %all = vector.transfer_read %x[%zero, %zero], %none {{in_bounds = [true, true]}}
          : memref<8x128xf32, #gemmir.space<vmem>>, vector<8x128xf32>
        %mask = vector.create_mask %i, %i : vector<8x128xi1>
        vector.transfer_write %all, %y[%zero, %zero], %mask {{in_bounds = [true, true]}}
          : vector<8x128xf32>, memref<8x128xf32, #gemmir.space<vmem>>
        gemmir.yield
      }}
      func.return
    }}"""
    with pytest.raises(BackendError) as raised:
        gemmir.lower_text(module, target="tpu:v5e")
    assert raised.value.code == code
