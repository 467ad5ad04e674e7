"""GPUs as data: what schedules and the code generator need to know of one GPU.

Nothing here asks a driver: each is a product, by the figures that its maker publishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from gemmir.errors import ProblemError
from gemmir.machine.cpu import KIB, MIB

NVPTX_TRIPLE: Final = "nvptx64-nvidia-cuda"


AMPERE_MMA: Final = ("f16", "bf16", "tf32", "i8", "u8")
ADA_MMA: Final = (*AMPERE_MMA, "e4m3", "e5m2")
"""What the tensor cores multiply, as `Gemm.dtype` says it: PTX ISA 9.0, section "Matrix
multiply-accumulate operation using mma instruction". f64 is added where they are faster at it than
what is outside of them."""

HOPPER_WGMMA: Final = ("bf16", "f16", "tf32", "e4m3", "e5m2", "i8", "u8")
"""What warpgroups multiply, as `Gemm.dtype` says it: PTX ISA 9.0, section "Asynchronous warpgroup
level matrix instructions". There are products of f64 neither here nor of unlike elements."""


@dataclass(frozen=True, kw_only=True)
class GpuMachine:
    """One NVIDIA GPU: `name` is its compute capability, `product` the card whose figures these are.

    `ptx_version` is the least PTX ISA that knows the GPU, times ten. `smem_bytes_per_block` is what
    a kernel may opt in to; `fma_f32_per_cycle_per_sm` counts scalar fused multiply-adds outside the
    tensor cores, `mma_dtypes` are the element types that `vectorize{with=mma}` has instructions for
    there, each of `mma_k_bytes` along k. `clock_hz` is the boost clock.

    `wgmma_dtypes` are those of `vectorize{with=wgmma}`. Such products read shared memory, where the
    TMA puts what they need: of 16-bit elements they make `wgmma_flops_per_cycle_per_sm`, and of
    others so many fewer as these are longer. `max_blocks_per_cluster` blocks may take in one copy.

    Raises `ProblemError` GEM0121 where a number is not positive, a block cannot be made of whole
    warps, or a block may have more shared memory than its multiprocessor.
    """

    kind: ClassVar[str] = "cuda"
    backend: ClassVar[str] = "ptx"

    name: str
    product: str
    llvm_cpu: str
    llvm_triple: str = NVPTX_TRIPLE
    ptx_version: int
    sms: int
    threads_per_warp: int = 32
    max_threads_per_block: int = 1024
    registers_per_thread: int = 255
    registers_per_sm: int = 65536
    smem_bytes_per_block: int
    smem_bytes_per_sm: int
    max_threads_per_sm: int = 2048
    max_blocks_per_sm: int = 32
    l2_bytes: int
    fma_f32_per_cycle_per_sm: int
    fma_f64_per_cycle_per_sm: int
    mma_dtypes: tuple[str, ...] = AMPERE_MMA
    mma_k_bytes: int = 32
    wgmma_dtypes: tuple[str, ...] = ()
    wgmma_flops_per_cycle_per_sm: int | None = None
    max_blocks_per_cluster: int = 1
    has_async_copies: bool = True
    dram_bytes_per_second: int
    clock_hz: int

    def __post_init__(self) -> None:
        numbers = {name: n for name, n in vars(self).items() if type(n) is int and n < 1}
        if numbers:
            wrong = ", ".join(f"{name}={n}" for name, n in numbers.items())
            raise ProblemError("GEM0121", f"machine {self.name}: {wrong}", "all are at least 1")
        if self.max_threads_per_block % self.threads_per_warp:
            raise ProblemError(
                "GEM0121",
                f"machine {self.name}: blocks of {self.max_threads_per_block} threads in warps of "
                f"{self.threads_per_warp}",
                "the largest block is made of whole warps",
            )
        if self.smem_bytes_per_block > self.smem_bytes_per_sm:
            raise ProblemError(
                "GEM0121",
                f"machine {self.name}: {self.smem_bytes_per_block} bytes of shared memory for a "
                f"block, {self.smem_bytes_per_sm} for its multiprocessor",
                "a block has at most the shared memory of its multiprocessor",
            )

    @property
    def target(self) -> str:
        """The target string of this machine."""
        return f"{self.kind}:{self.name}"

    @property
    def llvm_features(self) -> tuple[str, ...]:
        """The LLVM names of what the code needs beyond the CPU name: the PTX version."""
        return (f"ptx{self.ptx_version}",)

    def flops_per_cycle(self, item_bytes: int) -> int:
        """Most floating-point operations a cycle of one multiprocessor, on 4 or 8 bytes."""
        per_cycle = {4: self.fma_f32_per_cycle_per_sm, 8: self.fma_f64_per_cycle_per_sm}
        return 2 * per_cycle[item_bytes]

    def flops_per_second(self, item_bytes: int) -> int:
        """Most floating-point operations a second of the whole GPU, on 4- or 8-byte elements."""
        return self.flops_per_cycle(item_bytes) * self.sms * self.clock_hz


# The numbers of a compute capability are those of the CUDA C++ Programming Guide 13.0: its table
# "Technical Specifications per Compute Capability" (threads, registers, shared memory) and its
# table "Throughput of Native Arithmetic Instructions" (FMA a cycle). PTX versions: PTX ISA 9.0,
# section "Release Notes", the first version with the target. The rest is of the product, from the
# document that each names.

