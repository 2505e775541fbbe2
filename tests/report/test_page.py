"""The page holds everything itself, escapes what it is given, and says which file is broken."""

import json
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from encdec_train.report.page import report_command, write_report


class Reader(HTMLParser):
    """Checks nesting, and keeps texts and attributes."""

    VOID = ("meta", "img", "br", "line", "circle", "rect", "polyline")

    def __init__(self):
        super().__init__()
        self.open, self.text, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text.append(data)


def read(run):
    page = write_report(run).read_text()
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return page, " ".join(" ".join(reader.text).split()), reader.tags


def test_everything_is_on_the_page(run):
    _, text, tags = read(run)
    for said in (
        "mae_vit finished",
        "1.02 → 0.4012",
        "4,000",
        "1 min 02 s",
        "1,832",
        "knn accuracy 0.931 0.571 +0.360 weighted 20-NN",
        "linear accuracy 0.910 0.925 \N{MINUS SIGN}0.015",
        "encoder.main 447,360",
        "all 562,304",
        "top-1",
        "torch 2.13.0",
        "the [MASK] sat on the <mat>",
        "predicted a dog",
        "Before the first step main, before the first step",
        "After step 90",
        "setting here in the recipe encoder.main.depth 6 4 stage.main.steps 4000 900",
        "t-SNE of 60 test rows",
    ):
        assert said in text
    assert "Measured with this framework" not in text  # nothing was
    charts = [attributes["aria-label"] for tag, attributes in tags if tag == "svg" and "role" in attributes]
    assert [label.split(":")[0] for label in charts] == [
        "Loss",
        "pixels",
        "diversity <b>",
        "Learning rate",
        "Gradient norm",
        "Samples per second",
        "Waiting for data, share of the time",
        "Before training",
        "After training",
        "Accuracy by layer, 1",
    ]
    assert all(attributes["alt"] for tag, attributes in tags if tag == "img")


def test_it_needs_nothing_else(run):
    page, _, tags = read(run)
    assert not re.search(r"https?://|url\(|@import", page)
    assert not [tag for tag, _ in tags if tag in ("script", "link", "iframe")]
    assert all(attributes["src"].startswith("data:image/png;base64,") for tag, attributes in tags if tag == "img")
    assert 'name="viewport"' in page and "prefers-color-scheme: dark" in page
    assert not (run / "report.html.partial").exists()


def test_what_it_is_given_is_escaped(run):
    page, text, _ = read(run)
    assert "<script>" not in page and "<script>alert(1)</script>" in text
    assert "diversity <b>" not in page


def test_a_long_run_stays_small(tmp_path, run):
    lines = [json.dumps({"step": i, "loss": 1.0 / (i + 1), "lr": 0.1}) for i in range(100_000)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    began = time.process_time()
    page, _, tags = read(run)
    assert time.process_time() - began < 10
    points = [attributes["points"].count(",") for tag, attributes in tags if tag == "polyline"]
    assert max(points) <= 1000
    assert len(page) < 300_000


def test_pictures_are_packed_and_the_page_is_bounded(run, monkeypatch):
    """Of noise, which no format makes small."""
    monkeypatch.setattr("encdec_train.report.images.BUDGET", 500_000)
    noise = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    for step in range(8):
        folder = run / "samples" / f"step-{step:08d}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(noise).save(folder / "main.png", compress_level=0)
    _, text, tags = read(run)
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert "After step 1" in text and "After step 7" not in text  # the first ones have the room
    assert sources[0].startswith("data:image/png") and any(source.startswith("data:image/webp") for source in sources)
    assert 0 < sum(map(len, sources)) < 4 / 3 * 500_000 + 1000


def test_a_run_without_changes_and_one_whose_recipe_is_gone(run):
    summary = json.loads((run / "summary.json").read_text())
    for changed, said in (([], True), (None, False)):
        (run / "summary.json").write_text(json.dumps({**summary, "changed": changed}))
        assert ("Changed from the recipe Nothing." in read(run)[1]) is said


def test_a_run_that_was_killed_has_a_page_too(run):
    (run / "summary.json").unlink()
    (run / "environment.json").unlink()
    _, text, _ = read(run)
    assert "not finished" in text and "3,991" in text


def test_a_run_without_metrics(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    _, text, tags = read(tmp_path)
    assert "no metrics yet" in text and not [tag for tag, _ in tags if tag == "svg"]


def test_broken_files_are_named(run):
    (run / "summary.json").write_text("{")
    with pytest.raises(ValueError, match=r"summary\.json: not readable as JSON, line 1"):
        write_report(run)
    (run / "summary.json").write_text("{}")
    (run / "metrics.jsonl").write_text("{\n{}\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl: a line is not readable"):
        write_report(run)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="not a run directory"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_where_the_page_is(run, capsys):
    assert report_command([str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    with pytest.raises(ValueError, match="usage: encdec-train report RUN; given: nothing"):
        report_command([])
