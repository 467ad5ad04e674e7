"""Object files into this process: calling them, keeping them, and refusing what cannot run."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gemmir.backend import Artifact, Loaded, backend_for, backend_kinds
from gemmir.backends.cpu import openmp
from gemmir.backends.cpu.assemble import assemble
from gemmir.backends.cpu.load import load
from gemmir.errors import BackendError, MissingError
from gemmir.signature import Signature

Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def run(function: Loaded, arrays: Arrays) -> None:
    a, b, c = arrays
    c.fill(np.nan)
    assert function(*(array.ctypes.data for array in arrays)) == 0
    np.testing.assert_array_equal(c, 2 * a + b)


def test_a_loaded_function_runs(serial: Artifact, arrays: Arrays):
    run(load(assemble(serial), serial.signature), arrays)


def test_the_backend_is_found_by_name(serial: Artifact, arrays: Arrays):
    backend = backend_for("cpu")
    run(backend.load(backend.assemble(serial), serial.signature), arrays)
    assert "cpu" in backend_kinds() and "llvm" not in backend_kinds()
    with pytest.raises(MissingError, match=r"GEM0601.*'cpx'.*use (cpu|ptx)"):
        backend_for("cpx")


def test_code_lives_as_long_as_what_was_loaded(serial: Artifact, arrays: Arrays):
    code = assemble(serial)
    kept = [load(code, serial.signature) for _ in range(8)]
    del kept[::2]
    gc.collect()
    for function in kept:
        run(function, arrays)


def test_loading_is_quick_after_the_first_time(serial: Artifact):
    code = assemble(serial)
    load(code, serial.signature)
    times: list[float] = []
    for _ in range(10):
        start = time.perf_counter()
        load(code, serial.signature)
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-3


CROWDED = """
import ctypes, mmap, sys
from pathlib import Path
from gemmir.backends.cpu.load import link

libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_size_t
libc.mmap.argtypes = [ctypes.c_size_t] * 2 + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_size_t] * 2

def reserve(size):  # addresses without memory: private, anonymous, not reserved in swap
    return libc.mmap(0, size, 0, 0x4022, -1, 0)

code = Path(sys.argv[1]).read_bytes()
link(code, ["one"], {})  # what is loaded with the first object file is loaded now
SIZE = 8 << 30
large = reserve(SIZE)
while reserve(2 * mmap.PAGESIZE) > large:
    pass  # no two free pages are left together above
for page in range(3, 23, 2):
    libc.munmap(large + SIZE - page * mmap.PAGESIZE, mmap.PAGESIZE)
