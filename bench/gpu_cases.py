"""The problems that bench/gpu.py measures: how one is written, and the suites.

Needs neither xDSL nor PyTorch, for the computer with the GPU reads it too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, Literal

from gemmir.dtypes import ELEMENTS
from gemmir.epilogue_steps import EPILOGUE_STEPS
from gemmir.gemm import Gemm

Task = Literal["check", "time", "launch"]

OWN: Final = "case"
"""The suite of the cases that are given."""

CHECK: Final = "check"

OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    **dict.fromkeys(("alpha", "beta"), float),
    **dict.fromkeys(("batch", "batch_stride_a", "batch_stride_b", "batch_stride_c"), int),
    **dict.fromkeys(("groups", "lda", "ldb", "ldc", "scale_block"), int),
}
"""What may be written NAME=VALUE in a case."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem, and what is done with it.

    `check` compares with the reference on NumPy, guards around the arrays included; `time` compares
    with float64 on the GPU and times beside PyTorch, a problem with an epilogue beside its bare
    product too; `launch` times what a bound call costs the CPU.
    """

    suite: str
    text: str
    task: Task

    @property
    def gemm(self) -> Gemm:
        """The problem."""
        return problem(self.text)


def problem(text: str) -> Gemm:
    """The problem of TYPE:MxNxK and any of an order, a type of C, an epilogue and NAME=VALUE.

    `bf16:64x48x32:nt:f32:bias+gelu:beta=2`; the order says which of A and B are transposed.
    `ValueError` where it is none.
    """
    dtype, _, rest = text.partition(":")
    sizes, *words = rest.split(":")
    try:
        m, n, k = map(int, sizes.split("x"))
        fields = dict(map(_field, words))
    except ValueError as error:
        raise ValueError(f"{text}: write TYPE:MxNxK and then {GRAMMAR} ({error})") from None
    order = str(fields.pop("order", "nn"))
    trans_a, trans_b = (letter == "t" for letter in order)
    return Gemm(m=m, n=n, k=k, dtype=dtype, trans_a=trans_a, trans_b=trans_b, **fields)


GRAMMAR: Final = "nn, nt, tn or tt, the type of C, an epilogue, NAME=VALUE, each behind a colon"


def _field(word: str) -> tuple[str, Any]:
    name, _, value = word.partition("=")
    if name in OPTIONS:
        return name, OPTIONS[name](value)
    if word in ("nn", "nt", "tn", "tt"):
        return "order", word
    if word in ELEMENTS:
        return "out", word
    if set(word.split("+")) <= set(EPILOGUE_STEPS):
        return "epilogue", word
    raise ValueError(f"{word!r} is none of them")


def own_case(text: str) -> Case:
    """A case that was given: timed, unless PyTorch has no such product."""
    return Case(suite=OWN, text=text, task="time" if problem(text).groups is None else "check")


def _squares(dtypes: tuple[str, ...], out: str, orders: tuple[str, ...]) -> Iterator[str]:
    for order, n, dtype in product(orders, (8192, 4096), dtypes):
        yield f"{dtype}:{n}x{n}x{n}:{order}:{out or dtype}"


LAYERS: Final = ((4096, 4096), (14336, 4096), (4096, 14336), (8192, 28672))
"""N and K of layers of language models: those of Llama 3 8B (arXiv:2407.21783, table 3), and the
second of the MLP of its 70B."""

TOKENS: Final = (4096, 16, 1, 64, 512)

SIZES: Final = (
    "1x1x1",
    "1x256x512",
    "8x8x8",
    "16x520x256",
    "17x33x65",
    "63x64x64",
    "64x64x64",
    "64x64x0",
    "65x129x72",
    "127x255x136",
    "128x256x64",
    "129x257x200",
    "256x512x1024",
    "300x520x1000",
    "1000x1000x1000",
    "64x128x8192",
    "2048x2048x256",
    "3000x5000x136",
)
"""Less, as much and more than a tile; rows that no copy of 16 bytes can begin; a few hundred tiles
of C, so that each block of a fixed number of them takes several in turn."""


def _checks() -> Iterator[str]:
    """Every type, order, epilogue and edge, most at one size that has edges in all directions."""
    ragged = "200x328x192"
    yield from (f"bf16:{size}:nt:bf16" for size in SIZES)
    yield from (f"{d}:{ragged}:{o}:{d}" for d, o in product(("bf16", "f16"), ("nn", "tn", "tt")))
    yield from (f"bf16:1000x1032x520:{order}:f32" for order in ("nt", "nn", "tn"))
    for dtype in ("tf32", "e4m3", "e5m2", "i8", "u8", "f32", "f64", "f16"):
        yield from (f"{dtype}:{size}:{o}" for size, o in product((ragged, "257x136x1040"), ("nt",)))
        yield f"{dtype}:{ragged}:nn"
    yield from (f"e4m3:{ragged}:nt:{out}" for out in ("bf16", "f16"))
    yield from (f"bf16:{ragged}:nt:bf16:{step}" for step in EPILOGUE_STEPS)
    for dtype, out in (("bf16", "bf16"), ("f16", "f32"), ("tf32", "f32"), ("e4m3", "bf16")):
        yield f"{dtype}:{ragged}:nt:{out}:bias+gelu+residual"
    yield from (f"{dtype}:{ragged}:nt:bf16:scale+bias" for dtype in ("e4m3", "e5m2"))
    for size in (ragged, "257x136x1040", "1000x1000x1008", "2000x2048x512"):
        yield f"e4m3:{size}:nt:bf16:scale_block=128"
    yield f"e5m2:{ragged}:nt:bf16:bias+relu:scale_block=128"
    yield f"bf16:{ragged}:nt:bf16:alpha=-3:beta=2"
    yield f"bf16:{ragged}:nt:bf16:lda=200:ldb=208:ldc=336"
    yield f"bf16:{ragged}:nt:bf16:lda=199:ldb=197:ldc=331"
    yield f"bf16:{ragged}:nt:bf16:batch=3"
    yield f"bf16:{ragged}:nt:bf16:bias+relu:batch=3:batch_stride_b=0"
    yield f"bf16:{ragged}:nt:bf16:groups=5"


def _suite(name: str, task: Task, texts: Iterator[str] | tuple[str, ...]) -> tuple[Case, ...]:
    return tuple(Case(suite=name, text=text, task=task) for text in texts)


SCALES: Final = ("", ":scale", ":scale_block=128")
"""Without scales, with one for A and one for B, and with one for each block."""

SUITES: Final[Mapping[str, tuple[Case, ...]]] = {
    CHECK: _suite(CHECK, "check", _checks()),
    "square": _suite("square", "time", _squares(("bf16", "f16"), "", ("nt", "nn"))),
    "fp8": _suite(
        "fp8",
        "time",
        tuple(f"e4m3:8192x8192x8192:nt:bf16{e}" for e in ("", ":scale", ":scale_block=128")),
    ),
    "llm": _suite(
        "llm",
        "time",
        tuple(f"bf16:{m}x{n}x{k}:nt:bf16" for m, (n, k) in product(TOKENS, LAYERS)),
    ),
    "epilogue": _suite("epilogue", "time", ("bf16:8192x8192x8192:nt:bf16:bias+gelu",)),
    "launch": _suite("launch", "launch", ("bf16:256x256x64:nt:bf16",)),
    "tf32": _suite("tf32", "time", _squares(("tf32",), "f32", ("nt",))),
}
"""Every suite, in the order in which they run: what is most important first."""
