"""Operands that are packed once: the same bits, and never for another kernel."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gemmir
from gemmir.backends.cpu.assemble import header, shared_library
from gemmir.compiler import Gemm, compile
from gemmir.dtypes import ELEMENTS
from gemmir.errors import CallError
from gemmir.kernel import Array, Kernel
from gemmir.machine import CpuMachine, machine_for
from gemmir.schedule import Schedule, check_fits
from gemmir.schedule.cpu.prepacked import prepacked_passes
from gemmir.schedule.prepacked import prepacked_text
from gemmir.signature import Signature

OWN = (
    "promote{operand=b to=l3 layout=panel:16},prepack{operand=b},tile{loops=m,n sizes=4,16},"
    "promote{operand=c to=registers},vectorize{with=fma width=8}"
)


def arrays_of(gemm: Gemm, *, exact: bool = True) -> list[Array]:
    """Operands; `exact` ones are whole numbers, whose sums are the same in every order."""
    rng = np.random.default_rng(0)
    made: list[Array] = []
    for operand in gemm.operands:
        element = ELEMENTS[operand.dtype]
        if element.is_integer:
            limits = np.iinfo(element.numpy)
            low, high = limits.min, limits.max
            memory = rng.integers(low, high, operand.span, element.numpy, endpoint=True)
        elif exact:
            memory = rng.integers(-3, 4, operand.span).astype(element.numpy)
        else:
            memory = rng.uniform(-1, 1, operand.span).astype(element.numpy)
        strides = [s * memory.itemsize for s in operand.strides]
        made.append(np.ndarray(operand.shape, memory.dtype, memory, strides=strides))
    return made


@st.composite
def problems(draw: st.DrawFn) -> Gemm:
    size = st.integers(1, 70) | st.sampled_from([128, 200, 301])
    return Gemm(
        m=draw(size),
        n=draw(size),
        k=draw(size | st.just(700)),
        dtype=draw(st.sampled_from(["f32", "f64"])),
        trans_a=draw(st.booleans()),
        trans_b=draw(st.booleans()),
        beta=draw(st.sampled_from([0.0, 0.0, 1.0])),
        epilogue=draw(st.sampled_from(["", "bias+relu", "bias+gelu"])),
    )


@given(problems(), st.sampled_from(["cpu", "cpu:x86-64-v3"]), st.sampled_from([1, 1, 2]))
def test_a_packed_operand_gives_the_same_result(gemm: Gemm, target: str, threads: int):
    kernel = compile(gemm, target, threads=threads)
    a, b, *rest, c = arrays_of(gemm)
    packed = kernel.prepack(b)
    expected, found, bound = c.copy(), c.copy(), c.copy()
    kernel(a, b, *rest, out=expected)
    assert kernel(a, packed, *rest, out=found) is found
    assert kernel.bind(a, packed, *rest, out=bound)() is bound
    assert found.tobytes() == bound.tobytes()
    assert np.array_equal(found, expected)  # a zero may have another sign
    if not gemm.beta:
        named = dict(zip(gemm_names(gemm)[2:-1], rest, strict=True))
        assert kernel(a, b=packed, **named).tobytes() == found.tobytes()


@pytest.mark.parametrize("target", ["cpu", "cpu:x86-64-v3"])
@pytest.mark.parametrize(
    ("dtype", "dtype_b"),
    [("bf16", None), ("f16", None), ("i8", None), ("u8", None), ("u8", "i8"), ("i8", "u8")],
)
def test_narrow_types_are_packed_as_they_are_multiplied(
    target: str, dtype: str, dtype_b: str | None
):
    for m, n, k, trans_b in ((3, 70, 33, True), (50, 75, 133, False)):
        gemm = Gemm(m=m, n=n, k=k, dtype=dtype, dtype_b=dtype_b, trans_b=trans_b)
        kernel = compile(gemm, target)
        a, b, _ = arrays_of(gemm, exact=False)
        assert kernel(a, kernel.prepack(b)).tobytes() == kernel(a, b).tobytes()


@pytest.mark.parametrize(
    ("gemm", "threads"),
    [
        (Gemm(m=1, n=60, k=7, dtype="f16", trans_a=True), 3),  # a core has less than a panel
        (Gemm(m=2, n=20, k=1, dtype="u8", trans_b=True, batch=2), 1),  # as has all of B
    ],
)
def test_panels_may_be_wider_than_what_there_is(gemm: Gemm, threads: int):
    kernel = compile(gemm, "cpu:x86-64-v4", threads=threads)
    a, b, _ = arrays_of(gemm, exact=False)
    assert kernel(a, kernel.prepack(b)).tobytes() == kernel(a, b).tobytes()


BATCHES: dict[str, dict[str, Any]] = {
    "batch": {"batch": 3},
    "transposed batch": {"batch": 3, "trans_b": True},
    "one of a batch": {"batch": 1},
    "batch with one b": {"batch": 3, "batch_stride_b": 0},
    "bf16": {"batch": 3, "dtype": "bf16"},
    "bytes": {"batch": 2, "dtype": "u8", "dtype_b": "i8", "batch_stride_b": 0},
    "groups": {"groups": 3},
    "masked groups": {"groups": 3, "masked": True, "trans_b": True},
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", BATCHES)
def test_each_matrix_of_a_batch_is_packed(kind: str, threads: int):
    for m, n, k in ((6, 70, 33), (40, 75, 500)):
        gemm = Gemm(m=m, n=n, k=k, **BATCHES[kind])
        kernel = compile(gemm, threads=threads)
        a, b, *rest, c = arrays_of(gemm)
        for rows in rest:
            rows[...] = [0, 1, m] if gemm.masked else [0, 2, 2, m]
        found, expected = c.copy(), c.copy()
        kernel(a, b, *rest, out=expected)
        kernel(a, kernel.prepack(b), *rest, out=found)
        assert found.tobytes() == expected.tobytes() != c.tobytes()


def test_a_b_of_a_whole_batch_is_packed_once():
    one, shared = (
        compile(Gemm(m=5, n=40, k=6, batch=4, batch_stride_b=stride)) for stride in (None, 0)
    )
    b = np.zeros((4, 6, 40), np.float32)
    assert one.prepack(b).array.size == 4 * shared.prepack(b[0]).array.size


@pytest.mark.parametrize("cut", ["tile{loops=k sizes=16},", ""])
def test_a_schedule_that_is_given_keeps_its_order_of_summation(cut: str):
    schedule = (
        f"{cut}promote{{operand=b to=l2 layout=panel:16}},tile{{loops=m,n sizes=4,16}},"
        "promote{operand=c to=registers},vectorize{with=fma width=8}"
    )
    gemm = Gemm(m=9, n=40, k=70)
    a, b, _ = arrays_of(gemm, exact=False)
    kernel = compile(gemm, schedule=schedule)
    assert kernel(a, kernel.prepack(b)).tobytes() == kernel(a, b).tobytes()


@pytest.mark.parametrize("k", [70, 9000])
@pytest.mark.parametrize("m", [1, 4, 33])
def test_the_default_schedule_of_a_packed_b_is_within_the_bound(m: int, k: int):
    gemm = Gemm(m=m, n=100, k=k)
    a, b, c = arrays_of(gemm, exact=False)
    kernel = compile(gemm, "cpu:x86-64-v3")
    kernel(a, kernel.prepack(b), out=c)
    arrays = {"a": a, "b": b, "c": c}
    assert (np.abs(c - gemm.reference(arrays)) <= gemm.error_bound(arrays)).all()


@pytest.mark.parametrize(
    ("gemm", "threads", "expected"),
    [
        (
            Gemm(m=64, n=96, k=100),
            1,
            "promote{operand=b to=l3 layout=panel:24},prepack{operand=b},tile{loops=n sizes=24},"
            "tile{loops=m sizes=4},promote{operand=c to=registers}",
        ),
        (
            Gemm(m=64, n=96, k=9000, batch=2),
            3,
            "tile{loops=batch sizes=1},promote{operand=b to=l3 layout=panel:24},"
            "prepack{operand=b},tile{loops=n sizes=24 over=cores},tile{loops=k sizes=2252},"
            "tile{loops=m sizes=4},promote{operand=c to=registers prefetch=true}",
        ),
        (
            Gemm(m=97, n=8, k=100, epilogue="gelu"),
            2,
            "promote{operand=b to=l3 layout=panel:8},prepack{operand=b},"
            "tile{loops=m sizes=52 over=cores},tile{loops=n sizes=8},"
            "tile{loops=m sizes=4 edges=peel},promote{operand=c to=registers},fuse-epilogue",
        ),
        (
            Gemm(m=2, n=96, k=100, batch=8),
            2,
            "tile{loops=batch sizes=1 over=cores},promote{operand=b to=l3 layout=panel:32},"
            "prepack{operand=b},tile{loops=n sizes=32},tile{loops=m sizes=2}",
        ),
    ],
)
def test_default_schedules_of_a_packed_b(gemm: Gemm, threads: int, expected: str):
    machine = machine_for("cpu:znver3")
    assert isinstance(machine, CpuMachine)
    passes = ",".join(prepacked_passes(gemm, machine, threads))
    assert passes.startswith(expected + ","), passes


def test_a_b_that_is_larger_than_the_caches_is_packed():
    gemm = Gemm(m=1, n=4096, k=4096)
    machine = machine_for("cpu:znver3")
    assert isinstance(machine, CpuMachine)
    assert gemm.n * gemm.k * 4 > machine.l3_bytes
    check_fits(Schedule.parse("\n".join(prepacked_passes(gemm, machine, 1))), gemm, machine)


def test_elements_are_packed_as_the_type_they_become():
    kernel = compile(Gemm(m=9, n=40, k=7, dtype="i8"), "cpu:x86-64-v3")
    _, b, _ = arrays_of(Gemm(m=9, n=40, k=7, dtype="i8"))
    assert kernel.prepack(b).array.dtype == np.int16


def gemm_names(gemm: Gemm) -> list[str]:
    return [operand.name for operand in gemm.operands]


def test_what_is_packed_is_a_copy():
    gemm = Gemm(m=5, n=20, k=6)
    kernel = compile(gemm)
    a, b, _ = arrays_of(gemm)
    packed, expected = kernel.prepack(b), kernel(a, b)
    b[...] = 0
    np.testing.assert_array_equal(kernel(a, packed), expected)
    assert repr(packed) == f"<b packed for gemm, {packed.array.nbytes} bytes>"
    assert packed.array.__array_interface__["data"][0] % 4096 == 0


def test_a_schedule_that_says_prepack_needs_no_second_kernel():
    gemm = Gemm(m=9, n=20, k=6, ldb=23)
    for kernel in (compile(gemm, schedule=OWN), gemmir.lower(gemm, schedule=OWN).compile()):
        (pack,) = kernel.signature.packs
        assert (pack.operand, pack.symbol, pack.compute) == ("b", "gemm_pack_b", "gemm_packed_b")
        assert Signature.from_json(kernel.signature.to_json()) == kernel.signature
        a, b, _ = arrays_of(gemm)
        np.testing.assert_array_equal(kernel(a, kernel.prepack(b)), kernel(a, b))


def test_text_with_prepack_is_enough():
    source = gemmir.lower(Gemm(m=9, n=20, k=6), schedule=OWN).stages["02-prepack"].text
    kernel = gemmir.lower_text(source).compile()
    a, b, _ = arrays_of(Gemm(m=9, n=20, k=6))
    np.testing.assert_array_equal(kernel(a, kernel.prepack(b)), kernel(a, b))


def test_kernels_of_the_same_problem_share_what_is_packed():
    gemm = Gemm(m=9, n=20, k=6)
    a, b, _ = arrays_of(gemm)
    one, other = compile(gemm, schedule=OWN), gemmir.lower(gemm, schedule=OWN).compile()
    np.testing.assert_array_equal(other(a, one.prepack(b)), one(a, b))


def wrong_uses() -> dict[str, Any]:
    gemm = Gemm(m=8, n=8, k=8)
    kernel = compile(gemm)
    a, b, c = arrays_of(gemm)
    packed = kernel.prepack(b)
    wider = compile(gemm, schedule=OWN)
    larger = compile(replace(gemm, m=9))
    return {
        "another schedule": lambda: wider(a, packed),
        "another problem": lambda: larger(np.zeros((9, 8), np.float32), packed),
        "another alpha": lambda: compile(replace(gemm, alpha=2.0))(a, packed),
        "another alpha, bound": lambda: compile(replace(gemm, alpha=2.0)).bind(a, packed),
        "another target": lambda: compile(gemm, "cpu:x86-64-v3")(a, packed),
        "as a": lambda: kernel(packed, b),
        "by the name a": lambda: kernel(a=packed, b=b),
        "twice": lambda: kernel(packed, packed),
        "two of them": lambda: kernel(kernel.prepack(b), packed),
        "bound as a": lambda: kernel.bind(packed, b, out=c),
    }


@pytest.mark.parametrize("use", sorted(wrong_uses()))
def test_a_packed_operand_out_of_place_is_refused(use: str):
    with pytest.raises(CallError, match=r"GEM1345: .*<b packed for gemm, "):
        wrong_uses()[use]()


def test_out_cannot_be_packed():
    gemm = Gemm(m=8, n=8, k=8)
    kernel = compile(gemm)
    a, b, _ = arrays_of(gemm)
    with pytest.raises(CallError, match="GEM0503: c is a Packed"):
        kernel(a, b, out=kernel.prepack(b))


def test_what_cannot_be_packed_is_refused():
    kernel = compile(Gemm(m=8, n=8, k=8))
    for wrong, code in ((None, "GEM0503"), (np.zeros((8, 9), np.float32), "GEM0506")):
        with pytest.raises(CallError, match=f"{code}: b "):
            kernel.prepack(wrong)


@pytest.mark.parametrize(
    "gemm",
    [
        Gemm(m=gemmir.ANY, n=8, k=8),
        Gemm(m=4, n=128, k=128, scale_block=128),
        Gemm(m=4, n=8, k=32, dtype_b="i8", weight_group=32),
    ],
)
def test_kernels_that_take_no_packed_operand(gemm: Gemm):
    with pytest.raises(CallError, match=r"GEM1346: .*compile a Gemm without scales"):
        compile(gemm).prepack(np.zeros((8, 8), np.float32))


def test_a_schedule_that_cuts_no_n_has_no_panels():
    schedule = "promote{operand=c to=registers},vectorize{with=fma width=4}"
    with pytest.raises(CallError, match="GEM1347: the schedule neither packs B nor cuts n"):
        compile(Gemm(m=2, n=8, k=8), schedule=schedule).prepack(np.zeros((8, 8), np.float32))


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (
            "tile{loops=n,k sizes=2048,344},promote{operand=b to=l3 layout=panel:32},"
            "tile{loops=m sizes=120},promote{operand=a to=l2 layout=panel:12},"
            "tile{loops=m,n sizes=12,32}",
            "promote{operand=b to=l3 layout=panel:32},prepack{operand=b},tile{loops=k sizes=344},"
            "tile{loops=m sizes=120},promote{operand=a to=l2 layout=panel:12},"
            "tile{loops=m,n sizes=12,32}",
        ),
        (
            "tile{loops=m,k sizes=96,256},promote{operand=a to=l3 layout=panel:12},"
            "tile{loops=n sizes=256},promote{operand=b to=l2 layout=panel:32},"
            "tile{loops=m,n sizes=12,32}",
            "promote{operand=b to=l3 layout=panel:32},prepack{operand=b},"
            "tile{loops=m,k sizes=96,256},promote{operand=a to=l3 layout=panel:12},"
            "tile{loops=n sizes=32},tile{loops=m,n sizes=12,32}",
        ),
        (
            "tile{loops=n sizes=64 over=cores},tile{loops=m,n sizes=8,32 edges=overlap},"
            "prefetch{operand=b loop=n ahead=1}",
            "promote{operand=b to=l3 layout=panel:32},prepack{operand=b},"
            "tile{loops=n sizes=32 over=cores},tile{loops=m,n sizes=8,32}",
        ),
        (
            "tile{loops=batch sizes=1 over=cores},tile{loops=n sizes=32},tile{loops=m sizes=8}",
            "tile{loops=batch sizes=1 over=cores},promote{operand=b to=l3 layout=panel:32},"
            "prepack{operand=b},tile{loops=n sizes=32},tile{loops=m sizes=8}",
        ),
        (
            "tile{loops=n sizes=20 over=cores},tile{loops=n,m sizes=32,1 edges=peel}",
            "promote{operand=b to=l3 layout=panel:32},prepack{operand=b},"
            "tile{loops=n sizes=32 over=cores},tile{loops=n,m sizes=32,1}",
        ),
        (
            "promote{operand=b to=l2 layout=panel:32},tile{loops=m sizes=8},tile{loops=n sizes=32},"
            "tile{loops=k sizes=4},prefetch{operand=a loop=m ahead=1 during=n,k}",
            "promote{operand=b to=l3 layout=panel:32},prepack{operand=b},tile{loops=m sizes=8},"
            "tile{loops=n sizes=32},tile{loops=k sizes=4},"
            "prefetch{operand=a loop=m ahead=1 during=k}",
        ),
        (
            "tile{loops=n,m sizes=128,2 edges=peel}",
            "promote{operand=b to=l3 layout=panel:70},prepack{operand=b},"
            "tile{loops=n,m sizes=70,2}",
        ),
        (
            "tile{loops=m,k sizes=96,256},promote{operand=a to=l3 layout=panel:12x4 as=i16},"
            "tile{loops=n sizes=256},promote{operand=b to=l2 layout=panel:32x4 as=i16},"
            "tile{loops=m,n sizes=12,32}",
            "promote{operand=b to=l3 layout=panel:32x4 as=i16},prepack{operand=b},"
            "tile{loops=m,k sizes=96,256},promote{operand=a to=l3 layout=panel:12x4 as=i16},"
            "tile{loops=n sizes=32},tile{loops=m,n sizes=12,32}",
        ),
    ],
)
def test_schedules_with_b_packed_first(schedule: str, expected: str):
    assert prepacked_text(Schedule.parse(schedule), 70) == expected.replace("},", "}\n")


def test_a_library_has_both_functions():
    gemm = Gemm(m=9, n=20, k=6)
    lowered = gemmir.lower(gemm, schedule=OWN)
    text = header(lowered.artifact.signature)
    assert (
        "int32_t gemm_pack_b(\n    const float *__restrict b,\n    float *__restrict packed);"
        in text
    )
    assert "int32_t gemm_packed_b(" in text and "Packs b into 192 elements" in text


def test_a_library_is_called_with_a_packed_operand(tmp_path: Any):
    gemm = Gemm(m=9, n=20, k=6)
    lowered = gemmir.lower(gemm, schedule=OWN)
    path = tmp_path / "gemm.so"
    path.write_bytes(shared_library(lowered.assemble()))
    library = ctypes.CDLL(str(path))
    a, b, c = arrays_of(gemm)
    packed = np.full(192, 7, np.float32)
    pointers = [x.ctypes.data_as(ctypes.c_void_p) for x in (a, b, c, packed)]
    assert library.gemm_pack_b(pointers[1], pointers[3]) == 0
    assert library.gemm_packed_b(pointers[0], pointers[3], pointers[2]) == 0
    kernel: Kernel = lowered.compile()
    np.testing.assert_array_equal(c, kernel(a, b))
