"""Wrong arguments: who is told, with which number, and that C stays as it was."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from gemmir.backends.cpu.blas import CONVENTIONS, Convention
from tests.blas.conftest import COLUMN, ROW, Library

RECORDER: Final = r"""
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <stdint.h>

#ifdef FORTRAN
void xerbla_(const char *name, const int32_t *info, size_t length) {
  printf("xerbla_ %.*s %d\n", (int)length, name, *info);
}
void xerbla_64_(const char *name, const int64_t *info, size_t length) {
  printf("xerbla_64_ %.*s %ld\n", (int)length, name, (long)*info);
}
#endif

#ifdef EXCHANGES
int RowMajorStrg = 7;
#endif

#ifdef C
void cblas_xerbla(int info, const char *name, const char *format, ...) {
#ifdef EXCHANGES
  printf("cblas_xerbla %s %d %d%s\n", name, info, RowMajorStrg, format);
#else
  printf("cblas_xerbla %s %d%s\n", name, info, format);
#endif
}
#endif

#ifdef MKL
void MKL_Get_Version(void *version) { (void)version; }
#endif
"""
"""What a program may have to be told of errors, switched on by macros."""

CALLER: Final = r"""
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef INTEGER integer;
void FORTRAN_NAME(const char *, const char *, const integer *, const integer *, const integer *,
  const float *, const float *, const integer *, const float *, const integer *, const float *,
  float *, const integer *, size_t, size_t);
void C_NAME(int, int, int, integer, integer, integer, float, const float *, integer,
  const float *, integer, float, float *, integer);

