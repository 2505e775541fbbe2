"""Maps keep proportions and say which class is which; bars are as long as their scores."""

import re

import pytest

from encdec_train.report.portrait import LENGTH, SIDE, layers, maps

MAP = {
    "method": "t-SNE of 4 test rows",
    "points": [[0, 0], [10, 0], [0, 5], [10, 5]],
    "labels": [1, 1, 0, 1],
    "names": ["cat", "<dog>"],
}


def circles(page):
    return [(name, float(x), float(y)) for name, x, y in re.findall(r'class="(\w+)" cx="([\d.]+)" cy="([\d.]+)"', page)]


def test_a_map_keeps_distances_and_names_classes():
    page = maps({}, {"map": MAP})
    dots = circles(page)[:4]
    assert [name for name, *_ in dots] == ["m0", "m0", "m1", "m0"]  # the most frequent class comes first
    (_, x0, y0), (_, x1, _), (_, _, y2) = dots[0], dots[1], dots[2]
    assert x1 - x0 == pytest.approx(2 * (y2 - y0), rel=0.01)
    assert all(0 < x < SIDE and 0 < y < SIDE for _, x, y in dots)
    assert "&lt;dog&gt;" in page and "<dog>" not in page
    assert page.count("<figure>") == 1 and maps({"map": MAP}, {"map": MAP}).count("<figure>") == 2


def test_a_map_without_classes_and_one_with_many():
    assert "pale" in maps({}, {"map": {**MAP, "labels": None, "names": None}})
    many = {**MAP, "points": [[i, 0] for i in range(24)], "labels": [i // 2 for i in range(24)], "names": None}
    page = maps({}, {"map": many})
    assert "other classes" in page and len([name for name, *_ in circles(page) if name == "pale"]) == 4


def test_bars():
    page = layers({"layers": {"scores": [0.25, 0.5]}}, {"layers": {"scores": [0.5, 1.0], "protocol": "20-NN"}})
    widths = [(kind, float(width)) for kind, width in re.findall(r'<rect class="(\w+)"[^>]*width="([\d.]+)"', page)]
    assert widths == [("now", LENGTH / 2), ("before", LENGTH / 4), ("now", LENGTH), ("before", LENGTH / 2)]
    assert "20-NN" in page and 'aria-label="Accuracy by layer, 1: 0.500, 2: 1.000"' in page


def test_nothing_is_nothing():
    assert maps({}, {}) == layers({}, {}) == ""
