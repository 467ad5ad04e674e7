"""Race BLAS libraries at squares, through `cblas_sgemm` or `cblas_dgemm`, on one core.

    gemmir blas -o libgemmirblas.so
    taskset -c 1 python bench/blas.py libgemmirblas.so /usr/lib/x86_64-linux-gnu/libopenblas.so.0

Prints GFLOP/s by the processor time of the thread, the best of several rounds in which the
libraries take turns. Each library is loaded for itself; one whose functions have a prefix
is named with it: `scipy_=libscipy_openblas.so`. A result that is not that of NumPy is an error.
Needs a C compiler: the calls are made by a loop in C. Set OPENBLAS_NUM_THREADS=1 and the like.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PLAIN, TRANSPOSED = 111, 112
SIZES: Final = "16,24,32,48,64,96,100,127,128,192,256,384,512,768,1024,1536,2048"
TYPES: Final = {"f32": ("s", np.float32, ctypes.c_float), "f64": ("d", np.float64, ctypes.c_double)}

LOOP: Final = r"""
#include <time.h>
typedef void gemm(int, int, int, int, int, int, T, const T *, int, const T *, int, T, T *, int);
static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}
double seconds(gemm *f, int ta, int tb, int n, const T *a, const T *b, T *c, int calls) {
  double start = now();
  for (int i = 0; i < calls; i++) f(101, ta, tb, n, n, n, 1, a, n, b, n, 0, c, n);
  return (now() - start) / calls;
}
"""
"""Calls a function so many times; returns the processor time of one call."""


@dataclass(frozen=True, kw_only=True)
class Race:
    """A type and transposes, and the loop that calls."""

    dtype: str
    transposes: str
    loop: Any

    def seconds(self, function: int, arrays: tuple[Array, Array, Array], calls: int) -> float:
        """The processor time of one of several calls."""
        ta, tb = (TRANSPOSED if t == "t" else PLAIN for t in self.transposes)
        a, b, c = (ctypes.c_void_p(array.ctypes.data) for array in arrays)
        return self.loop(ctypes.c_void_p(function), ta, tb, len(arrays[0]), a, b, c, calls)

    def check(self, name: str, function: int, arrays: tuple[Array, Array, Array]) -> None:
        """Stop where a library is wrong."""
        a, b, c = arrays
        self.seconds(function, arrays, 1)
        a, b = (x.T if t == "t" else x for x, t in zip((a, b), self.transposes, strict=True))
        bound = len(a) * np.finfo(c.dtype).eps * (abs(a) @ abs(b))
        if (abs(c - a.astype(np.float64) @ b.astype(np.float64)) > bound).any():
            raise SystemExit(f"{name} is wrong at {len(c)}")


def main() -> None:
    """Race the libraries of the command line."""
    parser = argparse.ArgumentParser(description="Race BLAS libraries.")
    parser.add_argument("libraries", nargs="+", help="paths, with PREFIX= where names have one")
    parser.add_argument("--dtype", choices=TYPES, default="f32")
    parser.add_argument("--transposes", choices=["nn", "nt", "tn", "tt"], default="nn")
    parser.add_argument("--sizes", default=SIZES)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.02, help="of each library in a round")
    given = parser.parse_args()
    letter, numpy_type, c_type = TYPES[given.dtype]
    race = Race(dtype=given.dtype, transposes=given.transposes, loop=_compiled(c_type))
    functions = {path: _function(path, f"cblas_{letter}gemm") for path in given.libraries}
    print("  n", *(Path(path).name.partition(".so")[0].rjust(22) for path in functions))
    for n in map(int, given.sizes.split(",")):
        random = np.random.default_rng(n)
        arrays = tuple(random.uniform(-1, 1, (n, n)).astype(numpy_type) for _ in "abc")
        assert len(arrays) == 3
        for path, function in functions.items():
            race.check(path, function, arrays)
        best = dict.fromkeys(functions, float("inf"))
        for _ in range(given.rounds):
            for path, function in functions.items():
                calls = max(int(given.seconds / race.seconds(function, arrays, 1)), 1)
                best[path] = min(best[path], race.seconds(function, arrays, calls))
        print(f"{n:4}", *(f"{2 * n**3 / s / 1e9:22.1f}" for s in best.values()), flush=True)


def _function(path: str, name: str) -> int:
    prefix, _, file = path.rpartition("=")
    mode = os.RTLD_NOW | os.RTLD_LOCAL | getattr(os, "RTLD_DEEPBIND", 0)
    found = ctypes.cast(getattr(ctypes.CDLL(file, mode), prefix + name), ctypes.c_void_p).value
    assert found is not None
    return found


def _compiled(c_type: type[ctypes.c_float] | type[ctypes.c_double]) -> Any:
    name = {ctypes.c_float: "float", ctypes.c_double: "double"}[c_type]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "loop.so")
        command = ["cc", "-O2", "-shared", "-fPIC", f"-DT={name}", "-x", "c", "-", "-o", str(path)]
        subprocess.run(command, input=LOOP, text=True, check=True)
        loop = ctypes.CDLL(str(path)).seconds
    loop.restype = ctypes.c_double
    return loop


if __name__ == "__main__":
    main()
