"""The UI and a browser, for the files of this folder that drive it; both end with the folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.ui_server import Ui


@pytest.fixture(scope="package")
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