int main(int count, char **given) {
  static float a[64], b[64], c[64];
  integer x[9];
  float one = 1;
  setvbuf(stdout, NULL, _IONBF, 0);
  for (int i = 0; i < 64; ++i) c[i] = 5;
  for (int i = 0; i < 9; ++i) x[i] = (integer)atol(given[i + 2]);
  if (given[1][0] == 'f') {
    char ta = (char)x[1], tb = (char)x[2];
    FORTRAN_NAME(&ta, &tb, &x[3], &x[4], &x[5], &one, a, &x[6], b, &x[7], &one, c, &x[8], 1, 1);
  } else {
    C_NAME((int)x[0], (int)x[1], (int)x[2], x[3], x[4], x[5], 1, a, x[6], b, x[7], 1, c, x[8]);
  }
  for (int i = 0; i < 64; ++i) if (c[i] != 5) return 9;
  return count != 11;
}
"""
"""Calls with integers from the command line: order, transposes, m, n, k, lda, ldb, ldc."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program linked with the library and, by macros, what it has to be told of errors."""

    path: Path

    def said(self, interface: str, *arguments: int) -> tuple[str, str]:
        """What a call printed: what the program was told, and what went to standard error."""
        done = subprocess.run(
            [self.path, interface, *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
        return done.stdout.strip(), done.stderr.strip()


def linked(
    library: Library, folder: Path, *macros: str, convention: Convention = CONVENTIONS[0]
) -> Program:
    (folder / "caller.c").write_text(CALLER)
    (folder / "recorder.c").write_text(RECORDER)
    names = {
        "INTEGER": "int32_t" if convention.integer == "i32" else "int64_t",
        "FORTRAN_NAME": f"{convention.prefix}sgemm{convention.fortran}",
        "C_NAME": f"{convention.prefix}cblas_sgemm{convention.cblas}",
    }
    defined = [f"-D{name}={value}" for name, value in names.items()]
    path = folder / "main"
    subprocess.run(
        [
            "cc",
            *defined,
            *(f"-D{macro}" for macro in macros),
            "-rdynamic",
            "caller.c",
            "recorder.c",
            str(library.path),
            f"-Wl,-rpath,{library.path.parent}",
            "-o",
            str(path),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return Program(path=path)


N, T, C = map(ord, "NTC")

FORTRAN: Final = [
    (1, (0, ord("X"), N, 2, 2, 2, 2, 2, 2)),
    (2, (0, N, ord("/"), 2, 2, 2, 2, 2, 2)),
    (3, (0, N, N, -1, 2, 2, 2, 2, 2)),
    (4, (0, N, N, 2, -1, 2, 2, 2, 2)),
    (5, (0, N, N, 2, 2, -1, 2, 2, 2)),
    (8, (0, N, N, 3, 2, 2, 2, 2, 3)),
    (8, (0, T, N, 3, 2, 4, 3, 4, 3)),
    (8, (0, N, N, 0, 0, 0, 0, 1, 1)),
    (10, (0, N, N, 2, 2, 3, 2, 2, 2)),
    (10, (0, N, C, 2, 3, 2, 2, 2, 2)),
    (13, (0, N, N, 3, 2, 2, 3, 2, 2)),
    (1, (0, 0, 0, -1, -1, -1, 0, 0, 0)),
    (3, (0, N, N, -1, -1, -1, 0, 0, 0)),
]
"""The number of the first wrong argument of `sgemm_`, and calls that have one."""


@pytest.fixture(scope="module")
def told(library: Library, tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A program that has `xerbla_` and a `cblas_xerbla` of its own."""
    return linked(library, tmp_path_factory.mktemp("told"), "FORTRAN", "C")


@pytest.mark.parametrize(("number", "arguments"), FORTRAN)
def test_fortran_is_told_the_number_of_the_argument(
    told: Program, number: int, arguments: tuple[int, ...]
) -> None:
    assert told.said("f", *arguments) == (f"xerbla_ SGEMM  {number}", "")


def test_right_arguments_are_told_nothing(told: Program) -> None:
    assert told.said("f", 0, N, N, 2, 0, 2, 2, 2, 2) == ("", "")
    assert told.said("c", ROW, 111, 112, 0, 2, 2, 2, 2, 2) == ("", "")


CBLAS: Final = [
    (1, (100, 111, 111, 2, 2, 2, 2, 2, 2)),
    (2, (COLUMN, 110, 111, 2, 2, 2, 2, 2, 2)),
    (3, (ROW, 111, 114, 2, 2, 2, 2, 2, 2)),
    (4, (COLUMN, 111, 111, -1, 2, 2, 2, 2, 2)),
    (4, (ROW, 111, 111, -1, 2, 2, 2, 2, 2)),
    (5, (COLUMN, 111, 111, 2, -1, 2, 2, 2, 2)),
    (5, (ROW, 111, 111, 2, -1, 2, 2, 2, 2)),
    (6, (ROW, 111, 111, 2, 2, -1, 2, 2, 2)),
    (9, (COLUMN, 111, 111, 3, 2, 2, 2, 2, 3)),
    (9, (ROW, 111, 111, 2, 2, 3, 2, 2, 2)),
    (9, (ROW, 112, 111, 3, 2, 2, 2, 2, 2)),
    (11, (COLUMN, 111, 111, 2, 2, 3, 2, 2, 2)),
    (11, (ROW, 111, 111, 2, 3, 2, 2, 2, 3)),
    (11, (ROW, 111, 113, 2, 2, 3, 3, 2, 2)),
    (14, (COLUMN, 111, 111, 3, 2, 2, 3, 2, 2)),
    (14, (ROW, 111, 111, 2, 3, 2, 2, 3, 2)),
]
"""The same of `cblas_sgemm`."""

EXCHANGED: Final = {4: 5, 5: 4, 9: 11, 11: 9}


@pytest.mark.parametrize(("number", "arguments"), CBLAS)
def test_c_is_told_the_number_of_the_argument(
    told: Program, number: int, arguments: tuple[int, ...]
) -> None:
    assert told.said("c", *arguments) == (f"cblas_xerbla cblas_sgemm {number}", "")


@pytest.mark.parametrize(("number", "arguments"), CBLAS)
def test_what_exchanges_operands_itself_is_told_of_the_call_that_it_expects(
    library: Library, tmp_path: Path, number: int, arguments: tuple[int, ...]
) -> None:
    """The `cblas_xerbla` of the reference CBLAS counts anew where `RowMajorStrg` is set."""
    is_row = arguments[0] == ROW
    expected = EXCHANGED.get(number, number) if is_row else number
    program = linked(library, tmp_path, "C", "EXCHANGES")
    assert program.said("c", *arguments)[0] == f"cblas_xerbla cblas_sgemm {expected} {int(is_row)}"


def test_the_cblas_xerbla_of_mkl_has_other_arguments_and_is_not_called(
    library: Library, tmp_path: Path
) -> None:
    program = linked(library, tmp_path, "C", "FORTRAN", "MKL")
    assert program.said("c", *CBLAS[0][1])[0] == "xerbla_ cblas_sgemm 1"


def test_without_anyone_to_tell_it_is_printed(library: Library, tmp_path: Path) -> None:
    program = linked(library, tmp_path)
    message = " ** On entry to {} parameter number {} had an illegal value"
    out, err = program.said("f", *FORTRAN[5][1])
    assert (out, f" {err}") == ("", message.format("SGEMM ", 8))
    out, err = program.said("c", *CBLAS[14][1])
    assert (out, f" {err}") == ("", message.format("cblas_sgemm", 14))


def test_integers_of_64_bits_are_told_as_such(library: Library, tmp_path: Path) -> None:
    program = linked(library, tmp_path, "FORTRAN", convention=CONVENTIONS[1])
    huge = 2**32  # a size whose lower half is 0
    assert program.said("f", 0, N, N, huge, 2, 2, 2, 2, 2)[0] == "xerbla_64_ SGEMM  8"
    assert program.said("c", ROW, 111, 111, 2, 2, 2, 1, 2, 2)[0] == "xerbla_64_ cblas_sgemm 9"
