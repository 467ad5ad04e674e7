"""Whether kernels on the GPU are right.

Small problems are compared with `Gemm.reference` on NumPy, on arrays with guards around them; large
ones with the same in float64 on the GPU, by PyTorch.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import numpy as np

from gemmir.arrays import GUARD, Operands, make_operands
from gemmir.backend import Loaded
from gemmir.backends.ptx.driver import Memory, as_bytes
from gemmir.backends.ptx.load import Program, load
from gemmir.epilogue_steps import GELU_CUBIC, GELU_SQRT_2_OVER_PI, STEP_ROUNDINGS, STEP_SLOPES
from gemmir.gemm import Gemm
from gemmir.kernel import DTYPES
from gemmir.signature import Signature

RUNS: Final = 3
"""How often a kernel is run on the same operands: a race seldom gives the same bits again."""

LOST: Final = 1e300
"""An error that is no number, for JSON has no infinity."""

WHOLE: Final = 2
"""On whole numbers up to this all sums are exact, in whatever order, with the 14 bits too that are
left of sums of 8-bit floats (`gemmir.dtypes.FP8_SUM_UNIT`): those of 2**15 random products are less
than 2**12. So a step of k that is left out shows, however wide the bound of a rounding is."""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The right answer, and how far each element may be off."""

    exact: Any
    bound: Any


def loaded(folder: Path, kernel: Mapping[str, Any]) -> tuple[Loaded, Signature]:
    """The code of one kernel of a prepared folder."""
    signature = Signature.from_json(kernel["signature"])
    code = gzip.decompress((folder / kernel["file"]).read_bytes())
    return load(code, signature), signature


def program_of(folder: Path, kernel: Mapping[str, Any]) -> tuple[Program, Signature]:
    """The same as what binds it to addresses."""
    found, signature = loaded(folder, kernel)
    return cast("Program", found.owner), signature


def is_exact(gemm: Gemm) -> bool:
    """Whether C is the sum of the products, rounded once."""
    return gemm.alpha == 1 and not gemm.beta and not gemm.steps and gemm.scale_block is None


