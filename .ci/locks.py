"""The two lists of pinned dependencies: `.ci/locks.py write` and `.ci/locks.py check`, run by `make lock` and `make lock-check`.

requirements.lock has what running needs: the project's dependencies, its extras and what builds it. requirements-dev.lock has what the dependency
group `dev` and the extras of `APART` need beside that: tests, linters, a browser, a deployment. Both are read off the environment of this
interpreter, so what is pinned is what was tested.

`check` fails where a list and pyproject.toml disagree. Then it asks the package index, through pip, whether a pinned release candidate has become a
stable release. It only says so, and without an index says that: a release elsewhere must not fail a build here.
"""

from __future__ import annotations

import importlib.metadata as metadata
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PROJECT = Path(__file__).resolve().parents[1]
HEADS = {
    "requirements.lock": "# What running needs, pinned: `make demo` installs exactly these",
    "requirements-dev.lock": "# What tests and linters need beside requirements.lock, pinned: `make setup` and `make test` install both",
}
APART = ("postgres", "kubernetes", "delta", "iceberg", "onnx")  # extras of a deployment, of sources, of an export: `make demo` does without them
MADE = "Made by `make lock` on Linux x86-64, Python 3.11."


def roots(pyproject: Path) -> tuple[list[Requirement], list[Requirement]]:
    """What running needs and what development needs beside it, as pyproject.toml names them."""
    told = tomllib.loads(pyproject.read_text(encoding="utf-8"))
    extras = told["project"]["optional-dependencies"]
    run = [
        *told["project"]["dependencies"],
        *(line for name, extra in extras.items() if name not in APART for line in extra),
        *told["build-system"]["requires"],
    ]
    develop = [*told["dependency-groups"]["dev"], *(line for name in APART for line in extras[name])]
    return [Requirement(line) for line in run], [Requirement(line) for line in develop]


def closure(wanted: Iterable[Requirement]) -> dict[str, Version]:
    """Name -> installed version of everything that `wanted` leads to here. PackageNotFoundError: one is not installed."""
    found: dict[str, Version] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    pending = list(wanted)
    while pending:
        requirement = pending.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        distribution = metadata.distribution(name)
        found[name] = Version(Version(distribution.version).public)  # torch's +cpu names a build, not a version
        for line in distribution.requires or ():
            inner = Requirement(line)
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                pending.append(inner)
    return found


def pins(lock: Path) -> dict[str, Version]:
    lines = [line for line in lock.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, _, version in (line.partition("==") for line in lines)}


def write(folder: Path) -> None:
    run, develop = roots(folder / "pyproject.toml")
    needed = closure(run)
    beside = {name: version for name, version in closure(develop).items() if name not in needed}
    for (file, head), chosen in zip(HEADS.items(), (needed, beside), strict=True):
        lines = [f"{head}. {MADE}", *(f"{name}=={chosen[name]}" for name in sorted(chosen))]
        (folder / file).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{file}: {len(chosen)} packages")
    installed = {canonicalize_name(distribution.name) for distribution in metadata.distributions()}
    if extra := sorted(installed - needed.keys() - beside.keys() - {"diger", "pip", "wheel"}):
        print(f"installed here, needed by nothing, not pinned: {', '.join(extra)}")


def disagreements(folder: Path) -> list[str]:
    """Lines of pyproject.toml that no pin fulfils, and packages that both lists pin."""
    run, develop = roots(folder / "pyproject.toml")
    needed, beside = (pins(folder / file) for file in HEADS)
    told = [f"both lists pin {name}: `make lock`" for name in sorted(needed.keys() & beside.keys())]
    for file, wanted, have in (("requirements.lock", run, needed), ("requirements-dev.lock", develop, needed | beside)):
        for requirement in wanted:
            version = have.get(canonicalize_name(requirement.name))
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                wanted = f"pyproject.toml wants {requirement.name}{requirement.specifier}"
                told.append(f"{file} has {requirement.name} {version or '(nothing)'}, {wanted}: install it, then `make lock`")
    return told


def newest_stable(name: str) -> Version | None:
    """As pip tells it; None where no stable release or no index can be found."""
    command = [sys.executable, "-m", "pip", "index", "versions", name, "--disable-pip-version-check", "--timeout=10", "--retries=0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("Available versions:")), None)
    return max(Version(word) for word in line.partition(":")[2].replace(" ", "").split(",")) if line else None


def release_candidates(folder: Path) -> list[str]:
    """A line for each pinned pre-release that pyproject.toml asks for by name."""
    needed, told = pins(folder / "requirements.lock"), []
    for requirement in roots(folder / "pyproject.toml")[0]:
        name = canonicalize_name(requirement.name)
        if name in needed and needed[name].is_prerelease:
            stable = newest_stable(name)
            if stable is None:
                told.append(f"{name} {needed[name]}: the package index cannot be reached, so nothing is known of a stable release")
            elif stable > needed[name]:
                told.append(f"{name} {needed[name]}: stable {stable} exists; raise it in pyproject.toml, install it, then `make lock`")
            else:
                told.append(f"{name} {needed[name]}: no stable release yet, the newest is {stable}")
    return told


def main(action: str) -> int:
    if action == "write":
        write(PROJECT)
        return 0
    told = disagreements(PROJECT)
    print("\n".join([*(told or ["the locks agree with pyproject.toml"]), *release_candidates(PROJECT)]))
    return bool(told)


if __name__ == "__main__":
    if sys.argv[1:] not in (["write"], ["check"]):
        sys.exit("usage: python .ci/locks.py write|check")
    sys.exit(main(sys.argv[1]))
