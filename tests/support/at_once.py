"""Processes for tests of what happens at once: forked from one server process, which imports what they need a single time."""

from __future__ import annotations

import contextlib
import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = ("great_expectations", "tests.support.release_world")  # with torch and pyarrow


def at_once(*modules: str) -> ForkServerContext:
    """A context of `multiprocessing`, whose server the first call starts, with the modules named (`HEAVY` where none is) and this environment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(modules or HEAVY))
    with contextlib.chdir(REPOSITORY):  # where the server finds the package of the tests
        forkserver.ensure_running()
    return context
