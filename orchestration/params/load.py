"""params.yaml read and checked: an unknown key, a wrong type or a value out of range is one clear line."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diger_core.errors import DigerError, holds_credentials
from orchestration.params.sections import Params

DEFAULT_FILE = "params.yaml"


def load_params(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Params:
    """Reads params.yaml (default: the one in the working directory, if any) and applies `section.key=value` overrides."""
    import yaml

    source = Path(path) if path else Path(DEFAULT_FILE)
    data: Any = {}
    if source.exists():
        try:
            data = yaml.safe_load(source.read_text(encoding="utf-8")) or {}
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise DigerError(f"{source}: not valid YAML ({_place(error)}): correct it") from error
    elif path:
        raise DigerError(f"{source}: no such file: give an existing --params file")
    if not isinstance(data, Mapping):
        raise DigerError(f"{source}: must hold sections of keys, not {type(data).__name__}")
    names = [each.name for each in dataclasses.fields(Params)]
    if data and not any(difflib.get_close_matches(str(key), names, n=1) for key in data):  # its keys are none of ours to quote
        raise DigerError(f"{source}: is no file of params: it has none of the sections ({', '.join(names[:4])}, …; diger params lists them)")
    data = dict(data)
    for override in overrides:
        _apply(data, override)
    return build_params(data, str(source))


def _place(error: Exception) -> str:
    """What is wrong and in which line, without the line's text: the file may be no file of params at all."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        problem = re.sub(r"'[^']*'", "…", str(getattr(error, "problem", None) or "it cannot be read"))
        return f"{problem}, line {mark.line + 1}, column {mark.column + 1}"
    return "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else "it holds characters that YAML does not allow"


def _apply(data: dict[str, Any], override: str) -> None:
    import yaml

    key, separator, value = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise DigerError(f"--set {override!r}: write it as section.key=value")
    node = data
    for name in names[:-1]:
        node[name] = dict(node.get(name) or {}) if isinstance(node.get(name), Mapping | None) else {}
        node = node[name]
    try:
        node[names[-1]] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise DigerError(f"--set {override!r}: the value is not valid YAML: quote it") from error


def overridden(params: Params, overrides: Iterable[str]) -> Params:
    """The parameters with `section.key=value` overrides, checked again."""
    data = dataclasses.asdict(params)
    for override in overrides:
        _apply(data, override)
    return build_params(data, "--set")


def build_params(data: Mapping[str, Any], source: str = DEFAULT_FILE) -> Params:
    """Checks plain data against the typed sections."""
    from pydantic import TypeAdapter, ValidationError

    _refuse_credentials(data, source, "")
    try:
        return TypeAdapter(Params).validate_python(dict(data))
    except ValidationError as error:
        raise DigerError(f"{source}: " + "; ".join(_explain(fault) for fault in error.errors(include_url=False)[:5])) from error


def _refuse_credentials(node: Any, source: str, where: str) -> None:
    """Params are stored in records and shown in the UI: an address that holds a user or a password is refused, unseen, wherever it stands."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            _refuse_credentials(value, source, f"{where}.{key}".lstrip("."))
    elif isinstance(node, list | tuple):
        for number, value in enumerate(node):
            _refuse_credentials(value, source, f"{where}[{number}]")
    elif isinstance(node, str) and holds_credentials(node):
        raise DigerError(f"{source}: {where} holds credentials in an address: take them out, and give them by the environment")


def _explain(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _keys(fault["loc"][:-1]), n=1)
        return f"{where}: unknown key" + (f" (did you mean {near[0]}?)" if near else "") + ": remove it or correct its name"
    if fault["type"] == "value_error":
        return f"{where}.{str(fault['msg']).removeprefix('Value error, ')}" if where else str(fault["msg"])
    given = repr(fault.get("input"))
    return f"{where} = {given[:80]}: {str(fault['msg'])[0].lower()}{str(fault['msg'])[1:]}"


def _keys(loc: tuple[Any, ...]) -> list[str]:
    node: Any = Params()
    for part in loc:
        node = getattr(node, str(part), None)
    return [f.name for f in dataclasses.fields(node)] if dataclasses.is_dataclass(node) else []
