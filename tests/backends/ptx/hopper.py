"""Schedules for products of warpgroups, and what the tests of their PTX have in common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import gemmir
from gemmir import Gemm
from gemmir.backend import Artifact
from gemmir.backends.ptx.emit import emit
from gemmir.compiler import Lowered
from gemmir.ir.context import parse_module
from gemmir.machine import machine_for

TARGET: Final = "cuda:sm_90a"


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """What a schedule for warpgroups is made of; `group` is m of each warpgroup.

    With `twice` each slice of k is summed for itself, and then added to all of it.
    """

    m: int = 128
    n: int = 256
    group: int = 64
    k_bytes: int = 128
    stages: int = 4
    blocks: int = 0
    cluster: int = 1
    swizzle: int = 128
    stored: bool = False
    epilogue: bool = False
    batch: bool = False
    twice: bool = False

    def schedule(self, gemm: Gemm) -> str:
        """The text of the schedule for `gemm`."""
        depth = self.k_bytes // gemm.element.item_bytes
        swizzle = f"layout=swizzle:{self.swizzle}"
        if self.batch:
            steps = [f"tile{{loops=batch,m,n sizes=1,{self.m},{self.n} over=blocks}}"]
        elif self.cluster > 1:
            outer = f"tile{{loops=m,n sizes={self.m * self.cluster},{self.n} over=clusters}}"
            steps = [outer, f"tile{{loops=m sizes={self.m} over=blocks}}"]
        else:
            steps = [f"tile{{loops=m,n sizes={self.m},{self.n} over=blocks}}"]
        if self.blocks:
            steps.append(f"persist{{blocks={self.blocks}}}")
        steps += [
            f"tile{{loops=m sizes={self.group} over=warpgroups}}",
            "promote{operand=c to=registers}",
            f"tile{{loops=k sizes={depth}}}",
            *(["promote{operand=c to=registers}"] if self.twice else []),
            f"promote{{operand=a to=shared {swizzle}}}",
            f"promote{{operand=b to=shared {swizzle}}}",
        ]
        if self.epilogue:
            steps.append("fuse-epilogue")
        if self.stored:
            steps.append("promote{operand=c to=shared layout=swizzle:128}")
        steps.append(f"pipeline{{loop=k stages={self.stages} with=tma specialize=true}}")
        return ",".join([*steps, "vectorize{with=wgmma}"])


LARGE: Final = Gemm(m=4096, n=4096, k=4096, dtype="bf16", trans_b=True)
SMALL: Final = Gemm(m=200, n=136, k=192, dtype="bf16", trans_b=True, out="bf16")
SMALL_TILES: Final = Tiles(n=64, stages=2, blocks=2)


@cache
def lowered(gemm: Gemm, tiles: Tiles) -> Lowered:
    """`gemm` with these tiles."""
    return gemmir.lower(gemm, target=TARGET, schedule=tiles.schedule(gemm))


def last_stage(gemm: Gemm = SMALL, tiles: Tiles = SMALL_TILES, **changes: object) -> str:
    """The text that the emitter gets."""
    made = lowered(gemm, replace(tiles, **changes))
    return list(made.stages.values())[-1].text


def emitted(text: str, target: str = TARGET) -> Artifact:
    """What the emitter makes of a text."""
    return emit(parse_module(text), machine_for(target))
