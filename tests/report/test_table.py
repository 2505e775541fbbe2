"""The closing table: every number of the summary, readable without a terminal."""

import io

import pytest
from rich.console import Console

from encdec_train.report.table import duration, gain, number, print_table

SUMMARY = {
    "recipe": "mae_vit",
    "scale": "demo",
    "status": "finished",
    "run": "runs/mae_vit/[one]",
    "steps": 600,
    "samples": 76800,
    "seconds": 62.3,
    "loss": {"first": 1.0234567, "last": 0.3124},
    "probes": {
        "knn": {"metric": "accuracy", "value": 0.931, "untrained": 0.571, "protocol": "20-NN [cosine]"},
        "linear": {"value": 0.9, "untrained": 0.95},
    },
    "throughput": {"samples_per_s": 1832.23, "tokens_per_s": None},
    "scales": ["mae_vit at scale=demo: data digits", "scale=rung would be: A", "scale=paper would be: B"],
}


def printed(summary, **options):
    out = io.StringIO()
    print_table(summary, Console(file=out, **options))
    return out.getvalue()


def test_everything_is_said_in_plain_text():
    text = printed(SUMMARY)
    assert "\x1b" not in text and "─" not in text
    assert "mae_vit · scale=demo · finished" in text
    lines = {line.split()[0]: " ".join(line.split()[1:]) for line in text.splitlines() if line.split()}
    assert lines["knn"] == "accuracy 0.931 0.571 +0.360 20-NN [cosine]"
    assert lines["linear"].startswith("0.900 0.950 -0.050")
    assert lines["loss"] == "1.023 → 0.3124"
    assert lines["training"] == "600 steps, 76,800 samples, 1 min 02 s"
    assert lines["speed"] == "1,832 samples/s"
    assert lines["run"] == "runs/mae_vit/[one]"
    assert lines["larger"] == "scale=rung would be: A; scale=paper would be: B"


def test_a_terminal_gets_colours():
    assert "\x1b[32m+0.360" in printed(SUMMARY, force_terminal=True, color_system="standard", width=100)


def test_long_paths_are_not_broken():
    path = "/".join(["folder"] * 60)
    assert path in printed({"run": path}) and path in printed({"run": path}, force_terminal=True, width=80)


def test_an_empty_summary_is_no_error():
    assert printed({}).split() == ["run"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "\N{EN DASH}"),
        (76800, "76,800"),
        (7, "7"),
        (1832.23, "1,832"),
        (0.312449, "0.3124"),
        (1e-4, "0.0001"),
        (1.5e-5, "1.5e-05"),
        (float("nan"), "nan"),
        (2.0, "2"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (8.31, "8.3 s"),
        (59.97, "1 min 00 s"),
        (125, "2 min 05 s"),
        (3599.8, "1 h 00 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_gain_needs_both_sides():
    assert gain(0.5, None) == "\N{EN DASH}"
