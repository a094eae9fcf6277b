"""The recipes for clusters: what they name is there, and the schema of KubeRay accepts them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from study.run import parse

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "study" / "recipes" / "kuberay.yaml"
SCHEMA = json.loads((ROOT / "tests" / "fixtures" / "kuberay" / "rayjob.schema.json").read_text())
DOCKERFILE = ROOT / ".github" / "Dockerfile"


def rayjob() -> dict[str, Any]:
    (job,) = (part for part in yaml.safe_load_all(MANIFEST.read_text()) if part["kind"] == "RayJob")
    return job


def test_kuberay_accepts_the_manifest() -> None:
    """Every field is one of the operator's own definition, with a value of its type, and none that it needs is
    missing; a misspelt field is noticed."""
    validator = jsonschema.Draft7Validator(SCHEMA)
    assert not [error.message for error in validator.iter_errors(rayjob())]
    broken = rayjob()
    broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    assert not validator.is_valid(broken)
    missing = rayjob()
    del missing["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    assert not validator.is_valid(missing)


def test_the_manifest_runs_a_study_on_what_its_nodes_share() -> None:
    """Its command is one that study.run takes, joins the cluster, and writes where all pods have the volume."""
    spec = rayjob()["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:3] == ["python", "-m", "study.run"]
    settings = parse(words[3:])
    assert settings.resources.address == "auto"
    claims = {part["metadata"]["name"] for part in yaml.safe_load_all(MANIFEST.read_text())}
    cluster = spec["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {
            v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v
        } < claims
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) <= set(volumes)
        for folder in (settings.files.results_dir, settings.files.data_dir):
            assert folder and any(folder.is_relative_to(path) for path in mounts)
    assert cluster["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("path", re.findall(r"^COPY (?!--)(.+) \S+$", DOCKERFILE.read_text(), flags=re.M))
def test_the_image_copies_what_is_there(path: str) -> None:
    """Every source of a COPY is in the project, and is what the package is built from."""
    assert all((ROOT / name).exists() for name in path.split())


def test_the_image_follows_the_rules_of_hadolint() -> None:
    """A pinned base, no root at the end, lists of packages removed in the same layer, exec form, no cache of pip."""
    text = re.sub(r"\\\n", " ", DOCKERFILE.read_text())
    lines = [line.split(None, 1) for line in text.splitlines() if line and not line.startswith("#")]
    known = {"FROM", "RUN", "COPY", "WORKDIR", "USER", "ENTRYPOINT", "CMD", "ENV", "ARG"}
    assert {word for word, _ in lines} <= known
    of = {word: [rest for name, rest in lines if name == word] for word in known}
    assert [":" in base and not base.endswith(":latest") for base in of["FROM"]] == [True]  # DL3006, DL3007
    assert of["USER"] and of["USER"][-1] != "root"  # DL3002
    for run in of["RUN"]:
        if "apt-get install" in run:
            assert "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists" in run  # DL3015, DL3009
            assert "apt-get install -y" in run and "apt-get update" in run  # DL3014
        if "pip install" in run:
            assert "--no-cache-dir" in run  # DL3042
    assert all(path.startswith("/") for path in of["WORKDIR"])  # DL3000
    assert all(isinstance(json.loads(line), list) for line in of["ENTRYPOINT"] + of["CMD"])  # DL3025
