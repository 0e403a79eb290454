"""The world of the README's own-data commands: docs/data.md's shop, its next export, and parameters for a tiny catalogue."""

from __future__ import annotations

from pathlib import Path

import yaml

from orchestration.cli import main
from orchestration.params.load import load_params
from tests.support import data_page
from tests.support.retraining_world import LENIENT, SMALL


def world(folder: Path) -> None:
    """clicks.csv and products.csv of Monday, and the snapshot data/snapshots/tuesday with one event more a customer."""
    data_page.world(folder)
    clicks = (folder / "clicks.csv").read_text(encoding="utf-8").splitlines()
    later = [f"{line.split(',')[0]},{4711 + 3 * n % 40:07d},{1770000000 + n}" for n, line in enumerate(clicks[1::6])]
    (folder / "later.csv").write_text("\n".join([*clicks, *later]) + "\n", encoding="utf-8")
    maps = ("user_id=customer", "item_id=sku", "timestamp=time")
    tables = ["--interactions", str(folder / "later.csv"), "--items", str(folder / "products.csv"), "--out", str(folder / "data/snapshots/tuesday")]
    main(["ingest", "table", *tables, *(word for each in maps for word in ("--map", each)), "--map-items", "item_id=sku"])


def shrink(folder: Path, line: str) -> None:
    """What `diger params --suggest` has written, must be valid; then for a tiny catalogue and a gate that accepts: a minute less."""
    if line.endswith("> mine.yaml"):
        load_params(folder / "mine.yaml")
        suggested = yaml.safe_load((folder / "mine.yaml").read_text(encoding="utf-8"))
        (folder / "mine.yaml").write_text(yaml.safe_dump(suggested | SMALL | {"gate": LENIENT}), encoding="utf-8")
