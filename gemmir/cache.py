"""Compiled kernels on disk: an object file and its signature for each key.

An entry is one file, written under another name and then renamed, so that any number of processes
may share the folder. It begins with a checksum: an entry that is truncated, damaged or of another
version is a miss and is written anew. Where the folder cannot be written, a warning says so once
and compiling goes on. No entry is ever needed: the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

import xdsl

from gemmir.llvm import versions
from gemmir.machine.host import feature_string, host_cpu
from gemmir.signature import Signature

MAGIC: Final = b"gemmir-o"
FORMAT: Final = 1
HEADER: Final = struct.Struct("<8sI32s")
"""Magic, format, SHA-256 of what follows: length of the signature, signature, object file."""
LENGTH: Final = struct.Struct("<I")

LIMIT_BYTES: Final = 512 * 1024 * 1024
"""The folder is kept below about this size: some ten thousand kernels."""

PRUNE_ONE_IN: Final = 16
"""One key in so many lists the folder when it is put, since listing it costs as much as a miss."""

STALE_SECONDS: Final = 3600
"""A temporary file older than this was left by a process that died."""

SUFFIX: Final = ".kernel"
TEMPORARY: Final = ".tmp"


class GemmirWarning(UserWarning):
    """Something that gemmir can do without did not work."""


def default_path() -> Path | None:
    """Where kernels are kept: GEMMIR_CACHE, or gemmir in XDG_CACHE_HOME, or ~/.cache/gemmir.

    None, which keeps nothing, if GEMMIR_CACHE is empty or `off`, or if there is no home folder.
    """
    chosen = os.environ.get("GEMMIR_CACHE")
    if chosen is not None:
        return None if chosen in ("", "off") else Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(base):
        return Path(base, "gemmir")
    try:
        return Path.home() / ".cache" / "gemmir"
    except RuntimeError:
        return None


def cache_key(*parts: str) -> str:
    """The key of what `parts` determine, as hexadecimal SHA-256.

    It also covers all versions, gemmir's source and the host's CPU, so that computers of different
    kinds may share a folder.
    """
    digest = hashlib.sha256()
    for part in (*parts, *_surroundings(), source_fingerprint()):
        data = part.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()


@cache
def _surroundings() -> tuple[str, ...]:
    host = host_cpu()
    cpu = (host.name, host.triple, feature_string(host.name))
    return (*versions(), *cpu)


@cache
def source_fingerprint() -> str:
    """A hash of the path, size and time of every source file of gemmir, taken once a process.

    It has the time at which xDSL was installed, which says the same as its version and is much
    quicker to look up.
    """
    return f"{fingerprint(Path(__file__).parent)} {os.stat(xdsl.__file__).st_mtime_ns}"


def fingerprint(root: Path) -> str:
    """A hash of the path, size and modification time of every Python file below `root`."""
    files = sorted(python_files(str(root)))
    return hashlib.sha256(repr(files).encode()).hexdigest()


def python_files(folder: str, prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Path, bytes and modification time in ns of every Python file below `folder`."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".py"):
                status = entry.stat()
                yield prefix + entry.name, status.st_size, status.st_mtime_ns
            elif entry.is_dir() and entry.name != "__pycache__":
                yield from python_files(entry.path, f"{prefix}{entry.name}/")


class ObjectCache:
    """Object files in the folder `path`; with None it keeps nothing and finds nothing."""

    def __init__(self, path: Path | None, *, limit_bytes: int = LIMIT_BYTES) -> None:
        self.path = path
        self.limit_bytes = limit_bytes
        self._warned = False

    def get(self, key: str) -> tuple[bytes, Signature] | None:
        """The object file and signature that were put under `key`, or None."""
        if self.path is None:
            return None
        try:
            return decode((self.path / (key + SUFFIX)).read_bytes())
        except OSError:
            return None

    def put(self, key: str, object_bytes: bytes, signature: Signature) -> None:
        """Keep an object file and its signature under `key`, in place of what is there.

        A failure is a `GemmirWarning`, once for this cache.
        """
        if self.path is None:
            return
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write_atomically(self.path / (key + SUFFIX), encode(object_bytes, signature))
            if int(key[:8], 16) % PRUNE_ONE_IN == 0:
                self.prune()
        except OSError as error:
            self._warn(error)

    def prune(self) -> None:
        """Remove the oldest entries beyond the limit, and what dead processes have left."""
        if self.path is None:
            return
        entries, now = sorted(_files(self.path)), time.time()
        total = sum(size for _, size, _ in entries)
        for modified, size, path in entries:
            stale = path.endswith(TEMPORARY) and modified < now - STALE_SECONDS
            if stale or (total > self.limit_bytes and path.endswith(SUFFIX)):
                total -= size
                with suppress(OSError):
                    os.unlink(path)

    def _warn(self, error: OSError) -> None:
        if self._warned:
            return
        self._warned = True
        warnings.warn(
            f"compiled kernels are not kept in {self.path} ({error.strerror or error}); "
            "set GEMMIR_CACHE to a folder that can be written, or to off",
            GemmirWarning,
            stacklevel=3,
        )


def encode(object_bytes: bytes, signature: Signature) -> bytes:
    """The bytes of an entry."""
    text = signature.to_json().encode()
    payload = LENGTH.pack(len(text)) + text + object_bytes
    return HEADER.pack(MAGIC, FORMAT, hashlib.sha256(payload).digest()) + payload


def decode(entry: bytes) -> tuple[bytes, Signature] | None:
    """What `encode` put into `entry`, or None where it is not exactly that."""
    if len(entry) < HEADER.size + LENGTH.size:
        return None
    magic, number, digest = HEADER.unpack_from(entry)
    payload = memoryview(entry)[HEADER.size :]
    if (magic, number) != (MAGIC, FORMAT) or hashlib.sha256(payload).digest() != digest:
        return None
    (length,) = LENGTH.unpack_from(payload)
    end = LENGTH.size + length
    return bytes(payload[end:]), Signature.from_json(bytes(payload[LENGTH.size : end]).decode())


def _write_atomically(path: Path, data: bytes) -> None:
    """Write a whole file or none: readers see the old one or the new one."""
    descriptor, temporary = tempfile.mkstemp(suffix=TEMPORARY, dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def _files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Time of modification, bytes and path of the cache's own files; others are left alone."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.endswith((SUFFIX, TEMPORARY)):
                continue
            with suppress(FileNotFoundError):
                status = entry.stat()
                yield status.st_mtime, status.st_size, entry.path
