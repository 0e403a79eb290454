"""A real MLflow tracking server on loopback for tests, with its database in a file.

Installed once into `.scratch/mlflow` of the project (52 MB, seconds). Full `mlflow` cannot stand in the project's own environment, so it lies in one
above that, which takes from there what it needs beside the server itself. Its web application is started by flask: `mlflow server` imports everything
twice, which is ten seconds more.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
BESIDE = ("flask==3.1.3", "flask-cors==6.0.5", "werkzeug==3.1.9", "itsdangerous==2.2.0", "blinker==1.9.0", "huey==3.5.4")


def _python() -> str:
    """The interpreter of the server's environment. Skips the test where that neither is there nor can be installed."""
    packages = (f"mlflow=={version('mlflow-skinny')}", *BESIDE)
    home = PROJECT / ".scratch" / "mlflow"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests at once: the second waits for the first one's installation
        ready, wanted = home / "ready", f"{sys.prefix} {' '.join(packages)}"
        if not ready.exists() or ready.read_text() != wanted:
            ready.unlink(missing_ok=True)
            told = _install(home / "venv", packages)
            if told:
                pytest.skip(f"MLflow's server cannot be installed into .scratch/mlflow: {told}")
            ready.write_text(wanted)
    return str(home / "venv/bin/python")


def _install(venv: Path, packages: tuple[str, ...]) -> str:
    """What pip says where it fails, otherwise nothing."""
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv)], check=True)
    python = str(venv / "bin/python")
    own = subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True)
    Path(own.stdout.strip(), "project.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
    done = subprocess.run([*pip, *packages], capture_output=True, text=True, check=False)
    return (done.stderr.strip().splitlines() or ["pip failed"])[-1] if done.returncode else ""


@contextlib.contextmanager
def mlflow_server(home: Path) -> Iterator[str]:
    """The address of a server whose database lies below `home`."""
    python = _python()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "flask", "--app", "mlflow.server:app", "run", "--host", "127.0.0.1", "--port", str(port)]
    places = {"_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{home}/mlflow.db", "_MLFLOW_SERVER_ARTIFACT_ROOT": str(home / "artefacts")}
    environment = os.environ | places | {"MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONPATH": ""}
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
    try:
        import mlflow  # noqa: F401 - takes seconds, as the server does: both at once

        _wait(f"http://127.0.0.1:{port}/health", server, home / "server.log")
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(30)


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        if server.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"MLflow's server did not start:\n{log.read_text(errors='replace')[-2000:]}")
