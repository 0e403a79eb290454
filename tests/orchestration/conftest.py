"""Fixtures that several files of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.audit_world import AuditWorld
    from tests.support.ui_server import Ui


@pytest.fixture(scope="session")
def audit_world(tmp_path_factory: pytest.TempPathFactory) -> AuditWorld:
    """Two snapshots, two releases, three ID assignments (audit_world.py), made once; tests that change the store take a copy."""
    from tests.support import audit_world as module

    return module.audit_world(tmp_path_factory.mktemp("audit"))


@pytest.fixture(scope="session")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Dagster's UI over two tiny snapshots, a good and a bad one, started once for the files that drive it in a browser."""
    from tests.support.browser import chromium
    from tests.support.ui_server import running_ui, tiny_demo

    chromium()  # skips before anything is started
    home = tmp_path_factory.mktemp("ui")
    tiny_demo(home)
    with running_ui(home) as running:
        yield running


@pytest.fixture(scope="module")
def page(ui: Ui, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A browser's page, with an empty profile."""
    from tests.support.browser import browser_page

    with browser_page(tmp_path_factory.mktemp("profile")) as page:
        yield page
