"""The cache of object files: what it keeps, and that nothing on disk can make it fail."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import gemmir.cache
from gemmir.backend import Artifact
from gemmir.backends.cpu.assemble import assemble
from gemmir.backends.cpu.load import load
from gemmir.cache import (
    MAGIC,
    GemmirWarning,
    ObjectCache,
    cache_key,
    decode,
    default_path,
    encode,
    fingerprint,
    python_files,
)
from gemmir.signature import Signature

KEY = cache_key("some module", "some cpu")


def only_entry(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_what_is_put_is_found_again(tmp_path: Path, signature: Signature):
    cache = ObjectCache(tmp_path / "deep" / "folder")
    assert cache.get(KEY) is None
    cache.put(KEY, b"object\0file", signature)
    assert ObjectCache(tmp_path / "deep" / "folder").get(KEY) == (b"object\0file", signature)
    assert cache.get(cache_key("another module", "some cpu")) is None


def test_a_kernel_from_the_cache_runs(tmp_path: Path, serial: Artifact):
    cache = ObjectCache(tmp_path)
    cache.put(KEY, assemble(serial), serial.signature)
    found = cache.get(KEY)
    assert found is not None
    a = np.ones(32, np.float32)
    c = np.zeros(32, np.float32)
    assert load(*found)(a.ctypes.data, a.ctypes.data, c.ctypes.data) == 0
    assert c.tolist() == [3.0] * 32


def test_without_a_folder_nothing_is_kept(signature: Signature):
    cache = ObjectCache(None)
    cache.put(KEY, b"code", signature)
    cache.prune()
    assert cache.get(KEY) is None


def test_every_truncation_is_a_miss(signature: Signature):
    entry = encode(b"code" * 5, signature)
    assert decode(entry) == (b"code" * 5, signature)
    assert [decode(entry[:length]) for length in range(len(entry))] == [None] * len(entry)
    assert decode(entry + b"\0") is None


def test_every_flipped_byte_is_a_miss(signature: Signature):
    entry = encode(b"code" * 5, signature)
    for place in range(len(entry)):
        damaged = bytearray(entry)
        damaged[place] ^= 1 << (place % 8)
        assert decode(bytes(damaged)) is None, place


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda entry: entry[: len(entry) // 2],
    lambda entry: entry[:-1] + bytes([entry[-1] ^ 1]),
    lambda entry: b"other-o!" + entry[len(MAGIC) :],
    lambda entry: b"",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_written_anew(
    tmp_path: Path, signature: Signature, damage: Callable[[bytes], bytes]
):
    cache = ObjectCache(tmp_path)
    cache.put(KEY, b"code", signature)
    path = only_entry(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    assert cache.get(KEY) is None
    cache.put(KEY, b"code", signature)
    assert cache.get(KEY) == (b"code", signature)


HAMMER = """
import sys
from pathlib import Path
from gemmir.signature import Signature
from gemmir.cache import ObjectCache, cache_key

cache, seed = ObjectCache(Path(sys.argv[1])), int(sys.argv[2])
signature = Signature.from_json(sys.argv[3])
for turn in range(80):
    key = cache_key(str((turn + seed) % 4))
    whole = (key.encode() * 500, signature)
    assert cache.get(key) in (None, whole), "a torn entry"
    cache.put(key, *whole)
    if turn % 20 == seed:
        cache.prune()
    assert cache.get(key) == whole, "an entry that is gone"
