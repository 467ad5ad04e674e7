"""gemmir compile: lower a problem and write what was asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from gemmir.cli.crash import reproducible
from gemmir.cli.options import Json, ProblemOptions
from gemmir.cli.output import note, put, put_json, put_table, write_file

if TYPE_CHECKING:
    from gemmir.compiler import Lowered
    from gemmir.lowering import Stage


def _mlir(lowered: Lowered) -> bytes:
    return list(lowered.stages.values())[-1].text.encode()


def _llvm(lowered: Lowered) -> bytes:
    return (lowered.artifact.llvm or lowered.artifact.text).encode()


def _ptx(lowered: Lowered) -> bytes:
    return lowered.artifact.text.encode()


def _pallas(lowered: Lowered) -> bytes:
    return lowered.artifact.text.encode()


def _hlo(lowered: Lowered) -> bytes:
    from gemmir.backends.pallas.export import stablehlo

    return stablehlo(lowered.artifact).encode()


def _asm(lowered: Lowered) -> bytes:
    from gemmir.backends.cpu.assemble import assembly

    return assembly(lowered.artifact).encode()


def _obj(lowered: Lowered) -> bytes:
    return lowered.assemble()


def _cubin(lowered: Lowered) -> bytes:
    from gemmir.backends.ptx.assemble import cubin

    return cubin(lowered.artifact.text, lowered.artifact.cpu).data


def _sass(lowered: Lowered) -> bytes:
    from gemmir.backends.ptx.sass import disassemble

    return disassemble(_cubin(lowered)).encode()


def _so(lowered: Lowered) -> bytes:
    from gemmir.backends.cpu.assemble import shared_library

    return shared_library(lowered.assemble())


def _header(lowered: Lowered) -> bytes:
    from gemmir.backend import tiles_constant
    from gemmir.backends.cpu.assemble import header
    from gemmir.backends.cpu.openmp import ENTRY

    artifact = lowered.artifact
    return header(
        artifact.signature,
        is_threaded=ENTRY in artifact.text,
        has_tiles=tiles_constant(artifact.signature.symbol) in artifact.text,
    ).encode()


@dataclass(frozen=True, kw_only=True)
class Kind:
    """Something to emit: the end of its file name, and whether it is text."""

    suffix: str
    is_text: bool
    make: Callable[[Lowered], bytes]


KINDS: Final[Mapping[str, Kind]] = {
    "mlir": Kind(suffix=".mlir", is_text=True, make=_mlir),
    "llvm": Kind(suffix=".ll", is_text=True, make=_llvm),
    "asm": Kind(suffix=".s", is_text=True, make=_asm),
    "obj": Kind(suffix=".o", is_text=False, make=_obj),
    "so": Kind(suffix=".so", is_text=False, make=_so),
    "header": Kind(suffix=".h", is_text=True, make=_header),
    "ptx": Kind(suffix=".ptx", is_text=True, make=_ptx),
    "cubin": Kind(suffix=".cubin", is_text=False, make=_cubin),
    "sass": Kind(suffix=".sass", is_text=True, make=_sass),
    "pallas": Kind(suffix=".py", is_text=True, make=_pallas),
    "hlo": Kind(suffix=".stablehlo.mlir", is_text=True, make=_hlo),
}

OF_MACHINE: Final[Mapping[str, tuple[str, ...]]] = {
    "cpu": ("mlir", "llvm", "asm", "obj", "so", "header"),
    "cuda": ("mlir", "llvm", "ptx", "cubin", "sass"),
    "tpu": ("mlir", "pallas", "hlo"),
}
"""The kinds that there are for each kind of machine."""


def compile(
    *,
    problem: ProblemOptions,
    emit: Annotated[
        str, typer.Option(help=f"What to write, joined by commas: {' '.join(KINDS)}.")
    ] = "",
    print_ir_after_all: Annotated[
        bool, typer.Option("--print-ir-after-all", help="Print the IR of every stage.")
    ] = False,
    print_ir_after: Annotated[
        str | None, typer.Option(help="Print the IR after a pass, by its name or NN-name.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file; for several kinds a stem or a folder."),
    ] = None,
    json: Json = False,
) -> None:
    """Lower a problem to machine code, and say what was built or write it.

    For a GPU that is PTX, which needs neither CUDA nor a GPU; a cubin needs ptxas, and SASS also
    nvdisasm. For a TPU it is a Python file with a Pallas kernel, and hlo is what JAX makes of it
    for XLA, which needs JAX and no TPU.

    Without --emit, prints a summary. One kind goes to standard output or to the file that -o names;
    several go to files that -o names the stem or the folder of.
    """
    kinds = _kinds(emit, output, problem.target.split(":")[0], json=json)
    job = problem.job()
    with reproducible(job):
        lowered = job.lower()
        shown = _shown(lowered, print_ir_after_all, print_ir_after)
        made = {kind: KINDS[kind].make(lowered) for kind in kinds}
        summary = None if kinds and not json else _summary(lowered)
    is_data = not (kinds and output is None) and not json
    for stage in shown:
        text = f"// {stage.name} ({stage.level}){f': {stage.step}' if stage.step else ''}\n"
        (put if is_data else note)(text + stage.text)
    paths = _paths(kinds, output, lowered.artifact.signature.symbol)
    for kind, path in paths.items():
        write_file(path, made[kind])
        note(f"wrote {path}, {len(made[kind])} bytes")
    if json:
        assert summary is not None
        texts = {k: v.decode() for k, v in made.items() if KINDS[k].is_text and k not in paths}
        files = {kind: str(path) for kind, path in paths.items()}
        put_json({**summary, "emitted": texts, "files": files})
    elif summary is not None and not shown:
        _print_summary(summary)
    else:
        for kind in kinds:
            if kind not in paths:
                put(made[kind].decode())


def _kinds(emit: str, output: Path | None, machine: str, *, json: bool) -> list[str]:
    """The kinds to emit; a usage error where they cannot go anywhere."""
    kinds = list(dict.fromkeys(word for word in emit.split(",") if word))
    for kind in kinds:
        legal = OF_MACHINE.get(machine, tuple(KINDS))
        if kind not in legal:
            raise typer.BadParameter(f"--emit {kind}: the kinds are {', '.join(legal)}")
    if output is not None and not kinds:
        raise typer.BadParameter("-o needs --emit, which says what to write")
    if output is None and len(kinds) > 1 and not json:
        raise typer.BadParameter(
            f"--emit {emit} makes several files; -o names their stem or folder"
        )
    binary = [kind for kind in kinds if not KINDS[kind].is_text]
    if output is None and binary:
        raise typer.BadParameter(f"--emit {binary[0]} is not text; -o names its file")
    return kinds


def _paths(kinds: Sequence[str], output: Path | None, symbol: str) -> dict[str, Path]:
    """Where each kind goes; empty where all go to standard output."""
    if output is None:
        return {}
    if output.is_dir():
        return {kind: output / f"{symbol}{KINDS[kind].suffix}" for kind in kinds}
    if len(kinds) == 1:
        return {kinds[0]: output}
    known = {kind.suffix for kind in KINDS.values()}
    stem = output.with_suffix("") if output.suffix in known else output
    return {kind: stem.with_name(stem.name + KINDS[kind].suffix) for kind in kinds}


def _shown(lowered: Lowered, everything: bool, after: str | None) -> list[Stage]:
    """The stages to print."""
    if not everything and after is None:
        return []
    stages = list(lowered.stages.values())
    if after is None:
        return stages
    wanted = after.removeprefix("gemmir-")
    found = [s for s in stages if wanted in (s.name, s.name.split("-", 1)[1])]
    if not found:
        names = ", ".join(s.name for s in stages)
        raise typer.BadParameter(f"--print-ir-after {after}: the stages are {names}")
    return found


def _summary(lowered: Lowered) -> dict[str, Any]:
    from gemmir.cache import ObjectCache, default_path

    if lowered.artifact.launch is not None:
        return {**_lowering(lowered), "launch": asdict(lowered.artifact.launch)}
    cache = ObjectCache(default_path())
    found = cache.get(lowered.key)
    return {
        **_lowering(lowered),
        "object_bytes": len(lowered.assemble(cache)),
        "cache": {
            "folder": None if cache.path is None else os.fspath(cache.path),
            "was_there": found is not None,
        },
    }


def _lowering(lowered: Lowered) -> dict[str, Any]:
    """What was lowered, and the stages."""
    from gemmir.sizes import Unknown

    signature = lowered.artifact.signature
    return {
        "symbol": signature.symbol,
        "arguments": [
            {
                "name": a.name,
                "dtype": a.dtype,
                "shape": [n.name if isinstance(n, Unknown) else n for n in a.shape],
                "access": a.access,
            }
            for a in signature.arguments
        ],
        "sizes": list(signature.sizes),
        "target": lowered.target,
        "cpu": lowered.artifact.cpu,
        "schedule": list(lowered.schedule.steps),
        "stages": lowered.stages.to_list(),
    }


def _print_summary(summary: Mapping[str, Any]) -> None:
    from gemmir.launch import KernelLaunch

    arguments = ", ".join(
        f"{a['name']}: {'x'.join(map(str, (*a['shape'], a['dtype'])))}"
        for a in summary["arguments"]
    )
    arguments = ", ".join([arguments, *summary["sizes"]])
    put(f"{summary['symbol']}({arguments}) for {summary['target']} ({summary['cpu']})\n")
    steps = ["", *summary["schedule"]]
    rows = [
        [s["name"], s["level"], str(s["lines"]), f"{s['milliseconds']:.1f}", step]
        for s, step in zip(summary["stages"], steps, strict=True)
    ]
    put_table("", ["stage", "level", " lines", " ms", "pass"], rows)
    if "launch" in summary:
        for kernel in summary["launch"]["kernels"]:
            put(f"launch: {KernelLaunch(**kernel)}\n")
        return
    cache = summary["cache"]
    place = f"in {cache['folder']}" if cache["folder"] else "not kept"
    was = "found" if cache["was_there"] else "new"
    what = "Python file" if summary["target"].startswith("tpu:") else "object file"
    put(f"{what}: {summary['object_bytes']} bytes, {was}, {place}\n")
