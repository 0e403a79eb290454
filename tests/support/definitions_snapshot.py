"""What Dagster is given, as text to be read in a difference: `python -m tests.support.definitions_snapshot` writes the file again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("definitions_snapshot.json")


def snapshot() -> dict[str, Any]:
    """Assets with inputs, group, kinds, pool and checks; jobs, schedules and sensors with what they select and how they start."""
    from orchestration.definitions import defs

    graph = defs.resolve_asset_graph()
    jobs = sorted((job for job in defs.resolve_all_job_defs() if not job.name.startswith("__")), key=lambda job: job.name)
    return {
        "assets": {
            key.to_user_string(): _asset(defs, graph, key) for key in sorted(graph.get_all_asset_keys(), key=lambda key: key.to_user_string())
        },
        "jobs": {job.name: sorted(key.to_user_string() for key in job.asset_layer.executable_asset_keys) for job in jobs},
        "schedules": {
            s.name: {"cron": s.cron_schedule, "status": s.default_status.value} for s in sorted(defs.schedules or [], key=lambda s: s.name)
        },
        "sensors": {s.name: {"type": type(s).__name__, "status": s.default_status.value} for s in sorted(defs.sensors or [], key=lambda s: s.name)},
    }


def _asset(defs: Any, graph: Any, key: Any) -> dict[str, Any]:
    node, definition = graph.get(key), defs.resolve_assets_def(key)
    spec = definition.get_asset_spec(key)
    return {
        "inputs": sorted(parent.to_user_string() for parent in node.parent_keys),
        "group": spec.group_name,
        "kinds": sorted(spec.kinds),
        "owners": list(spec.owners),
        "partitions": type(spec.partitions_def).__name__ if spec.partitions_def else None,
        "pool": definition.op.pool if definition.is_executable else None,
        "described": bool(spec.description),
        "checks": {check.name: "blocking" if check.blocking else "warning" for check in sorted(definition.check_specs, key=lambda c: c.name)},
    }


def text() -> str:
    return json.dumps(snapshot(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
    print(FILE)
