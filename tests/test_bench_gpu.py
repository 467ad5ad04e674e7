"""Preparing kernels to be measured elsewhere; the measuring itself needs a GPU and PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from gemmir.backend import Signature
from gemmir.backends.ptx.image import Image

BENCH = Path(__file__).parent.parent / "bench"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(BENCH / "gpu.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_folder_has_the_code_of_every_case(tmp_path: Path):
    schedule = tmp_path / "wrong.schedule"
    schedule.write_text("tile{loops=m sizes=4 over=cores}\n")
    folder = tmp_path / "made"
    cases = ("--case", "f32:64x48x32:nt", "--case", "bf16:32x32x32:nn:bf16")
    done = run("--prepare", str(folder), *cases, "--schedule", str(schedule))
    assert done.returncode == 0, done.stderr
    assert "f32:64x48x32:nt wrong: GEM" in done.stderr
    manifest = json.loads((folder / "cases.json").read_text())
    assert manifest["target"] == "cuda:sm_90a"
    first, second = manifest["cases"]
    assert first["problem"]["trans_b"]
    assert first["problem"]["flops"] == 2 * 64 * 48 * 32
    (kernel,) = first["kernels"].values()
    image = Image.from_bytes((folder / kernel["file"]).read_bytes())
    assert image.gpu == "sm_90a"
    assert [k["blocks"] for k in kernel["launch"]["kernels"]] == [
        k.blocks for k in image.launch.kernels
    ]
    signature = Signature.from_json(second["kernels"]["default"]["signature"])
    assert [a.dtype for a in signature.arguments] == ["bf16", "bf16", "bf16"]


def test_a_case_that_is_none_is_a_usage_error(tmp_path: Path):
    for case in ("f32:64", "f32:1x2x3:xy"):
        done = run("--prepare", str(tmp_path / "made"), "--case", case)
        assert done.returncode == 2
        assert f"--case {case}" in done.stderr.replace("\n", " ")
    assert run().returncode == 2


def test_measuring_imports_nothing_that_lowers():
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(BENCH)!r})\n"
        "sys.modules['xdsl'] = sys.modules['llvmlite'] = None\n"
        "from gpu import without_front_door\n"
        "without_front_door()\n"
        "import race\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
