"""The generate probe: what is given, what is asked for, what is kept."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from encdec_train.data.open import open_rows
from encdec_train.decoding.scores import scores
from encdec_train.probes.generate import Generate, GenerateConfig
from encdec_train.registry import probes
from encdec_train.train.assembly import evaluate, frozen
from encdec_train.types import Mismatch
from tests.runs import assembled, small


def eyes(recipe: str, tmp_path, *overrides: str):
    config = small(recipe, tmp_path, "evaluate.rows=40", "evaluate.batch=16", *overrides)
    return frozen(assembled(config, tmp_path / "run"))


def test_another_view_is_written_as_a_whole(tmp_path):
    found = list(Generate(GenerateConfig(length=5)).rows(eyes("transformer_nmt", tmp_path)))
    rows = open_rows(small("transformer_nmt", tmp_path).data)["test"]
    assert [row["source"] for row in found] == rows["words"][:40]
    assert [row["reference"] for row in found] == rows["digits"][:40]


def test_a_text_goes_on_after_its_share(tmp_path):
    look = eyes("gpt2", tmp_path)
    for share in (0.25, 0.5):
        found = list(Generate(GenerateConfig(length=3, share=share)).rows(look))
        texts = look.rows["test"]["text"][:40]
        assert [f"{row['source']} {row['reference']}".replace(" .", ".") for row in found] == texts
        given = sum(len(row["source"].replace(".", " .").split()) for row in found)
        assert given / sum(len(text.replace(".", " .").split()) for text in texts) == pytest.approx(share, abs=0.03)


def test_a_reply_is_what_was_there(tmp_path):
    look = eyes("bart", tmp_path)
    found = list(Generate(GenerateConfig(length=3)).rows(look))
    assert [row["reference"] for row in found] == look.rows["test"]["text"][:40]
    assert all("[MASK]" in row["source"] for row in found)


def test_samples_and_scores_are_kept(tmp_path):
    config = small(
        "transformer_nmt", tmp_path, "probe=[generate]", "probe.generate.score=chrf", "probe.generate.beam=2"
    )
    run = assembled(config, tmp_path / "run")
    value = evaluate(run)["generate"].value
    kept = json.loads((tmp_path / "run" / "samples" / "generate_main.json").read_text(encoding="utf-8"))
    assert kept["scores"]["chrf"] == value and len(kept["rows"]) == 20
    every = list(Generate(config.probe["generate"]).rows(frozen(run)))
    assert kept["rows"] == every[:20]
    again = scores([row["hypothesis"] for row in every], [row["reference"] for row in every])
    assert again == kept["scores"]
    assert "beam 2, length penalty 1.0" in kept["protocol"] and "sacrebleu" in kept["protocol"]


def test_what_is_refused():
    with pytest.raises(Mismatch, match=r"share: 1\.0 is not between 0 and 1"):
        Generate(GenerateConfig(share=1.0))
    with pytest.raises(Mismatch, match="beam: 0 is below 1"):
        probes.part(GenerateConfig())(GenerateConfig(beam=0))
    config = SimpleNamespace(objective={"main": None})
    with pytest.raises(Mismatch, match="there is no objective 'other'"):
        Generate(GenerateConfig(objective="other"))(SimpleNamespace(config=config))
