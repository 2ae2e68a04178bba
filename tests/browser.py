"""A headless Chromium, and what to do where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_PROGRAMS = ("chromium", "chromedriver")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1200,900",
)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome | str]:
    """A browser with a profile of its own, or why there is none."""
    program, driver = (shutil.which(name) or shutil.which(name, path="/usr/bin") for name in _PROGRAMS)
    if program is None or driver is None:
        yield "chromium or chromedriver is missing"
        return
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()
