"""The commands, variables and health checks of compose.yaml as processes of this machine, with a real PostgreSQL: UI to daemon to code server.

No container is started: places, ports and host names are replaced by some of this machine. Ray's part is tests/orchestration/on_ray/test_ray_jobs.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.support.postgres import PASSWORD, Postgres, running_postgres
from tests.support.snapshot_material import interactions, items, write
from tests.support.ui_server import Ui, free_port, run_raw_items

pytest.importorskip("dagster_postgres", reason="dagster-postgres is not installed: pip install 'diger[postgres]'")

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "examples" / "deployment"
SERVICES = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))["services"]
LONG = 180.0  # seconds that a process gets to start on a busy machine


@dataclass
class Place:
    """Where the services' folders, ports and names are on this machine."""

    folder: Path
    replaced: dict[str, str]

    def text(self, text: str) -> str:
        for name, here in self.replaced.items():
            text = text.replace(name, here)
        return text

    def command(self, service: str) -> list[str]:
        command = [self.text(word) for word in SERVICES[service]["command"]]
        return [str(self.folder / "entrypoint"), *command]

    def environment(self, service: str) -> dict[str, str]:
        given = {name: self.text(value) for name, value in SERVICES[service]["environment"].items() if not name.startswith("RAY")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "PYTHONPATH": str(PROJECT), "DAGSTER_HOME": str(self.folder / "home"), **given}

    def run(self, service: str, command: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        words = command or self.command(service)
        return subprocess.run(words, env=self.environment(service), cwd=self.folder / "app", capture_output=True, text=True, check=False)

    @contextmanager
    def started(self, service: str) -> Iterator[subprocess.Popen[bytes]]:
        with open(self.folder / f"{service}.log", "wb") as log:
            process = subprocess.Popen(
                self.command(service), env=self.environment(service), cwd=self.folder / "app", stdout=log, stderr=log, start_new_session=True
            )
        try:
            yield process
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                try:
                    os.killpg(process.pid, number)
                    process.wait(20)
                except (ProcessLookupError, subprocess.TimeoutExpired):
                    continue

    def healthy(self, service: str, process: subprocess.Popen[bytes]) -> None:
        """Returns once the service's own health check is content."""
        check = [self.text(word) for word in SERVICES[service]["healthcheck"]["test"][1:]]
        deadline = time.monotonic() + LONG
        while (found := self.run(service, check)).returncode != 0:
            log = (self.folder / f"{service}.log").read_text(encoding="utf-8")[-3000:]
            assert process.poll() is None, log
            assert time.monotonic() < deadline, (check, found.stdout, found.stderr, log)
            time.sleep(0.5)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Place, Postgres]]:
    app = tmp_path / "app"
    app.mkdir()
    (app / "params.yaml").write_text("{}\n", encoding="utf-8")
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD, encoding="utf-8")
    with running_postgres() as server:
        ports = {name: str(free_port()) for name in ("4000", "3000", "8000")}
        here = {
            "postgres:5432": f"127.0.0.1:{server.port}",
            "/run/secrets/postgres_password": str(secret),
            "/var/lib/diger/store": str(tmp_path / "store"),
            "/app/": f"{app}/",
            "diger-entrypoint": str(tmp_path / "entrypoint"),
            "0.0.0.0": "127.0.0.1",
            "host: runs": "host: 127.0.0.1",
            **ports,
        }
        made = Place(tmp_path, here)
        (app / "workspace.yaml").write_text(made.text((FOLDER / "workspace.yaml").read_text(encoding="utf-8")), encoding="utf-8")
        entrypoint = tmp_path / "entrypoint"
        entrypoint.write_text(made.text((FOLDER / "entrypoint.sh").read_text(encoding="utf-8")), encoding="utf-8")
        entrypoint.chmod(0o755)
        yield made, server


@pytest.mark.slow
def test_the_services_of_the_compose_file_work_together(place: tuple[Place, Postgres], tmp_path: Path) -> None:
    made, _ = place
    snapshot = write(tmp_path / "monday", interactions(), items())
    migrated = made.run("migrate")
    assert migrated.returncode == 0, migrated.stdout + migrated.stderr
    with ExitStack() as stack:
        processes = {}
        for service in ("runs", "daemon", "ui"):  # in the order of their depends_on
            processes[service] = stack.enter_context(made.started(service))
            made.healthy(service, processes[service])
        ui = Ui(processes["ui"], f"http://127.0.0.1:{made.replaced['3000']}", tmp_path)
        registered = made.run("runs", [str(tmp_path / "entrypoint"), "diger", "run", "--snapshot", str(snapshot), "--until", "raw_interactions"])
        assert registered.returncode == 0, registered.stdout + registered.stderr
        run = run_raw_items(ui, ui.partitions()[0])
        assert run["status"] == "SUCCESS"
        serve = stack.enter_context(made.started("serve"))
        assert answer(f"http://127.0.0.1:{made.replaced['8000']}/version", serve) == 200
        assert answer(f"http://127.0.0.1:{made.replaced['8000']}/health", serve) == 503  # nothing was released yet
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "secret" and PASSWORD.encode() in path.read_bytes()]
    assert written == []


def answer(url: str, process: subprocess.Popen[bytes]) -> int:
    """The status of a GET, once something listens."""
    deadline = time.monotonic() + LONG
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return int(reply.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"nothing answers at {url}")
