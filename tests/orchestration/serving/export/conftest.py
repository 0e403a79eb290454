"""A store with a champion that serves, for each file of tests."""

from __future__ import annotations

import pytest

from tests.support.serving_world import ServingWorld


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return ServingWorld(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def live(world):
    return world.open(world.promote(world.candidate(seed=1)))
