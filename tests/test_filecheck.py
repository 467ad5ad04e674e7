"""The .mlir files of tests/filecheck, run by lit in one process of two workers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).with_name("filecheck")


def test_files_say_what_comes_of_them() -> None:
    program = "from lit.main import main; main()"
    command = [sys.executable, "-c", program, "-j2", "-v", "--no-progress-bar", str(HERE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout
    assert f"Passed: {len(list(HERE.rglob('*.mlir')))}" in " ".join(done.stdout.split())
