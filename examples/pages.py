"""Draw the plots of the studies, and write the tables of their pages, from their results.

python examples/pages.py
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

EXAMPLES: Final = Path(__file__).parent
TABLE: Final = re.compile(r"<!-- (\w+) -->\n.*?<!-- end -->", re.S)


def page(folder: Path) -> str:
    """The page of a study as it should be: its tables are what its functions make."""
    made = cast("dict[str, Callable[[Path], str]]", runpy.run_path(str(folder / "plot.py")))

    def filled(found: re.Match[str]) -> str:
        return f"<!-- {found[1]} -->\n{made[found[1]](folder / 'results.db')}\n<!-- end -->"

    return TABLE.sub(filled, (folder / "README.md").read_text(encoding="utf-8"))


def main() -> None:
    """All of them."""
    for folder in sorted(path.parent for path in EXAMPLES.glob("*/plot.py")):
        made: dict[str, Any] = runpy.run_path(str(folder / "plot.py"))
        made["draw"](folder / "results.db", folder / "plot.png")
        (folder / "README.md").write_text(page(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
