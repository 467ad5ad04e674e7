"""Kernels of one prepared case on the GPU: checked against float64, then timed beside cuBLAS.

All contestants take turns. Each is a CUDA graph of many launches, so that what a launch costs the
CPU is left out for all, over operands that together are more than twice the L2, so that no launch
finds its own in it; a graph is timed by events. Imports what loads kernels, and nothing that lowers
them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gpu_check import WHOLE, Expected, compared, expected, is_exact, is_wrong, program_of
from gpu_peers import peers_of

from gemmir.backends.ptx.load import Program
from gemmir.errors import DeviceError
from gemmir.gemm import Gemm, Operand
from gemmir.signature import Argument

LEAST_ROUNDS: Final = 10
"""Timings of each contestant, however long they take."""

GRAPH_SECONDS: Final = 8e-3
"""One timing is so many launches that it takes about this long."""

WARM_SECONDS: Final = 0.15
"""Before the first timing, so that the clocks are those of work."""

MOST_LAUNCHES: Final = 2000
MOST_SETS: Final = 64
"""Limits of a graph, and of the operands that it goes through."""

STORED: Final = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "i32": "int32",
    "i8": "int8",
    "u8": "uint8",
}
"""PyTorch's name of an element type."""

BITS: Final = {1: "uint8", 2: "int16", 4: "int32", 8: "int64"}
"""PyTorch's name of a type of so many bytes by which bits are compared."""

Call = Callable[[], Any]
Tensors = Mapping[str, Any]
Say = Callable[[str], None]
"""Makes known which kernel is run next: if it takes the process along, it is to blame."""


@dataclass(kw_only=True)
class Contestant:
    """One that is timed: its launches, one for each set of operands, and what is known of it.

    `outputs` are the arrays that the launches write to, which must live as long.
    """

    name: str
    row: dict[str, Any]
    calls: Sequence[Call] = ()
    first: Any = None
    outputs: Sequence[Any] = ()
    replay: Call | None = None
    launches: int = 0
    times: list[float] = field(default_factory=list[float])
    flops: int
    bytes: int


