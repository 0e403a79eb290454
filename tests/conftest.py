"""Fixtures for all tests."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

# The tests' tensors are tiny: a second thread only waits, and where other processes keep the cores busy it made tests ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Machines are noisy: a slow example is no failure. The same examples every time.
settings.register_profile("diger", deadline=None, derandomize=True)
settings.load_profile("diger")


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """`shared_data("amazon_beauty")`: the folder of a public data set, which is not part of this repository; skips where it is absent.

    Looked for under $DIGER_SHARED/data, otherwise under shared/data beside the repository.
    """
    root = Path(os.environ.get("DIGER_SHARED", REPOSITORY.parent / "shared")) / "data"

    def folder(name: str) -> Path:
        if not (root / name / "interactions.parquet").is_file():
            pytest.skip(f"public data set {name} is not at {root / name}; set DIGER_SHARED to the folder that holds data/{name}")
        return root / name

    return folder


@pytest.fixture(scope="module")
def no_pictures() -> Iterator[None]:
    """No picture is drawn in a module that asks for this (half of the time of a gate or of a study)."""
    from tests.support.undrawn import undrawn

    with undrawn():
        yield


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a real S3 server, started once for the session."""
    from tests.support.s3 import s3_server

    with s3_server(tmp_path_factory.mktemp("swift")) as environment:
        yield environment


@pytest.fixture
def s3_bucket(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a fresh bucket, with the server's environment exported."""
    import s3fs

    from tests.support.s3 import make_bucket

    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("DIGER_CACHE", str(tmp_path / "cache"))
    s3fs.S3FileSystem.clear_instance_cache()
    name = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:12]
    yield make_bucket(s3_environment, f"b-{name}")
    s3fs.S3FileSystem.clear_instance_cache()  # a cached client would outlive this environment
