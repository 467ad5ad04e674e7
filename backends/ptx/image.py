"""What is kept of a kernel for a GPU: its PTX, its cubin where there is one, and how it starts."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gemmir.launch import Launch


@dataclass(frozen=True, kw_only=True)
class Image:
    """Code for `gpu`, such as sm_80, and its launch; `cubin` is empty where there was no ptxas.

    The PTX stays beside the cubin, since a driver may be too old for what a new ptxas writes.
    """

    gpu: str
    launch: Launch
    ptx: bytes
    cubin: bytes = b""

    def to_bytes(self) -> bytes:
        """One line of JSON, the cubin, the PTX."""
        head = {"gpu": self.gpu, "launch": self.launch.to_json(), "cubin_bytes": len(self.cubin)}
        return json.dumps(head).encode() + b"\n" + self.cubin + self.ptx

    @staticmethod
    def from_bytes(data: bytes) -> Image:
        """What `to_bytes` wrote; `ValueError`, `KeyError` or `TypeError` otherwise."""
        head, _, code = data.partition(b"\n")
        fields = json.loads(head)
        size = int(fields["cubin_bytes"])
        return Image(
            gpu=str(fields["gpu"]),
            launch=Launch.from_json(fields["launch"]),
            ptx=code[size:],
            cubin=code[:size],
        )
