"""TPUs as data: what schedules, the fit check and the profile need to know of one TPU.

Nothing here asks a TPU or libtpu: each is a product, by the figures that its maker publishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from gemmir.errors import ProblemError
from gemmir.machine.cpu import MIB

FLOAT_PRODUCTS: Final = ("bf16", "f32", "bf16x3", "bf16x1")
F8_PRODUCTS: Final = ("e4m3", "e5m2")
"""What the matrix units of every TPU multiply, as `Gemm.dtype` says it, and what those that hold
8-bit floating-point values do: what libtpu 0.0.52 compiles a Pallas kernel of."""

MXU_PASSES: Final = {"f32": 6, "bf16x3": 3}
"""Products of bf16 that one of a type is made of, where it is more than one: six for all the digits
of f32 (`jax.lax.Precision.HIGHEST`), three for a sum of two bf16 each (Henry, Tang and Heinecke,
Leveraging the bfloat16 Artificial Intelligence Datatype, ARITH 2019)."""


@dataclass(frozen=True, kw_only=True)
class TpuMachine:
    """One TPU device as JAX sees it: `cores_per_device` cores that share the kernel's grid.

    `topology` is the smallest such system that libtpu compiles for without a TPU, `device_kind` its
    name in JAX. A core has `mxus_per_core` matrix units of `mxu_size` x `mxu_size`; the flops a
    cycle are of all of them, and 0 where they do not multiply the type. Vector registers are
    `sublanes` x `lanes` of 32 bits. `grid_step_overhead_cycles` is what one step of a kernel's grid
    costs beside its work, `hbm_bytes_per_second` of the whole device.

    Raises `ProblemError` GEM0124 where a number is not positive, and GEM0125 where the rate of a
    type and whether it is multiplied contradict each other.
    """

    kind: ClassVar[str] = "tpu"
    backend: ClassVar[str] = "pallas"

    name: str
    product: str
    device_kind: str
    topology: str
    cores_per_device: int
    mxus_per_core: int
    mxu_size: int
    mxu_dtypes: tuple[str, ...]
    bf16_flops_per_cycle_per_core: int
    i8_flops_per_cycle_per_core: int
    f8_flops_per_cycle_per_core: int
    sublanes: int = 8
    lanes: int = 128
    vmem_bytes_per_core: int
    hbm_bytes_per_second: int
    clock_hz: int
    grid_step_overhead_cycles: int

    def __post_init__(self) -> None:
        rates = {
            "i8": self.i8_flops_per_cycle_per_core,
            "e4m3": self.f8_flops_per_cycle_per_core,
            "e5m2": self.f8_flops_per_cycle_per_core,
        }
        least = {f"{t}_flops_per_cycle_per_core": 0 for t in ("i8", "f8")}
        numbers = {
            name: n for name, n in vars(self).items() if type(n) is int and n < least.get(name, 1)
        }
        if numbers:
            wrong = ", ".join(f"{name}={n}" for name, n in numbers.items())
            raise ProblemError("GEM0124", f"machine {self.name}: {wrong}", "all are at least 1")
        for dtype, rate in rates.items():
            if (rate > 0) != (dtype in self.mxu_dtypes):
                raise ProblemError(
                    "GEM0125",
                    f"machine {self.name}: {rate} flops a cycle of {dtype}, and mxu_dtypes is "
                    f"{', '.join(self.mxu_dtypes)}",
                    "a type has a rate exactly where it is multiplied",
                )

    @property
    def target(self) -> str:
        """The target string of this machine."""
        return f"{self.kind}:{self.name}"

    def mxu_flops_per_cycle(self, dtype: str) -> float:
        """Most operations a cycle of the matrix units of one core, on products of `dtype`."""
        if dtype == "i8":
            return self.i8_flops_per_cycle_per_core
        if dtype in F8_PRODUCTS:
            return self.f8_flops_per_cycle_per_core
        return self.bf16_flops_per_cycle_per_core / MXU_PASSES.get(dtype, 1)

    def mxu_flops_per_second(self, dtype: str) -> float:
        """Most operations a second of the whole device, on products of `dtype`."""
        return self.mxu_flops_per_cycle(dtype) * self.cores_per_device * self.clock_hz

    @property
    def hbm_bytes_per_cycle_per_core(self) -> float:
        """What one core can read or write of HBM in a cycle while the others do the same."""
        return self.hbm_bytes_per_second / self.clock_hz / self.cores_per_device


# Matrix units and VMEM are those of `jax.experimental.pallas.tpu.TpuInfo` (JAX 0.10.2, per core),
# and so are the rates of i8 and 8-bit floats beside bf16; libtpu 0.0.52 compiles exactly that much
# VMEM. The flops a cycle are what the schedules that libtpu makes keep the matrix units busy for.
# The 128 x 128 units do a multiply and an add of each element a cycle; those of 256 x 256 take two
# rows a cycle. Peak and HBM are those of the page of the generation in the Cloud TPU documentation
# (docs.cloud.google.com/tpu/docs), "System architecture"; the clock follows from the peak and the
# flops a cycle. The overhead of a grid step is the length of libtpu's loop over the grid less the
# cycles of the matrix units in it, for full-k kernels.

V4: Final = TpuMachine(
    name="v4",
    product="TPU v4",
    device_kind="TPU v4",
    topology="v4:2x2x1",
    cores_per_device=1,
    mxus_per_core=4,
    mxu_size=128,
    mxu_dtypes=FLOAT_PRODUCTS,
    bf16_flops_per_cycle_per_core=131_072,
    i8_flops_per_cycle_per_core=0,
    f8_flops_per_cycle_per_core=0,
    vmem_bytes_per_core=16 * MIB,
    hbm_bytes_per_second=614_000_000_000,
    clock_hz=1_050_000_000,
    grid_step_overhead_cycles=300,
)
"""TPU v4: 275 TFLOP/s and 1228 GB/s of a chip. Its two cores are a device each in this topology.

