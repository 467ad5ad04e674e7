"""What every Python process does that has this folder on its path: it has one pass more."""

from __future__ import annotations

from pathlib import Path

import gemmir.passes

gemmir.passes.__path__.append(str(Path(__file__).parent / "passes"))
