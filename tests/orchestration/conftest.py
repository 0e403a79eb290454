"""Fixtures that several files of this folder share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.audit_world import AuditWorld


@pytest.fixture(scope="session")
def audit_world(tmp_path_factory: pytest.TempPathFactory) -> AuditWorld:
    """Two snapshots, two releases, three ID assignments (audit_world.py), made once; tests that change the store take a copy."""
    from tests.support import audit_world as module
    from tests.support.undrawn import undrawn

    with undrawn():
        return module.audit_world(tmp_path_factory.mktemp("audit"))
