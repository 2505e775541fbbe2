"""What labels are, and how predictions of them are scored: classes, numbers, or several yes and no with gaps."""

from __future__ import annotations

import math
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encdec_train.types import Mismatch


class Measure(Enum):
    """The score of a prediction, by which it is known what the labels are. The mean over the labels, if several."""

    accuracy = "accuracy"  # of classes
    r2 = "r2"  # of numbers: share of the variance that is explained
    roc_auc = "roc_auc"  # of yes and no: chance that a yes is scored above a no (MoleculeNet, Wu et al. 2018)


def outputs(measure: Measure, truth: np.ndarray) -> int:
    """How many scores of a row predict the labels (n,L)."""
    return int(truth.max()) + 1 if measure is Measure.accuracy else truth.shape[1]


def check_labels(measure: Measure, truth: np.ndarray) -> np.ndarray:
    """The labels (n,L), if they are of the kind that is measured.

    Raises:
        Mismatch: they are not.
    """
    known = truth[~np.isnan(truth)]
    if measure is Measure.accuracy and (truth.shape[1] != 1 or len(known) < truth.size or (known % 1).any()):
        raise Mismatch("a probe's accuracy is of classes in one column, without gaps; r2 and roc_auc are of others")
    if measure is Measure.roc_auc and not np.isin(known, (0, 1)).all():
        raise Mismatch("a probe's roc_auc is of labels that are 0, 1 or missing")
    return truth


def loss(measure: Measure, scores: Tensor, truth: Tensor) -> Tensor:
    """(): mean loss of scores (b,outputs) for labels (b,L), of which missing ones do not count."""
    if measure is Measure.accuracy:
        return F.cross_entropy(scores, truth[:, 0].long())
    known = ~truth.isnan()
    held = truth.nan_to_num().to(scores.dtype)
    each = F.binary_cross_entropy_with_logits if measure is Measure.roc_auc else F.mse_loss
    return (each(scores, held, reduction="none") * known).sum() / known.sum().clamp_min(1)


def score(measure: Measure, scores: np.ndarray, truth: np.ndarray) -> tuple[float, dict[str, float]]:
    """The measure of scores (n,outputs) for labels (n,L), and others of the same.

    Raises:
        Mismatch: no label has both a yes and a no.
    """
    from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score, roc_auc_score

    if measure is Measure.accuracy:
        return float((scores.argmax(1) == truth[:, 0]).mean()), {}
    columns = [(scores[known, i], truth[known, i]) for i, known in enumerate(~np.isnan(truth.T))]
    if measure is Measure.roc_auc:
        found = [roc_auc_score(true, given) for given, true in columns if len(np.unique(true)) == 2]
        if not found:
            raise Mismatch("a probe's roc_auc: no label of the test rows has both a yes and a no")
        return float(np.mean(found)), {"labels": len(found)}
    mean = {
        "r2": np.mean([r2_score(true, given) for given, true in columns]),
        "rmse": np.mean([math.sqrt(mean_squared_error(true, given)) for given, true in columns]),
        "mae": np.mean([mean_absolute_error(true, given) for given, true in columns]),
    }
    return float(mean.pop("r2")), {name: float(value) for name, value in mean.items()}


def moments(measure: Measure, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (L,) that labels (n,L) are standardised by; only numbers are."""
    if measure is not Measure.r2:
        return np.zeros(truth.shape[1]), np.ones(truth.shape[1])
    return np.nanmean(truth, 0), np.maximum(np.nanstd(truth, 0), 1e-12)


def tensor(truth: np.ndarray, moments: tuple[np.ndarray, np.ndarray]) -> Tensor:
    """(n,L) float64: standardised labels, nan where one is missing."""
    return torch.from_numpy((truth - moments[0]) / moments[1])
