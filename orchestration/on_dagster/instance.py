"""This project's Dagster instance: its home, made with telemetry off and the pools' limits."""

from __future__ import annotations

import os
from pathlib import Path

HOME_FILE = """telemetry:
  enabled: false
concurrency:
  pools:
    default_limit: 1
  runs:
    tag_concurrency_limits: # a backfill takes one snapshot at a time, in an order of Dagster's: two trainings would share the memory
      - key: dagster/backfill
        value:
          applyLimitPerUniqueValue: true
        limit: 1
run_monitoring:
  enabled: true
"""


def dagster_home() -> Path:
    """DAGSTER_HOME, or ./.dagster; made with telemetry off and the pools' limits."""
    home = Path(os.environ.get("DAGSTER_HOME") or Path.cwd() / ".dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if not config.exists():
        config.write_text(HOME_FILE, encoding="utf-8")
    nux = home / ".nux" / "nux.yaml"
    nux.parent.mkdir(exist_ok=True)
    if not nux.exists():
        nux.write_text("seen: 1\n", encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    return home
