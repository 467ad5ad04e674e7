"""gemmir bisect names the pass that a wrong edit is in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).parent
TABLE: Final = HERE / "mutants.toml"

NAMES: Final = (
    "tile-starts-first-at-one",
    "tile-forgets-to-clip",
    "tile-drops-alpha",
    "pack-buffer-not-padded",
    "promote-first-and-later-swapped",
    "promote-drops-alpha",
    "fuse-on-the-first-slice",
    "fuse-drops-the-other-slices",
    "vectorize-begins-at-one",
    "vectorize-reads-one-row-of-b",
    "unroll-loses-a-sum",
    "exp-of-one-bit-less",
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="mutants run in forked children")


def test_the_pass_with_the_wrong_edit_is_named() -> None:
    table = tomllib.loads(TABLE.read_text())
    command = [sys.executable, str(HERE / "bisector.py"), str(TABLE), *NAMES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    found = {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}
    named = {name: row.get("pass", row) for name, row in found.items()}
    files = {name: Path(table[name]["file"]).stem.replace("_", "-") for name in NAMES}
    assert named == files
    assert all(row["fault"] for row in found.values())
