"""Work beside the training: one piece at a time, and what goes wrong there is raised here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait


class Background:
    """One thread for each piece of work, and never two at a time. A process that exits waits for it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """As soon as the work before it is done; raises what that raised."""
        self.wait()
        self.pending = Future()
        threading.Thread(target=_do, args=(work, self.pending), name=self.name).start()

    def check(self) -> None:
        """Raise what the last work raised, if it is over."""
        if self.pending is not None and self.pending.done():
            self.wait()

    def wait(self) -> None:
        """Until there is none; raises what it raised, once."""
        if self.pending is not None:
            wait([self.pending])  # a signal may break this off, and it can be waited for again
            pending, self.pending = self.pending, None
            pending.result()


def _do(work: Callable[[], None], pending: Future[None]) -> None:
    try:
        work()
        pending.set_result(None)
    except BaseException as error:
        pending.set_exception(error)
