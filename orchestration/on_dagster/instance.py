"""This project's Dagster instance: its home, made with telemetry off and the pools' limits, and where it keeps its history.

Three environment variables choose what stands in a new `dagster.yaml`. The address of the database never does: the file names its variable.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from diger_core.errors import DigerError

if TYPE_CHECKING:
    import dagster as dg

POSTGRES = "DIGER_POSTGRES_URL"  # postgresql://USER@HOST:PORT/DATABASE; unset: SQLite in the home
LAUNCHER = "DIGER_RUN_LAUNCHER"  # MODULE:CLASS of what starts a run's process; unset: the code server does
LAUNCHER_CONFIG = "DIGER_RUN_LAUNCHER_CONFIG"  # its configuration, a JSON object; a secret in it is {"env": "NAME"}

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
_STORAGE = f"""storage:
  postgres:
    postgres_url:
      env: {POSTGRES}
"""


def dagster_home() -> Path:
    """DAGSTER_HOME, or ./.dagster; made with telemetry off, the pools' limits and what the environment chooses.

    Raises DigerError where a file that is there keeps its history elsewhere than the environment says, so that no second history begins unseen.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or Path.cwd() / ".dagster").absolute()
    text = HOME_FILE + (_STORAGE if postgres_url() else "") + _launcher()  # what it refuses leaves nothing behind
    home.mkdir(parents=True, exist_ok=True)
    config = home / "dagster.yaml"
    if config.exists():
        _refuse_other(config)
    else:
        config.write_text(text, encoding="utf-8")
    nux = home / ".nux" / "nux.yaml"
    nux.parent.mkdir(exist_ok=True)
    if not nux.exists():
        nux.write_text("seen: 1\n", encoding="utf-8")
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def postgres_url() -> str | None:
    """The database that the environment names; None for SQLite in the home. DigerError, which never holds the address, where it cannot be used."""
    url = os.environ.get(POSTGRES)
    if not url:
        return None
    if not url.startswith(("postgresql://", "postgresql+psycopg2://")):
        raise DigerError(f"{POSTGRES} is no address of a PostgreSQL database: write postgresql://USER@HOST:PORT/DATABASE")
    if find_spec("dagster_postgres") is None:
        raise DigerError(f"{POSTGRES} is set, but dagster-postgres is not installed: pip install 'diger[postgres]'")
    return url


@contextlib.contextmanager
def opened_instance() -> Iterator[dg.DagsterInstance]:
    """Dagster's instance of this home. Raises DigerError where PostgreSQL does not let it in."""
    import dagster as dg

    url = postgres_url()
    if url is None:
        with dg.DagsterInstance.get() as found:
            yield found
        return
    from dagster_postgres.utils import DagsterPostgresException

    try:
        with _without_retries_told():
            found = dg.DagsterInstance.get()
        with found:
            yield found
    except DagsterPostgresException as error:
        reason = str(error.__cause__ or error).strip().splitlines()[0].removeprefix("(psycopg2.OperationalError) ")[:200]
        raise DigerError(f"{POSTGRES}: the database does not answer ({reason}): start it, or check address, user and password") from error


@contextlib.contextmanager
def _without_retries_told() -> Iterator[None]:
    """Dagster logs each of its attempts to connect, three lines each; the error that follows says the same once."""

    def keep(record: logging.LogRecord) -> bool:
        return "Retrying failed database connection" not in record.getMessage()

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


def _launcher() -> str:
    named = os.environ.get(LAUNCHER)
    if not named:
        return ""
    module, _, cls = named.partition(":")
    if not (module and cls):
        raise DigerError(f"{LAUNCHER} {named}: write MODULE:CLASS, for instance dagster_docker:DockerRunLauncher")
    try:
        config = json.loads(os.environ.get(LAUNCHER_CONFIG) or "{}")
    except ValueError as error:
        raise DigerError(f"{LAUNCHER_CONFIG} is no JSON ({error})") from error
    if not isinstance(config, dict):
        raise DigerError(f"{LAUNCHER_CONFIG}: write a JSON object")
    _require_launcher(module, cls)
    return yaml.safe_dump({"run_launcher": {"module": module, "class": cls, "config": config}}, sort_keys=False)


def _require_launcher(module: str, cls: str) -> None:
    """DigerError where Dagster could not start runs by this class: it would say so only when the first run is launched, in a traceback."""
    from dagster._core.launcher import RunLauncher

    try:
        found = getattr(import_module(module), cls, None)
    except Exception as error:  # whatever its import raises is the reason
        reason = " ".join(str(error).split())[:200]
        raise DigerError(
            f"{LAUNCHER} {module}:{cls}: module {module} cannot be imported ({reason}): install the package that holds it here, or correct the name"
        ) from error
    if found is None:
        raise DigerError(f"{LAUNCHER} {module}:{cls}: module {module} has no class {cls}: correct the name")
    if not (isinstance(found, type) and issubclass(found, RunLauncher)):
        raise DigerError(f"{LAUNCHER} {module}:{cls}: is no run launcher of Dagster's: name a subclass of dagster._core.launcher.RunLauncher")


def _refuse_other(config: Path) -> None:
    """DigerError where the file and the environment disagree on where the history is and on what starts runs."""
    text = config.read_text(encoding="utf-8")
    if postgres_url() and POSTGRES not in text:
        raise DigerError(
            f"{config} does not keep its history in PostgreSQL, but {POSTGRES} is set: unset it, or move the file away (a new one is made)"
        )
    if not os.environ.get(POSTGRES) and POSTGRES in text:
        raise DigerError(f"{config} keeps its history in PostgreSQL: set {POSTGRES}, or move the file away (a new one keeps it in the home)")
    if _launcher() and os.environ[LAUNCHER].partition(":")[2] not in text:
        raise DigerError(f"{config} has another run launcher than {LAUNCHER}: unset it, or move the file away (a new one is made)")


if __name__ == "__main__":
    print(dagster_home())
