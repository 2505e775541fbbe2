"""Ticks, thinning, smoothing, and places of points."""

import math
import re

import pytest

from encdec_train.report.curves import _label, chart, log_ticks, nice_ticks, smooth, thin


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1.0]),
        (0.2, 9.3, [2.5, 5.0, 7.5]),
        (1, 4000, [1000, 2000, 3000, 4000]),
        (-1e-4, 1e-4, [-1e-4, -5e-5, 0, 5e-5, 1e-4]),
    ],
)
def test_ticks_are_round_and_inside(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


def test_thinning_keeps_ends_and_mean():
    points = [(float(i), float(i % 2)) for i in range(10_000)]
    few = thin(points, 100)
    assert len(few) == 100
    assert few[0] == points[0] and few[-1] == points[-1]
    assert all(abs(y - 0.5) < 0.02 for _, y in few[1:-1])
    assert [x for x, _ in few] == sorted(x for x, _ in few)


def test_smoothing_does_not_shift_a_line():
    line = [(float(i), 2.0 * i) for i in range(50)]
    assert [y for _, y in smooth(line, 5)] == pytest.approx([y for _, y in line])


def test_values_that_are_not_finite_are_counted_not_drawn():
    figure = chart("Loss", [(1, 1.0), (2, math.nan), (3, 0.5), (4, math.inf)])
    assert "2 values were not finite" in figure
    assert "nan" not in figure and "inf" not in figure.replace("finite", "")


def test_one_point_is_no_curve():
    assert chart("Loss", [(1, 1.0)]) == "" and chart("Loss", []) == ""


@pytest.mark.parametrize("points", [[(1, 2.0), (2, 2.0)], [(1, 0.0), (2, 0.0)], [(5, 1.0), (5, 2.0)]])
def test_flat_curves_lie_within_the_figure(points):
    figure = chart("Loss", points, zero=True)
    places = re.search(r'points="([^"]+)"', figure).group(1).split()
    for place in places:
        x, y = map(float, place.split(","))
        assert 0 <= x <= 420 and 0 <= y <= 220


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (1.5e-4, "1.5e\N{MINUS SIGN}4"),
        (20000, "20k"),
        (2500000, "2.5M"),
        (-3, "\N{MINUS SIGN}3"),
    ],
)
def test_labels_are_short(value, text):
    assert _label(value) == text


def test_a_schedule_is_drawn_as_it_is():
    peak = [(float(i), 1.0 if i == 50 else 0.0) for i in range(100)]
    assert 'class="raw"' in chart("Loss", peak)
    figure = chart("Learning rate", peak, exact=True)
    assert 'class="raw"' not in figure and "at most 1" in figure


def test_a_high_start_is_drawn_on_a_log_scale():
    figure = chart("Loss", [(float(i), 9.0 / (i + 1)) for i in range(30)])
    assert "log scale" in figure
    ys = [float(place.split(",")[1]) for place in re.search(r'points="([^"]+)"', figure).group(1).split()]
    assert ys == sorted(ys) and min(ys) >= 12 and max(ys) <= 198
    assert "log scale" not in chart("Loss", [(1, 9.0), (2, -1.0)])
    assert "log scale" not in chart("Loss", [(1, 9.0), (2, 0.1)], zero=True)


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(0.4, 9.9, [0.5, 1, 2, 5]), (0.02, 300, [0.1, 1, 10, 100]), (0.9, 1.1, [1])]
)
def test_ticks_of_a_log_scale(low, high, ticks):
    assert log_ticks(low, high) == pytest.approx(ticks)