def race(
    torch: Any, folder: Path, case: Mapping[str, Any], *, seconds: float, say: Say
) -> list[dict[str, Any]]:
    """A row for each contestant of a case; a kernel that is wrong is named and not timed."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        gemm = Gemm(**case["problem"])
        sets = _sets(torch, gemm)
        stream.synchronize()
        kernels = _kernels(torch, folder, case, sets, stream, say)
        contestants = [*kernels, *_peers(torch, gemm, sets)]
        running = [c for c in contestants if c.calls and _captured(torch, stream, c, say)]
        say("")
        _turns(torch, stream, running, seconds)
    for contestant in running:
        _add_times(torch, contestant)
    rows = [contestant.row for contestant in contestants]
    for row in rows:
        _add_ratios(row, rows)
    return rows


def _kernels(
    torch: Any,
    folder: Path,
    case: Mapping[str, Any],
    sets: Sequence[Tensors],
    stream: Any,
    say: Say,
) -> Iterator[Contestant]:
    """The kernels of a case, each run once and compared."""
    answers: dict[str, Expected] = {}
    for name, kernel in case["kernels"].items():
        say(name)
        gemm = Gemm(**kernel["problem"])
        row = {"name": name, "schedule": kernel["schedule"], "launch": kernel["launch"]}
        contestant = Contestant(name=name, row=row, flops=gemm.flops, bytes=gemm.bytes_moved)
        try:
            if gemm.epilogue not in answers:
                answers[gemm.epilogue] = expected(torch, gemm, sets[0])
            row |= _checked(torch, folder, kernel, sets, stream, answers[gemm.epilogue], contestant)
        except (DeviceError, RuntimeError) as error:
            torch.cuda.synchronize()
            row |= {"wrong": True, "error": str(error)}
            contestant.calls = ()
        yield contestant


def _checked(
    torch: Any,
    folder: Path,
    kernel: Mapping[str, Any],
    sets: Sequence[Tensors],
    stream: Any,
    answer: Expected,
    contestant: Contestant,
) -> dict[str, Any]:
    """Load a kernel, run it, and compare; its calls are kept where it is right."""
    gemm = Gemm(**kernel["problem"])
    start = time.perf_counter()
    program, signature = program_of(folder, kernel)
    arguments = {argument.name: argument for argument in signature.arguments}
    outputs = [_output(torch, arguments["c"], s) for s in sets]
    bind = _binder(program, signature.arguments, stream)
    calls = [bind({**s, "c": c}) for s, c in zip(sets, outputs, strict=True)]
    found: dict[str, Any] = {"load_seconds": time.perf_counter() - start}
    calls[0]()
    torch.cuda.synchronize()
    found |= compared(torch, outputs[0], answer)
    if not gemm.beta:
        contestant.first = outputs[0].clone()
    if is_exact(gemm):
        found["exact_on_integers"] = _exact_on_integers(torch, gemm, arguments, bind)
    found["wrong"] = is_wrong(found)
    if not found["wrong"]:
        contestant.calls, contestant.outputs = calls, outputs
    return found


def _binder(
    program: Program, arguments: Sequence[Argument], stream: Any
) -> Callable[[Tensors], Call]:
    def bind(tensors: Tensors) -> Call:
        addresses = [tensors[argument.name].data_ptr() for argument in arguments]
        return program.bind(addresses, gpu=0, stream=stream.cuda_stream)

    return bind


def _exact_on_integers(
    torch: Any, gemm: Gemm, arguments: Mapping[str, Argument], bind: Callable[[Tensors], Call]
) -> bool:
    """Whether sums that need no rounding come out exactly."""
    tensors: dict[str, Any] = {}
    for name in ("a", "b"):
        least = 0 if arguments[name].dtype == "u8" else -WHOLE
        numbers = torch.randint(least, WHOLE + 1, arguments[name].shape, device="cuda")
        tensors[name] = _empty(torch, arguments[name]).copy_(numbers)
    exact = expected(torch, gemm, tensors).exact
    tensors["c"] = _output(torch, arguments["c"], {})
    bind(tensors)()
    torch.cuda.synchronize()
    return bool(torch.equal(tensors["c"], exact.to(tensors["c"].dtype)))


def _peers(torch: Any, gemm: Gemm, sets: Sequence[Tensors]) -> Iterator[Contestant]:
    """PyTorch, for the problem itself and for its bare product."""
    for name, make in peers_of(torch, gemm).items():
        row: dict[str, Any] = {"name": name, "wrong": False}
        contestant = Contestant(name=name, row=row, flops=gemm.flops, bytes=gemm.bytes_moved)
        try:
            contestant.calls = [make(s) for s in sets]
            for call in contestant.calls[:2]:
                call()
            torch.cuda.synchronize()
        except (RuntimeError, NotImplementedError, ValueError, TypeError) as error:
            contestant.row["missing"] = str(error).splitlines()[0]
            contestant.calls = ()
        yield contestant


def _sets(torch: Any, gemm: Gemm) -> list[dict[str, Any]]:
    """Operands that together are more than twice the L2, two at least.

    Floats are random in [-1, 1), integers whole and small. C is one of them where it is read.
    """
    arguments = list(map(_argument, gemm.operands))
    each = sum(argument.span_bytes for argument in arguments)
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    count = min(max(math.ceil(2 * l2 / max(each, 1)) + 1, 2), MOST_SETS)
    read = [argument for argument in arguments if argument.access != "write"]
    return [{argument.name: _random(torch, argument) for argument in read} for _ in range(count)]


def _argument(operand: Operand) -> Argument:
    return Argument(
        name=operand.name,
        dtype=operand.dtype,
        shape=operand.shape,
        strides=operand.strides,
        access=operand.access,
    )


def _empty(torch: Any, argument: Argument) -> Any:
    kind = getattr(torch, STORED[argument.dtype])
    return torch.empty_strided(argument.shape, argument.strides, dtype=kind, device="cuda")


def _random(torch: Any, argument: Argument) -> Any:
    array = _empty(torch, argument)
    if array.dtype.is_floating_point:
        return array.copy_(torch.rand(argument.shape, device="cuda") * 2 - 1)
    low = 0 if argument.dtype == "u8" else -8
    return array.copy_(torch.randint(low, 8, argument.shape, device="cuda"))


def _output(torch: Any, argument: Argument, tensors: Tensors) -> Any:
    """A C of its own for each contestant: what it reads, or else NaN, or 99."""
    array = _empty(torch, argument)
    if argument.access == "readwrite":
        return array.copy_(tensors["c"])
    return array.fill_(math.nan if array.dtype.is_floating_point else 99)


def _captured(torch: Any, stream: Any, contestant: Contestant, say: Say) -> bool:
    """Make the graph of a contestant: its calls in turn, as often as a timing takes."""
    say(contestant.name)
    calls = contestant.calls
    for call in calls[:2]:
        call()
    count = min(max(math.ceil(GRAPH_SECONDS / _seconds(torch, stream, calls)), 1), MOST_LAUNCHES)
    contestant.launches = -(-count // len(calls)) * len(calls)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=stream):
            for number in range(contestant.launches):
                calls[number % len(calls)]()
        graph.replay()
        torch.cuda.synchronize()
    except (DeviceError, RuntimeError) as error:
        torch.cuda.synchronize()
        contestant.row["missing"] = str(error).splitlines()[0]
        return False
    contestant.replay = graph.replay
    return True


def _seconds(torch: Any, stream: Any, calls: Sequence[Call]) -> float:
    """About the time of one launch."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record(stream)
    for call in calls:
        call()
    last.record(stream)
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / len(calls)


