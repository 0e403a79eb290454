"""A real PostgreSQL server for tests: on loopback, a free port, passwords asked for. Debian's server (package `postgresql`), or whatever is on PATH.

The server refuses to run as root: there it runs as the user `postgres`, or as nobody.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

USER, DATABASE = "diger", "dagster"
PASSWORD = "canary-postgres-5c1e"  # looked for in files, logs and records


@dataclass
class Postgres:
    """A running server. `url` holds the password, `address` does not."""

    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def address(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{DATABASE}"

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)  # the fast way: clients that are still there are sent off
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)


def tools(*names: str) -> dict[str, str]:
    """Where the server's programs are; the test is skipped where they are not installed."""
    places = os.pathsep.join([*map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), os.environ["PATH"]])
    found = {name: shutil.which(name, path=places) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"no PostgreSQL server here ({', '.join(missing)}): apt-get install postgresql")
    return {name: str(path) for name, path in found.items()}


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server with an empty database. Its files lie in /tmp: pytest's own folders are for their owner alone, and that is not the server's user."""
    programs = tools("initdb", "postgres")
    folder = Path(tempfile.mkdtemp(prefix="diger-postgres-", dir="/tmp"))
    try:
        with _serving(folder, programs) as server:
            yield server
    finally:
        shutil.rmtree(folder)


@contextmanager
def _serving(folder: Path, programs: dict[str, str]) -> Iterator[Postgres]:
    data = folder / "data"
    data.mkdir()
    secret = folder / "password"
    secret.write_text(PASSWORD, encoding="utf-8")
    prefix: list[str] = []
    if os.geteuid() == 0:
        owner = next(user for user in pwd.getpwall() if user.pw_name in ("postgres", "nobody"))
        prefix = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        for path in (folder, data, secret):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    auth = ["--auth=scram-sha-256", f"--username={USER}", f"--pwfile={secret}", "--encoding=UTF8", "--no-sync", "--no-locale"]
    subprocess.run([*prefix, programs["initdb"], *auth, "-D", str(data)], check=True, stdout=subprocess.DEVNULL, cwd="/")
    secret.unlink()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "fsync": "off", "shared_buffers": "16MB"}
    settings = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([*prefix, programs["postgres"], "-D", str(data), *settings], stdout=log, stderr=log, cwd="/")
    server = Postgres(port, process)
    try:
        _create_database(server, folder / "log")
        yield server
    finally:
        server.stop()


def _create_database(server: Postgres, log: Path) -> None:
    psycopg2 = pytest.importorskip("psycopg2", reason="psycopg2 is not installed: pip install 'diger[postgres]'")
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg2.connect(host="127.0.0.1", port=server.port, user=USER, password=PASSWORD, dbname="postgres")
            break
        except psycopg2.OperationalError:
            assert server.process.poll() is None, log.read_text(encoding="utf-8")
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
            time.sleep(0.1)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"create database {DATABASE}")
    connection.close()
