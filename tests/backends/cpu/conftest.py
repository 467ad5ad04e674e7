"""A small hand-written kernel: c = 2 * a + b on four rows of eight floats, in LLVM text."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from gemmir.backend import Artifact
from gemmir.machine.host import host_machine
from gemmir.signature import Access, Argument, Signature

BODY = """
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %next, %loop ]
  %pa = getelementptr float, ptr %a, i64 %i
  %pb = getelementptr float, ptr %b, i64 %i
  %pc = getelementptr float, ptr %c, i64 %i
  %x = load <8 x float>, ptr %pa, align 4
  %y = load <8 x float>, ptr %pb, align 4
  %xx = fadd <8 x float> %x, %x
  %z = fadd <8 x float> %xx, %y
  store <8 x float> %z, ptr %pc, align 4
  %next = add i64 %i, 8
  %done = icmp eq i64 %next, 32
  br i1 %done, label %out, label %loop
out:
  ret i32 0
"""

SERIAL = f"""
define i32 @axpy(ptr noalias %a, ptr noalias %b, ptr noalias %c) {{{BODY}}}
"""

THREADED = f"""
declare void @GOMP_parallel(ptr, ptr, i32, i32)
declare i32 @omp_get_thread_num()
declare i32 @omp_get_num_threads()
define internal i32 @work(ptr noalias %a, ptr noalias %b, ptr noalias %c) {{{BODY}}}
define internal void @body(ptr %context) {{
  %t = call i32 @omp_get_thread_num()
  %n = call i32 @omp_get_num_threads()
  %last = sub i32 %n, 1
  %mine = icmp eq i32 %t, %last
  br i1 %mine, label %do, label %skip
do:
  %pb = getelementptr ptr, ptr %context, i64 1
  %pc = getelementptr ptr, ptr %context, i64 2
  %a = load ptr, ptr %context
  %b = load ptr, ptr %pb
  %c = load ptr, ptr %pc
  %s = call i32 @work(ptr %a, ptr %b, ptr %c)
  br label %skip
skip:
  ret void
}}
define i32 @axpy(ptr %a, ptr %b, ptr %c) {{
  %context = alloca [3 x ptr]
  %pb = getelementptr ptr, ptr %context, i64 1
  %pc = getelementptr ptr, ptr %context, i64 2
  store ptr %a, ptr %context
  store ptr %b, ptr %pb
  store ptr %c, ptr %pc
  call void @GOMP_parallel(ptr @body, ptr %context, i32 2, i32 0)
  ret i32 0
}}
"""

Floats = npt.NDArray[np.float32]


def matrix(name: str, access: Access) -> Argument:
    return Argument(name=name, dtype="f32", shape=(4, 8), strides=(8, 1), access=access)


@pytest.fixture
def signature() -> Signature:
    arguments = (matrix("a", "read"), matrix("b", "read"), matrix("c", "write"))
    return Signature(symbol="axpy", arguments=arguments)


@pytest.fixture
def serial(signature: Signature) -> Artifact:
    cpu = host_machine().llvm_cpu
    return Artifact(kind="llvm", text=SERIAL, signature=signature, cpu=cpu)


@pytest.fixture
def threaded(signature: Signature) -> Artifact:
    cpu = host_machine().llvm_cpu
    return Artifact(kind="llvm", text=THREADED, signature=signature, cpu=cpu)


@pytest.fixture
def arrays() -> tuple[Floats, Floats, Floats]:
    a = np.arange(32, dtype=np.float32).reshape(4, 8)
    return a, a[::-1].copy(), np.full((4, 8), np.nan, np.float32)
