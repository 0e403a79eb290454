"""The page: collects what each section needs and renders the template with everything escaped."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from orchestration.graph import BY_NAME
from orchestration.params.verdict import ReportConfig
from orchestration.verdict.models import NAMES
from orchestration.verdict.report import sections, text
from orchestration.verdict.report.examples import shoppers
from orchestration.verdict.report.first_screen import first_screen
from orchestration.verdict.report.material import Material
from orchestration.verdict.report.pictures import asset, environment
from orchestration.verdict.report.verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from orchestration.verdict.report.found import Cost
    from orchestration.verdict.report.identity import Identity


def page(material: Material, config: ReportConfig, identity: Identity, costs: Sequence[Cost] = (), overrides: Sequence[str] = ()) -> str:
    """The whole HTML page; the same inputs give the same bytes. `costs`, `overrides`: from the records, for a copy beside the stored page."""
    found = verdict(material.metrics, material.gate)
    context = {
        "config": config,
        "css": asset("style.css"),
        "script": asset("page.js"),
        "text": text,
        "names": NAMES,
        "what": {stage.name: stage.title for stage in BY_NAME.values()},
        "material": material,
        "verdict": found,
        "first": first_screen(material, found, identity),
        "gate": sections.gate_part(material),
        "evaluation": sections.evaluation_section(material),
        "listens": sections.listens_section(material),
        "training": sections.training_section(material),
        "change": sections.change_section(material),
        "ids": sections.ids_section(material, config),
        "examples": shoppers(material, config.examples),
        "data": sections.data_section(material),
        "cost": sections.sizes(material),
        "costs": costs,
        "commands": sections.commands(material, overrides),
        "lineage": [(s, BY_NAME[s].title, material.inputs[s].hash) for s in material.stages],
        "settings": [(s, json.dumps(c, indent=2, sort_keys=True, ensure_ascii=False)) for s, c in material.configs.items()],
    }
    return environment().get_template("page.html.j2").render(context)
