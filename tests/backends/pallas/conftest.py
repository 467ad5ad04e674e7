"""JAX on the CPU alone, with threads enough for its interpreter of TPU kernels.

XLA's pool has as many threads as there are cores, and one that waits for another may then wait for
ever: `NPROC` says how many there are. Both are read when JAX is first used.
"""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("NPROC", "16")
