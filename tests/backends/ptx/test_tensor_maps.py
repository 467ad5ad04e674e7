"""Tensor maps: how they are encoded, where they lie among the parameters, and what is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

import gemmir
from gemmir.arrays import make_operands
from gemmir.backends.ptx.driver import Memory, libcuda
from gemmir.backends.ptx.image import Image
from gemmir.backends.ptx.load import Program
from gemmir.cache import ObjectCache
from gemmir.errors import DeviceError
from gemmir.launch import KernelLaunch, Launch, TensorMap
from gemmir.reference import reference_of_gemm
from tests.backends.ptx.conftest import Install
from tests.backends.ptx.fakes import FakeCuda, Status, encoded
from tests.backends.ptx.fakes import libcuda as fake_libcuda
from tests.backends.ptx.test_load import HEAD, entry, program

A_MAP = TensorMap(
    argument=0,
    item="bf16",
    extents=(4096, 1000),
    strides_bytes=(8192,),
    box=(64, 128),
    swizzle_bytes=128,
)
TF32_MAP = TensorMap(
    argument=2,
    item="tf32",
    extents=(32, 100, 3),
    strides_bytes=(128, 12800),
    box=(8, 256, 1),
    swizzle_bytes=32,
    offset_bytes=64,
)

A_PARAMETER = ".param .align 64 .b8 tma_a[128], "
MAPS = f"{A_PARAMETER}.param .align 64 .b8 tma_tf32[128], "
TMA = Image(
    gpu="sm_90a",
    launch=Launch(
        kernels=(
            KernelLaunch(
                symbol="tma",
                blocks=132,
                threads=384,
                dynamic_shared_bytes=230464,
                tensor_maps=(A_MAP, TF32_MAP),
                cluster=2,
            ),
        ),
        workspace_bytes=(64,),
    ),
    ptx=(HEAD + entry("tma", 0, 1, workspaces=1).replace("tma(", f"tma({MAPS}", 1)).encode(),
)

SIX = (16,) * 6

NO_MODES = (0, 3, 2, 0)
"""No interleave, a swizzle of 128 bytes, promotion to 128 bytes in the L2, zeros outside."""


def with_map(tensor_map: TensorMap, **changed: Any) -> Image:
    (kernel,) = TMA.launch.kernels
    launch = replace(kernel, tensor_maps=(tensor_map,), **changed)
    text = HEAD + entry("tma", 0, 1).replace("tma(", f"tma({A_PARAMETER}", 1)
    return replace(TMA, launch=Launch(kernels=(launch,)), ptx=text.encode())


def bound(made: Program) -> tuple[list[Memory], Any]:
    memories = [Memory(made.driver, 0, 128) for _ in range(2)]
    return memories, made.bind([memory.address for memory in memories], gpu=0)


def test_maps_come_before_the_pointers(install: Install):
    cuda = install(FakeCuda(runs=False))
    made = program(TMA)
    (a, c), call = bound(made)
    (workspace,) = (address for address in cuda.memory if address not in (a.address, c.address))
    assert cuda.did("encode") == [(a.address,), (workspace + 64,)]
    call()
    first = encoded(1, a.address, (4096, 1000), (8192,), (64, 128), NO_MODES)
    last = encoded(11, workspace + 64, (32, 100, 3), (128, 12800), (8, 256, 1), (0, 1, 2, 0))
    pointers = [address.to_bytes(8, "little") for address in (a.address, c.address, workspace)]
    assert cuda.parameters == [[first, last, *pointers]]
    assert cuda.did("launch") == [("tma", 1, 230464)]
    assert cuda.did("attribute") == [("dynamic", 230464)]


def test_maps_are_made_once_for_all_calls(install: Install):
    cuda = install(FakeCuda(runs=False))
    _kept, call = bound(program(TMA))
    for _ in range(3):
        assert call() == 0
    assert len(cuda.did("launch")) == 3
    assert len(cuda.did("encode")) == 2
    assert cuda.parameters[0] == cuda.parameters[2]


@pytest.mark.parametrize(
    ("item", "kind", "swizzle", "mode"),
    [("e4m3", 0, 0, 0), ("i8", 0, 32, 1), ("f16", 1, 64, 2), ("f32", 2, 128, 3), ("f64", 4, 64, 2)],
)
def test_what_is_not_rounded_is_copied_as_unsigned_numbers(
    install: Install, item: str, kind: int, swizzle: int, mode: int
):
    cuda = install(FakeCuda(runs=False))
    box = (32 // replace(A_MAP, item=item).item_bytes, 8)
    image = with_map(replace(A_MAP, item=item, box=box, swizzle_bytes=swizzle))
    (a, _c), call = bound(program(image))
    call()
    modes = (0, mode, 2, 0)
    assert cuda.parameters[0][0] == encoded(kind, a.address, (4096, 1000), (8192,), box, modes)


@pytest.mark.parametrize(
    ("code", "said", "changes"),
    [
        ("GEM0527", "0 extents", {"extents": (), "strides_bytes": (), "box": ()}),
        (
            "GEM0527",
            "6 extents",
            {"extents": (8,) * 6, "strides_bytes": (16,) * 5, "box": (8,) * 6},
        ),
        ("GEM0527", "2 extents, 2 strides", {"strides_bytes": (8192, 8192)}),
        ("GEM0527", "a box of 1", {"box": (64,)}),
        ("GEM0528", "of 0x1000 bf16", {"extents": (0, 1000)}),
        ("GEM0528", "1 to 4294967296", {"extents": (2**32 + 1, 1000)}),
        ("GEM0529", "strides of 8200 bytes", {"strides_bytes": (8200,)}),
        ("GEM0529", r"below 2\*\*40", {"strides_bytes": (2**40,)}),
        ("GEM0530", "boxes of 64x257", {"box": (64, 257)}),
        ("GEM0530", "1 to 256", {"box": (64, 0)}),
        ("GEM0531", "rows of 8 bytes", {"box": (4, 8)}),
        ("GEM0531", "swizzled over 128 bytes has rows of 256 bytes", {"box": (128, 8)}),
        ("GEM0531", "swizzled over 100 bytes has", {"swizzle_bytes": 100}),
        ("GEM0532", "no multiple of 16 bytes", {"offset_bytes": 8}),
    ],
)
def test_a_map_that_cannot_be_is_refused_with_its_numbers(
    cuda: FakeCuda, code: str, said: str, changes: dict[str, Any]
):
    with pytest.raises(DeviceError, match=f"{code}.*{said}"):
        bound(program(with_map(replace(A_MAP, **changes))))
    assert cuda.did("encode") == []


def test_what_the_driver_refuses_is_described(cuda: FakeCuda):
    cuda.failing["encode"] = Status.INVALID_VALUE
    with pytest.raises(DeviceError, match=r"GEM0533.*4096x1000 bf16 .*boxes of 64x128.*status 1"):
        bound(program(TMA))


def test_a_driver_without_tensor_maps_is_too_old(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch):
    old = fake_libcuda(cuda)
    del old.cuTensorMapEncodeTiled
    monkeypatch.setattr(libcuda, "library", lambda: old)
    with pytest.raises(DeviceError, match=r"GEM0534.*CUDA 12"):
        bound(program(TMA))


def test_blocks_fill_whole_clusters(cuda: FakeCuda):
    with pytest.raises(DeviceError, match=r"GEM0535.*tma has 131 blocks.*clusters of 2"):
        bound(program(with_map(A_MAP, blocks=131)))


def test_a_call_enters_the_context_where_another_is_current(install: Install):
    cuda = install(FakeCuda(gpus=(("One", (9, 0)), ("Two", (9, 0))), runs=False))
    _kept, call = bound(program(with_map(A_MAP)))
    cuda.stack.append(1)
    call()
    assert cuda.stack == [1]
    other = threading.Thread(target=call)
    other.start()
    other.join()
    cuda.stack[:] = [0]
    call()
    assert cuda.stack == [0]
    assert len(cuda.did("launch")) == 3


WARPGROUPS = """
tile{loops=m,n sizes=64,32 over=blocks}
persist{blocks=2}
tile{loops=m sizes=64 over=warpgroups}
promote{operand=c to=registers}
tile{loops=k sizes=64}
promote{operand=a to=shared layout=swizzle:128}
promote{operand=b to=shared layout=swizzle:128}
promote{operand=c to=shared layout=swizzle:64}
pipeline{loop=k stages=2 with=tma specialize=true}
vectorize{with=wgmma}
"""


def test_warpgroups_multiply_what_their_maps_say(cuda: FakeCuda):
    """Three maps, of A, B and C, each with edges."""
    gemm = gemmir.Gemm(m=72, n=40, k=136, dtype="bf16", out="bf16", trans_b=True)
    lowered = gemmir.lower(gemm, "cuda:sm_90a", WARPGROUPS)
    assert lowered.artifact.launch is not None
    (launch,) = lowered.artifact.launch.kernels
    assert sorted(t.argument for t in launch.tensor_maps) == [0, 1, 2]
    kernel = lowered.compile(ObjectCache(None))
    operands = make_operands(kernel.signature)
    before = operands.copy()
    *inputs, out = operands.arrays
    kernel(*inputs, out=out)
    wrong = reference_of_gemm(gemm, before).compare(out).first_wrong
    assert wrong is None, str(wrong)
    assert operands.damage(before) == ""
    assert len(cuda.did("encode")) == 3