"""


def test_eight_processes_share_a_folder(tmp_path: Path, signature: Signature):
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", HAMMER, tmp_path, str(n), signature.to_json()]
        )
        for n in range(8)
    ]
    assert [process.wait(60) for process in processes] == [0] * 8
    assert len(list(tmp_path.iterdir())) == 4


def _fail(code: int) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("call", ["replace", "write"])
def test_a_full_or_read_only_disk_is_one_warning(
    tmp_path: Path, signature: Signature, monkeypatch: pytest.MonkeyPatch, code: int, call: str
):
    if call == "replace":
        monkeypatch.setattr(os, "replace", _fail(code))
    else:
        monkeypatch.setattr(gemmir.cache, "_write_atomically", _fail(code))
    cache = ObjectCache(tmp_path)
    with pytest.warns(GemmirWarning, match=f"{os.strerror(code)}.*GEMMIR_CACHE"):
        cache.put(KEY, b"code", signature)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put(KEY, b"code", signature)
    assert cache.get(KEY) is None
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_is_full_leaves_nothing(
    tmp_path: Path, signature: Signature, monkeypatch: pytest.MonkeyPatch
):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full")
    real = open

    def onto_full(descriptor: int, mode: str):
        os.close(descriptor)
        return real(full, mode)

    monkeypatch.setattr(gemmir.cache, "open", onto_full, raising=False)
    with pytest.warns(GemmirWarning, match="No space left"):
        ObjectCache(tmp_path).put(KEY, b"code", signature)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_warning(tmp_path: Path, signature: Signature):
    (tmp_path / "file").write_text("in the way")
    cache = ObjectCache(tmp_path / "file" / "cache")
    with pytest.warns(GemmirWarning, match="not kept in"):
        cache.put(KEY, b"code", signature)
    assert cache.get(KEY) is None


def test_the_oldest_entries_go_first(tmp_path: Path, signature: Signature):
    cache = ObjectCache(tmp_path, limit_bytes=25_000)
    keys = [cache_key(str(i)) for i in range(4)]
    for age, key in enumerate(reversed(keys)):
        cache.put(key, bytes(10_000), signature)
        stamp = time.time() - 100 * (len(keys) - age)
        os.utime(tmp_path / f"{key}.kernel", (stamp, stamp))
    cache.prune()
    assert [cache.get(key) is not None for key in keys] == [True, True, False, False]


def test_putting_prunes_sooner_or_later(tmp_path: Path, signature: Signature):
    cache = ObjectCache(tmp_path, limit_bytes=50_000)
    for i in range(200):
        cache.put(cache_key(str(i)), bytes(1_000), signature)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 200_000


def test_pruning_removes_what_dead_processes_left_and_nothing_else(tmp_path: Path):
    old = time.time() - 2 * 3600
    for name in ("stale.tmp", "fresh.tmp", "notes.txt"):
        (tmp_path / name).write_text("x")
    for name in ("stale.tmp", "notes.txt"):
        os.utime(tmp_path / name, (old, old))
    ObjectCache(tmp_path, limit_bytes=0).prune()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh.tmp", "notes.txt"]


def test_the_key_depends_on_every_part_and_on_where_they_end():
    keys = [cache_key("ab", "c"), cache_key("a", "bc"), cache_key("abc"), cache_key("ab", "c", "")]
    assert len(set(keys)) == 4
    assert cache_key("ab", "c") == keys[0]


def test_the_key_depends_on_versions_and_source(monkeypatch: pytest.MonkeyPatch):
    before = cache_key("module")
    monkeypatch.setattr(gemmir.cache, "_surroundings", lambda: ("0.0.1",))
    other = cache_key("module")
    monkeypatch.setattr(gemmir.cache, "source_fingerprint", lambda: "edited")
    assert len({before, other, cache_key("module")}) == 3


def test_the_fingerprint_sees_every_source_file(tmp_path: Path):
    package = tmp_path / "package"
    (package / "passes").mkdir(parents=True)
    (package / "one.py").write_text("1")
    prints = [fingerprint(package)]
    (package / "passes" / "two.py").write_text("2")
    prints.append(fingerprint(package))
    os.utime(package / "passes" / "two.py", ns=(1, 1))
    prints.append(fingerprint(package))
    (package / "passes" / "two.py").rename(package / "passes" / "three.py")
    prints.append(fingerprint(package))
    assert len(set(prints)) == 4
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "four.py").write_text("not source")
    assert fingerprint(package) == prints[-1]


def test_the_fingerprint_covers_passes_and_backends():
    files = {name for name, _, _ in python_files(str(_package()))}
    assert {"cache.py", "passes/tile.py", "backends/cpu/load.py"} <= files


def _package() -> Path:
    return Path(gemmir.cache.__file__).parent


def test_the_fingerprint_is_quick():
    times: list[float] = []
    for _ in range(5):
        start = time.perf_counter()
        fingerprint(_package())
        times.append(time.perf_counter() - start)
    assert min(times) < 5e-3


def test_the_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("GEMMIR_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert default_path() == tmp_path / ".cache" / "gemmir"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert default_path() == tmp_path / ".cache" / "gemmir"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_path() == tmp_path / "xdg" / "gemmir"
    monkeypatch.setenv("GEMMIR_CACHE", str(tmp_path / "own"))
    assert default_path() == tmp_path / "own"
    for off in ("", "off"):
        monkeypatch.setenv("GEMMIR_CACHE", off)
        assert default_path() is None