def _turns(torch: Any, stream: Any, contestants: Sequence[Contestant], seconds: float) -> None:
    """Time all again and again, once from the first to the last and once back."""
    if not contestants:
        return
    warm = time.perf_counter() + WARM_SECONDS
    while time.perf_counter() < warm:
        for contestant in contestants:
            assert contestant.replay is not None
            contestant.replay()
        torch.cuda.synchronize()
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        for contestant in contestants if rounds % 2 == 0 else reversed(contestants):
            _timed(torch, stream, contestant)
        rounds += 1


def _timed(torch: Any, stream: Any, contestant: Contestant) -> None:
    assert contestant.replay is not None
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record(stream)
    contestant.replay()
    last.record(stream)
    last.synchronize()
    contestant.times.append(first.elapsed_time(last) / 1e3 / contestant.launches)


def _add_times(torch: Any, contestant: Contestant) -> None:
    """Seconds of one launch, operations and bytes a second, the least that must move; and whether
    all launches gave what the first gave."""
    row, found = contestant.row, contestant.times
    lower, median, upper = statistics.quantiles(found, n=4)
    row["seconds"] = {"median": median, "lower": lower, "upper": upper, "count": len(found)}
    row["launches"] = contestant.launches
    row["tflops"] = contestant.flops / median / 1e12
    row["terabytes"] = contestant.bytes / median / 1e12
    if contestant.first is None:
        return
    bits = getattr(torch, BITS[contestant.first.element_size()])
    row["same_bits"] = bool(
        torch.equal(contestant.first.view(bits), contestant.outputs[0].view(bits))
    )
    row["wrong"] = is_wrong(row)


PEER: Final = "torch"
PRODUCT: Final = "product"


def _add_ratios(row: dict[str, Any], rows: Sequence[Mapping[str, Any]]) -> None:
    """Time of PyTorch over that of a kernel, above 1 where the kernel is faster; and what an
    epilogue adds to the product of the same schedule, as a part of it."""
    medians = {r["name"]: r["seconds"]["median"] for r in rows if "seconds" in r}
    name = row["name"]
    if name not in medians:
        return
    prefix = f"{PRODUCT}, " if name.startswith(f"{PRODUCT}, ") else ""
    if prefix + PEER in medians:
        row["ratio"] = medians[prefix + PEER] / medians[name]
    if f"{PRODUCT}, {name}" in medians:
        row["overhead"] = medians[name] / medians[f"{PRODUCT}, {name}"] - 1
