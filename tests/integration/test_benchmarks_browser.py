"""The HTML report looked at in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.report.html import render_html
from tests.unit.benchmarks.made import made_report

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"),
    *("--disable-background-networking", "--disable-quic"),  # a page without requests, in peace
)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser found: install one of {', '.join(BROWSERS)}")
    return found


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(render_html(made_report()), encoding="utf-8")
    return path


def shoot(browser: str, page: Path, *flags: str) -> tuple[np.ndarray, str]:
    """A screenshot (height, width, 3) and what the browser had to say."""
    picture = page.with_name("shot.png")
    picture.unlink(missing_ok=True)
    profile = page.with_name("profile")
    done = subprocess.run(
        [
            browser,
            *FLAGS,
            *flags,
            f"--user-data-dir={profile}",
            "--enable-logging=stderr",
            f"--screenshot={picture}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return np.asarray(Image.open(picture).convert("RGB")), done.stderr


def near(pixels: np.ndarray, color: str, tolerance: int = 12) -> int:
    """How many pixels have about this colour."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (0, 2, 4)])
    return int(np.sum(np.all(np.abs(pixels.astype(int) - wanted) <= tolerance, axis=-1)))


def test_the_report_is_readable_in_light(browser: str, page: Path) -> None:
    pixels, said = shoot(browser, page, "--window-size=1280,1600")
    assert "CONSOLE" not in said
    assert near(pixels[:8], "ffffff") == pixels[:8].size // 3
    for color in ("3366cc", "dd6027", "1b2230"):  # first and second series, text
        assert near(pixels, color) > 300, color


def test_the_report_is_readable_in_dark(browser: str, page: Path) -> None:
    dark = "--blink-settings=preferredColorScheme=0"
    pixels, said = shoot(browser, page, dark, "--window-size=1280,1600")
    assert "CONSOLE" not in said
    assert near(pixels[:8], "11151b") == pixels[:8].size // 3
    for color in ("7aa2ff", "ff9a62", "e5e9f0"):
        assert near(pixels, color) > 300, color
    # Nothing is left in a colour that was meant for white paper.
    assert near(pixels, "000000", tolerance=4) < 50
    assert near(pixels, "ffffff", tolerance=4) < 50


def test_the_report_fits_a_phone(browser: str, page: Path) -> None:
    pixels, said = shoot(browser, page, "--window-size=500,1600")
    assert "CONSOLE" not in said
    # The margin on the right stays empty: wide tables scroll in their own box.
    assert near(pixels[:, -12:], "ffffff") == pixels[:, -12:].size // 3
