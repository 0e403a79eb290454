"""Pictures that are not drawn, for tests in which nobody looks at one: panels plot and speak as ever, only the drawing is left out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def undrawn() -> Iterator[None]:
    """Every picture is an empty one meanwhile."""
    from matplotlib.figure import Figure

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Figure, "savefig", _blank)
        yield


def _blank(self: Any, target: Any, *, format: str, **options: Any) -> None:
    from PIL import Image

    if format == "png":
        Image.new("RGB", (1, 1)).save(target, format="PNG")
    else:
        target.write(b'<svg viewBox="0 0 1 1"><g></g></svg>')