def checked(folder: Path, kernel: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Run a kernel on random arrays of NumPy and compare; what was found, for its row."""
    gemm = Gemm(**kernel["problem"])
    program, signature = program_of(folder, kernel)
    before = make_operands(signature, seed)
    arrays = {name: operand.array for name, operand in before.by_name.items()}
    after = [_after(program, before) for _ in range(RUNS)]
    with np.errstate(all="ignore"):
        exact = np.asarray(gemm.reference(arrays)).astype(np.float64)
        bound = np.asarray(gemm.error_bound(arrays)).astype(np.float64)
        off = np.abs(after[0].output.astype(np.float64) - exact)
        part = np.nan_to_num(np.where(off > 0, off / bound, off), nan=LOST, posinf=LOST)
    first, *others = (as_bytes(list(o.by_name.values())[-1].memory) for o in after)
    found: dict[str, Any] = {
        "error_by_bound": float(part.max(initial=0.0)),
        "relative_error": _ratio(np.linalg.norm(off), np.linalg.norm(exact)),
        "same_bits": all(np.array_equal(first, other) for other in others),
        "damage": next(filter(None, (o.damage(before) for o in after)), ""),
    }
    if is_exact(gemm):
        found["exact_on_integers"] = _exact_on_integers(gemm, program, signature, seed)
    if (part > 1).any():
        found["wrong_elements"] = int((part > 1).sum())
        at = np.unravel_index(int((part > 1).argmax()), part.shape)
        found["first_wrong"] = [int(i) for i in at]
    return found | {"wrong": is_wrong(found)}


def is_wrong(found: Mapping[str, Any]) -> bool:
    """Whether what was found of a kernel is more than rounding."""
    return (
        not found["error_by_bound"] <= 1
        or not found.get("same_bits", True)
        or not found.get("exact_on_integers", True)
        or bool(found.get("damage"))
    )


def _exact_on_integers(gemm: Gemm, program: Program, signature: Signature, seed: int) -> bool:
    generator = np.random.default_rng(seed)
    given: dict[str, Any] = {}
    for argument in signature.arguments[:2]:
        least = 0 if argument.dtype == "u8" else -WHOLE
        numbers = generator.integers(least, WHOLE, argument.shape, endpoint=True)
        given[argument.name] = numbers.astype(DTYPES[argument.dtype])
    before = make_operands(signature, seed, given)
    arrays = {name: operand.array for name, operand in before.by_name.items()}
    exact = np.asarray(gemm.reference(arrays)).astype(before.output.dtype)
    return bool(np.array_equal(_after(program, before).output, exact))


def _after(program: Program, before: Operands) -> Operands:
    """Copies of the operands as the kernel leaves them, with the guards around them."""
    copies = before.copy()
    driver, gpu = program.driver, program.first_gpu
    with ExitStack() as stack:
        stack.enter_context(driver.use(gpu))
        addresses: list[int] = []
        memories: list[tuple[Memory, Any]] = []
        for operand in copies.by_name.values():
            flat = as_bytes(operand.memory)
            memory = Memory(driver, gpu, flat.size)
            stack.callback(memory.free)
            driver.copy_in(memory.address, flat)
            memories.append((memory, flat))
            addresses.append(memory.address + GUARD * operand.memory.itemsize)
        program.run(*addresses)
        for memory, flat in memories:
            driver.copy_out(flat, memory.address)
    return copies


def _ratio(part: Any, whole: Any) -> float:
    found = float(part / whole) if whole else float(part)
    return found if math.isfinite(found) else LOST


def expected(torch: Any, gemm: Gemm, tensors: Mapping[str, Any]) -> Expected:
    """What C shall be, in float64, with the bounds of `Gemm.error_bound`."""
    wide = {name: tensor.double() for name, tensor in tensors.items()}
    a = wide["a"].mT if gemm.trans_a else wide["a"]
    b = wide["b"].mT if gemm.trans_b else wide["b"]
    lost: Any = 0.0
    if gemm.scale_block is not None:
        lost = gemm.accumulator.least_normal * abs(gemm.alpha) * (a.abs() @ b.abs() + gemm.k)
        a, b = _scaled(gemm, a, b, wide)
    x, magnitude = gemm.alpha * (a @ b), abs(gemm.alpha) * (a.abs() @ b.abs())
    if gemm.beta:
        x = x + gemm.beta * wide["c"]
        magnitude = magnitude + abs(gemm.beta) * wide["c"].abs()
    if gemm.accumulator.is_integer:
        return Expected(exact=x, bound=torch.full_like(x, 0.5))
    product, least = gemm.product, gemm.accumulator.least_normal
    bound = _stored(
        gemm, product.gamma(gemm.k + gemm.roundings, emulated=False) * magnitude + lost, x
    )
    for step in gemm.steps:
        y = _applied(torch, step, x, wide)
        slope, unit = STEP_SLOPES.get(step), product.ieee_unit
        if slope is None:
            slope, unit = (wide["scale_a"] * wide["scale_b"]).abs(), least
        slack = STEP_ROUNDINGS[step] * (unit * x.abs() + product.ieee_unit * y.abs())
        bound, x = slope * bound + slack, y
    if gemm.steps:
        bound = _stored(gemm, bound, x)
    return Expected(exact=x, bound=bound + least * (gemm.k + 4))


def _scaled(gemm: Gemm, a: Any, b: Any, wide: Mapping[str, Any]) -> tuple[Any, Any]:
    """op(A) and op(B), times the scales of their blocks."""
    size = gemm.scale_block
    of_a = wide["scale_a"].mT if gemm.trans_a else wide["scale_a"]
    of_b = wide["scale_b"].mT if gemm.trans_b else wide["scale_b"]
    of_a = of_a.repeat_interleave(size, 1)[:, : gemm.k]
    of_b = of_b.repeat_interleave(size, 0).repeat_interleave(size, 1)[: gemm.k, : gemm.n]
    return a * of_a, b * of_b


def _stored(gemm: Gemm, bound: Any, x: Any) -> Any:
    if gemm.result is gemm.accumulator:
        return bound
    return bound + gemm.result.unit * (x.abs() + bound) + gemm.result.least


def _applied(torch: Any, step: str, x: Any, wide: Mapping[str, Any]) -> Any:
    if step == "scale":
        return x * (wide["scale_a"] * wide["scale_b"])
    if step in ("bias", "residual"):
        return x + wide[step]
    if step == "relu":
        return x.clamp(min=0)
    if step == "gelu":
        return x * torch.sigmoid(2 * GELU_SQRT_2_OVER_PI * (x + GELU_CUBIC * x**3))
    return x * torch.sigmoid(x)


def compared(torch: Any, output: Any, wanted: Expected) -> dict[str, Any]:
    """How far a tensor is from what it shall be."""
    off = (output.double() - wanted.exact).abs()
    part = torch.where(off > 0, off / wanted.bound, off).nan_to_num(nan=LOST, posinf=LOST)
    found: dict[str, Any] = {
        "error_by_bound": part.max().item(),
        "relative_error": _ratio(off.norm().item(), wanted.exact.norm().item()),
    }
    if found["error_by_bound"] > 1:
        wrong = part > 1
        at = int(wrong.flatten().int().argmax().item())
        found["first_wrong"] = [int(i) for i in np.unravel_index(at, tuple(part.shape))]
        found["wrong_elements"] = int(wrong.sum().item())
    return found
