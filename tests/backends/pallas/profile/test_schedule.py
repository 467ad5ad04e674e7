"""The parser of libtpu's schedules, on a dump of a real kernel and on small ones."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

import pytest

from gemmir.backends.pallas.profile.schedule import Listing, listing, listings, main_loop

DUMPS: Final = Path(__file__).parent / "dumps"

KLOOP: Final = "kloop.1"
"""A kernel for TPU v5e: blocks of 256 x 256 and 256 along k, initialised and written in branches
that only the first and the last step along k take."""

HEAD: Final = "== CAPACITY:\nMATMUL, VLOAD, VLOAD:FILL, VSTORE:SPILL\n2 3 3 1\n== UTILIZATION:\n"


def small(bundles: str, rows: list[tuple[int, ...]]) -> Listing:
    """The listing of some bundles with these rows of MATMUL, VLOAD, FILL and SPILL."""
    return listing(bundles, HEAD + "".join(" ".join(map(str, row)) + "\n" for row in rows))


def test_main_loop_of_a_kernel() -> None:
    """The products keep four units of 128 x 128 busy for 2 * 256**3 / 131072 cycles.

    In the dump the loop is bundles 0x10 to 0x28f and four of delay; 65 bundles set the sums to zero
    and 36 write them.
    """
    loop = main_loop(listings(DUMPS)[KLOOP])
    assert loop.mxu_busy_cycles == 2 * 256**3 / 131072
    assert loop.edge_bundles == 65 + 36
    assert loop.bundles == 0x28F + 5 - 0x10 - loop.edge_bundles == 543
    assert (loop.kernel_bundles, loop.depth, loop.spills, loop.fills) == (666, 1, 0, 0)
    assert loop.mxu_occupancy == pytest.approx(256 / 543)
    assert loop.slots["MATMUL"] == pytest.approx(256 / 543, abs=1e-4)
    assert loop.slots["VLOAD"] == pytest.approx(0.1215, abs=1e-4)


def test_other_files_of_libtpu_are_no_listings(tmp_path: Path) -> None:
    """Among them are code of the runtime around the program, and a summary of each schedule."""
    for path in DUMPS.glob("*.txt"):
        shutil.copy(path, tmp_path)
        for name in ("TLP", "<late-finalization>"):
            shutil.copy(path, tmp_path / path.name.replace(KLOOP, name))
    summary = "1700000000000000000-kloop.1-00-schedule-analysis_packed-bundles-post-ra.txt"
    (tmp_path / summary).write_text("Schedule analysis:\n")
    assert set(listings(tmp_path)) == {KLOOP}


def test_dumps_of_another_form_are_left_out(tmp_path: Path) -> None:
    for path in DUMPS.glob("*.txt"):
        (tmp_path / path.name).write_text(path.read_text().replace("MATMUL", "PRODUCTS"))
    assert listings(tmp_path) == {}


def test_innermost_loop_and_its_spills() -> None:
    found = main_loop(
        small(
            "0 : { }\n"
            "0x1 LB: > { }\n"
            "0x2 LB: > > { }\n"
            "0x4 : > > { sbr.rel (%p1) target bundleno = 2 (0x2) }\n"
            "0x9 : > { sbr.rel (!%p2) target bundleno = 1 (0x1) }\n",
            [(1, 0, 0, 0)] * 2 + [(2, 3, 1, 1)] * 7 + [(1, 0, 0, 0)] * 6,
        )
    )
    assert (found.depth, found.bundles, found.edge_bundles) == (2, 7, 0)
    assert found.around_bundles == 13 - 7
    assert (found.mxu_busy_cycles, found.spills, found.fills) == (7, 7, 7)
    assert found.slots == {"MATMUL": 1, "VLOAD": 1, "VLOAD:FILL": 0.3333, "VSTORE:SPILL": 1}


def test_of_several_products_the_shortest_counts() -> None:
    """Two branches do all the multiplying: 10 bundles for whole blocks, 14 for the last along k."""
    busy = [(0,) * 4] * 5 + [(2,) + (0,) * 3] * 10 + [(0,) * 4] * 5
    busy += [(2,) + (0,) * 3] * 14 + [(0,) * 4] * 6
    found = main_loop(
        small(
            "0 LB: > { sbr.rel (%p1) target bundleno = 15 (0xf) }\n"
            "0xf : > { sbr.rel (%p2) target bundleno = 34 (0x22) }\n"
            "0x23 : > { sbr.rel (%p3) target bundleno = 0 (0x0) }\n",
            busy,
        )
    )
    assert (found.bundles, found.edge_bundles, found.mxu_busy_cycles) == (26, 14, 10)


def test_code_without_a_loop_is_one_iteration() -> None:
    found = main_loop(small("0 : { }\n", [(1, 0, 0, 0)] * 3))
    assert (found.bundles, found.mxu_busy_cycles, found.depth) == (3, 1.5, 1)


@pytest.mark.parametrize("table", ["", "MATMUL, XLU\n4 3\n1 2 3\n", "XLU\n4\n"])
def test_text_that_is_no_table(table: str) -> None:
    with pytest.raises(ValueError, match="no table of units"):
        listing("0 : { }\n", table)
