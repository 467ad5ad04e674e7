"""CPUs as data: what schedules and the code generator need to know of one core and its caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from gemmir.errors import ProblemError

KIB: Final = 1024
MIB: Final = 1024 * KIB

HOST_NAME: Final = "host"
"""The name of this computer's CPU, which the target string leaves out."""


@dataclass(frozen=True, kw_only=True)
class CpuMachine:
    """One CPU. Caches are those that one core sees; `l3_bytes` is the whole L3, which it shares.

    `llvm_cpu` and `llvm_triple` are what LLVM is asked to make code for; `llvm_features` are the
    LLVM names of the features that a CPU must have to run such code. `fma_per_cycle` counts fused
    multiply-adds of whole vectors. A CPU without an L3 has the size of its L2 there.

    Raises `ProblemError` GEM0121 where a number is not positive or a cache is smaller than the one
    nearer to the core.
    """

    kind: ClassVar[str] = "cpu"
    backend: ClassVar[str] = "cpu"

    name: str
    llvm_cpu: str
    llvm_triple: str
    llvm_features: tuple[str, ...]
    vector_bytes: int
    vector_registers: int
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int
    fma_per_cycle: int

    def __post_init__(self) -> None:
        numbers = (self.vector_bytes, self.vector_registers, self.l1_bytes, self.fma_per_cycle)
        if min(numbers) < 1 or self.vector_bytes & (self.vector_bytes - 1):
            raise ProblemError(
                "GEM0121",
                f"machine {self.name}: {self.vector_registers} registers of {self.vector_bytes} "
                f"bytes, L1 of {self.l1_bytes} bytes, {self.fma_per_cycle} FMA a cycle",
                "all are at least 1 and vectors are a power of two",
            )
        if not self.l1_bytes <= self.l2_bytes <= self.l3_bytes:
            raise ProblemError(
                "GEM0121",
                f"machine {self.name}: caches of {self.l1_bytes}, {self.l2_bytes} and "
                f"{self.l3_bytes} bytes",
                "each cache is at least as large as the one nearer to the core",
            )

    @property
    def target(self) -> str:
        """The target string of this machine."""
        return self.kind if self.name == HOST_NAME else f"{self.kind}:{self.name}"

    def lanes(self, item_bytes: int) -> int:
        """Elements of `item_bytes` bytes in one vector register."""
        return self.vector_bytes // item_bytes

    def flops_per_cycle(self, item_bytes: int) -> int:
        """Most floating-point operations a cycle of one core, on elements of `item_bytes` bytes."""
        return 2 * self.fma_per_cycle * self.lanes(item_bytes)


X86_TRIPLE: Final = "x86_64-unknown-linux-gnu"
AARCH64_TRIPLE: Final = "aarch64-unknown-linux-gnu"

X86_64_V3: Final = CpuMachine(
    name="x86-64-v3",
    llvm_cpu="x86-64-v3",
    llvm_triple=X86_TRIPLE,
    llvm_features=("avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"),
    vector_bytes=32,
    vector_registers=16,
    l1_bytes=32 * KIB,
    l2_bytes=256 * KIB,
    l3_bytes=8 * MIB,
    fma_per_cycle=2,
)
"""Any x86-64 with AVX2. Features: System V ABI, AMD64 Architecture Processor Supplement, table 3.1.

Caches and FMA units are those of the first such core, Haswell (Core i7-4770): Intel 64 and IA-32
Architectures Optimization Reference Manual, order number 248966, chapter on Haswell.
"""

ZNVER3: Final = CpuMachine(
    name="znver3",
    llvm_cpu="znver3",
    llvm_triple=X86_TRIPLE,
    llvm_features=(*X86_64_V3.llvm_features, "adx", "clflushopt", "clwb", "sha", "vaes"),
    vector_bytes=32,
    vector_registers=16,
    l1_bytes=32 * KIB,
    l2_bytes=512 * KIB,
    l3_bytes=32 * MIB,
    fma_per_cycle=2,
)
"""AMD Zen 3: Software Optimization Guide for AMD Family 19h Processors, publication 56665.

The eight cores of a complex share 32 MiB of L3; there are two FMA pipes of 256 bits.
"""

X86_64_V4: Final = CpuMachine(
    name="x86-64-v4",
    llvm_cpu="x86-64-v4",
    llvm_triple=X86_TRIPLE,
    llvm_features=(
        *X86_64_V3.llvm_features,
        "avx512bw",
        "avx512cd",
        "avx512dq",
        "avx512f",
        "avx512vl",
    ),
    vector_bytes=64,
    vector_registers=32,
    l1_bytes=32 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=11 * MIB,
    fma_per_cycle=2,
)
"""Any x86-64 with the AVX-512 of servers. Features: as x86-64-v3.

Caches and FMA units are those of the first such core, Skylake Server with eight cores (1.375 MiB of
L3 a core): Intel's Optimization Reference Manual, order number 248966, chapter on Skylake Server.
"""

NEOVERSE_N1: Final = CpuMachine(
    name="neoverse-n1",
    llvm_cpu="neoverse-n1",
    llvm_triple=AARCH64_TRIPLE,
    llvm_features=("aes", "crc", "dotprod", "fp-armv8", "fullfp16", "lse", "neon", "rcpc", "sha2"),
    vector_bytes=16,
    vector_registers=32,
    l1_bytes=64 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=32 * MIB,
    fma_per_cycle=2,
)
"""Arm Neoverse N1: Core Technical Reference Manual, document 100616 (L1 and L2 caches).

Two ASIMD pipes: Neoverse N1 Software Optimization Guide, PJDOC-466751330-9707, section 2.1. The L3
is the system-level cache of AWS Graviton2, the most common such CPU.
"""

SHIPPED: Final = (X86_64_V3, ZNVER3, X86_64_V4, NEOVERSE_N1)
"""The CPUs that can be named without having one."""
