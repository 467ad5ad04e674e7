"""Kernels of a prepared folder on the GPU: checked against float64, then timed beside cuBLAS.

All contestants of a problem take turns. Each is a CUDA graph of many launches over operands that
together are more than twice the L2, so that no launch finds its own in it; a graph is timed by
events. Imports what loads kernels, and nothing that lowers them.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final, cast

from gemmir.backend import Argument, Signature
from gemmir.backends.ptx.driver import find_driver
from gemmir.backends.ptx.load import Program, load
from gemmir.errors import DeviceError

LEAST_ROUNDS: Final = 15
"""Timings of each contestant, however long they take."""

GRAPH_SECONDS: Final = 4e-3
"""One timing is so many launches that it takes about this long."""

MOST_LAUNCHES: Final = 2000
MOST_SETS: Final = 64
"""Limits of a graph, and of the operands that it goes through."""

TORCH: Final = "torch"

UNITS: Final = {"f64": 2.0**-53, "f32": 2.0**-24, "f16": 2.0**-11, "bf16": 2.0**-8}
"""Unit roundoff of the type of a result."""

STORED: Final = {
    "f64": "float64",
    "f32": "float32",
    "tf32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "e4m3": "float8_e4m3fn",
    "e5m2": "float8_e5m2",
    "i32": "int32",
    "i8": "int8",
    "u8": "uint8",
}
"""PyTorch's name of the type of an array."""

TF32_UNIT: Final = 2.0**-11
"""Unit roundoff of an operand that a tensor core reads as tf32, if it rounds to nearest.

It may cut instead, which is twice that: PTX ISA 9.0, section "Alternate Floating-Point Data
Formats".
"""

Call = Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class Operands:
    """A, B and C on the GPU, as the signature lays them out."""

    a: Any
    b: Any
    c: Any

    @property
    def addresses(self) -> list[int]:
        """Where they begin."""
        return [x.data_ptr() for x in (self.a, self.b, self.c)]


def race(folder: Path, manifest: Mapping[str, Any], *, seconds: float, seed: int) -> dict[str, Any]:
    """Measure every case of `manifest`; a kernel that is wrong is named and not timed."""
    torch: Any = import_module("torch")
    torch.manual_seed(seed)
    head = {
        **{key: value for key, value in manifest.items() if key != "cases"},
        "loader": find_driver().library,
        "seed": seed,
        "seconds": seconds,
        "gpu": torch.cuda.get_device_name(0),
        "l2_bytes": torch.cuda.get_device_properties(0).L2_cache_size,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": sys.version.split()[0],
        "smi": smi(),
    }
    rows: list[dict[str, Any]] = []
    for case in manifest["cases"]:
        try:
            rows += _rows(torch, folder, case, seconds)
            torch.cuda.empty_cache()
        except (DeviceError, RuntimeError) as error:
            # After a fault in a kernel the GPU does nothing more for this process.
            rows.append({"case": case["case"], "name": "", "wrong": True, "error": str(error)})
            break
    return {**head, "rows": rows}


def smi() -> dict[str, str]:
    """The driver, and the clocks and power of this moment."""
    names = (
        "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.draw,power.limit,temperature.gpu"
    )
    command = ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader", "-i", "0"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {}
    return dict(zip(names.split(","), (x.strip() for x in said.split(",")), strict=True))


def _rows(
    torch: Any, folder: Path, case: Mapping[str, Any], seconds: float
) -> list[dict[str, Any]]:
    """Every kernel of one problem, and PyTorch, in turns."""
    problem, kernels = case["problem"], case["kernels"]
    if not kernels:
        return []
    signatures = {n: Signature.from_json(kernel["signature"]) for n, kernel in kernels.items()}
    arguments = next(iter(signatures.values())).arguments
    sets = [_operands(torch, problem["dtype"], arguments) for _ in range(_sets(torch, arguments))]
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    rows: list[dict[str, Any]] = []
    graphs: dict[str, tuple[Call, int]] = {}
    with torch.cuda.stream(stream):
        for name, kernel in kernels.items():
            code = (folder / kernel["file"]).read_bytes()
            start = time.perf_counter()
            program = cast("Program", load(code, signatures[name]).owner)
            handle = stream.cuda_stream
            calls = [program.bind(s.addresses, gpu=0, stream=handle) for s in sets]
            loaded = time.perf_counter() - start
            row = {"case": case["case"], "name": name, **kernel, "load_seconds": loaded}
            row |= _checked(torch, problem, sets[0], calls[0])
            row["launch_microseconds"] = _microseconds(torch, calls[0])
            rows.append(row)
            print(
                f"{case['case']} {name}: error/bound {row['error_by_bound']:.3g}", file=sys.stderr
            )
            if not row["wrong"]:
                graphs[name] = _graph(torch, stream, calls)
        peers = [_peer(torch, problem, s) for s in sets]
        row = {"case": case["case"], "name": TORCH, "wrong": False}
        try:
            graphs[TORCH] = _graph(torch, stream, peers)
            rows.append(row)
        except (RuntimeError, NotImplementedError, ValueError) as error:
            rows.append({**row, "missing": str(error).splitlines()[0]})
        before = smi()
        times = _turns(torch, stream, graphs, seconds)
    _add_times(rows, times, problem["flops"])
    for row in rows:
        row["smi_before"], row["smi_after"] = before, smi()
    return rows


