"""The wheel builds, holds what the code reads beside itself, and works from where it is installed, away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("diger_core", "orchestration", "assets")
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGES:
        if (PROJECT / name).is_dir():
            shutil.copytree(PROJECT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, source)
    subprocess.run([*PIP, "wheel", str(source), "--no-deps", "--no-build-isolation", "-w", str(folder)], check=True, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    target = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--no-index", "--target", str(target), str(wheel)], check=True)
    return target


def run(installed: Path, folder: Path, *arguments: str) -> str:
    """Output of the installed code, run in `folder`."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    ours = {
        str(path.relative_to(PROJECT))
        for name in PACKAGES
        for path in (PROJECT / name).rglob("*")
        if path.is_file() and path.suffix in (".py", ".j2", ".css", ".js", ".json", ".txt")
    }
    assert ours <= inside, sorted(ours - inside)
    assert any(name.endswith("LICENSE") for name in inside)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in inside)


@pytest.mark.slow
def test_the_installed_command_works_away_from_the_checkout(installed, tmp_path):
    place = run(installed, tmp_path, "-c", "import orchestration, diger_core; print(orchestration.__file__, diger_core.__file__)")
    assert place.count(str(installed)) == 2
    assert "Retrain a generative recommender" in run(installed, tmp_path, str(installed / "bin" / "diger"), "--help")
    assert "## training" in run(installed, tmp_path, str(installed / "bin" / "diger"), "params", "--markdown")


@pytest.mark.slow
def test_the_installed_report_finds_its_template(installed, tmp_path):
    found = "from orchestration.verdict.report.pictures import environment"
    code = f"{found}; print([environment().get_template(n).name for n in ('page.html.j2', 'compare.html.j2')])"
    assert "compare.html.j2" in run(installed, tmp_path, "-c", code)
