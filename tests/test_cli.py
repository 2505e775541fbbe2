"""Wrong input ends in one clear message, exit code 2, no traceback and nothing half-made."""

import json

import numpy as np
import pytest
from PIL import Image

from encdec_train import cli
from encdec_train.errors import explain

MAE = "+recipe=mae_vit"


def run(capsys, *arguments):
    """Exit code and what was printed on both channels."""
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    captured = capsys.readouterr()
    return stopped.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["+recipe=mae_vitt"], "unknown recipe 'mae_vitt' (did you mean 'mae_vit'?)"),
        ([MAE, "encoder=vit_bass"], "did you mean 'vit_base'"),
        ([MAE, "encoder.dpeth=3"], "encoder.dpeth: no encoder has such a key (did you mean 'depth'?)"),
        ([MAE, "optim.lrr=3"], "did you mean 'lr'"),
        ([MAE, "stagee.main=3"], "did you mean 'stage'"),
        ([MAE, "encoder.depth=twelve"], "'twelve'"),
        ([MAE, "trainer.precision=fp8"], "fp8"),
        ([MAE, "corruption.ratio=1.5"], "corruption 'drop'.ratio: 1.5 is not between 0 and 1"),
        ([MAE, "+encoder.main.lenght=3"], "lenght"),
        ([MAE, "+transform.lenght=3"], "lenght"),
        ([MAE, "optim.lr=-1"], "optim.lr: -1.0 is not above 0"),
        ([MAE, "loader.batch=0"], "loader.batch: 0 is below 1"),
        ([MAE, "trainer.devices=3"], "loader.batch: 128 rows do not divide into 3 processes"),
        (
            [MAE, "trainer.accumulate=7"],
            "do not divide into 1 processes (trainer.devices x num_nodes) x 7 micro batches",
        ),
        ([MAE, "trainer.num_nodes=2"], "trainer.num_nodes: 2; start one process for each device with torchrun or srun"),
        (
            [MAE, "trainer.strategy=fsdp", "trainer.devices=2", "checkpoint.best=knn"],
            "checkpoint.best: probe 'knn' reads whole parts",
        ),
        ([MAE, "checkpoint.best=kn"], "checkpoint.best: there is no probe 'kn'; there is: loss, knn, linear"),
        ([MAE, "data.max_skipped=2"], "data.max_skipped: 2.0 is not in [0, 1]"),
        (["replay", "/nowhere/at/all", "3"], "/nowhere/at/all: no such folder"),
        (["replay", "runs"], "usage: encdec-train replay RUN STEP"),
        ([MAE, "trainer.max_steps=0"], "trainer.max_steps: 0 is below 1"),
        ([MAE, "path.main.view=picture"], "the data give no view 'picture'"),
        ([MAE, "data=motifs"], "transform 'image' needs pictures"),
        ([MAE, "data.path=/nowhere/at/all"], "/nowhere/at/all"),
        (["resume", "/nowhere/at/all"], "/nowhere/at/all: no such folder"),
        (["resume"], "usage: encdec-train resume RUN"),
        (["probe", "/nowhere/at/all"], "/nowhere/at/all: no such folder"),
        (["shwo", MAE], "unknown command 'shwo' (did you mean 'show'?)"),
        (["list", "recipies"], "did you mean 'recipes'"),
    ],
)
def test_wrong_input(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, *arguments)
    assert code == 2
    assert said in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


def test_all_mismatches_at_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, MAE, "encoder.heads=5", "decoder.heads=7", "corruption.ratio=2", "objective.loss=mae")
    assert code == 2
    for side in ("encoder 'transformer': width 96", "decoder 'mask_tokens': width 64", "ratio: 2.0", "no loss 'mae'"):
        assert side in error


