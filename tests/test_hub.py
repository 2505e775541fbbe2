"""A hub that does not answer is asked once, and its libraries then look only at what was downloaded before."""

import datasets.config
import huggingface_hub
import pytest
from huggingface_hub import constants

from encdec_train import hub


class Session:
    def __init__(self, error=None):
        self.error, self.asked = error, 0

    def head(self, address, timeout):
        self.asked += 1
        if self.error is not None:
            raise self.error


@pytest.fixture
def session(monkeypatch):
    """What the hub's library asks with, in a process that has asked nothing yet."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    made = Session()
    monkeypatch.setattr(huggingface_hub.utils, "get_session", lambda: made)
    hub.reaches.cache_clear()
    yield made
    hub.reaches.cache_clear()


def test_one_that_answers(session):
    assert hub.reaches() and hub.reaches()
    assert session.asked == 1 and not constants.HF_HUB_OFFLINE and not datasets.config.HF_HUB_OFFLINE


def test_one_that_does_not(session, caplog):
    session.error = OSError("no route")
    assert not hub.reaches() and not hub.reaches()
    assert session.asked == 1 and constants.HF_HUB_OFFLINE and datasets.config.HF_HUB_OFFLINE
    assert "does not answer (no route)" in caplog.text


def test_who_forbade_it_is_not_asked(session, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.reaches() and session.asked == 0


def test_a_place_on_this_machine_is_no_name(session, tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        hub.look_for(str(path))
    assert session.asked == 0
    hub.look_for("owner/name")
    assert session.asked == 1
