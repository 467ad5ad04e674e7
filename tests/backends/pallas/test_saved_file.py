"""A file that was saved is a module as any other: it needs JAX and nothing of gemmir."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import gemmir
from gemmir import Gemm

USE: Final = """
import sys
import numpy as np
from kernel import gemm

a = np.ones((20, 300), np.float32)
b = np.full((130, 300), 2, np.float32)
c = gemm(a, b, np.arange(130, dtype=np.float32), interpret=True)
assert c.shape == (20, 130) and bool((c == 600 + np.arange(130)).all())
assert not [name for name in sys.modules if name.startswith("gemmir")]
"""


def test_it_runs_without_gemmir(tmp_path: Path) -> None:
    gemm = Gemm(m=20, n=130, k=300, trans_b=True, epilogue="bias")
    (tmp_path / "kernel.py").write_text(gemmir.lower(gemm, "tpu:v5e").artifact.text)
    command = [sys.executable, "-c", USE]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120
    )
    assert done.returncode == 0, done.stderr