def test_decoder_that_does_not_fit_names_both_sides(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, error = run(capsys, MAE, "corruption=null")
    assert code == 2
    assert "decoder 'mask_tokens' fills dropped sites, its memory has all sites" in error


def test_resume_of_what_is_no_run(capsys, tmp_path):
    code, _, error = run(capsys, "resume", str(tmp_path))
    assert (code, error) == (2, f"{tmp_path}: not a run directory (it has no config.yaml)\n")


def test_unreadable_picture_is_named_and_nothing_is_left(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "pictures"
    for label in ("a", "b"):
        (folder / label).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(np.full((8, 8), i * 20, np.uint8)).save(folder / label / f"{i}.png")
    broken = folder / "b" / "7.png"
    broken.write_bytes(b"no picture")
    code, _, error = run(capsys, MAE, f"data.path={folder}", "loader.batch=24", "trainer.max_steps=1", "run.root=runs")
    assert code == 2
    assert "7.png" in error and "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_empty_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    code, _, error = run(capsys, MAE, f"data.path={tmp_path / 'empty'}")
    assert code == 2
    assert str(tmp_path / "empty") in error


def test_a_place_that_is_not_ours_to_write_to_is_named():
    assert explain(PermissionError(13, "Permission denied", "/folder/x")) == "/folder/x: Permission denied"
    assert explain(NotADirectoryError(20, "Not a directory", "file/sub")) == "file/sub: Not a directory"
    assert explain(PermissionError("without a name")) is None


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="ratio"):
        cli.main([MAE, "corruption.ratio=1.5", "--debug"])


def test_a_run_its_probe_and_its_end(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = ["loader.batch=8", "trainer.max_steps=3", "run.name=a", "evaluate.rows=100"]
    code, out, _ = run(capsys, MAE, *short)
    assert code == 0
    for said in ("scale=rung would be", "scale=paper would be", "knn", "linear", "samples/s", "runs/mae_vit/a"):
        assert said in out
    folder = tmp_path / "runs" / "mae_vit" / "a"
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["steps"] == 3 and summary["status"] == "finished"
    code, out, _ = run(capsys, "probe", str(folder), "probe=knn")
    assert code == 0
    assert f"knn: accuracy {summary['probes']['knn']['value']:.4f}" in out
    several = ["probe=few_shot,held_out_ssim", "probe.few_shot.draws=2", "evaluate.rows=50"]
    code, out, _ = run(capsys, "probe", str(folder), *several)
    assert code == 0
    for said in ("few_shot: accuracy 0.", "mean of 2 draws", "  std: 0.", "held_out: ssim "):
        assert said in out
    for wrong, said in {
        "probe=kn": "unknown probe 'kn' (did you mean 'knn'?); known: ",
        "probe.knn.kk=3": "Key 'kk' not in 'KnnConfig'",
        "probe.sts.path=x": "probe.sts.path: there is no such probe; there is: knn, linear",
        "evaluate.rows=[": "evaluate.rows: '[' is no value that YAML can read",
        "probe.knn.data={path: /nowhere}": "/nowhere",
        "tset=1": "usage: encdec-train probe RUN",
    }.items():
        code, _, error = run(capsys, "probe", str(folder), wrong)
        assert code == 2 and said in error
    code, out, _ = run(capsys, "resume", str(folder))  # there is nothing left to train
    assert code == 0
    assert json.loads((folder / "summary.json").read_text())["probes"] == summary["probes"]
    code, _, error = run(capsys, MAE, *short)
    assert code == 2
    assert "there is a run already" in error


def test_sweep(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = run(capsys, "-m", MAE, "seed=1,2", "loader.batch=8", "trainer.max_steps=2", "probe=null")
    assert code == 0
    seeds = [json.loads(path.read_text())["seed"] for path in tmp_path.glob("runs/mae_vit/*/summary.json")]
    assert sorted(seeds) == [1, 2]


def test_a_failed_job_is_named_and_goes_on_alone(capsys, tmp_path, monkeypatch):
    """One has a step to look at, one was refused before anything was written, one is fine."""
    monkeypatch.chdir(tmp_path)
    given = [MAE, "loader.batch=8", "trainer.max_steps=2", "probe=null", "trainer.log_every=1"]
    code, _, error = run(capsys, "-m", *given, "optim.lr=1e30,1e-3", "data.path=null,/nowhere")
    assert code == 1
    said = [line for line in error.splitlines() if line.startswith(("job", "3 of"))]
    (broken,) = (path.parent for path in tmp_path.glob("runs/mae_vit/*/events.jsonl"))
    broken = broken.relative_to(tmp_path)
    assert said[0] == "3 of the sweep's jobs did not finish:"
    assert said[1].startswith("job 0 (optim.lr=1e+30 data.path=null): step 2: the loss is not a finite number")
    assert said[1].endswith(f"; alone: encdec-train resume {broken}")
    alone = "encdec-train +recipe=mae_vit loader.batch=8 trainer.max_steps=2 'probe=[]' trainer.log_every=1"
    for line, lr, number in ((said[2], "1e+30", 1), (said[3], "0.001", 3)):
        assert line.startswith(f"job {number} (optim.lr={lr} data.path=/nowhere): ") and "Traceback" not in line
        assert line.endswith(f"; alone: {alone} optim.lr={lr} data.path=/nowhere")
    code, out, _ = run(capsys, "runs", "--json")
    assert [found["status"] for found in json.loads(out)] == ["not finished", "finished"]
    code, _, error = run(capsys, "resume", str(broken))
    assert code == 1 and "step 2: the loss is not a finite number" in error


def test_show_as_json(capsys):
    code, out, _ = run(capsys, "show", MAE, "scale=paper", "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["parts"]["decoder.main"]["parameters"] == 25_614_336
    assert facts["paths"]["main"][-1].endswith("(B,1+49,768)")


def test_recipe_of_ones_own(capsys, tmp_path, monkeypatch):
    """A folder `recipes/` in the working directory is searched too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /encoder: vit_tiny\nseed: 7\n"
    )
    code, out, _ = run(capsys, "show", "+recipe=mine", "--json")
    assert code == 0
    assert json.loads(out)["recipe"] == "mine"
