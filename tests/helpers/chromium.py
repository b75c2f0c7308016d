"""The distribution's Chromium, driven by Playwright: nothing is downloaded."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")  # WebGL without a GPU


@contextlib.contextmanager
def running_chromium() -> Iterator[Browser]:
    """Yield a headless browser, which ends with the block.

    For a fixture: the tests are skipped where Chromium is not installed.
    """
    if EXECUTABLE is None:
        pytest.skip("there is no Chromium here (apt-get install chromium)")
    with sync_playwright() as playwright:
        # Chromium refuses to run as root within its sandbox.
        sandbox = os.geteuid() != 0
        browser = playwright.chromium.launch(executable_path=EXECUTABLE, chromium_sandbox=sandbox, args=[*FLAGS])
        yield browser
        browser.close()


@dataclass
class Log:
    """What a page complained of, and what it asked for."""

    problems: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, page: Page) -> Log:
        """Keep the log of a page from now on."""
        log = cls()
        page.on("console", log.note)
        page.on("pageerror", lambda error: log.problems.append(str(error)))
        page.on("request", lambda request: log.requests.append(request.url))
        return log

    def note(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning", "assert"):
            self.problems.append(message.text)


def resize(page: Page, width: int, height: int = 900) -> None:
    """Show a page on a screen of another size; one that is narrower than 700 pixels is a phone's."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 700}
    page.context.new_cdp_session(page).send("Emulation.setDeviceMetricsOverride", metrics)
