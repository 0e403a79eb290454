"""Pictures of a page: panels as SVG elements with the sentence printed above each, and the environment that its templates are rendered in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestration.verdict.report import drawing, figures, text

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

HERE = Path(__file__).parent
THIRD = {"width": 3.5, "height": 2.4}  # inches: three beside each other with letters of the page's size


@dataclass(frozen=True)
class Picture:
    """An SVG element and the sentence printed above it."""

    sentence: str
    svg: Markup


def environment() -> Environment:
    """Jinja2 with autoescape always on and unknown names an error."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters.update(count=text.count, decimal=text.decimal, percent=text.percent, metric=figures.metric_label, printable=text.printable)
    return made


def asset(name: str) -> Markup:
    from markupsafe import Markup

    return Markup((HERE / name).read_text(encoding="utf-8"))


def pictures(panels: list[drawing.Panel], name: str, **size: float) -> list[Picture]:
    from markupsafe import Markup

    made = (drawing.svg(panel, f"{name}{index}", **size) for index, panel in enumerate(panels))
    return [Picture(sentence, Markup(element)) for sentence, element in made]
