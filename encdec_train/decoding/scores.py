"""How near texts come to those that they should be, by the libraries that papers use; all in percent."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from enum import Enum
from importlib.metadata import version
from typing import Any

from encdec_train.library import need

ASKED_BY = "scores of texts"


class TextScore(Enum):
    """What is measured of a corpus of texts, one reference each."""

    bleu = "bleu"  # Papineni et al. 2002, as sacrebleu counts (Post 2018)
    chrf = "chrf"  # Popovic 2015, by sacrebleu
    rouge1 = "rouge1"  # Lin 2004: mean F1 of single words, by rouge-score
    rouge2 = "rouge2"  # of pairs of words
    rougeL = "rougeL"  # of the longest common subsequence
    exact = "exact"  # share of texts that are the reference, but for space around


def scores(hypotheses: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Every score of a corpus by name.

    Raises:
        Mismatch: a library is not installed.
    """
    found = {score.value: _sacre(score).corpus_score(hypotheses, [references]).score for score in SACRE}
    scorer = _rouge()
    pairs = list(zip(references, hypotheses, strict=True))
    rows = [scorer.score(*pair) for pair in pairs]
    for score in ROUGE:
        found[score.value] = 100 * sum(row[score.value].fmeasure for row in rows) / len(rows)
    found[TextScore.exact.value] = 100 * sum(a.strip() == b.strip() for a, b in pairs) / len(pairs)
    return found


def _rouge() -> Any:
    """The scorer. absl, with which it logs, is kept from what is not its own.

    Where all of logging has no handler it makes one, and the standard error that it finds on its import it closes when
    logging is configured anew, if that is not the one of the process.
    """
    quiet = logging.NullHandler()
    logging.root.addHandler(quiet)
    try:
        with redirect_stderr(sys.__stderr__):
            scorer = need("rouge_score.rouge_scorer", "scores", ASKED_BY)
        return scorer.RougeScorer([score.value for score in ROUGE])
    finally:
        logging.root.removeHandler(quiet)


SACRE = (TextScore.bleu, TextScore.chrf)
ROUGE = (TextScore.rouge1, TextScore.rouge2, TextScore.rougeL)


def signature(score: TextScore) -> str:
    """How a score is counted: what has to be the same where two of them are compared."""
    if score in SACRE:
        metric = _sacre(score)
        metric.corpus_score(["a"], [["a"]])  # before, it does not know the number of references
        return f"sacrebleu {metric.get_signature()}"
    if score in ROUGE:
        need("rouge_score", "scores", ASKED_BY)
        return f"rouge-score {version('rouge-score')}, mean F1, no stemming"
    return "equal but for space around"


def _sacre(score: TextScore) -> Any:
    metrics = need("sacrebleu.metrics", "scores", ASKED_BY)
    return metrics.BLEU() if score is TextScore.bleu else metrics.CHRF()
