"""The README's picture, docs/pictures/report.png: the first screen of a store's newest report, after `make demo` and `diger report show champion`.

`python -m tests.support.report_picture --store store` (seconds, Debian's chromium). Without `report show` it is
the stored page, which has no times. `--page FILE --out FILE`: of another page, such as docs/pictures/compare.png of `diger report compare`'s.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path

from PIL import Image

from orchestration.engine.removal import PAGES
from tests.support.browser import browser_page

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "pictures" / "report.png"
SIZE = {"width": 1300, "height": 700}
COLOURS = 48  # text and three colours: more would only make the file larger


def newest(store: Path) -> Path:
    """The page that was written last, of those with what the records say, or else of the stored ones. ValueError where the store has none."""
    shown, stored = (store / PAGES).glob("report-*.html"), (store / "artefacts" / "report").glob("*/report.html")
    found = next((pages for pages in (sorted(each, key=lambda path: path.stat().st_mtime) for each in (shown, stored)) if pages), [])
    if not found:
        raise ValueError(f"{store}: no report in it; run `make demo` first")
    return found[-1]


def picture(report: Path, place: Path) -> None:
    """Writes the page's first screen, light, as a PNG with a palette."""
    with tempfile.TemporaryDirectory() as profile, browser_page(Path(profile)) as page:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZE)
        page.goto(report.resolve().as_uri())
        page.wait_for_load_state("networkidle")
        shot = page.screenshot()
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(COLOURS, method=Image.Quantize.MAXCOVERAGE).save(place, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--page", type=Path, help="the page to take instead of the newest report")
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args()
    picture(given.page or newest(given.store), given.out)
