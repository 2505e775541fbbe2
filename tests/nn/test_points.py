"""Farthest points and neighbours against a search by brute force."""

import torch

from encdec_train.nn.points import farthest_points, neighbours, squared_distances


def test_each_point_is_the_farthest_from_those_before():
    points, start = torch.randn(3, 40, 3), torch.tensor([0, 17, 39])
    found = farthest_points(points, 12, start)
    for row in range(3):
        taken = [int(start[row])]
        for _ in range(11):
            distance = [min(float((p - points[row, t]).norm()) for t in taken) for p in points[row]]
            taken.append(max(range(40), key=distance.__getitem__))
        assert found[row].tolist() == taken


def test_all_points_of_a_lattice_are_taken_once():
    side = torch.arange(3.0)
    points = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1).view(1, 27, 3)
    assert sorted(farthest_points(points, 27, torch.tensor([13]))[0].tolist()) == list(range(27))


def test_neighbours_are_the_nearest_in_order():
    points, centres = torch.randn(2, 30, 3), torch.randn(2, 5, 3)
    found = neighbours(points, centres, 7)
    for row in range(2):
        for i in range(5):
            distance = ((points[row] - centres[row, i]) ** 2).sum(1)
            assert found[row, i].tolist() == distance.argsort()[:7].tolist()


def test_distances_of_close_points_far_from_the_origin_are_exact():
    points = torch.tensor([[[1000.0, 0, 0], [1000.25, 0, 0]]])
    assert squared_distances(points, points)[0].tolist() == [[0.0, 0.0625], [0.0625, 0.0]]
