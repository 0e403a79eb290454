"""How far two artefacts of one stage are apart: bit-equal, equal in content, or by how much."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from diger_core.store.artefact import Artefact

_ROWS = 5  # changed keys of a table that are named


def compare(recorded: Artefact, rebuilt: Artefact) -> list[str]:
    """One line for each file that differs; empty where all content is equal."""
    differences = []
    for name in sorted({*recorded.names, *rebuilt.names}):
        left, right = recorded.files.get(name), rebuilt.files.get(name)
        if left is None or right is None:
            differences.append(f"{name}: only in the {'rebuilt' if left is None else 'recorded'} artefact")
        elif left["canonical"] != right["canonical"]:
            differences += [f"{name}: {line}" for line in _file(recorded, rebuilt, name)]
    if recorded.facts != rebuilt.facts:
        changed = sorted(k for k in {*recorded.facts, *rebuilt.facts} if recorded.facts.get(k) != rebuilt.facts.get(k))
        differences += [f"fact {key}: {recorded.facts.get(key)} recorded, {rebuilt.facts.get(key)} rebuilt" for key in changed]
    return differences


def _file(recorded: Artefact, rebuilt: Artefact, name: str) -> list[str]:
    if name.endswith(".safetensors"):
        return _tensors(recorded.tensors(name), rebuilt.tensors(name)) or ["its metadata differ"]
    if name.endswith(".parquet"):
        return _tables(recorded.table(name), rebuilt.table(name), recorded.files[name]["sort_by"] or [])
    if name.endswith(".json"):
        return [f"{where}: {was} recorded, {now} rebuilt" for where, was, now in _values("", recorded.json(name), rebuilt.json(name))[:20]]
    return [f"other bytes ({recorded.files[name]['bytes']:,} recorded, {rebuilt.files[name]['bytes']:,} rebuilt)"]


def _tensors(left: dict[str, Any], right: dict[str, Any]) -> list[str]:
    """Largest absolute difference, and relative to the largest recorded value, of each tensor."""
    lines = []
    for key in sorted({*left, *right}):
        a, b = left.get(key), right.get(key)
        if a is None or b is None or a.shape != b.shape:
            shapes = ["absent" if t is None else str(tuple(t.shape)) for t in (a, b)]
            lines.append(f"{key}: {shapes[0]} recorded, {shapes[1]} rebuilt")
        elif not a.equal(b):
            gap = float((a.double() - b.double()).abs().max())
            scale = float(a.double().abs().max())
            share = float((a != b).double().mean())
            lines.append(f"{key}: max abs {gap:.3g}, relative {gap / scale if scale else float('inf'):.3g}, {share:.1%} of the values differ")
    return lines


def _tables(left: pa.Table, right: pa.Table, keys: list[str]) -> list[str]:
    if left.schema != right.schema:
        return [f"columns {left.schema.names} recorded, {right.schema.names} rebuilt, or other types or metadata"]
    if len(left) != len(right):
        return [f"{len(left):,} rows recorded, {len(right):,} rebuilt"]
    import pyarrow as pa
    import pyarrow.compute as pc

    lines = []
    for name in left.column_names:
        a, b = left[name].combine_chunks(), right[name].combine_chunks()
        if a.equals(b):
            continue
        plain = not pa.types.is_nested(a.type)
        differ = pc.fill_null(pc.not_equal(a, b), True) if plain else pa.array([x != y for x, y in zip(a.to_pylist(), b.to_pylist(), strict=True)])
        rows = pc.indices_nonzero(differ)
        first = left.select(keys[:1] or [name]).take(rows[:_ROWS])[0].to_pylist()
        lines.append(f"{name}: {len(rows):,} of {len(left):,} rows differ, the first at {keys[0] if keys else name} {first}")
    return lines


def _values(where: str, left: Any, right: Any) -> list[tuple[str, Any, Any]]:
    if isinstance(left, dict) and isinstance(right, dict):
        return [found for key in sorted({*left, *right}) for found in _values(f"{where}.{key}".lstrip("."), left.get(key), right.get(key))]
    if isinstance(left, list) and isinstance(right, list) and len(left) == len(right):
        return [found for number, pair in enumerate(zip(left, right, strict=True)) for found in _values(f"{where}[{number}]", *pair)]
    return [] if left == right else [(where or "value", left, right)]