library = link(code, ["one"], {})
print(ctypes.CFUNCTYPE(ctypes.c_double)(library["one"])())
"""
"""A process with holes of one page, and all other free addresses 8 GiB from them."""

STORE = "store volatile i64 0, ptr %p\n"
LONG = f"""
define double @one() {{
  ret double 1.5625
}}
define void @more(ptr %p) {{
  {STORE * 9999}
  ret void
}}"""
"""A page of constants, many of code."""


@pytest.mark.skipif(sys.platform != "linux", reason="maps addresses as Linux does")
def test_code_and_constants_lie_together(serial: Artifact, tmp_path: Path):
    (tmp_path / "one.o").write_bytes(assemble(replace(serial, text=LONG)))
    command = [sys.executable, "-c", CROWDED, tmp_path / "one.o"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("1.5625\n", 0), done.stderr


def test_several_threads_may_compile_and_run_at_once(serial: Artifact, arrays: Arrays):
    barrier = threading.Barrier(4)
    a, b, _ = arrays

    def road(_: int) -> None:
        barrier.wait()
        for _ in range(5):
            mine = (a, b, np.empty_like(a))
            run(load(assemble(serial), serial.signature), mine)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(road, range(4)))


def test_an_unknown_symbol_is_refused(serial: Artifact):
    wrong = replace(serial.signature, symbol="other")
    with pytest.raises(BackendError, match=r"GEM0403.*other"):
        load(assemble(serial), wrong)


def test_an_unresolved_call_is_refused(serial: Artifact, capfd: pytest.CaptureFixture[str]):
    text = """declare i32 @no_such_function()
    define i32 @axpy(ptr %a, ptr %b, ptr %c) {
      %x = call i32 @no_such_function()
      ret i32 %x
    }"""
    with pytest.raises(BackendError, match=r"GEM0403.*axpy.*call only what this process has"):
        load(assemble(replace(serial, text=text)), serial.signature)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("length", [100, 600, -8])
def test_a_truncated_object_file_is_refused(serial: Artifact, length: int):
    with pytest.raises(BackendError, match="GEM0403"):
        load(assemble(serial)[:length], serial.signature)


@pytest.mark.parametrize("code", [b"", b"\x7fELF", b"not an object file at all" * 9])
def test_other_bytes_are_refused(code: bytes, signature: Signature):
    with pytest.raises(BackendError, match=f"GEM0403.*these {len(code)} bytes"):
        load(code, signature)


def test_another_architecture_is_refused(serial: Artifact):
    other = "neoverse-n1" if "x86" in _own_triple() else "znver3"
    text = "define i32 @axpy(ptr %a, ptr %b, ptr %c) {\n ret i32 0\n}"
    code = assemble(replace(serial, text=text, cpu=other))
    with pytest.raises(BackendError, match=r"GEM0403.*is for (aarch64|x86_64), and this computer"):
        load(code, serial.signature)


def _own_triple() -> str:
    from gemmir.machine.host import host_machine

    return host_machine().llvm_triple


def test_threaded_code_runs_with_the_runtime_that_is_found(threaded: Artifact, arrays: Arrays):
    code = assemble(threaded)
    assert openmp.is_needed(code)
    run(load(code, threaded.signature), arrays)


def test_serial_code_needs_no_runtime(serial: Artifact, monkeypatch: pytest.MonkeyPatch):
    def fail() -> None:
        raise AssertionError("asked for a runtime")

    monkeypatch.setattr(openmp, "addresses", fail)
    code = assemble(serial)
    assert not openmp.is_needed(code)
    load(code, serial.signature)


def test_a_missing_runtime_says_what_to_install(
    threaded: Artifact, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(openmp, "_candidates", lambda: iter(["/no/such/libgomp.so.1"]))
    openmp.runtime.cache_clear()
    try:
        with pytest.raises(MissingError, match=r"GEM0604.*install gemmir\[openmp\]"):
            load(assemble(threaded), threaded.signature)
    finally:
        openmp.runtime.cache_clear()


def test_a_library_without_all_symbols_is_passed_over(monkeypatch: pytest.MonkeyPatch):
    real = openmp.runtime()
    libc = ctypes.CDLL(None)._name
    monkeypatch.setattr(openmp, "_candidates", lambda: iter([libc, "libc.so.6", real._name]))
    openmp.runtime.cache_clear()
    try:
        assert hasattr(openmp.runtime(), "GOMP_parallel")
    finally:
        openmp.runtime.cache_clear()


def test_runtimes_of_wheels_are_seen_among_mapped_files(tmp_path: Path):
    maps = "\n".join(
        [
            "7f00-7f01 r-xp 0 00:1 5  /site/numpy.libs/libgomp-24e2ab19.so.1.0.0",
            "7f01-7f02 rw-p 0 00:1 5  /site/numpy.libs/libgomp-24e2ab19.so.1.0.0",
            "7f02-7f03 r-xp 0 00:1 6  /usr/lib/libcompress.so.1",
            "7f03-7f04 r-xp 0 00:1 7  /opt/lib/libiomp5.so",
            "7f03-7f04 r-xp 0 00:1 8  /opt/lib/libomp.so.5",
            "7f05-7f06 rw-p 0 00:0 0  [heap]",
        ]
    )
    assert openmp.mapped(maps) == [
        "/site/numpy.libs/libgomp-24e2ab19.so.1.0.0",
        "/opt/lib/libiomp5.so",
        "/opt/lib/libomp.so.5",
    ]
