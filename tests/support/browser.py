"""A headless Chromium for the tests of the UI: Debian's browser, driven by Playwright, that talks to loopback only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # loopback only
]


def chromium() -> str:
    """The installed browser's path; skips the test where there is none."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: the UI is not tested in a browser")
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("chromium is not installed (Debian: apt-get install chromium): the UI is not tested in a browser")
    return found


@contextmanager
def browser_page(profile: Path) -> Iterator[Any]:
    """A Playwright page of a browser with the empty profile directory given; names beyond loopback do not resolve."""
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            str(profile), executable_path=executable, headless=True, args=FLAGS, viewport={"width": 1440, "height": 1000}
        )
        try:
            page = context.pages[0]
            page.set_default_timeout(90_000)  # two cores may be busy with other tests
            yield page
        finally:
            context.close()