SM_75: Final = GpuMachine(
    name="sm_75",
    product="T4",
    llvm_cpu="sm_75",
    ptx_version=63,
    sms=40,
    smem_bytes_per_block=64 * KIB,
    smem_bytes_per_sm=64 * KIB,
    max_threads_per_sm=1024,
    max_blocks_per_sm=16,
    l2_bytes=4 * MIB,
    fma_f32_per_cycle_per_sm=64,
    fma_f64_per_cycle_per_sm=2,
    mma_dtypes=("f16",),
    mma_k_bytes=16,
    has_async_copies=False,
    dram_bytes_per_second=320_000_000_000,
    clock_hz=1_590_000_000,
)
"""Turing, T4: NVIDIA Turing GPU Architecture, WP-09183-001, appendix B."""

SM_80: Final = GpuMachine(
    name="sm_80",
    product="A100 SXM4 40 GB",
    llvm_cpu="sm_80",
    ptx_version=70,
    sms=108,
    smem_bytes_per_block=163 * KIB,
    smem_bytes_per_sm=164 * KIB,
    l2_bytes=40 * MIB,
    fma_f32_per_cycle_per_sm=64,
    fma_f64_per_cycle_per_sm=32,
    mma_dtypes=(*AMPERE_MMA, "f64"),
    dram_bytes_per_second=1_555_000_000_000,
    clock_hz=1_410_000_000,
)
"""Ampere, A100: NVIDIA A100 Tensor Core GPU Architecture, version 1.0, tables 1 and 4."""

SM_86: Final = GpuMachine(
    name="sm_86",
    product="GeForce RTX 3090",
    llvm_cpu="sm_86",
    ptx_version=71,
    sms=82,
    smem_bytes_per_block=99 * KIB,
    smem_bytes_per_sm=100 * KIB,
    max_threads_per_sm=1536,
    max_blocks_per_sm=16,
    l2_bytes=6 * MIB,
    fma_f32_per_cycle_per_sm=128,
    fma_f64_per_cycle_per_sm=2,
    dram_bytes_per_second=936_000_000_000,
    clock_hz=1_695_000_000,
)
"""Ampere, GeForce RTX 3090: NVIDIA Ampere GA102 GPU Architecture, version 2.0, appendix A."""

SM_89: Final = GpuMachine(
    name="sm_89",
    product="GeForce RTX 4090",
    llvm_cpu="sm_89",
    ptx_version=78,
    sms=128,
    smem_bytes_per_block=99 * KIB,
    smem_bytes_per_sm=100 * KIB,
    max_threads_per_sm=1536,
    max_blocks_per_sm=24,
    l2_bytes=72 * MIB,
    fma_f32_per_cycle_per_sm=128,
    fma_f64_per_cycle_per_sm=2,
    mma_dtypes=ADA_MMA,
    dram_bytes_per_second=1_008_000_000_000,
    clock_hz=2_520_000_000,
)
"""Ada, GeForce RTX 4090: NVIDIA Ada GPU Architecture, version 2.0, appendix A."""

SM_90A: Final = GpuMachine(
    name="sm_90a",
    product="H200 SXM",
    llvm_cpu="sm_90a",
    ptx_version=80,
    sms=132,
    smem_bytes_per_block=227 * KIB,
    smem_bytes_per_sm=228 * KIB,
    l2_bytes=50 * MIB,
    fma_f32_per_cycle_per_sm=128,
    fma_f64_per_cycle_per_sm=64,
    mma_dtypes=(*ADA_MMA, "f64"),
    wgmma_dtypes=HOPPER_WGMMA,
    wgmma_flops_per_cycle_per_sm=4096,
    max_blocks_per_cluster=8,
    dram_bytes_per_second=4_800_000_000_000,
    clock_hz=1_980_000_000,
)
"""Hopper, H200 SXM: NVIDIA H100 Tensor Core GPU Architecture, table 3, whose chip it has.

Memory: NVIDIA H200 datasheet. The clock is the one at which the datasheet's 67 TFLOP/s of f32 hold.
Warpgroups: 989.4 TFLOP/s of dense f16 at 1830 MHz, H100 Tensor Core GPU Architecture, table 2.
Clusters: CUDA C++ Programming Guide, the size that is portable.
"""

SM_120: Final = GpuMachine(
    name="sm_120",
    product="GeForce RTX 5090",
    llvm_cpu="sm_120",
    ptx_version=87,
    sms=170,
    smem_bytes_per_block=99 * KIB,
    smem_bytes_per_sm=100 * KIB,
    max_threads_per_sm=1536,
    max_blocks_per_sm=24,
    l2_bytes=96 * MIB,
    fma_f32_per_cycle_per_sm=128,
    fma_f64_per_cycle_per_sm=2,
    mma_dtypes=ADA_MMA,
    dram_bytes_per_second=1_792_000_000_000,
    clock_hz=2_407_000_000,
)
"""Blackwell, GeForce RTX 5090: NVIDIA RTX Blackwell GPU Architecture, version 1.1, appendix A."""

SHIPPED_GPUS: Final = (SM_75, SM_80, SM_86, SM_89, SM_90A, SM_120)
"""The GPUs that can be named; none needs to be there."""
