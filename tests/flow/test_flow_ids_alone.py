"""A catalogue of ids alone, as one log file gives it: the run goes to its report, which says what the IDs come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.cli import main
from tests.support.small_params import TINY


@pytest.mark.slow
def test_a_log_without_items_runs_to_the_report_and_says_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [f"u{user},i{(user * 7 + step * (1 + user % 2)) % 40},{1_700_000_000 + user * 1000 + step}" for user in range(60) for step in range(8)]
    Path("log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    Path("params.yaml").write_text(TINY)
    for command in ("ingest table --interactions log.csv --out snap", "run --snapshot snap --store store -q"):
        main(command.split())  # SystemExit with another code than 0 where a command fails
    page = next(Path("store/artefacts/report").glob("*/report.html")).read_text()
    assert "no item has text: IDs come from behaviour alone" in page
