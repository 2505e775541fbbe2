"""The embedded texts: there, the same every time, split without overlap, with labels."""

from __future__ import annotations

import pytest

from encdec_train.data.sources.pydoc import Pydoc, PydocConfig
from encdec_train.data.sources.stdlib import Stdlib, StdlibConfig


@pytest.mark.parametrize("make", [lambda: Pydoc(PydocConfig()), lambda: Stdlib(StdlibConfig())])
def test_rows_labels_and_splits(make) -> None:  # type: ignore[no-untyped-def]
    source = make()
    train, test = source("train"), source("test")
    assert len(train) > 1000
    assert abs(len(test) / (len(train) + len(test)) - 0.1) < 0.01
    assert not set(train["text"]) & set(test["text"])
    assert len(set(train["text"])) == len(train)
    names = train.features["label"].names
    assert len(set(train["label"])) > 20
    assert max(train["label"]) < len(names)
    assert make()("train")[:50] == train[:50]


def test_labels_are_where_the_text_comes_from() -> None:
    rows = Pydoc(PydocConfig())("train")
    of = {text: rows.features["label"].int2str(label) for text, label in zip(rows["text"], rows["label"], strict=True)}
    import json
    import logging

    docs = {"json": json.loads.__doc__, "logging": logging.__doc__}
    starts = {name: doc.strip().splitlines()[0][:40] for name, doc in docs.items() if doc}
    found = {name: [of[text] for text in of if text.startswith(start)] for name, start in starts.items()}
    assert any(found.values())
    assert all(name in labels for name, labels in found.items() if labels)