def _add_times(
    rows: Sequence[dict[str, Any]], times: Mapping[str, Sequence[float]], flops: int
) -> None:
    """Seconds of one launch, the rate, and the ratio to PyTorch: above 1 is faster than it."""
    for row in rows:
        found = times.get(row["name"])
        if not found:
            continue
        lower, median, upper = statistics.quantiles(found, n=4)
        row["seconds"] = {"median": median, "lower": lower, "upper": upper, "count": len(found)}
        row["tflops"] = flops / median / 1e12
        if TORCH in times:
            row["ratio"] = statistics.median(times[TORCH]) / median
        said = ", ".join(f"{k} {row[k]:.4g}" for k in ("tflops", "ratio") if k in row)
        print(f"{row['case']} {row['name']}: {median * 1e6:.1f} us, {said}", file=sys.stderr)


def _sets(torch: Any, arguments: Sequence[Argument]) -> int:
    """How many operands make more than twice the L2, at least two."""
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    each = sum(argument.span_bytes for argument in arguments)
    return min(max(math.ceil(2 * l2 / max(each, 1)) + 1, 2), MOST_SETS)


def _operands(torch: Any, dtype: str, arguments: Sequence[Argument]) -> Operands:
    """Random numbers in [-1, 1), or whole ones of small size; C begins as NaN where it can."""
    made: list[Any] = []
    for argument in arguments:
        kind = getattr(torch, STORED[argument.dtype])
        strides = argument.strides
        array = torch.empty_strided(argument.shape, strides, dtype=kind, device="cuda")
        if argument.access == "write":
            array.fill_(float("nan") if kind.is_floating_point else 99)
        elif kind.is_floating_point:
            array.copy_(torch.rand(argument.shape, device="cuda") * 2 - 1)
        else:
            low = 0 if kind == torch.uint8 else -8
            array.copy_(torch.randint(low, 8, argument.shape, device="cuda"))
        made.append(array)
    a, b, c = made
    return Operands(a=a, b=b, c=c)


def _factors(problem: Mapping[str, Any], operands: Operands) -> tuple[Any, Any]:
    a, b = operands.a, operands.b
    return (a.mT if problem["trans_a"] else a), (b.mT if problem["trans_b"] else b)


def _checked(torch: Any, problem: Mapping[str, Any], operands: Operands, call: Call) -> Any:
    """Run once and compare with float64 by the a-priori bound of a sum of k products in f32."""
    call()
    torch.cuda.synchronize()
    a, b = (x.double() for x in _factors(problem, operands))
    exact, size = a @ b, a.abs() @ b.abs()
    k, dtype = problem["k"], problem["dtype"]
    whole = not operands.c.dtype.is_floating_point
    unit = UNITS["f64"] if dtype == "f64" else UNITS["f32"]
    of_operands = 4 * TF32_UNIT if dtype == "tf32" else 0.0
    result = {torch.float16: "f16", torch.bfloat16: "bf16", torch.float64: "f64"}
    out = 0.0 if whole else UNITS[result.get(operands.c.dtype, "f32")]
    bound = (0.0 if whole else (k + 1) * unit / (1 - k * unit) + of_operands) * size
    bound = bound * (1 + out) + out * exact.abs() + (0.5 if whole else 2.0**-149)
    error = (operands.c.double() - exact).abs()
    part = (error / bound).nan_to_num(nan=math.inf).max().item()
    return {
        "max_error": error.nan_to_num(nan=math.inf).max().item(),
        "error_by_bound": part,
        "wrong": part > 1,
    }


def _peer(torch: Any, problem: Mapping[str, Any], operands: Operands) -> Call:
    """The product by PyTorch, into an array of its own; f32 without tf32 unless that is asked."""
    a, b = _factors(problem, operands)
    torch.backends.cuda.matmul.allow_tf32 = problem["dtype"] == "tf32"
    if a.dtype == torch.int8:
        return lambda: torch._int_mm(a, b)
    out = torch.empty(operands.c.shape, dtype=a.dtype, device="cuda")
    return lambda: torch.matmul(a, b, out=out)


def _microseconds(torch: Any, call: Call, count: int = 500) -> float:
    """Time on the CPU of one launch; few enough that the GPU's queue does not fill."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    passed = time.perf_counter() - start
    torch.cuda.synchronize()
    return passed / count * 1e6


def _graph(torch: Any, stream: Any, calls: Sequence[Call]) -> tuple[Call, int]:
    """A graph that makes the calls in turn, and how many it makes."""
    for call in calls[:2]:
        call()
    count = min(max(math.ceil(GRAPH_SECONDS / _seconds(torch, stream, calls)), 1), MOST_LAUNCHES)
    count = -(-count // len(calls)) * len(calls)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        for number in range(count):
            calls[number % len(calls)]()
    return graph.replay, count


def _seconds(torch: Any, stream: Any, calls: Sequence[Call]) -> float:
    """About the time of one launch."""
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record(stream)
    for call in calls:
        call()
    last.record(stream)
    last.synchronize()
    return first.elapsed_time(last) / 1e3 / len(calls)


def _turns(
    torch: Any, stream: Any, graphs: Mapping[str, tuple[Call, int]], seconds: float
) -> dict[str, list[float]]:
    """Seconds of one launch of each contestant, again and again."""
    found: dict[str, list[float]] = {name: [] for name in graphs}
    for replay, _ in graphs.values():
        replay()
    torch.cuda.synchronize()
    end = time.perf_counter() + seconds
    rounds = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        for name, (replay, count) in graphs.items():
            first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            first.record(stream)
            replay()
            last.record(stream)
            last.synchronize()
            found[name].append(first.elapsed_time(last) / 1e3 / count)
        rounds += 1
    return found
