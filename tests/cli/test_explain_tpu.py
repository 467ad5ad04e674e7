"""gemmir explain --profile: libtpu's static profile beside that of XLA's own product."""

from __future__ import annotations

from typing import Final

import pytest

from gemmir.tpu_profile import LABEL
from tests.backends.pallas.profile.programs import needs_libtpu
from tests.cli.conftest import Cli

FULL_K: Final = (
    "tile{loops=m,n sizes=128,128 over=grid},promote{operand=c to=vmem},"
    "promote{operand=a to=vmem},promote{operand=b to=vmem},"
    "pipeline{loop=n stages=2 with=dma},vectorize{with=mxu}"
)
OPTIONS: Final = ("--m", "256", "--n", "256", "--k", "512", "--dtype", "bf16", "--out", "bf16")


@needs_libtpu
def test_profile_at_the_command_line(cli: Cli) -> None:
    """Both forms; the second is taken from the cache."""
    target = ("--target", "tpu:v5e", "--schedule", FULL_K)
    printed = cli("explain", *OPTIONS, *target, "--profile")
    assert printed.status == 0, printed.err
    assert LABEL in printed.out
    found = cli("explain", *OPTIONS, *target, "--profile", "--json").json["profile"]
    assert 0 < found["mxu_utilisation"] < 1
    assert 0 < found["xla_mxu_utilisation"] < 1
    assert found["ratio"] == pytest.approx(found["mxu_utilisation"] / found["xla_mxu_utilisation"])
    assert found["label"] == LABEL
    assert found["ours"]["method"] == "simulated"


def test_profile_is_for_tpus(cli: Cli) -> None:
    result = cli("explain", *OPTIONS[:6], "--target", "cpu:znver3", "--profile")
    assert result.status == 2
    assert "no TPU" in result.err
