"""Signatures: read from IR, written as JSON, and refused where a function cannot be called."""

from __future__ import annotations

import json

import pytest

from gemmir.errors import BackendError
from gemmir.ir.context import parse_module
from gemmir.signature import Argument, Signature, signature_of


def read(name: str) -> str:
    return f'{{gemmir.name = "{name}", gemmir.access = "read"}}'


WRITE = '{gemmir.name = "c", gemmir.access = "write"}'


def function(*arguments: str, head: str = "func.func @gemm", result: str = "") -> str:
    declared = ", ".join(f"%x{i}: {argument}" for i, argument in enumerate(arguments))
    value = (
        f"%r = arith.constant 0 : {result}\nfunc.return %r : {result}"
        if result
        else ("func.return")
    )
    return f"{head}({declared}){f' -> {result}' if result else ''} {{\n{value}\n}}"


def test_a_signature_is_read_from_the_function():
    module = parse_module(
        function(
            f"memref<4x8xf32> {read('a')}",
            f"memref<2x8x3xf64, strided<[99, 12, 1]>> {read('b')}",
            f"memref<5x0xf32> {read('none')}",
            'memref<4xf32> {gemmir.name = "c", gemmir.access = "readwrite"}',
        )
        + "\nfunc.func private @helper()"
    )
    assert signature_of(module) == Signature(
        symbol="gemm",
        arguments=(
            Argument(name="a", dtype="f32", shape=(4, 8), strides=(8, 1), access="read"),
            Argument(name="b", dtype="f64", shape=(2, 8, 3), strides=(99, 12, 1), access="read"),
            Argument(name="none", dtype="f32", shape=(5, 0), strides=(0, 1), access="read"),
            Argument(name="c", dtype="f32", shape=(4,), strides=(1,), access="readwrite"),
        ),
    )


@pytest.mark.parametrize(
    ("code", "words", "text"),
    [
        ("GEM0410", r"0 public functions with a body \(none\)", "func.func private @helper()"),
        (
            "GEM0410",
            "2 public functions.*@one, @two",
            "\n".join(function(head=f"func.func @{n}") for n in ("one", "two")),
        ),
        ("GEM0411", "@gemm returns values", function(f"memref<4xf32> {WRITE}", result="i32")),
        ("GEM0412", "c is index", function(f"index {WRITE}")),
        ("GEM0412", "c has elements of type i64", function(f"memref<4xi64> {WRITE}")),
        ("GEM0412", "c .*static shape", function(f"memref<?x4xf32> {WRITE}")),
        ("GEM0412", "c .*static strides", function(f"memref<4xf32, strided<[?]>> {WRITE}")),
        (
            "GEM0412",
            "c .*offset 0",
            function(f"memref<4xf32, strided<[1], offset: 3>> {WRITE}"),
        ),
        (
            "GEM0412",
            "c .*strided layout",
            function(f"memref<6x4xf32, #gemmir.panel<0, 6, 24>> {WRITE}"),
        ),
        ("GEM0413", "1 arguments, 0 with attributes", function("memref<4xf32>")),
        ("GEM0413", "no gemmir.name", function('memref<4xf32> {gemmir.access = "read"}')),
        ("GEM0413", "no gemmir.access", function('memref<4xf32> {gemmir.name = "c"}')),
        (
            "GEM0413",
            "c: 'rw' is not an access; use read, write, readwrite",
            function('memref<4xf32> {gemmir.name = "c", gemmir.access = "rw"}'),
        ),
        ("GEM0414", "writes no argument", function(f"memref<4xf32> {read('a')}")),
        ("GEM0414", "writes no argument", function()),
        ("GEM0414", "writes c;", function(f"memref<4xf32> {WRITE}", f"memref<4xf32> {read('a')}")),
        ("GEM0414", "writes c, c", function(f"memref<4xf32> {WRITE}", f"memref<4xf32> {WRITE}")),
    ],
)
def test_what_cannot_be_called_is_refused(code: str, words: str, text: str):
    with pytest.raises(BackendError, match=f"{code}: .*{words}") as raised:
        signature_of(parse_module(text))
    assert raised.value.code == code


SIGNATURE = Signature(
    symbol="gemm",
    arguments=(
        Argument(name="a", dtype="f64", shape=(2, 3), strides=(5, 1), access="read"),
        Argument(name="c", dtype="f32", shape=(), strides=(), access="write"),
    ),
)


def test_json_brings_the_same_signature_back():
    assert Signature.from_json(SIGNATURE.to_json()) == SIGNATURE


@pytest.mark.parametrize(("field", "value"), [("dtype", "f24"), ("access", "rw"), ("shape", "x")])
def test_json_with_other_words_is_refused(field: str, value: str):
    fields = json.loads(SIGNATURE.to_json())
    fields["arguments"][0][field] = value
    with pytest.raises(ValueError, match=value):
        Signature.from_json(json.dumps(fields))


@pytest.mark.parametrize(
    ("shape", "strides", "span"),
    [
        ((2, 3), (5, 1), 64),
        ((), (), 8),
        ((4, 0), (1, 1), 0),
        ((3,), (1,), 24),
        ((3, 2), (0, 1), 16),
    ],
)
def test_the_span_reaches_one_past_the_last_element(
    shape: tuple[int, ...], strides: tuple[int, ...], span: int
):
    argument = Argument(name="a", dtype="f64", shape=shape, strides=strides, access="read")
    assert argument.span_bytes == span
