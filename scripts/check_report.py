"""Open pages in a headless Chromium and see that they hold together, at the width of a desk and of a phone.

    python scripts/check_report.py PAGE.html [...] [--shots DIR]

Exit code 1 if a page logs an error, asks the network for anything, is wider than the window, or has a picture that says
nothing to somebody who cannot see it; 0 with a line where there is no Chromium. Speaks the DevTools protocol over the
browser's own pipe, so that nothing but Chromium is needed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTHS = (1280, 390)
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
)
SILENT = """[...document.querySelectorAll('img:not([alt]), img[alt=""], svg[role=img]:not([aria-label])')].length"""
WIDE = "document.documentElement.scrollWidth - window.innerWidth"
CUT = """[...document.querySelectorAll('main *')].filter(e => !e.closest('.wide, pre') && e.getClientRects().length
  && e.getBoundingClientRect().right > window.innerWidth + 1).length"""
OPEN = "document.querySelectorAll('details').forEach(e => { e.open = true })"


class Browser:
    """A Chromium that is spoken to by numbered messages, each ended by a zero byte."""

    def __init__(self, path: str, profile: str) -> None:
        theirs_in, self.out = os.pipe()
        self.into, theirs_out = os.pipe()

        def settle() -> None:  # in the child: it reads file 3 and writes file 4
            os.dup2(theirs_in, 63)
            os.dup2(theirs_out, 64)
            os.dup2(63, 3)
            os.dup2(64, 4)

        self.process = subprocess.Popen(
            [path, *QUIET, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=settle,
            pass_fds=(3, 4),
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.number = b"", 0
        self.events: list[dict[str, Any]] = []

    def read(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            more = os.read(self.into, 1 << 20)
            if not more:
                raise RuntimeError("the browser ended")
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def ask(self, method: str, session: str | None = None, **values: Any) -> dict[str, Any]:
        """The answer to one message; events that come before it are kept."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": values}
        os.write(self.out, json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        while (found := self.read()).get("id") != self.number:
            self.events.append(found)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        result: dict[str, Any] = found["result"]
        return result

    def wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self.read())

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)


def look(browser: Browser, page: Path, width: int, shots: Path | None) -> list[str]:
    """What is wrong with a page at a width."""
    target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
    session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    browser.events.clear()
    for domain in ("Page", "Runtime", "Log", "Network"):
        browser.ask(f"{domain}.enable", session)
    shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.ask("Emulation.setDeviceMetricsOverride", session, **shape)
    browser.ask("Page.navigate", session, url=page.resolve().as_uri())
    browser.wait("Page.loadEventFired")
    wrong = []
    for state in ("folded", "unfolded"):
        wide, cut = (_number(browser, session, code) for code in (WIDE, CUT))
        if wide > 0 or cut:
            wrong.append(f"{state}: {wide} pixels wider than the window, {cut} elements end beyond it")
        if shots is not None:
            _shoot(browser, session, shots / f"{page.stem}-{width}-{state}.png")
        _number(browser, session, OPEN)
    silent = _number(browser, session, SILENT)
    if silent:
        wrong.append(f"{silent} pictures without words")
    wrong += _said(browser.events, page)
    browser.ask("Target.closeTarget", targetId=target)
    return [f"{page} at {width}: {sentence}" for sentence in wrong]


def _number(browser: Browser, session: str, code: str) -> int:
    found = browser.ask("Runtime.evaluate", session, expression=code)
    return int(found["result"].get("value", 0))


def _shoot(browser: Browser, session: str, file: Path) -> None:
    size = browser.ask("Page.getLayoutMetrics", session)["cssContentSize"]
    clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], 16_000), "scale": 1}
    shot = browser.ask("Page.captureScreenshot", session, captureBeyondViewport=True, clip=clip)
    file.write_bytes(base64.b64decode(shot["data"]))


def _said(events: Sequence[dict[str, Any]], page: Path) -> list[str]:
    """Errors, and what was asked for besides the page itself."""
    found = []
    for event in events:
        method, values = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            found.append(f"an exception: {values['exceptionDetails']['text']}")
        elif method == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning"):
            found.append(f"on the console: {values['args']}")
        elif method == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
            found.append(f"in the log: {values['entry']['text']}")
        elif method == "Network.requestWillBeSent":
            url = values["request"]["url"]
            if not url.startswith("data:") and url != page.resolve().as_uri():
                found.append(f"asks for {url}")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--shots", type=Path, help="keep pictures of the pages in this folder")
    options = parser.parse_args()
    path = next((found for name in NAMES if (found := shutil.which(name))), None)
    if path is None:
        print("check_report: skipped, there is no Chromium on this machine")
        return 0
    if options.shots is not None:
        options.shots.mkdir(parents=True, exist_ok=True)
    wrong = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(path, profile)
        try:
            for page in options.pages:
                for width in WIDTHS:
                    wrong += look(browser, page, width, options.shots)
        finally:
            browser.close()
    print("\n".join(wrong) or f"check_report: {len(options.pages)} pages hold together at {WIDTHS} pixels")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
