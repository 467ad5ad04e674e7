"""CPUs as data: what schedules and the code generator need to know of one core and its caches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from gemmir.errors import ProblemError

KIB: Final = 1024
MIB: Final = 1024 * KIB

HOST_NAME: Final = "host"
"""The name of this computer's CPU, which the target string leaves out."""


DOT_FEATURES: Final = (
    ("u8", "i8", ("avx512vnni", "avxvnni", "i8mm")),
    ("i8", "i8", ("avx512vnni", "avxvnni", "dotprod")),
    ("u8", "u8", ("dotprod",)),
    ("bf16", "bf16", ("avx512bf16", "bf16")),
)
"""Pairs of element types whose products are added to a sum several at a time, and the LLVM names of
the features of which one is enough: vpdpbusd (of
i8 by i8 too), sdot, udot, usdot, vpdpbf16ps and bfdot.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2; Arm Architecture Reference
Manual, DDI 0487, FEAT_DotProd, FEAT_I8MM and FEAT_BF16.
"""


TILE_FEATURES: Final = {"bf16": "amx-bf16", "i8": "amx-int8", "u8": "amx-int8"}
"""Elements of which a CPU multiplies tiles, and LLVM's name of the feature beside amx-tile.

Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter "Programming with
Intel AMX".
"""


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

    def adds_products(self, a: str, b: str) -> bool:
        """Whether several products of such elements are added to a sum by one instruction."""
        pairs = ({a, b} == {first, second} for first, second, _ in DOT_FEATURES)
        known = (features for _, _, features in DOT_FEATURES)
        return any(
            found and any(name in self.llvm_features for name in features)
            for found, features in zip(pairs, known, strict=True)
        )

    def multiplies_tiles(self, a: str, b: str) -> bool:
        """Whether there is an instruction for a tile of `a` by one of `b`."""
        features = {TILE_FEATURES.get(name) for name in (a, b)}
        return len(features) == 1 and features | {"amx-tile"} <= set(self.llvm_features)

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

ZNVER4: Final = CpuMachine(
    name="znver4",
    llvm_cpu="znver4",
    llvm_triple=X86_TRIPLE,
    llvm_features=(
        *ZNVER3.llvm_features,
        *X86_64_V4.llvm_features[len(X86_64_V3.llvm_features) :],
        "avx512bf16",
        "avx512bitalg",
        "avx512ifma",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512vnni",
        "avx512vpopcntdq",
        "gfni",
    ),
    vector_bytes=64,
    vector_registers=32,
    l1_bytes=32 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=32 * MIB,
    fma_per_cycle=1,
)
"""AMD Zen 4: Software Optimization Guide for the AMD Zen4 Microarchitecture, publication 57647.

The two FMA pipes have 256 bits, and take a vector of 512 together. The eight cores of a complex
share 32 MiB of L3.
"""

ZNVER5: Final = CpuMachine(
    name="znver5",
    llvm_cpu="znver5",
    llvm_triple=X86_TRIPLE,
    llvm_features=(*ZNVER4.llvm_features, "avx512vp2intersect", "avxvnni"),
    vector_bytes=64,
    vector_registers=32,
    l1_bytes=48 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=32 * MIB,
    fma_per_cycle=2,
)
"""AMD Zen 5: Software Optimization Guide for the AMD Zen5 Microarchitecture, publication 58455.

The two FMA pipes have 512 bits, as they do in the servers and the desktops and not in all notebooks
(B. Cohen and M. Subramony, Next Generation "Zen 5" Core, Hot Chips 2024, which has the caches too).
"""

ICELAKE_SERVER: Final = CpuMachine(
    name="icelake-server",
    llvm_cpu="icelake-server",
    llvm_triple=X86_TRIPLE,
    llvm_features=(
        *X86_64_V4.llvm_features,
        "adx",
        "avx512bitalg",
        "avx512ifma",
        "avx512vbmi",
        "avx512vbmi2",
        "avx512vnni",
        "avx512vpopcntdq",
        "clflushopt",
        "clwb",
        "gfni",
        "sha",
        "vaes",
    ),
    vector_bytes=64,
    vector_registers=32,
    l1_bytes=48 * KIB,
    l2_bytes=1280 * KIB,
    l3_bytes=60 * MIB,
    fma_per_cycle=2,
)
"""Intel Xeon of the third generation: Intel 64 and IA-32 Architectures Optimization Reference
Manual, order number 248966, chapter on Ice Lake.

The L3 is that of the Xeon Platinum 8380 with its 40 cores (ark.intel.com, product 212287).
"""

