"""The files of examples/deployment: they agree with the locks and the code, open nothing to the network unasked, and hold no secret.

Against other projects' schemas they are checked where DIGER_SCHEMAS names a folder with these (docs/deployment.md): values.schema.json of the Dagster
chart, ray.io_rayclusters.yaml of KubeRay, compose-spec.json.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from click import Context

from orchestration.cli import cli

PROJECT = Path(__file__).resolve().parents[2]
FOLDER = PROJECT / "examples" / "deployment"
FILES = sorted(path for path in FOLDER.rglob("*") if path.is_file() and path.parent.name != "secrets")
YAML = [path for path in FILES if path.suffix == ".yaml"]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text(encoding="utf-8"))
VALUES = yaml.safe_load((FOLDER / "kubernetes" / "dagster-values.yaml").read_text(encoding="utf-8"))
RAY_CLUSTER, NETWORK_POLICY = yaml.safe_load_all((FOLDER / "kubernetes" / "raycluster.yaml").read_text(encoding="utf-8"))
SERVE = next(yaml.safe_load_all((FOLDER / "kubernetes" / "serve.yaml").read_text(encoding="utf-8")))
DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
NAMES = ("token", "auth_token", "diger-postgres", "false", "dagster/backfill")  # of secrets and of other keys, not what they hold
# Variables of other programs that the files may set.
FOREIGN = re.compile(r"(POSTGRES|PG|RAY|DAGSTER|OMP|HF|DVC|GX|PIP|PYTHON)_?[A-Z_]+|PATH")


@pytest.fixture(scope="module")
def locks() -> Any:
    spec = importlib.util.spec_from_file_location("locks", PROJECT / ".ci" / "locks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pins(locks: Any) -> dict[str, str]:
    return {name: str(version) for file in locks.HEADS for name, version in locks.pins(PROJECT / file).items()}


def walk(node: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """(path, value) of every leaf."""
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from walk(value, (*path, str(key)))
    else:
        yield path, node


def variables(node: Any) -> set[str]:
    """Names of environment variables: keys of compose's `environment`, `name` in Kubernetes' `env`."""
    found = set()
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "environment":
                found |= set(value)
            elif key == "env":
                found |= {entry["name"] for entry in value}
            found |= variables(value)
    elif isinstance(node, list):
        found = {name for value in node for name in variables(value)}
    return found


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_every_file_parses_and_its_variables_are_those_of_the_code(path: Path) -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (PROJECT / "orchestration").rglob("*.py"))
    for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
        for name in variables(document):
            assert f'"{name}"' in code if name.startswith("DIGER") else FOREIGN.fullmatch(name), name


def test_the_images_own_variables_are_those_of_the_code() -> None:
    code = "\n".join(file.read_text(encoding="utf-8") for file in (PROJECT / "orchestration").rglob("*.py"))
    own = set(re.findall(r"\b(DIGER_\w+)=", DOCKERFILE + (FOLDER / "entrypoint.sh").read_text(encoding="utf-8")))
    assert own == {"DIGER_COMMIT"}
    assert all(f'"{name}"' in code for name in own)


def test_versions_are_those_of_the_locks(pins: dict[str, str], locks: Any) -> None:
    project = (PROJECT / "pyproject.toml").read_text(encoding="utf-8")
    version = re.search(r'^version = "(.+)"$', project, re.MULTILINE)[1]
    images = {value for document in (COMPOSE, RAY_CLUSTER, SERVE) for path, value in walk(document) if path[-1] == "image"} - {"postgres:17-bookworm"}
    assert images == {f"diger:{version}", f"registry.example/diger:{version}"}
    assert {image["tag"] for image in (VALUES["dagsterWebserver"]["image"], VALUES["dagsterDaemon"]["image"])} == {version}
    assert RAY_CLUSTER["spec"]["rayVersion"] == pins["ray"]
    chart = re.search(r"--version (\S+)", (FOLDER / "kubernetes" / "dagster-values.yaml").read_text(encoding="utf-8"))[1]
    assert chart == pins["dagster"]
    page = (PROJECT / "docs" / "deployment.md").read_text(encoding="utf-8")
    assert f"--version {chart}" in page
    assert f"diger:{version}" in page


def test_the_image_installs_every_pin_of_a_deployments_extras(locks: Any) -> None:
    pattern = re.compile(re.search(r"grep -E '(.+?)' requirements-dev.lock", DOCKERFILE)[1])
    taken = {line.partition("==")[0] for line in (PROJECT / "requirements-dev.lock").read_text(encoding="utf-8").splitlines() if pattern.search(line)}
    dev = locks.pins(PROJECT / "requirements-dev.lock").keys()
    assert {"dagster-postgres", "psycopg2-binary", "dagster-k8s", "kubernetes"} <= taken <= dev
    wanted = [requirement for requirement in locks.roots(PROJECT / "pyproject.toml")[1] if requirement.name in taken]
    needed = locks.closure(wanted).keys() if all(importlib.util.find_spec(name) for name in ("dagster_k8s", "psycopg2")) else taken
    assert needed & dev == taken


def test_the_image_runs_as_a_user_by_number_and_copies_only_what_is_named() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001"]  # a name cannot be checked by runAsNonRoot
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = {
        word for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE) for word in line.split()[:-1] if not word.startswith("--")
    }
    assert "*" in ignored
    assert kept == copied
    assert all((PROJECT / name).exists() for name in kept)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_secret_and_only_mounted_ones_are_named(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for name, value in re.findall(r"(?im)^[ -]*([\w-]*(?:password|token|secret|key)\w*)[ ]*[:=][ ]*[\"']?([^\s\"'{\[&#]+)", text):
        assert value.startswith(("/run/secrets/", "$(cat")) or value in NAMES, f"{path.name}: {name}: {value}"
    assert not re.search(r"://[^/\s@]+:[^/\s@]+@", text)


def test_ports_are_published_on_loopback_and_a_wider_address_is_spelled_out() -> None:
    published = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published)
    assert "ports" not in COMPOSE["services"]["ray"]
    assert "ports" not in COMPOSE["services"]["postgres"]
    for name in ("runs", "ui", "serve"):
        assert "0.0.0.0" in COMPOSE["services"][name]["command"]
    assert "--dashboard-host=0.0.0.0" in COMPOSE["services"]["ray"]["command"]
    assert {path[-1]: value for path, value in walk(VALUES) if path[-2:] == ("service", "type")} == {"type": "ClusterIP"}
    assert RAY_CLUSTER["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    serve = cli.get_command(Context(cli), "serve")
    assert [option.default for option in serve.params if "--host" in option.opts] == ["127.0.0.1"]


def test_serve_answers_to_the_name_that_the_others_ask_it_by_and_to_no_other() -> None:
    pytest.importorskip("fastapi", reason="fastapi is not installed: pip install 'diger[serve]'")
    from orchestration.serving.http.hosts import Hosts

    deployment, service, _ = yaml.safe_load_all((FOLDER / "kubernetes" / "serve.yaml").read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for command, name in ((COMPOSE["services"]["serve"]["command"], "serve"), (container["args"], service["metadata"]["name"])):
        hosts = Hosts.of(command[command.index("--host") + 1], [given for flag, given in pairwise(command) if flag == "--allow-host"])
        assert [hosts.know(host) for host in (name, f"{name}:8000", "127.0.0.1:8000", "10.1.2.3:8000", "evil.example")] == [True] * 4 + [False]


def test_ray_asks_everybody_for_the_token() -> None:
    for name in ("ray", "runs", "ui", "daemon"):
        assert COMPOSE["services"][name]["environment"]["RAY_AUTH_MODE"] == "token"
        assert "ray_token" in COMPOSE["services"][name]["secrets"]
    assert RAY_CLUSTER["spec"]["authOptions"] == {"mode": "token"}
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    given = {entry["name"]: entry for entry in deployment["env"]}
    assert given["RAY_AUTH_MODE"]["value"] == "token"
    assert given["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": RAY_CLUSTER["metadata"]["name"], "key": "auth_token"}
    assert given["RAY_ADDRESS"]["value"] == f"http://{RAY_CLUSTER['metadata']['name']}-head-svc:8265"
    (label,) = VALUES["runLauncher"]["config"]["k8sRunLauncher"]["labels"].items()
    selectors = [tuple(peer["podSelector"]["matchLabels"].items()) for rule in NETWORK_POLICY["spec"]["ingress"] for peer in rule["from"]]
    assert (label,) in selectors


def test_the_places_of_the_code_agree() -> None:
    from orchestration.on_dagster.recorded import LOCATION

    (server,) = yaml.safe_load((FOLDER / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    runs = COMPOSE["services"]["runs"]["command"]
    assert server["grpc_server"] == {"host": "runs", "port": int(runs[runs.index("-p") + 1]), "location_name": LOCATION}
    (deployment,) = VALUES["dagster-user-deployments"]["deployments"]
    assert VALUES["dagsterWebserver"]["workspace"]["servers"] == [{"host": deployment["name"], "port": deployment["port"], "name": LOCATION}]
    stores = {service["environment"]["DIGER_STORE"] for service in COMPOSE["services"].values() if "DIGER_STORE" in service.get("environment", {})}
    assert len(stores) == 1


def test_the_probes_give_the_name_that_the_doors_answer_to() -> None:
    from orchestration.on_dagster.doors import LOOPBACK

    for probe in ("readinessProbe", "livenessProbe", "startupProbe"):
        (header,) = VALUES["dagsterWebserver"][probe]["httpGet"]["httpHeaders"]
        assert header["name"] == "Host"
        assert header["value"] in LOOPBACK


def test_dagster_takes_the_run_launchers_configuration() -> None:
    launcher = pytest.importorskip("dagster_k8s", reason="dagster-k8s is not installed: pip install 'diger[kubernetes]'").K8sRunLauncher
    from dagster._config import process_config, resolve_to_config_type

    given = VALUES["runLauncher"]["config"]["k8sRunLauncher"]
    snake = {re.sub(r"(?<!^)(?=[A-Z])", "_", key).lower(): value for key, value in given["runK8sConfig"].items()}
    config = {
        "service_account_name": VALUES["global"]["serviceAccountName"],
        "instance_config_map": "dagster-instance",
        "dagster_home": VALUES["global"]["dagsterHome"],
        "image_pull_policy": given["imagePullPolicy"],
        "load_incluster_config": given["loadInclusterConfig"],
        "labels": given["labels"],
        "run_k8s_config": snake,
    }
    told = process_config(resolve_to_config_type(launcher.config_type()), config)
    assert told.success, told.errors
    wrong = process_config(resolve_to_config_type(launcher.config_type()), {**config, "run_k8s_config": {"containers": {}}})
    assert not wrong.success


def test_the_instance_of_the_chart_limits_what_a_home_limits() -> None:
    from orchestration.on_dagster.instance import HOME_FILE

    home = yaml.safe_load(HOME_FILE)
    assert VALUES["telemetry"] == home["telemetry"]
    assert VALUES["concurrency"]["pools"]["defaultLimit"] == home["concurrency"]["pools"]["default_limit"]
    assert VALUES["concurrency"]["runs"]["tagConcurrencyLimits"] == home["concurrency"]["runs"]["tag_concurrency_limits"]
    assert VALUES["dagsterDaemon"]["runMonitoring"] == home["run_monitoring"]


SCHEMAS = {"compose-spec.json": COMPOSE, "values.schema.json": VALUES, "ray.io_rayclusters.yaml": RAY_CLUSTER}


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_files_fulfil_other_projects_schemas(name: str) -> None:
    import jsonschema

    folder = os.environ.get("DIGER_SCHEMAS")
    if not folder or not (Path(folder) / name).is_file():
        pytest.skip(f"other projects' schemas are not part of this repository: set DIGER_SCHEMAS to a folder with {name} (docs/deployment.md)")
    text = (Path(folder) / name).read_text(encoding="utf-8")
    schema = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    if name == "values.schema.json":
        schema = without_required(schema)  # Helm checks what the chart's own values are completed with
    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft7Validator)(closed(schema))
    found = [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(SCHEMAS[name])]
    assert found == []


def without_required(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: without_required(value) for key, value in node.items() if not (key == "required" and isinstance(value, list))}
    return [without_required(value) for value in node] if isinstance(node, list) else node


def closed(node: Any) -> Any:
    """A property that the schema does not know is an error, as it is for the API server (`kubectl --validate=strict`)."""
    if isinstance(node, dict):
        made = {key: closed(value) for key, value in node.items()}
        if isinstance(node.get("properties"), dict) and "additionalProperties" not in node and "type" in node and "patternProperties" not in node:
            made["additionalProperties"] = False
        return made
    return [closed(value) for value in node] if isinstance(node, list) else node
