"""Wrong edits of the rings and of the plan: each must give wrong numbers or fail, and be seen."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.sharded.conftest import Ask
from tests.sharded.test_mesh import RULES, SHAPE

GATHER: Final = "gather x by rows"
ALONG_K: Final = "gather x along k"
SCATTER: Final = "scatter rows"

EDITS: Final[dict[str, tuple[str, list[str]]]] = {
    "a chunk skips a device": (
        GATHER,
        ["ring", "behind, ring, 1)\n        coming", "behind, ring, 2)\n        coming"],
    ),
}
