"""memref and vector: views, buffers, transfers, and what may not be done with them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.evaluate import EvaluationError

Array = npt.NDArray[Any]
Run = Callable[..., None]

INDICES = (
    "\n".join(f"%i{i} = arith.constant {i} : index" for i in range(13))
    + """
%minus = arith.constant -1 : index
%pad = arith.constant 7.0 : f32
"""
)
PANELS = "memref<7x4xf32, #gemmir.panel<0, 3, 15>, #gemmir.space<l2>>"


def _iota(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def _fails(run: Run, code: str, op: str, arguments: str, body: str, *arrays: Array) -> str:
    with pytest.raises(EvaluationError) as caught:
        run(arguments, INDICES + body, *arrays)
    assert caught.value.code == code
    assert op in caught.value.message
    assert "\n" not in caught.value.message
    return caught.value.message


def test_load_and_store_reach_the_strided_array(run: Run) -> None:
    memory = _iota(3, 6)
    body = """
      %x = memref.load %m[%i2, %i1] : memref<3x4xf32, strided<[6, 1]>>
      memref.store %x, %m[%i0, %i3] : memref<3x4xf32, strided<[6, 1]>>
    """
    run("%m: memref<3x4xf32, strided<[6, 1]>>", INDICES + body, memory[:, :4])
    assert memory[0, 3] == 13
    assert memory[0, 4] == 4


def test_subviews_write_through(run: Run) -> None:
    m = _iota(2, 5, 6)
    body = """
      %t = memref.subview %m[%i1, 1, %i2] [1, 3, %i4] [1, 1, 1]
        : memref<2x5x6xf32> to memref<3x?xf32, strided<[6, 1], offset: ?>>
      %u = memref.subview %t[%i1, %i3] [1, 1] [1, 1]
        : memref<3x?xf32, strided<[6, 1], offset: ?>> to memref<1x1xf32, strided<[6, 1], offset: ?>>
      memref.store %pad, %u[%i0, %i0] : memref<1x1xf32, strided<[6, 1], offset: ?>>
    """
    expected = m.copy()
    expected[1, 2, 5] = 7
    run("%m: memref<2x5x6xf32>", INDICES + body, m)
    np.testing.assert_array_equal(m, expected)


@pytest.mark.parametrize(
    ("offsets", "sizes"),
    [("%minus, 0", "2, 2"), ("4, 0", "2, 2"), ("0, %i4", "2, 2"), ("0, 0", "%minus, 2")],
)
def test_subview_outside_its_source(run: Run, offsets: str, sizes: str) -> None:
    shape = "x".join("?" if s[0] == "%" else s for s in sizes.split(", "))
    body = f"""
      %t = memref.subview %m[{offsets}] [{sizes}] [1, 1]
        : memref<5x5xf32> to memref<{shape}xf32, strided<[5, 1], offset: ?>>
    """
    _fails(run, "GEM0904", "memref.subview", "%m: memref<5x5xf32>", body, _iota(5, 5))


def test_empty_subview_at_the_end(run: Run) -> None:
    body = """
      %t = memref.subview %m[%i5, 0] [0, 5] [1, 1]
        : memref<5x5xf32> to memref<0x5xf32, strided<[5, 1], offset: ?>>
      gemmir.epilogue outs(%t : memref<0x5xf32, strided<[5, 1], offset: ?>>) {
      ^bb0(%x: f32):
        gemmir.yield %pad : f32
      }
    """
    m = _iota(5, 5)
    run("%m: memref<5x5xf32>", INDICES + body, m)
    np.testing.assert_array_equal(m, _iota(5, 5))


@pytest.mark.parametrize(
    ("sizes", "result"),
    [
        ("2, 2", "2x2xf32, strided<[4, 1]>"),
        ("2, 2", "2x3xf32, strided<[5, 1]>"),
        ("2, 2", "2x2xf32"),
        ("1, 2", "2xf32, strided<[2]>"),
        ("2, 2", "2xf32, strided<[1]>"),
    ],
)
def test_subview_type_must_tell_the_truth(run: Run, sizes: str, result: str) -> None:
    body = f"%t = memref.subview %m[0, 0] [{sizes}] [1, 1] : memref<5x5xf32> to memref<{result}>"
    _fails(run, "GEM0907", "memref.subview", "%m: memref<5x5xf32>", body, _iota(5, 5))


def test_subview_has_unit_strides(run: Run) -> None:
    body = """%t = memref.subview %m[0, 0] [2, 2] [1, 2]
      : memref<5x5xf32> to memref<2x2xf32, strided<[5, 2]>>"""
    _fails(run, "GEM0903", "memref.subview", "%m: memref<5x5xf32>", body, _iota(5, 5))


def test_reinterpret_cast_transposes_and_broadcasts(run: Run) -> None:
    body = """
      %t = memref.reinterpret_cast %m to offset: [0], sizes: [3, 2], strides: [1, 3]
        : memref<2x3xf32> to memref<3x2xf32, strided<[1, 3]>>
      %v = memref.reinterpret_cast %m to offset: [1], sizes: [3, 2], strides: [0, 1]
        : memref<2x3xf32> to memref<3x2xf32, strided<[0, 1], offset: 1>>
      gemmir.epilogue ins(%t, %v : memref<3x2xf32, strided<[1, 3]>>,
          memref<3x2xf32, strided<[0, 1], offset: 1>>) outs(%out : memref<3x2xf32>) {
      ^bb0(%x: f32, %y: f32, %old: f32):
        %s = arith.addf %x, %y : f32
        gemmir.yield %s : f32
      }
    """
    m, out = _iota(2, 3), np.full((3, 2), np.nan, np.float32)
    run("%m: memref<2x3xf32>, %out: memref<3x2xf32>", INDICES + body, m, out)
    np.testing.assert_array_equal(out, m.T + np.array([1, 2], np.float32))


def test_reinterpret_cast_outside_the_buffer(run: Run) -> None:
    body = """%t = memref.reinterpret_cast %m to offset: [1], sizes: [2, 3], strides: [3, 1]
      : memref<2x3xf32> to memref<2x3xf32, strided<[3, 1], offset: 1>>"""
    message = _fails(run, "GEM0904", "reinterpret_cast", "%m: memref<2x3xf32>", body, _iota(2, 3))
    assert "7 of 6" in message


def test_reinterpret_cast_of_a_tile(run: Run) -> None:
    body = """
      %s = memref.subview %m[1, 0] [1, 3] [1, 1]
        : memref<2x3xf32> to memref<1x3xf32, strided<[3, 1], offset: ?>>
      %t = memref.reinterpret_cast %s to offset: [0], sizes: [3], strides: [1]
        : memref<1x3xf32, strided<[3, 1], offset: ?>> to memref<3xf32>
    """
    _fails(run, "GEM0903", "reinterpret_cast", "%m: memref<2x3xf32>", body, _iota(2, 3))


@pytest.mark.parametrize(
    "access",
    [
        "%x = memref.load %m[%i2, %i0] : memref<2x3xf32>",
        "%x = memref.load %m[%i0, %minus] : memref<2x3xf32>",
        "memref.store %pad, %m[%i0, %i3] : memref<2x3xf32>",
    ],
)
def test_load_and_store_outside(run: Run, access: str) -> None:
    _fails(run, "GEM0904", "memref.", "%m: memref<2x3xf32>", access, _iota(2, 3))


def test_write_to_a_read_only_argument(run: Run) -> None:
    body = "memref.store %pad, %m[%i0] : memref<1xf32>"
    argument = '%m: memref<1xf32> {gemmir.name = "a", gemmir.access = "read"}'
    _fails(run, "GEM0909", "memref.store", argument, body, _iota(1))
    locked = _iota(1)
    locked.flags.writeable = False
    _fails(run, "GEM0909", "memref.store", "%m: memref<1xf32>", body, locked)


@pytest.mark.parametrize("layout", ["", ", #gemmir.panel<0, 2, 6>", ", strided<[4, 1]>"])
def test_new_memory_reads_as_nan(run: Run, layout: str) -> None:
    buffer = f"memref<2x3xf32{layout}>"
    body = f"""
      %b = memref.alloc() {{alignment = 64 : i64}} : {buffer}
      memref.store %pad, %b[%i0, %i1] : {buffer}
      %x = memref.load %b[%i0, %i1] : {buffer}
      %y = memref.load %b[%i1, %i0] : {buffer}
      memref.dealloc %b : {buffer}
      memref.store %x, %m[%i0] : memref<2xf32>
      memref.store %y, %m[%i1] : memref<2xf32>
    """
    m = _iota(2)
    run("%m: memref<2xf32>", INDICES + body, m)
    np.testing.assert_array_equal(m, [7, np.nan])


@pytest.mark.parametrize(
    "use",
    [
        "%x = memref.load %v[%i0] : memref<1xf32, strided<[1]>>",
        "memref.store %pad, %v[%i0] : memref<1xf32, strided<[1]>>",
        "memref.dealloc %b : memref<2xf32>",
    ],
)
def test_use_after_dealloc(run: Run, use: str) -> None:
    body = f"""
      %b = memref.alloc() : memref<2xf32>
      %v = memref.subview %b[0] [1] [1] : memref<2xf32> to memref<1xf32, strided<[1]>>
      memref.dealloc %b : memref<2xf32>
      {use}
    """
    _fails(run, "GEM0905", use.split("= ")[-1].split(" ")[0], "%m: memref<1xf32>", body, _iota(1))


def test_a_leak_names_the_alloc(run: Run) -> None:
    body = """
      %b = memref.alloc() : memref<2xf32>
      %c = memref.alloc() : memref<3xf32>
      memref.dealloc %c : memref<3xf32>
    """
    message = _fails(run, "GEM0905", "memref<2xf32>", "%m: memref<1xf32>", body, _iota(1))
    assert "1 buffers" in message


def test_only_the_heap_is_freed(run: Run) -> None:
    registers = "memref<2xf32, #gemmir.space<registers>>"
    run("%m: memref<1xf32>", f"%b = memref.alloc() : {registers}", _iota(1))
    run("%m: memref<1xf32>", f"%b = memref.alloca() : {registers}", _iota(1))
    _fails(run, "GEM0905", "dealloc", "%m: memref<1xf32>",
           "memref.dealloc %m : memref<1xf32>", _iota(1))  # fmt: skip


@pytest.mark.parametrize("dim", [0, 1])
def test_panels_hold_what_was_stored_element_by_element(run: Run, dim: int) -> None:
    """Through the panel memref, its prefix, and strided tiles of one panel: the same elements."""
    rows, columns = ((7, 4), (4, 7))[dim]
    panels = f"memref<{rows}x{columns}xf32, #gemmir.panel<{dim}, 3, 15>>"
    prefix = f"memref<{rows}x?xf32, #gemmir.panel<{dim}, 3, 15>>"
    strides = ("1, 3", "3, 1")[dim]
    tile = f"memref<{'3x2' if dim == 0 else '2x3'}xf32, strided<[{strides}], offset: ?>>"
    at, size = (("3, 1", "3, 2"), ("1, 3", "2, 3"))[dim]
    body = f"""
      %b = memref.alloc() : {panels}
      scf.for %i = %i0 to %i{rows} step %i1 {{
        scf.for %j = %i0 to %i{columns} step %i1 {{
          %x = memref.load %m[%i, %j] : memref<{rows}x{columns}xf32>
          memref.store %x, %b[%i, %j] : {panels}
        }}
      }}
      %p = memref.subview %b[0, 0] [{rows}, %i{columns}] [1, 1] : {panels} to {prefix}
      %t = memref.subview %p[{at}] [{size}] [1, 1] : {prefix} to {tile}
      gemmir.epilogue outs(%t : {tile}) {{
      ^bb0(%old: f32):
        %n = arith.negf %old : f32
        gemmir.yield %n : f32
      }}
      gemmir.epilogue ins(%p : {prefix}) outs(%m : memref<{rows}x{columns}xf32>) {{
      ^bb0(%x: f32, %old: f32):
        gemmir.yield %x : f32
      }}
      memref.dealloc %b : {panels}
    """
    m = 1 + _iota(rows, columns)
    expected = m.copy()
    expected[(slice(3, 6), slice(1, 3)) if dim == 0 else (slice(1, 3), slice(3, 6))] *= -1
    run(f"%m: memref<{rows}x{columns}xf32>", INDICES + body, m)
    np.testing.assert_array_equal(m, expected)


@pytest.mark.parametrize(
    ("offsets", "sizes", "result", "code"),
    [
        ("1, 0", "3, 4", "strided<[1, 3], offset: ?>", "GEM0906"),
        ("0, 0", "4, 4", "strided<[1, 3], offset: ?>", "GEM0906"),
        ("2, 0", "3, 4", "#gemmir.panel<0, 3, 15>", "GEM0906"),
        ("3, 0", "3, 4", "strided<[3, 1], offset: ?>", "GEM0907"),
        ("0, 0", "3, 4", "#gemmir.panel<0, 3, 30>", "GEM0907"),
        ("6, 0", "3, 4", "strided<[1, 3], offset: ?>", "GEM0904"),
        ("0, 0", "8, 4", "#gemmir.panel<0, 3, 15>", "GEM0904"),
    ],
)
def test_bad_tiles_of_panels(run: Run, offsets: str, sizes: str, result: str, code: str) -> None:
    shape = sizes.replace(", ", "x")
    body = f"""
      %b = memref.alloc() : {PANELS}
      %t = memref.subview %b[{offsets}] [{sizes}] [1, 1]
        : {PANELS} to memref<{shape}xf32, {result}, #gemmir.space<l2>>
    """
    _fails(run, code, "memref.subview", "%m: memref<1xf32>", body, _iota(1))


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("7x6xf32, #gemmir.panel<0, 3, 15>", "GEM0904"),
        ("7xf32, #gemmir.panel<0, 3, 15>", "GEM0903"),
    ],
)
def test_buffers_that_cannot_hold_panels(run: Run, kind: str, code: str) -> None:
    body = f"%b = memref.alloc() : memref<{kind}>"
    _fails(run, code, "memref.alloc", "%m: memref<1xf32>", body, _iota(1))


READ = """vector.transfer_read %m[{at}], %pad {{in_bounds = [{flags}]}}
  : memref<3x4xf32>, vector<2x3xf32>"""
WRITE = """vector.transfer_write %v, %out[{at}] {{in_bounds = [{flags}]}}
  : vector<2x3xf32>, memref<3x4xf32>"""


def _read(run: Run, at: str, flags: str) -> Array:
    body = f"""
      %v = {READ.format(at=at, flags=flags)}
      vector.transfer_write %v, %out[%i0, %i0] {{in_bounds = [true, true]}}
        : vector<2x3xf32>, memref<2x3xf32>
    """
    out = np.full((2, 3), np.nan, np.float32)
    run("%m: memref<3x4xf32>, %out: memref<2x3xf32>", INDICES + body, _iota(3, 4), out)
    return out


@pytest.mark.parametrize(
    ("i", "j", "flags"),
    [
        (1, 1, "true, true"),
        (2, 1, "false, true"),
        (1, 3, "true, false"),
        (2, 2, "false, false"),
        (3, 0, "false, true"),
        (5, 9, "false, false"),
    ],
)
def test_transfers_pad_and_clip(run: Run, i: int, j: int, flags: str) -> None:
    padded = np.full((9, 14), 7, np.float32)
    padded[:3, :4] = _iota(3, 4)
    np.testing.assert_array_equal(_read(run, f"%i{i}, %i{j}", flags), padded[i : i + 2, j : j + 3])
    write = WRITE.format(at=f"%i{i}, %i{j}", flags=flags)
    out = _iota(3, 4)
    expected = out.copy()
    expected[i : i + 2, j : j + 3] = 5
    body = f"%v = arith.constant dense<5.0> : vector<2x3xf32>\n{write}"
    run("%out: memref<3x4xf32>", INDICES + body, out)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("at", "flags"),
    [
        ("%i2, %i0", "true, true"),
        ("%i2, %i0", "true, false"),
        ("%i0, %i2", "false, true"),
        ("%minus, %i0", "false, false"),
        ("%minus, %i0", "true, true"),
    ],
)
def test_transfers_outside(run: Run, at: str, flags: str) -> None:
    read = "%v = " + READ.format(at=at, flags=flags)
    _fails(run, "GEM0904", "transfer_read", "%m: memref<3x4xf32>", read, _iota(3, 4))
    write = "%v = arith.constant dense<0.0> : vector<2x3xf32>\n" + WRITE.format(at=at, flags=flags)
    _fails(run, "GEM0904", "transfer_write", "%out: memref<3x4xf32>", write, _iota(3, 4))


def test_transfers_see_the_extents_of_the_view_not_of_the_buffer(run: Run) -> None:
    tile = "memref<2x?xf32, strided<[4, 1], offset: ?>>"
    body = f"""
      %t = memref.subview %m[1, 1] [2, %i2] [1, 1] : memref<3x4xf32> to {tile}
      %v = vector.transfer_read %t[%i0, %i0], %pad : {tile}, vector<2x3xf32>
      vector.transfer_write %v, %out[%i0, %i0] : vector<2x3xf32>, memref<2x3xf32>
    """
    out = np.full((2, 3), np.nan, np.float32)
    run("%m: memref<3x4xf32>, %out: memref<2x3xf32>", INDICES + body, _iota(3, 4), out)
    np.testing.assert_array_equal(out, [[5, 6, 7], [9, 10, 7]])


def test_a_vector_is_a_copy(run: Run) -> None:
    body = """
      %v = vector.transfer_read %m[%i0, %i0], %pad {in_bounds = [true, true]}
        : memref<1x2xf32>, vector<1x1xf32>
      memref.store %pad, %m[%i0, %i0] : memref<1x2xf32>
      vector.transfer_write %v, %m[%i0, %i1] {in_bounds = [true, true]}
        : vector<1x1xf32>, memref<1x2xf32>
    """
    m = np.array([[3, 4]], np.float32)
    run("%m: memref<1x2xf32>", INDICES + body, m)
    np.testing.assert_array_equal(m, [[7, 3]])


EXCHANGED = "permutation_map = affine_map<(d0, d1) -> (d1, d0)>"


def test_a_read_may_exchange_rows_and_columns(run: Run) -> None:
    body = f"""
      %v = vector.transfer_read %m[%i0, %i1], %pad {{{EXCHANGED}}}
        : memref<3x4xf32>, vector<2x3xf32>
      vector.transfer_write %v, %out[%i0, %i0] : vector<2x3xf32>, memref<2x3xf32>
    """
    out = np.full((2, 3), np.nan, np.float32)
    run("%m: memref<3x4xf32>, %out: memref<2x3xf32>", INDICES + body, _iota(3, 4), out)
    np.testing.assert_array_equal(out, [[1, 5, 9], [2, 6, 10]])


def test_writes_are_not_permuted(run: Run) -> None:
    body = f"""
      %v = arith.constant dense<0.0> : vector<2x3xf32>
      vector.transfer_write %v, %out[%i0, %i0] {{{EXCHANGED}}}
        : vector<2x3xf32>, memref<3x4xf32>"""
    _fails(run, "GEM0903", "transfer_write", "%out: memref<3x4xf32>", body, _iota(3, 4))
