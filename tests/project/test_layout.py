"""The tree keeps its plan: groups are folders, nothing imports in a circle, tests mirror what they test."""

import ast
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from orchestration.stage import GROUPS

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


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, or nothing."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_imports_in_a_circle():
    found = circle(imports(modules(PROJECT)))
    assert not found, " <- ".join(found)


def test_a_circle_inside_a_function_or_under_type_checking_is_found(tmp_path):
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "a.py").write_text("def f():\n    from assets import b\n")
    (tmp_path / "assets" / "b.py").write_text("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from assets.a import f\n")
    (tmp_path / "assets" / "c.py").write_text("import assets.a\n")
    assert set(circle(imports(modules(tmp_path, ("assets",))))) == {"assets.a", "assets.b"}


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


def test_item_ids_are_joined_in_one_place():
    joins = [str(path.relative_to(PROJECT)) for path in modules(PROJECT).values() if "pc.index_in" in path.read_text()]
    assert joins == ["diger_core/item_ids.py"]