SAPPHIRERAPIDS: Final = CpuMachine(
    name="sapphirerapids",
    llvm_cpu="sapphirerapids",
    llvm_triple=X86_TRIPLE,
    llvm_features=(
        *ICELAKE_SERVER.llvm_features,
        "amx-bf16",
        "amx-int8",
        "amx-tile",
        "avx512bf16",
        "avx512fp16",
        "avxvnni",
    ),
    vector_bytes=64,
    vector_registers=32,
    l1_bytes=48 * KIB,
    l2_bytes=2 * MIB,
    l3_bytes=105 * MIB,
    fma_per_cycle=2,
)
"""Intel Xeon of the fourth generation: Intel's Optimization Reference Manual, order number 248966,
chapter on Golden Cove.

The L3 is that of the Xeon Platinum 8480+ with its 56 cores (ark.intel.com, product 231746).
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

NEOVERSE_V1: Final = CpuMachine(
    name="neoverse-v1",
    llvm_cpu="neoverse-v1",
    llvm_triple=AARCH64_TRIPLE,
    llvm_features=(*NEOVERSE_N1.llvm_features, "bf16", "fp16fml", "i8mm", "sve"),
    vector_bytes=16,
    vector_registers=32,
    l1_bytes=64 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=32 * MIB,
    fma_per_cycle=4,
)
"""Arm Neoverse V1: Core Technical Reference Manual, document 101427 (L1 and L2 caches).

Four ASIMD pipes: Neoverse V1 Software Optimization Guide, PJDOC-466751330-9685, section 2.1. Two of
them make one SVE pipe of 256 bits, so that vectors of 128 bits reach the same peak. The L3 is the
system-level cache of AWS Graviton3, the most common such CPU.
"""

NEOVERSE_N2: Final = CpuMachine(
    name="neoverse-n2",
    llvm_cpu="neoverse-n2",
    llvm_triple=AARCH64_TRIPLE,
    llvm_features=(*NEOVERSE_V1.llvm_features, "sve2"),
    vector_bytes=16,
    vector_registers=32,
    l1_bytes=64 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=64 * MIB,
    fma_per_cycle=2,
)
"""Arm Neoverse N2: Core Technical Reference Manual, document 102099 (L1 and L2 caches).

Two ASIMD pipes: Neoverse N2 Software Optimization Guide, PJDOC-466751330-18256, section 2.1. The L3
is the system-level cache of Alibaba's Yitian 710 (Chips and Cheese, Arm's Neoverse N2, 2023).
"""

NEOVERSE_V2: Final = CpuMachine(
    name="neoverse-v2",
    llvm_cpu="neoverse-v2",
    llvm_triple=AARCH64_TRIPLE,
    llvm_features=NEOVERSE_N2.llvm_features,
    vector_bytes=16,
    vector_registers=32,
    l1_bytes=64 * KIB,
    l2_bytes=1 * MIB,
    l3_bytes=114 * MIB,
    fma_per_cycle=4,
)
"""Arm Neoverse V2: Core Technical Reference Manual, document 102375 (L1 cache).

Four ASIMD pipes, which are also those of SVE: Neoverse V2 Software Optimization Guide, document
109898, section 2.1. L2 and L3 are those of NVIDIA's Grace (NVIDIA Grace CPU Superchip Whitepaper).
"""

SHIPPED: Final = (
    X86_64_V3,
    ZNVER3,
    X86_64_V4,
    ZNVER4,
    ZNVER5,
    ICELAKE_SERVER,
    SAPPHIRERAPIDS,
    NEOVERSE_N1,
    NEOVERSE_V1,
    NEOVERSE_N2,
    NEOVERSE_V2,
)
"""The CPUs that can be named without having one."""
