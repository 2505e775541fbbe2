"""Scores against what their definitions give by hand."""

import subprocess
import sys

import pytest

from encdec_train.decoding.scores import TextScore, scores, signature
from encdec_train.types import Mismatch


def test_by_hand():
    found = scores(["a b c d", " x y "], ["a b c e", "x y"])
    # 5 of 6 words, 3 of 4 pairs, 1 of 2 triples, and of one quadruple none, which counts as a half
    assert found["bleu"] == pytest.approx(100 * (5 / 6 * 3 / 4 * 1 / 2 * 1 / 2) ** 0.25)
    assert found["rouge1"] == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert found["rouge2"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["rougeL"] == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert found["exact"] == 50
    assert 0 < found["chrf"] < 100 and set(found) == {score.value for score in TextScore}


def test_shorter_texts_pay():
    assert scores(["a b c d"], ["a b c d e f g h"])["bleu"] == pytest.approx(100 * 2.718281828 ** (1 - 8 / 4))


def test_a_signature_says_how():
    assert signature(TextScore.bleu).startswith("sacrebleu nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "nc:6|nw:0" in signature(TextScore.chrf) and "no stemming" in signature(TextScore.rougeL)


def test_a_library_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics", None)
    with pytest.raises(
        Mismatch, match=r"scores of texts needs sacrebleu.metrics.*pip install 'encdec-train\[scores\]'"
    ):
        scores(["a"], ["a"])


def test_nothing_is_left_at_the_root_of_logging():
    """Else what others log would go where the library found standard error on its import."""
    program = "import logging; from encdec_train.decoding.scores import scores; "
    program += "scores(['a'], ['a']); print(logging.root.handlers)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
