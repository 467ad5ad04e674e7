"""How a promoted operand shall lie, in the words of schedules: `panel:16x4`, `swizzle:128`."""

from __future__ import annotations

from xdsl.ir import SSAValue

from gemmir.errors import ScheduleError
from gemmir.ir.attributes import SpaceAttr
from gemmir.ir.dialect import memref_type


def panel_size(operand: str, layout: str | None) -> tuple[int, int, int]:
    """The width of panels, how many neighbours along k are adjacent, and up to a multiple of how
    many k is filled up: `panel:WIDTH[xDEPTH[xSTEP]]`.
    """
    width, *others = (layout or "").split("x")
    depths = [int(digits) for digits in others if digits.isdigit()]
    if len(depths) < len(others) or len(depths) > 2 or 0 in depths:
        raise ScheduleError(
            "GEM1322",
            f"promote: layout={layout} of {operand}",
            "use panel:WIDTHxDEPTH, as in panel:16x4",
        )
    depth = depths[0] if depths else 1
    step = depths[-1] if depths else 1
    if step % depth:
        raise ScheduleError(
            "GEM1322",
            f"promote: layout={layout} of {operand}, and {step} is no multiple of {depth}",
            f"use panel:WIDTHx{depth}x{depth * max(step // depth, 1)}",
        )
    return panel_width(operand, width if others else layout), depth, step


def panel_width(operand: str, layout: str | None) -> int:
    """Rows of A or columns of B in a panel, from `panel:WIDTH`; `ScheduleError` GEM0331 if not."""
    kind, _, digits = (layout or "").partition(":")
    if kind != "panel" or not digits.isdigit() or int(digits) < 1:
        raise ScheduleError(
            "GEM0331", f"promote: layout={layout!r} of {operand}", "use panel:WIDTH, as in panel:16"
        )
    return int(digits)


def shared_layout(operand: str, layout: str | None) -> tuple[str, int]:
    """`panel:WIDTH` or `swizzle:BYTES` as its two parts."""
    kind, _, digits = (layout or "").partition(":")
    if kind == "swizzle" and digits in ("32", "64", "128"):
        return kind, int(digits)
    if kind == "swizzle":
        raise ScheduleError(
            "GEM0331",
            f"promote: layout={layout} of {operand}",
            "use swizzle:32, swizzle:64 or swizzle:128",
        )
    return "panel", panel_width(operand, layout)


def require_swizzle(kind: str) -> None:
    """`ScheduleError` GEM1286 where C would go through shared memory in panels."""
    if kind != "swizzle":
        raise ScheduleError(
            "GEM1286", "promote: operand=c to=shared in panels", "use layout=swizzle:128"
        )


def require_unpacked(value: SSAValue, operand: str) -> None:
    """`ScheduleError` GEM0332 where `operand` was promoted before."""
    if isinstance(memref_type(value).memory_space, SpaceAttr):
        raise ScheduleError("GEM0332", f"promote: operand {operand} is packed already")
