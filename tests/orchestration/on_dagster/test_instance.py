"""The home's dagster.yaml: what the environment chooses stands in it, secrets never do, and no second history begins unseen."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from types import ModuleType

import dagster as dg
import pytest
import yaml
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from diger_core.errors import DigerError
from orchestration.on_dagster import instance as module
from orchestration.on_dagster.instance import LAUNCHER, LAUNCHER_CONFIG, POSTGRES, dagster_home, opened_instance

URL = "postgresql://diger:canary-7c1f@127.0.0.1:5432/dagster"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (POSTGRES, LAUNCHER, LAUNCHER_CONFIG):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "find_spec", lambda name: name)  # as if dagster-postgres were installed
    docker = ModuleType("dagster_docker")
    docker.DockerRunLauncher = type("DockerRunLauncher", (DefaultRunLauncher,), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "dagster_docker", docker)
    return tmp_path / "home"


def told(home: Path) -> dict[str, object]:
    return yaml.safe_load((home / "dagster.yaml").read_text(encoding="utf-8"))


def test_without_variables_the_history_is_sqlite_in_the_home(home: Path) -> None:
    dagster_home()
    assert told(home).keys() == {"telemetry", "concurrency", "run_monitoring"}
    assert told(home)["telemetry"] == {"enabled": False}


def test_the_file_names_the_variable_of_the_database_and_never_its_value(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POSTGRES, URL)
    dagster_home()
    dagster_home()  # once more: it is its own file
    assert told(home)["storage"] == {"postgres": {"postgres_url": {"env": POSTGRES}}}
    assert told(home)["telemetry"] == {"enabled": False}
    assert "canary" not in (home / "dagster.yaml").read_text(encoding="utf-8")


def test_a_home_with_another_history_than_the_environment_is_refused(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dagster_home()
    monkeypatch.setenv(POSTGRES, URL)
    with pytest.raises(DigerError, match=r"dagster.yaml does not keep its history in PostgreSQL, but DIGER_POSTGRES_URL is set: unset it, or move"):
        dagster_home()
    (home / "dagster.yaml").unlink()
    dagster_home()
    monkeypatch.delenv(POSTGRES)
    with pytest.raises(DigerError, match=r"dagster.yaml keeps its history in PostgreSQL: set DIGER_POSTGRES_URL, or move"):
        dagster_home()


@pytest.mark.parametrize("url", ["mysql://diger:canary-7c1f@db/x", "diger:canary-7c1f@db"])
def test_an_address_that_is_none_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv(POSTGRES, url)
    with pytest.raises(DigerError, match="no address of a PostgreSQL database") as error:
        dagster_home()
    assert "canary" not in str(error.value)


def test_without_the_package_the_remedy_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(POSTGRES, URL)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(DigerError, match=r"pip install 'diger\[postgres\]'"):
        dagster_home()


@pytest.mark.parametrize(
    ("launcher", "wanted"),
    [
        ("nosuch:Thing", r"nosuch:Thing: module nosuch cannot be imported \(No module named 'nosuch'\): install the package"),
        ("dagster_docker:Thing", "module dagster_docker has no class Thing: correct the name"),
        ("json:JSONDecoder", "is no run launcher of Dagster's"),
    ],
)
def test_a_launcher_that_dagster_could_not_use_is_refused_before_anything_is_written(
    home: Path, monkeypatch: pytest.MonkeyPatch, launcher: str, wanted: str
) -> None:
    monkeypatch.setenv(LAUNCHER, launcher)
    with pytest.raises(DigerError, match=wanted):
        dagster_home()
    assert not home.exists()


def test_a_database_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    utils = pytest.importorskip("dagster_postgres.utils", reason="dagster-postgres is not installed: pip install 'diger[postgres]'")
    monkeypatch.setattr(utils.time, "sleep", lambda seconds: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        monkeypatch.setenv(POSTGRES, f"postgresql://diger:canary-7c1f@127.0.0.1:{taken.getsockname()[1]}/dagster")
        dagster_home()
        with pytest.raises(DigerError, match=r"does not answer .*: start it, or check address, user and password") as error, opened_instance():
            pass
    assert "canary" not in str(error.value)
    assert "\n" not in str(error.value)
    assert [record.getMessage() for record in caplog.records if "database" in record.getMessage()] == []


def test_dagster_takes_the_run_launcher_that_the_environment_names(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LAUNCHER, "dagster._core.launcher.default_run_launcher:DefaultRunLauncher")
    dagster_home()
    with dg.DagsterInstance.get() as instance:
        assert type(instance.run_launcher).__name__ == "DefaultRunLauncher"
    monkeypatch.setenv(LAUNCHER, "dagster_docker:DockerRunLauncher")
    with pytest.raises(DigerError, match="another run launcher than DIGER_RUN_LAUNCHER"):
        dagster_home()
    (home / "dagster.yaml").unlink()
    monkeypatch.setenv(LAUNCHER_CONFIG, '{"network": "diger", "registry": {"password": {"env": "REGISTRY_PASSWORD"}}}')
    dagster_home()
    assert told(home)["run_launcher"] == {
        "module": "dagster_docker",
        "class": "DockerRunLauncher",
        "config": {"network": "diger", "registry": {"password": {"env": "REGISTRY_PASSWORD"}}},
    }


@pytest.mark.parametrize(
    ("launcher", "config", "wanted"), [("DockerRunLauncher", "", "MODULE:CLASS"), ("a:B", "{", "no JSON"), ("a:B", "[]", "a JSON object")]
)
def test_a_launcher_that_is_written_wrongly_is_named(monkeypatch: pytest.MonkeyPatch, launcher: str, config: str, wanted: str) -> None:
    monkeypatch.setenv(LAUNCHER, launcher)
    monkeypatch.setenv(LAUNCHER_CONFIG, config)
    with pytest.raises(DigerError, match=wanted):
        dagster_home()
