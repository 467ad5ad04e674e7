"""Finding NVIDIA's tools, and what is kept of a kernel with and without them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gemmir.backend import Artifact
from gemmir.backends.ptx import assemble as assembling
from gemmir.backends.ptx.assemble import assemble, cubin, find_tool
from gemmir.backends.ptx.image import Image
from gemmir.errors import BackendError, MissingError
from gemmir.launch import KernelLaunch, Launch
from gemmir.signature import Signature
from tests.backends.ptx.conftest import tool

ARTIFACT = Artifact(
    kind="ptx",
    text="// PTX",
    signature=Signature(symbol="gemm", arguments=()),
    cpu="sm_80",
    launch=Launch(kernels=(KernelLaunch(symbol="gemm", blocks=1, threads=32),)),
)


def test_a_tool_is_found_in_a_wheel(nowhere: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(assembling, "WHEELS", (("some_wheel", "cu13/bin"),))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    made = tool(tmp_path / "some_wheel" / "cu13" / "bin", "nvdisasm")
    assert find_tool("nvdisasm") == str(made)
    assert find_tool("ptxas") is None


def test_without_ptxas_the_ptx_is_kept(nowhere: None):
    found = Image.from_bytes(assemble(ARTIFACT))
    assert (found.ptx, found.cubin, found.gpu) == (b"// PTX", b"", "sm_80")
    assert found.launch == ARTIFACT.launch
    with pytest.raises(MissingError, match=r"GEM0608.*gemmir\[ptxas\]"):
        cubin("// PTX", "sm_80")


def test_with_ptxas_both_are_kept(ptxas: Path):
    found = Image.from_bytes(assemble(ARTIFACT))
    assert (found.ptx, found.cubin) == (b"// PTX", b"code")
    resources = cubin("// PTX", "sm_80").resources
    assert resources.registers == 40
    assert resources.spills


def test_text_that_ptxas_refuses_is_left_to_the_driver(ptxas: Path):
    tool(ptxas.parent, "ptxas", "echo 'fatal: unsupported .version' >&2; exit 1")
    assert Image.from_bytes(assemble(ARTIFACT)).cubin == b""
    with pytest.raises(BackendError, match=r"GEM0444(.|\n)*unsupported \.version"):
        cubin("// PTX", "sm_80")


def test_lost_speed_is_an_error(ptxas: Path):
    tool(ptxas.parent, "ptxas", "echo 'ptxas info : (C7510) Potential Performance Loss'")
    with pytest.raises(BackendError, match="GEM0445"):
        assemble(ARTIFACT)
