"""What each command does, through its options."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest

from gemmir.cli.doctor import LOOKS, State
from gemmir.cli.passes import EXAMPLES
from gemmir.compiler import lower, prepare
from gemmir.demo_tpu import run_tpu_demo
from gemmir.gemm import Gemm
from gemmir.jax_modules import ON_CPU
from gemmir.passes import pass_class, pass_names
from gemmir.schedule import Schedule
from tests.cli.conftest import Cli

SMALL = ("--m", "5", "--n", "9", "--k", "4")
GEMM = Gemm(m=5, n=9, k=4)
REPOSITORY = Path(__file__).parents[2]

MLIR = """
func.func @layer(%x: memref<6x9xf32>, %w: memref<9x11xf32>, %y: memref<6x11xf32>) {
  linalg.matmul ins(%x, %w : memref<6x9xf32>, memref<9x11xf32>) outs(%y : memref<6x11xf32>)
  func.return
}
"""


# compile


def test_compile_prints_a_summary(cli: Cli) -> None:
    result = cli("compile", *SMALL)
    lowered = lower(GEMM)
    assert result.out.startswith("gemm(a: 5x4xf32, b: 4x9xf32, c: 5x9xf32) for cpu (")
    for name in lowered.stages:
        assert name in result.out
    for step in lowered.schedule.steps:
        assert step in result.out
    assert f"object file: {len(lowered.assemble())} bytes" in result.out


def test_compile_says_whether_the_cache_had_it(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GEMMIR_CACHE", str(tmp_path / "kernels"))
    first, second = (cli("compile", *SMALL, "--json").json["cache"] for _ in range(2))
    assert first == {"folder": str(tmp_path / "kernels"), "was_there": False}
    assert second["was_there"]


def test_compile_takes_every_problem_option(cli: Cli) -> None:
    options = (
        "--dtype f64 --out f64 --alpha 0.5 --beta 2 --batch 3 --trans-a --trans-b --lda 7 --ldb 8 "
        "--ldc 13 --batch-stride-a 40 --batch-stride-b 0 --batch-stride-c 90 --epilogue bias+relu"
    )
    gemm = Gemm(
        m=5, n=9, k=4, dtype="f64", out="f64", alpha=0.5, beta=2, batch=3, trans_a=True,
        trans_b=True, lda=7, ldb=8, ldc=13, batch_stride_a=40, batch_stride_b=0,
        batch_stride_c=90, epilogue="bias+relu",
    )  # fmt: skip
    result = cli("compile", *SMALL, *options.split(), "--emit", "llvm")
    assert result.out == lower(gemm).artifact.text


@pytest.mark.parametrize("kind", ["mlir", "llvm", "asm", "header"])
def test_emit_text(cli: Cli, tmp_path: Path, kind: str) -> None:
    printed = cli("compile", *SMALL, "--emit", kind)
    assert (printed.status, printed.err) == (0, "")
    beginning = {"mlir": "builtin.module", "llvm": "declare", "asm": "\t", "header": "/* Generated"}
    assert printed.out.startswith(beginning[kind])
    written = cli("compile", *SMALL, "--emit", kind, "-o", "x")
    assert (written.out, written.status) == ("", 0)
    assert (tmp_path / "x").read_text() == printed.out


def test_emit_several(cli: Cli, tmp_path: Path) -> None:
    assert cli("compile", *SMALL, "--emit", "obj,so,header", "-o", "made").status == 0
    assert (tmp_path / "made.o").read_bytes()[:4] == b"\x7fELF"
    assert "int32_t gemm(" in (tmp_path / "made.h").read_text()
    library = ctypes.CDLL(str(tmp_path / "made.so"))
    a, b = np.ones((5, 4), np.float32), np.ones((4, 9), np.float32)
    c = np.zeros((5, 9), np.float32)
    assert library.gemm(*(ctypes.c_void_p(x.ctypes.data) for x in (a, b, c))) == 0
    assert (c == 4).all()


def test_emit_into_a_folder_and_beside_an_ending(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    cli("compile", *SMALL, "--emit", "llvm,asm", "-o", "out")
    cli("compile", *SMALL, "--emit", "llvm,asm", "-o", "one.s")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["gemm.ll", "gemm.s"]
    assert (tmp_path / "one.ll").is_file()
    assert (tmp_path / "one.s").is_file()


def test_emit_as_json(cli: Cli) -> None:
    found = cli("compile", *SMALL, "--emit", "llvm,mlir", "--json").json
    assert found["emitted"]["llvm"] == lower(GEMM).artifact.text
    assert set(found["emitted"]) == {"llvm", "mlir"}
    assert found["schedule"] == list(lower(GEMM).schedule.steps)


def test_print_ir_after_all(cli: Cli) -> None:
    stages = lower(GEMM).stages
    result = cli("compile", *SMALL, "--print-ir-after-all")
    for stage in stages.values():
        assert f"// {stage.name} ({stage.level})" in result.out
        assert stage.text in result.out


def test_print_ir_after_one_pass(cli: Cli) -> None:
    result = cli("compile", *SMALL, "--print-ir-after", "gemmir-promote", "--emit", "llvm")
    stage = lower(GEMM).stages["02-promote"]
    assert result.out == lower(GEMM).artifact.text
    assert stage.text in result.err
    assert result.err.count("builtin.module") == 1


def test_compile_from_standard_input(shell: Cli) -> None:
    result = shell(
        f"printf %s '{MLIR}' | gemmir opt - --to promoted | gemmir compile - --emit header"
    )
    assert result.status == 0, result.err
    assert "int32_t layer(" in result.out


def test_compile_for_threads(cli: Cli) -> None:
    found = cli("compile", "--m", "512", "--n", "512", "--k", "64", "--threads", "2", "--json").json
    assert any("over=cores" in step for step in found["schedule"])


# opt


def test_opt_runs_a_pipeline(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text(MLIR)
    result = cli("opt", "x.mlir", "-p", "tile{loops=m sizes=2}")
    assert result.status == 0, result.err
    assert result.out.count("scf.for") == 1
    assert "gemmir.schedule" not in result.out


def test_opt_stops_and_goes_on(cli: Cli, tmp_path: Path) -> None:
    """Stopping at any level and going on from its text gives the same IR in the end."""
    (tmp_path / "x.mlir").write_text(MLIR)
    whole = cli("opt", "x.mlir").out
    for level in ("gemm", "tiled", "promoted", "vectorized"):
        assert cli("opt", "x.mlir", "--to", level, "-o", "y.mlir").status == 0
        result = cli("opt", "y.mlir", "--from", level)
        assert (result.status, result.out) == (0, whole)


def test_opt_refuses_another_level(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text(MLIR)
    assert cli("opt", "x.mlir", "--from", "tiled").status == 1
    assert cli("opt", "x.mlir", "-p", "tile{loops=m sizes=2}", "--to", "promoted").status == 2


def test_opt_takes_a_schedule_file(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text(MLIR)
    (tmp_path / "mine.schedule").write_text("tile{loops=m sizes=2}  # rows\n")
    found = cli("opt", "x.mlir", "-p", "mine.schedule", "--json").json
    assert (found["name"], found["level"], found["file"]) == ("01-tile", "tiled", None)
    assert found["text"].count("scf.for") == 1


# check


def test_check_prints_every_stage(cli: Cli) -> None:
    result = cli("check", *SMALL, "--epilogue", "bias+gelu")
    assert (result.status, result.err) == (0, "")
    for name in prepare(Gemm(m=5, n=9, k=4, epilogue="bias+gelu")).stages:
        assert name in result.out
    assert "machine-code" in result.out
    assert "compared with Gemm.reference in float64" in result.out


def test_check_as_json(cli: Cli) -> None:
    found = cli("check", *SMALL, "--json", "--seed", "3").json
    assert found["ok"]
    assert [row["status"] for row in found["rows"]] == ["ok"] * len(found["rows"])
    largest = found["rows"][-1]["largest"]
    assert 0 < largest["error"] < largest["bound"]


def test_check_of_a_replaced_stage(cli: Cli, tmp_path: Path) -> None:
    text = prepare(GEMM).stages["02-promote"].text
    (tmp_path / "right.mlir").write_text(text)
    (tmp_path / "wrong.mlir").write_text(text.replace("alpha 1.0", "alpha 1.5"))
    assert cli("check", *SMALL, "--replace", "promote=right.mlir").status == 0
    result = cli("check", *SMALL, "--replace", "02-promote=wrong.mlir", "--json")
    assert result.status == 3
    assert [row["ok"] for row in result.json["rows"]][:3] == [True, True, False]
    assert "error GEM0801: stage 02-promote (after promote{" in result.err


def test_check_of_a_later_stage(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text(prepare(GEMM).stages["02-promote"].text)
    assert "error GEM0209" in cli("check", "x.mlir").err
    assert cli("check", "x.mlir", *SMALL).status == 0
    assert cli("check", "x.mlir", *SMALL, "--alpha", "2").status == 3


# run


def test_run_prints_speed_and_error(cli: Cli) -> None:
    result = cli("run", *SMALL, "--seconds", "0.01")
    assert result.status == 0
    assert [line.split()[0] for line in result.out.splitlines()] == [
        "time",
        "speed",
        "max",
        "compared",
    ]


def test_run_on_files(cli: Cli, tmp_path: Path) -> None:
    a, b = np.arange(20, dtype="f4").reshape(5, 4), np.ones((4, 9), "f4")
    np.save(tmp_path / "a.npy", a)
    np.save(tmp_path / "b.npy", b)
    arrays = ("--array", "a=a.npy", "--array", "b=b.npy")
    result = cli("run", *SMALL, *arrays, "--lda", "6", "--seconds", "0", "-o", "c.npy", "--json")
    assert result.status == 0, result.err
    np.testing.assert_array_equal(np.load(tmp_path / "c.npy"), a @ b)
    found = result.json
    assert found["within_bound"]
    assert found["max_error"] == 0
    assert found["gflops"] > 0


def test_run_adds_to_the_old_c_once(cli: Cli, tmp_path: Path) -> None:
    for name, value in (("a", np.ones((5, 4), "f4")), ("b", np.ones((4, 9), "f4"))):
        np.save(tmp_path / f"{name}.npy", value)
    np.save(tmp_path / "c.npy", np.full((5, 9), 10, "f4"))
    arrays = [word for name in "abc" for word in ("--array", f"{name}={name}.npy")]
    result = cli("run", *SMALL, *arrays, "--beta", "2", "--seconds", "0", "-o", "out.npy")
    assert result.status == 0, result.err
    assert (np.load(tmp_path / "out.npy") == 24).all()


def test_run_refuses_an_array_that_does_not_fit(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((4, 5), "f4"))
    result = cli("run", *SMALL, "--array", "a=a.npy")
    assert result.status == 1
    assert "error GEM0506: a has shape (4, 5) where (5, 4) is needed" in result.err


def test_run_of_a_later_stage_has_nothing_to_compare_with(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x.mlir").write_text(prepare(GEMM).stages["02-promote"].text)
    found = cli("run", "x.mlir", "--seconds", "0", "--json").json
    assert (found["gflops"], found["max_error"], found["within_bound"]) == (None, None, None)
    assert found["compared_with"].startswith("nothing")


def test_run_on_another_computer_is_refused(cli: Cli) -> None:
    result = cli("run", *SMALL, "--target", "cpu:neoverse-n1")
    if result.status == 0:
        pytest.skip("this computer is a Neoverse N1")
    assert result.status == 4
    assert "GEM0606" in result.err


# explain, targets, passes, doctor, demo


def test_explain(cli: Cli) -> None:
    result = cli("explain", *SMALL)
    alone = lower(GEMM).explain()
    assert result.out.startswith(alone)
    assert result.out[len(alone) :].startswith("changes ")
    assert cli("explain", *SMALL, "--json").json["problem"]["k"] == 4


def test_targets(cli: Cli) -> None:
    found = {entry["target"]: entry for entry in cli("targets", "--json").json}
    assert found["cpu:znver3"]["f32_flops_per_cycle"] == 32
    assert found["cpu"]["missing_here"] == []
    printed = cli("targets").out
    assert all(target in printed for target in found)


def test_passes(cli: Cli) -> None:
    found = {entry["name"]: entry for entry in cli("passes", "--json").json}
    assert tuple(found) == pass_names()
    assert found["tile"]["parameters"][:2] == [
        {"name": "loops", "type": "words", "required": True, "default": None},
        {"name": "sizes", "type": "integers", "required": True, "default": None},
    ]
    assert found["promote"]["parameters"][-3] == {
        "name": "prefetch", "type": "true or false", "required": False, "default": False
    }  # fmt: skip
    printed = cli("passes", "gemmir-vectorize").out
    assert printed.startswith("vectorize: Lower the GEMM")
    assert "    width     integer, default none\n    shape     integers, default none\n" in printed


@pytest.mark.parametrize("name", pass_names())
def test_examples_of_each_pass_can_be_parsed(name: str) -> None:
    for example in EXAMPLES[name]:
        (made,) = Schedule.parse(example).passes
        assert isinstance(made, pass_class(name))


def test_doctor_finds_nothing_missing(cli: Cli) -> None:
    result = cli("doctor")
    assert result.status == 0, result.out
    found = {finding["name"]: finding for finding in cli("doctor", "--json").json}
    assert set(found) == set(LOOKS)
    assert found["works"]["state"] == "ok"
    assert "LLVM" in found["LLVM"]["text"]


def test_doctor_says_what_is_limited(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GEMMIR_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("PATH", "")
    found = {finding["name"]: finding for finding in cli("doctor", "--json").json}
    assert found["C compiler"]["state"] == "limited"
    assert found["kernel cache"]["state"] == "limited"


def test_doctor_fails_where_something_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> tuple[State, str]:
        raise ImportError("no such package")

    monkeypatch.setitem(LOOKS, "LLVM", gone)
    result = cli("doctor")
    assert result.status == 4
    assert "missing  LLVM         no such package\n" in result.out


def test_demo(cli: Cli) -> None:
    result = cli("demo", "--json")
    assert result.status == 0, result.err
    found = result.json
    assert found["problem"] == {"m": 128, "n": 3072, "k": 768, "epilogue": "bias+gelu"}
    assert found["blas_threads"] == 1
    assert found["max_error"] < found["bound"]
    assert set(found["timings"]) == {"gemmir", "NumPy", "NumPy, product only"}
    gpu = found["gpu"]
    assert (gpu["target"], gpu["dtype"]) == ("cuda:sm_90a", "bf16")
    assert gpu["launch"]["kernels"][0]["blocks"] > 1
    assert gpu["emulated"]["max_error"] < gpu["emulated"]["bound"]
    assert (gpu["emulated"]["races"], gpu["emulated"]["worst_bank_conflict"]) == (0, 1)
    assert (gpu["on_gpu"] is None) == bool(gpu["not_on_gpu"])
    tpu = found["tpu"]
    assert (tpu["target"], tpu["dtype"]) == ("tpu:v5e", "bf16")
    assert "pl.pallas_call(" in tpu["pallas"]
    assert tpu["interpreted"]["max_error"] < tpu["interpreted"]["bound"]
    assert (tpu["profile"] is None) == bool(tpu["not_profiled"])
    for timing in found["timings"].values():
        assert timing["gflops"] == pytest.approx(2 * 128 * 3072 * 768 / timing["seconds"] / 1e9)


def test_demo_for_people(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    import gemmir.demo as demo_module

    for name, value in {**demo_module.ONE_THREAD, **ON_CPU}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(sys.modules, "libtpu", None)
    monkeypatch.setattr(demo_module, "MEASURE_SECONDS", 0.0)
    result = cli("demo")
    assert result.status == 0, result.err
    for words in ("fuse-epilogue", "GFLOP/s", "NumPy, product only", "max |error| against float64"):
        assert words in result.out
    for words in ("cuda:sm_90a, bf16", "on the GPU", "launch ", "no races", "no bank conflicts"):
        assert words in result.out
    for words in (
        "tpu:v5e, bf16",
        "on the TPU",
        "_kernel(a_ref, b_ref, bias_ref, c_ref):",
        "grid=",
    ):
        assert words in result.out
    assert "profile    not made: " in result.out
    assert "in the emulator" in result.err
    assert "vmem_limit_bytes" not in result.out


def test_demo_without_jax(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("jax", "libtpu"):
        monkeypatch.setitem(sys.modules, name, None)
    layer = Gemm(m=8, n=128, k=128, epilogue="bias+gelu")
    found = run_tpu_demo(layer, lambda text: None)
    assert "pl.pallas_call(" in found.lowered.artifact.text
    assert found.interpreted is None
    assert found.not_interpreted.endswith("install gemmir[tpu]")
    assert found.profile is None
    assert found.not_profiled.endswith("pip install gemmir[tpu-aot]")


# examples


def test_examples_run(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    examples = REPOSITORY / "examples"
    assert cli("run", str(examples / "mlp.mlir"), "--seconds", "0").status == 0
    schedule = ("--schedule", str(examples / "goto.schedule"))
    assert cli("check", "--m", "20", "--n", "35", "--k", "11", *schedule).status == 0
    code = compile((examples / "quickstart.py").read_text(), "quickstart.py", "exec")
    exec(code, {})
    assert "768.0 should be 768.0" in capsys.readouterr().out
