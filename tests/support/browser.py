"""A real browser for pages."""

import shutil
import subprocess
from pathlib import Path

import pytest


def screenshot(page: Path, picture: Path) -> str:
    """Let Chromium draw a page; returns the text that it then holds."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        pytest.skip("needs Chromium: apt install chromium")
    words = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={picture.parent / 'profile'}"]
    subprocess.run([*words, f"--screenshot={picture}", page.as_uri()], check=True, capture_output=True, timeout=120)
    dumped = subprocess.run([*words, "--dump-dom", page.as_uri()], check=True, capture_output=True, timeout=120)
    return dumped.stdout.decode()
