"""params.yaml read and checked: an unknown key, a wrong type or a value out of range is one clear line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diger_core.config import ScheduleConfig, StabilityConfig
from diger_core.errors import DigerError, holds_credentials
from diger_core.store.regular import require_regular
from orchestration.params.plain_yaml import MAX_BYTES, parse
from orchestration.params.sections import Params

if TYPE_CHECKING:
    from pydantic import TypeAdapter

DEFAULT_FILE = "params.yaml"
INFINITE = {(ScheduleConfig, "r"), (StabilityConfig, "anchor")}  # keys whose limit has a meaning
MAX_INTEGER = 2**31 - 1
_KINDS = {list: "list", tuple: "list", bool: "truth value", int: "number", float: "number"}
_KEYS = re.compile(r"""^[ {"']*([A-Za-z_]+)["']?[ ]*:""", re.MULTILINE)


def load_params(path: str | Path | None = None, overrides: Iterable[str] = ()) -> Params:
    """Reads params.yaml (default: the one in the working directory, if any) and applies `section.key=value` overrides."""
    source = Path(path) if path else Path(DEFAULT_FILE)
    text = _read(source)
    if text is None and path:
        raise DigerError(f"{source}: no such file: give an existing --params file")
    data = parse(text or "", str(source), quote=_ours(_KEYS.findall(text or "")))
    if not isinstance(data, Mapping | None):
        raise DigerError(f"{source}: must hold sections of keys, not {type(data).__name__}")
    if data and not _ours(data):  # its keys are none of ours to quote
        names = ", ".join(each.name for each in dataclasses.fields(Params)[:4])
        raise DigerError(f"{source}: is no file of params: it has none of the sections ({names}, …; diger params lists them)")
    given, changes = dict(data or {}), tuple(overrides)
    sections = dict(given)
    for override in changes:
        _apply(sections, override)
    try:
        return build_params(sections, str(source))
    except DigerError:
        if not changes:
            raise
    build_params(given, str(source))  # raises where the file is at fault
    return build_params(sections, "--set")


def _ours(keys: Iterable[str]) -> bool:
    """Whether one of a file's outer keys is a section, or nearly."""
    names = [each.name for each in dataclasses.fields(Params)]
    return any(difflib.get_close_matches(key, names, n=1) for key in keys)


def _read(source: Path) -> str | None:
    """The file's text; None where there is no such file."""
    require_regular(source, at_most=MAX_BYTES)
    try:
        return source.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise DigerError(f"{source}: is not UTF-8 text (byte {error.start + 1}); save it as UTF-8") from error
    except OSError as error:
        raise DigerError(f"{source}: cannot be read ({error.strerror}); check the path and its permissions") from error


def _apply(data: dict[str, Any], override: str) -> None:
    key, separator, value = override.partition("=")
    names = key.strip().split(".")
    if not separator or not all(names):
        raise DigerError(f"--set {override!r}: write it as section.key=value")
    node = data
    for name in names[:-1]:
        node[name] = dict(node.get(name) or {}) if isinstance(node.get(name), Mapping | None) else {}
        node = node[name]
    node[names[-1]] = parse(value, f"--set {key.strip()[:80]}")


def overridden(params: Params, overrides: Iterable[str]) -> Params:
    """The parameters with `section.key=value` overrides, checked again."""
    data = dataclasses.asdict(params)
    for override in overrides:
        _apply(data, override)
    return build_params(data, "--set")


def build_params(data: Mapping[str, Any], source: str = DEFAULT_FILE) -> Params:
    """Checks plain data against the typed sections. No text, truth value or fraction is taken for an integer; few keys may be infinite."""
    from pydantic import ValidationError

    _refuse_credentials(data, source, "")
    _refuse_empty(data, source, Params(), "")
    try:
        params = _adapter().validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise DigerError(f"{source}: " + "; ".join(_explain(fault) for fault in error.errors(include_url=False)[:5])) from error
    for key, value in _numbers(params):
        if not math.isfinite(value):
            raise DigerError(f"{source}: {key} = {value}: must be a finite number")
        if isinstance(value, int) and value > MAX_INTEGER:
            raise DigerError(f"{source}: {key} = {value}: must be at most {MAX_INTEGER:,}; no size, count or seed is larger")
        if value < 0 and key.endswith("seed"):
            raise DigerError(f"{source}: {key} = {value}: must be at least 0")
    return params


@cache
def _adapter() -> TypeAdapter[Params]:
    """Built once: it costs more than all the rest, and every stage of a run reads the parameters."""
    from pydantic import TypeAdapter

    return TypeAdapter(Params)


def _numbers(node: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Every number below a section, by its key, without those that may be infinite."""
    for each in dataclasses.fields(node):
        value, key = getattr(node, each.name), f"{prefix}{each.name}"
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{key}.")
        elif isinstance(value, int | float) and (type(node), each.name) not in INFINITE:
            yield key, value
        elif isinstance(value, tuple):
            yield from ((f"{key}[{place}]", number) for place, number in enumerate(value) if isinstance(number, int | float))


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


def _refuse_empty(data: Any, source: str, default: Any, where: str) -> None:
    """A section is keys and values: `training:` with nothing behind it, a list or a text is none."""
    for key, value in data.items() if isinstance(data, Mapping) else ():
        known = getattr(default, str(key), None)
        if not dataclasses.is_dataclass(known):
            continue
        name = f"{where}{key}"
        if value is None:
            raise DigerError(f"{source}: {name} holds nothing: remove the line, or write its keys below it, indented")
        if not isinstance(value, Mapping):
            example = next(iter(dataclasses.fields(known))).name
            raise DigerError(f"{source}: {name} must hold keys ({example}: …), not a {_KINDS.get(type(value), 'text')}")
        _refuse_empty(value, source, known, f"{name}.")


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
