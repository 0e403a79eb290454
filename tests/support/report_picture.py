"""The README's picture, docs/pictures/report.png: the first screen of a store's newest report, after `make demo` and `diger report show champion`.

`python -m tests.support.report_picture --store store` (seconds, Debian's chromium). Without `report show` it is
the stored page, which has no times. `--page PAGE --out FILE`: of another page, a file such as that of `diger report compare`, or one of `diger ui`
by its address. `--only CSS`: of one element of it, such as `.lineage`, the picture of `diger why --html`.
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
DRAWN = 8000  # milliseconds after which a page of Dagster is drawn; it asks for news without end
COLOURS = 48  # text and three colours: more would only make the file larger


def newest(store: Path) -> Path:
    """The page that was written last, of those with what the records say, or else of the stored ones. ValueError where the store has none."""
    shown, stored = (store / PAGES).glob("report-*.html"), (store / "artefacts" / "report").glob("*/report.html")
    found = next((pages for pages in (sorted(each, key=lambda path: path.stat().st_mtime) for each in (shown, stored)) if pages), [])
    if not found:
        raise ValueError(f"{store}: no report in it; run `make demo` first")
    return found[-1]


def picture(address: str, place: Path, only: str | None = None) -> None:
    """Writes the page's first screen, or one element of it, light, as a PNG with a palette."""
    with tempfile.TemporaryDirectory() as profile, browser_page(Path(profile)) as page:
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SIZE)
        page.goto(address)
        page.wait_for_timeout(500 if address.startswith("file:") else DRAWN)
        shot = page.locator(only).first.screenshot() if only else page.screenshot()
    colours = COLOURS if address.startswith("file:") else 128  # Dagster's greys want more
    Image.open(io.BytesIO(shot)).convert("RGB").quantize(colours, method=Image.Quantize.MAXCOVERAGE).save(place, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, default=Path("store"))
    parser.add_argument("--page", help="the page to take instead of the newest report: a file or an address")
    parser.add_argument("--only", metavar="CSS", help="the first element of the page that fits, instead of its first screen")
    parser.add_argument("--out", type=Path, default=PICTURE)
    given = parser.parse_args()
    page = given.page or newest(given.store)
    picture(page if "://" in str(page) else Path(page).resolve().as_uri(), given.out, given.only)