Clock: Jouppi et al., TPU v4, ISCA 2023, table 4. Mosaic refuses 8-bit products.
"""

V5E: Final = TpuMachine(
    name="v5e",
    product="TPU v5e",
    device_kind="TPU v5 lite",
    topology="v5e:1x1",
    cores_per_device=1,
    mxus_per_core=4,
    mxu_size=128,
    mxu_dtypes=(*FLOAT_PRODUCTS, "i8", *F8_PRODUCTS),
    bf16_flops_per_cycle_per_core=131_072,
    i8_flops_per_cycle_per_core=262_144,
    f8_flops_per_cycle_per_core=131_072,
    vmem_bytes_per_core=128 * MIB,
    hbm_bytes_per_second=819_000_000_000,
    clock_hz=1_500_000_000,
    grid_step_overhead_cycles=260,
)
"""TPU v5e: 197 TFLOP/s and 819 GB/s of a chip with one core."""

V5P: Final = TpuMachine(
    name="v5p",
    product="TPU v5p",
    device_kind="TPU v5",
    topology="v5p:2x2x1",
    cores_per_device=2,
    mxus_per_core=4,
    mxu_size=128,
    mxu_dtypes=(*FLOAT_PRODUCTS, "i8", *F8_PRODUCTS),
    bf16_flops_per_cycle_per_core=131_072,
    i8_flops_per_cycle_per_core=262_144,
    f8_flops_per_cycle_per_core=131_072,
    vmem_bytes_per_core=64 * MIB,
    hbm_bytes_per_second=2_765_000_000_000,
    clock_hz=1_750_000_000,
    grid_step_overhead_cycles=330,
)
"""TPU v5p: 459 TFLOP/s and 2765 GB/s of a chip, whose two cores are one device."""

V6E: Final = TpuMachine(
    name="v6e",
    product="TPU v6e",
    device_kind="TPU v6 lite",
    topology="v6e:1x1",
    cores_per_device=1,
    mxus_per_core=2,
    mxu_size=256,
    mxu_dtypes=(*FLOAT_PRODUCTS, "i8", *F8_PRODUCTS),
    bf16_flops_per_cycle_per_core=524_288,
    i8_flops_per_cycle_per_core=1_048_576,
    f8_flops_per_cycle_per_core=524_288,
    vmem_bytes_per_core=128 * MIB,
    hbm_bytes_per_second=1_638_000_000_000,
    clock_hz=1_750_000_000,
    grid_step_overhead_cycles=377,
)
"""TPU v6e (Trillium): 918 TFLOP/s and 1638 GB/s of a chip with one core."""

TPU7X: Final = TpuMachine(
    name="tpu7x",
    product="TPU7x",
    device_kind="TPU7x",
    topology="tpu7x:2x2x1",
    cores_per_device=1,
    mxus_per_core=2,
    mxu_size=256,
    mxu_dtypes=(*FLOAT_PRODUCTS, *F8_PRODUCTS),
    bf16_flops_per_cycle_per_core=524_288,
    i8_flops_per_cycle_per_core=0,
    f8_flops_per_cycle_per_core=1_048_576,
    vmem_bytes_per_core=64 * MIB,
    hbm_bytes_per_second=3_690_000_000_000,
    clock_hz=2_200_000_000,
    grid_step_overhead_cycles=419,
)
"""TPU7x (Ironwood): 2307 TFLOP/s and 7380 GB/s of a chip, whose two cores are a device each.

Its units have no products of i8: Mosaic would make them of bf16, which sums in f32 and so is not
exact.
"""

SHIPPED_TPUS: Final = (V4, V5E, V5P, V6E, TPU7X)
"""The TPUs that can be named; none needs to be there."""

OTHER_NAMES: Final = {
    "tpu": V5E.target,
    "tpu:v5lite": V5E.target,
    "tpu:v5litepod": V5E.target,
    "tpu:v5": V5P.target,
    "tpu:v6lite": V6E.target,
    "tpu:trillium": V6E.target,
    "tpu:v7": TPU7X.target,
    "tpu:v7x": TPU7X.target,
    "tpu:ironwood": TPU7X.target,
}
"""What Google Cloud, JAX and people call them: the targets that are meant, for hints."""


def tpu_of(device_kind: str) -> TpuMachine | None:
    """The TPU that JAX calls `device_kind`; some of its versions say the product's name."""
    names = {name: m for m in SHIPPED_TPUS for name in (m.product, m.device_kind)}
    return names.get(device_kind)
