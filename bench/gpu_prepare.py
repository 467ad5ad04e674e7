"""Lower the cases of bench/gpu.py by each schedule, and write their code to a folder."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

from gpu_cases import Case

from gemmir.backends.ptx.assemble import find_ptxas
from gemmir.compiler import lower
from gemmir.errors import GemmirError
from gemmir.gemm import Gemm
from gemmir.llvm import versions as llvm_versions
from gemmir.schedule import Schedule

MANIFEST: Final = "cases.json"
"""The file of a prepared folder that lists what is in it."""

IMAGE: Final = ".image.gz"

DEFAULT: Final = "default"
"""The name of a problem's own schedule."""

PRODUCT: Final = "product"
"""The name of the bare product beside one with an epilogue."""

OF_EPILOGUES: Final = ("gemmir-fuse-epilogue", "gemmir-expand-math")
"""Passes that there is nothing for where there is no epilogue, or none with such a function."""

COMPRESSION: Final = 6


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A schedule of a file, for the cases whose text fits `pattern`."""

    pattern: str
    path: Path

    @property
    def name(self) -> str:
        """What its kernels are called."""
        return self.path.stem


@dataclass(frozen=True, kw_only=True)
class _Work:
    """One kernel to lower."""

    case: int
    name: str
    gemm: Gemm
    schedule: Path | None
    target: str
    file: Path


def variants(words: Iterable[str]) -> list[Variant]:
    """The schedules of FILE, FOLDER, or PATTERN=FILE; `ValueError` where there is no such file."""
    found: list[Variant] = []
    for word in words:
        pattern, _, name = word.rpartition("=")
        path = Path(name)
        files = sorted(path.glob("*.schedule")) if path.is_dir() else [path]
        if not files or not all(file.is_file() for file in files):
            raise ValueError(f"{path} is no schedule and no folder with any")
        found += [Variant(pattern=pattern or "*", path=file) for file in files]
    return found


def write_folder(
    folder: Path, target: str, cases: Sequence[Case], schedules: Sequence[Variant], jobs: int
) -> None:
    """Lower every case by every schedule; one that does not fit is noted and left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"*{IMAGE}"):
        old.unlink()
    work = list(_all_work(folder, target, cases, schedules))
    kernels: list[dict[str, Any]] = [{} for _ in cases]
    refused: list[dict[str, str]] = [{} for _ in cases]
    for item, found in zip(work, _done(work, jobs), strict=True):
        named = f"{cases[item.case].text} {item.name}"
        if isinstance(found, str):
            refused[item.case][item.name] = found
            print(f"{named}: {found}", file=sys.stderr)
            continue
        kernels[item.case][item.name] = found
        print(f"{named}: {found['bytes']} bytes", file=sys.stderr)
    listed = [
        {**asdict(case), "problem": asdict(case.gemm), "kernels": made, "refused": not_made}
        for case, made, not_made in zip(cases, kernels, refused, strict=True)
    ]
    manifest = {"target": target, **versions(), "cases": listed}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")


def _all_work(
    folder: Path, target: str, cases: Sequence[Case], schedules: Sequence[Variant]
) -> Iterator[_Work]:
    for number, case in enumerate(cases):
        gemms = {"": case.gemm}
        if case.task == "time" and case.gemm.steps:
            gemms[PRODUCT] = replace(case.gemm, epilogue="")
        fitting = [v for v in schedules if fnmatchcase(case.text, v.pattern)]
        for path in (None, *(variant.path for variant in fitting)):
            name = DEFAULT if path is None else path.stem
            for prefix, gemm in gemms.items():
                said = f"{prefix}, {name}" if prefix else name
                file = folder / f"{number:03}-{prefix or 'case'}-{name}{IMAGE}"
                yield _Work(
                    case=number, name=said, gemm=gemm, schedule=path, target=target, file=file
                )


def _done(work: Sequence[_Work], jobs: int) -> Iterator[dict[str, Any] | str]:
    """What became of each kernel; where one takes its process along, the rest go on by themselves.

    LLVM ends the process where it knows no instruction for what it shall emit.
    """
    context = multiprocessing.get_context("fork")
    begun = 0
    try:
        with ProcessPoolExecutor(jobs, mp_context=context) as pool:
            for found in pool.map(_prepared, work):
                begun += 1
                yield found
    except BrokenProcessPool:
        for item in work[begun:]:
            try:
                with ProcessPoolExecutor(1, mp_context=context) as pool:
                    yield pool.submit(_prepared, item).result()
            except BrokenProcessPool:
                yield "the compiler ended its process"


def _prepared(work: _Work) -> dict[str, Any] | str:
    """The entry of one kernel, whose code is written; or why there is none."""
    try:
        lowered = lower(work.gemm, work.target, _schedule(work))
        code = lowered.assemble()
    except GemmirError as error:
        return str(error)
    work.file.write_bytes(gzip.compress(code, COMPRESSION, mtime=0))
    assert lowered.artifact.launch is not None
    return {
        "file": work.file.name,
        "bytes": len(code),
        "problem": asdict(work.gemm),
        "signature": lowered.artifact.signature.to_json(),
        "launch": asdict(lowered.artifact.launch),
        "schedule": list(lowered.schedule.steps),
    }


def _schedule(work: _Work) -> Schedule | None:
    """That of the file, without what is for epilogues where there is none: one file is enough."""
    if work.schedule is None:
        return None
    found = Schedule.parse(work.schedule.read_text())
    if work.gemm.steps:
        return found
    return Schedule(tuple(p for p in found.passes if p.name not in OF_EPILOGUES))


def versions() -> dict[str, str]:
    """What made the code: gemmir, by its commit where it is known, LLVM and ptxas."""
    ptxas = find_ptxas()
    said = _said([ptxas, "--version"]) if ptxas else ""
    return {
        "commit": _said(["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]),
        "llvm": " ".join(("llvmlite", *llvm_versions())),
        "ptxas": said.splitlines()[-1] if said else "none: the driver assembles",
    }


def _said(command: Sequence[str]) -> str:
    """What a command prints, "" where it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
