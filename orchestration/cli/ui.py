"""`diger ui`: Dagster's UI and daemon on loopback, with the demo snapshots as partitions."""

from __future__ import annotations

import os
import sys

import click

from orchestration.cli.options import store_option


@click.command()
@click.option("--port", default=3000, show_default=True, help="Port on 127.0.0.1.")
@store_option
def ui(port: int, store: str) -> None:
    """Open Dagster's UI and daemon on http://127.0.0.1:PORT; stop with Ctrl-C."""
    from orchestration.cli.demo import demo_snapshots
    from orchestration.launch import dagster_home
    from orchestration.partitions import add_snapshots

    home = dagster_home()
    entries = add_snapshots(store, demo_snapshots(None))
    print(f"Snapshots: {', '.join(entry.key for entry in entries)}")
    print(f"Dagster's UI: http://127.0.0.1:{port}  (home {home}; Ctrl-C stops it)", flush=True)
    environment = {**os.environ, "DAGSTER_DISABLE_TELEMETRY": "yes"}
    command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(port)]
    os.execvpe(command[0], command, environment)
