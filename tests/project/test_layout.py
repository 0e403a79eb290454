"""The tree keeps its plan: groups are folders, nothing imports in a circle, tests mirror what they test."""

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from orchestration.graph import GROUPS

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("diger_core", "orchestration", "assets")


def modules(root: Path, packages: Iterable[str] = PACKAGES) -> dict[str, Path]:
    found = {}
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            found[".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


def imports(known: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> modules that it imports: at its top, inside functions and under TYPE_CHECKING."""
    graph = {}
    for name, path in known.items():
        found = graph.setdefault(name, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names if alias.name in known}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= inner & known.keys() or {node.module} & known.keys()
    return graph


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The sets of modules that reach each other, by repeatedly taking away what nobody in the rest needs or what needs nobody."""
    reach = {name: set(found) for name, found in graph.items()}
    changed = True
    while changed:
        changed = False
        for name in reach:
            wider = set().union(reach[name], *(reach[other] for other in reach[name]))
            changed |= wider != reach[name]
            reach[name] = wider
    inside = {name: frozenset(other for other in reach[name] if name in reach[other]) for name in reach if name in reach[name]}
    return sorted(sorted(names) for names in set(inside.values()))


def test_no_module_imports_in_a_circle():
    found = circles(imports(modules(PROJECT)))
    assert not found, "\n".join(" <-> ".join(names) for names in found)


def test_a_circle_inside_a_function_or_under_type_checking_is_found(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.py").write_text("def f():\n    from assets import b\n")
    (tmp_path / "assets" / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from assets.a import f\n")
    (tmp_path / "assets" / "c.py").write_text("import assets.a\n")
    assert circles(imports(modules(tmp_path, ("assets",)))) == [["assets.a", "assets.b"]]


def test_the_groups_of_the_graph_are_folders_in_the_order_of_the_packages_docstring():
    text = __import__("orchestration").__doc__
    places = [text.index(f"\n{group}/") for group in GROUPS]
    assert places == sorted(places)
    assert all((PROJECT / "orchestration" / group / "__init__.py").is_file() for group in GROUPS)


def test_few_modules_lie_loose():
    assert len(list((PROJECT / "orchestration").glob("*.py"))) <= 8


@pytest.mark.parametrize("package", ["diger_core", "orchestration"])
def test_tests_mirror_the_folders(package):
    folders = {path.parent.relative_to(PROJECT) for path in (PROJECT / "tests" / package).rglob("test_*.py")}
    assert all((PROJECT / folder.relative_to("tests")).is_dir() for folder in folders)


def test_helpers_of_tests_lie_in_one_place():
    loose = [
        path for path in (PROJECT / "tests").rglob("*.py") if not path.name.startswith("test_") and path.name not in ("__init__.py", "conftest.py")
    ]
    assert {path.parent.name for path in loose} <= {"support", "tests"}
