"""Lock files: what is pinned is found again, and what no longer fits is an error."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import gemmir
from gemmir.errors import ParseError, ScheduleError
from gemmir.lockfile import Lock, cpu_of, pin_of, spelled
from gemmir.machine import machine_for

GEMM = gemmir.Gemm(m=24, n=32, k=16)
TARGET = "cpu:x86-64-v3"
OWN = gemmir.Schedule.parse(
    "tile{loops=m,n sizes=2,16},promote{operand=c to=registers},vectorize{with=fma width=8}"
)


PIN = (
    "version = 1\n[[pin]]\nproblem = 'p'\ntarget = 'cpu'\ncpu = 'x'\nthreads = {}\nschedule = {}\n"
)


def pinned(gemm: gemmir.Gemm = GEMM, target: str = TARGET, threads: int = 1) -> Lock:
    return Lock().with_pin(pin_of(gemm, target, threads, OWN, objective="time", value=1.5e-6))


def test_a_pin_is_found_again(tmp_path: Path) -> None:
    file = tmp_path / "gemmir.lock"
    file.write_text(str(pinned()))
    lock = Lock.read(file)
    assert lock.schedule(GEMM, TARGET) == OWN
    assert lock.pins == pinned().pins and str(lock) == str(pinned())
    assert lock.pins[0].cpu == "x86-64-v3" and lock.pins[0].value == 1.5e-6


def test_other_problems_targets_and_threads_are_others() -> None:
    lock = pinned()
    assert lock.schedule(replace(GEMM, m=25), TARGET) is None
    assert lock.schedule(replace(GEMM, epilogue="relu"), TARGET) is None
    assert lock.schedule(GEMM, "cpu:znver3") is None
    assert lock.schedule(GEMM, TARGET, threads=2) is None
    other = replace(pinned().pins[0], cpu="znver9")
    assert Lock((other,)).schedule(GEMM, TARGET) is None, "the computer has another CPU now"


def test_pins_are_in_order_and_one_of_each() -> None:
    small, large = replace(GEMM, m=3), replace(GEMM, m=4)
    one = pinned(large).with_pin(pinned(small).pins[0])
    other = pinned(small).with_pin(pinned(large).pins[0])
    assert str(one) == str(other) and [pin.problem[:3] for pin in one.pins] == ["m=3", "m=4"]
    newer = replace(pinned(small).pins[0], schedule=("unroll{loop=k factor=2}",))
    assert one.with_pin(newer).pins == (newer, one.pins[1])


def test_a_problem_is_spelled_by_what_is_not_default() -> None:
    assert spelled(GEMM) == "m=24 n=32 k=16 dtype=f32"
    full = gemmir.Gemm(m=1, n=2, k=3, dtype="bf16", out="bf16", trans_b=True, epilogue="bias+relu")
    assert spelled(full) == "m=1 n=2 k=3 dtype=bf16 out=bf16 trans_b=True epilogue=bias+relu"
    assert spelled(gemmir.Gemm(m=gemmir.ANY, n=2, k=3)) == "m=any n=2 k=3 dtype=f32"


@pytest.mark.parametrize(
    "words",
    [
        {"out": "f32"},
        {"lda": 16},
        {"ldb": 32},
        {"ldc": 32},
    ],
)
def test_what_would_be_so_anyway_makes_no_other_problem(words: dict[str, object]) -> None:
    plain = replace(GEMM, dtype="bf16")
    said = replace(plain, **words)
    assert said != plain and spelled(said) == spelled(plain)
    batched = replace(plain, batch=3, batch_stride_a=24 * 16)
    assert spelled(batched) == spelled(replace(plain, batch=3))
    for other in ({"out": "bf16"}, {"lda": 17}, {"ldc": 40}):
        assert spelled(replace(plain, **other)) != spelled(plain)


def test_a_file_that_says_what_is_so_anyway_is_read(tmp_path: Path) -> None:
    plain = replace(GEMM, dtype="f32", out="f32", epilogue="bias+relu", alpha=2.0)
    pin = replace(pinned(plain).pins[0], problem="m=24 n=32 k=16 dtype=f32 out=f32 ldc=32")
    file = tmp_path / "x"
    file.write_text(str(Lock((pin,))))
    assert Lock.read(file).schedule(GEMM, TARGET) == OWN
    same = replace(pin, problem="m=24 n=32 k=16 dtype=f32")
    file.write_text(str(Lock((same, pin))))
    assert len(Lock.read(file).pins) == 2, "what was two pins can still be read"
    every = pinned(replace(plain, m=gemmir.ANY, trans_b=True))
    file.write_text(str(every))
    assert Lock.read(file).pins == every.pins


def test_a_cpu_by_its_other_name_is_the_same() -> None:
    host = machine_for("cpu")
    pin = pinned().pins[0]
    named = Lock((replace(pin, target=f"cpu:{cpu_of(host)}", cpu=cpu_of(host)),))
    assert named.schedule(GEMM, "cpu", threads=1) == OWN
    by_host = Lock((replace(pin, target="cpu", cpu=pin.cpu),))
    assert by_host.schedule(GEMM, TARGET) == OWN
    own = replace(pin, schedule=(*OWN.steps, "unroll{loop=k factor=2}"))
    both = Lock((replace(pin, target="cpu"), own))
    assert len(both.schedule(GEMM, TARGET) or ()) == 4, "the name that is asked for comes first"
    wide = replace(pin, target="cpu", schedule=("vectorize{with=fma width=64}",))
    assert Lock((wide,)).schedule(GEMM, TARGET) is None, "it need not fit by the other name"


def test_the_nearest_pin_is_a_hint() -> None:
    lock = pinned().with_pin(pinned(replace(GEMM, m=2000), "cpu:znver3", 2).pins[0])
    near = lock.nearest(GEMM, "cuda:sm_80")
    assert near is not None and str(near) == "m=24 n=32 k=16 dtype=f32 on cpu:x86-64-v3"
    near = lock.nearest(replace(GEMM, m=2001), TARGET)
    assert near is not None
    assert str(near) == "m=2000 n=32 k=16 dtype=f32 on cpu:znver3 with 2 threads"
    assert lock.nearest(gemmir.Gemm(m=9, n=9, k=9), "tpu:v5e") is None
    assert Lock().nearest(GEMM) is None


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        (("no-such-pass",), "GEM0302"),
        (("tile{loops=m,n sizes=2,16}", "vectorize{with=mma width=8}"), "GEM0318"),
        (("tile{loops=m,n sizes=2,16}",), "GEM0421"),
    ],
)
def test_what_no_longer_fits_is_an_error(steps: tuple[str, ...], reason: str) -> None:
    lock = Lock((replace(pinned().pins[0], schedule=steps),), "my.lock")
    words = rf"GEM1419: my.lock has a schedule for m=24 .* no longer fits: {reason}"
    with pytest.raises(ScheduleError, match=words):
        lock.schedule(GEMM, TARGET)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a poem", "Expected"),
        ("", "its version is None, not 1"),
        ("version = 2", "its version is 2, not 1"),
        ("version = 1\n[[pin]]\nproblem = ''", "pin 1: 'schedule'"),
        ("version = 1\n[[pin]]\nschedule = []\nspeed = 3", "pin 1: .*'speed'"),
        ("version = 1\npin = 3", "pin is no list"),
        ("version = 1\n[pin]\nproblem = ''", "pin is no list"),
        (PIN.format(1, "['a', 1]"), r"pin 1: schedule = \['a', 1\]"),
        (PIN.format(1, "'unroll'"), "pin 1: schedule = 'unroll'"),
        (PIN.format("'1'", "[]"), "pin 1: threads = '1'"),
    ],
)
def test_what_is_no_lock_file_is_refused(text: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text(text)
    with pytest.raises(ParseError, match=f"GEM1418: .*x cannot be read: .*{reason}"):
        Lock.read(file)


def test_one_pin_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.write_text(str(pinned()) + "\n" + "\n".join(pinned().pins[0].lines()))
    with pytest.raises(ParseError, match="pin 2 is there twice: m=24"):
        Lock.read(file)
    with pytest.raises(ParseError, match="No such file"):
        Lock.read(tmp_path / "none")
