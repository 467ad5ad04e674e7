"""One way to run every test: seeds that do not change, and an object cache of its own."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

settings.register_profile(
    "gemmir",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=40,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "thorough",
    deadline=None,
    max_examples=2000,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("gemmir")

for name in ("GEMMIR_NUM_THREADS", "OMP_NUM_THREADS"):  # tests say how many threads they want
    os.environ.pop(name, None)
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests run on every core already
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # libtpu would look for a TPU in every process


def pytest_collection_finish() -> None:
    """Leave what is imported out of the collections of garbage: a tenth of the time of tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def object_cache() -> Iterator[str]:
    """A folder for compiled kernels that only this run uses."""
    with tempfile.TemporaryDirectory(prefix="gemmir-") as folder:
        before = os.environ.get("GEMMIR_CACHE")
        os.environ["GEMMIR_CACHE"] = folder
        yield folder
        if before is None:
            del os.environ["GEMMIR_CACHE"]
        else:
            os.environ["GEMMIR_CACHE"] = before
