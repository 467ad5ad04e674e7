"""What a lowering decided and what that means on its machine, for a reader or a program.

`explain_cpu`, `explain_gpu` and `explain_tpu` say what they have to of their machines, and
`explain_cost` what the code is predicted to take. Nothing is measured.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gemmir.explain_cost import cost_facts, cost_lines
from gemmir.explain_cpu import cpu_sections, explanation
from gemmir.explain_gpu import gpu_explanation, gpu_lines
from gemmir.explain_tpu import tpu_explanation, tpu_lines
from gemmir.gemm import Gemm
from gemmir.machine import GpuMachine, TpuMachine

if TYPE_CHECKING:
    from gemmir.compiler import Lowered
    from gemmir.tpu_profile import Comparison


def explain(
    lowered: Lowered,
    profile: Comparison | None = None,
    edits: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> str:
    """What was decided and what it is predicted to take, as text.

    Of a TPU with its `profile`, where one was made. `edits` is how many changes of the schedule are
    shown that the cost model likes best; `say` is told where that takes a while.
    """
    machine = lowered.machine
    problem = "not known" if lowered.problem is None else described(lowered.problem)
    if isinstance(machine, TpuMachine):
        texts = ["\n".join(tpu_lines(tpu_explanation(lowered, profile), machine, problem))]
    elif isinstance(machine, GpuMachine):
        texts = ["\n".join(gpu_lines(gpu_explanation(lowered), machine, problem))]
    else:
        texts = [*cpu_sections(explanation(lowered), machine, problem)]
    texts.append("\n".join(cost_lines(cost_facts(lowered, edits, say), machine)))
    return "\n\n".join(text for text in texts if text) + "\n"


def facts(
    lowered: Lowered,
    profile: Comparison | None = None,
    edits: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """What `explain` says, as plain values for JSON."""
    if isinstance(lowered.machine, TpuMachine):
        found = tpu_explanation(lowered, profile).to_dict()
    elif isinstance(lowered.machine, GpuMachine):
        found = gpu_explanation(lowered).to_dict()
    else:
        found = explanation(lowered).to_dict()
    return {**found, "cost": cost_facts(lowered, edits, say).to_dict()}


def described(gemm: Gemm) -> str:
    """A problem in one line."""
    words = [f"m={gemm.m} n={gemm.n} k={gemm.k} {gemm.dtype}"]
    words += [f"batch={gemm.batch}"] if gemm.batch is not None else []
    words += [f"groups={gemm.groups}"] if gemm.groups is not None else []
    words += ["masked"] if gemm.masked else []
    words += [f"scale_block={gemm.scale_block}"] if gemm.scale_block is not None else []
    words += [f"dtype_b={gemm.dtype_b}"] if gemm.dtype_b is not None else []
    words += [f"weight_group={gemm.weight_group}"] if gemm.weight_group is not None else []
    words += [f"{name}={getattr(gemm, name):g}" for name in ("alpha", "beta")]
    words += [name for name in ("trans_a", "trans_b") if getattr(gemm, name)]
    words += [f"ld{x}={gemm.leading(x)}" for x in "abc" if getattr(gemm, f"ld{x}") is not None]
    words += [f"epilogue={gemm.epilogue}"] if gemm.epilogue else []
    return " ".join(words)
