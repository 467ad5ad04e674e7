"""universe: plain xdsl-opt sees the dialects and every pass."""

import subprocess
import sys
from pathlib import Path

from gemmir.gemm import Gemm
from gemmir.ir.build import build
from gemmir.ir.context import parse_module
from gemmir.lowering import level_of
from gemmir.passes import pass_class, pass_names
from gemmir.universe import GEMMIR_UNIVERSE


def xdsl_opt(*arguments: str) -> str:
    command = [str(Path(sys.executable).with_name("xdsl-opt")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_xdsl_opt_runs_the_passes(tmp_path: Path) -> None:
    file = tmp_path / "gemm.mlir"
    file.write_text(str(build(Gemm(m=20, n=20, k=20))))
    pipeline = "gemmir-tile{loops=m,n sizes=8,8},gemmir-promote{operand=c to=registers}"
    found = parse_module(xdsl_opt(str(file), "-p", pipeline))
    assert level_of(found) == "promoted"
    assert str(found).count("scf.for") == 2


def test_xdsl_opt_lists_the_passes() -> None:
    listed = "".join(xdsl_opt("--help").split())
    for name in pass_names():
        assert f"gemmir-{name}" in listed


def test_every_name_gives_its_pass() -> None:
    assert set(GEMMIR_UNIVERSE.all_passes) == {f"gemmir-{name}" for name in pass_names()}
    for name, find in GEMMIR_UNIVERSE.all_passes.items():
        assert find() is pass_class(name)
        assert find().name == name
    for name in ("gemmir", "nvgpu", "pallas"):
        assert GEMMIR_UNIVERSE.all_dialects[name]().name == name
