"""`TORCH_INDEX` means the same in every build, and its examples are what pip takes."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.docker.build_context import ROOT
from tests.docker.command_lines import DOCKER

DOCKERFILE = (DOCKER / "Dockerfile").read_text()
DEFINITION = (DOCKER / "slurm" / "artel.def").read_text()
FAKE_PIP = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"


def torch_installs() -> dict[str, str]:
    """The shell text of every build that installs torch, by where it stands; `$TORCH_INDEX` is its argument."""
    found = {
        f"Dockerfile {stage}": line.removeprefix("RUN ")
        for stage, line in re.findall(
            r" AS (packages-\w+)\n(?:.*\n)*?(RUN pip install .*\^torch==.*)", DOCKERFILE
        )
    }
    script = re.search(r"^%post\n(.*?)\n\n", DEFINITION, re.M | re.S)[1]
    lines = [line.strip() for line in script.splitlines() if "index" in line]
    # Apptainer puts the argument into the text before a shell reads it
    text = "; ".join(lines).replace("{{ TORCH_INDEX }}", "$TORCH_INDEX").replace("/opt/artel/bin/", "")
    return found | {"artel.def": text}


def arguments_of_pip(script: str, index: str, folder: Path) -> list[str]:
    pip = folder / "pip"
    pip.write_text(FAKE_PIP)
    pip.chmod(0o755)
    answer = subprocess.run(
        ["sh", "-euc", script],
        cwd=ROOT,
        env={"PATH": f"{folder}:/usr/bin:/bin", "TORCH_INDEX": index},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return answer.stdout.splitlines()


@pytest.mark.parametrize("place", torch_installs())
def test_the_argument_is_an_index_for_pip_or_nothing(place, tmp_path):
    script = torch_installs()[place]
    url = "https://download.pytorch.org/whl/cpu"
    words = arguments_of_pip(script, url, tmp_path)
    assert words[words.index("--index-url") + 1] == url
    assert words[-1].startswith("torch==")
    without = arguments_of_pip(script, "", tmp_path)
    assert without == [word for word in words if word not in ("--index-url", url)]


def test_all_images_have_the_argument_and_every_example_is_a_whole_address():
    assert len(torch_installs()) == 3
    assert DOCKERFILE.count("\nARG TORCH_INDEX\n") == 2
    assert "\n    TORCH_INDEX=\n" in DEFINITION
    texts = {"Dockerfile": DOCKERFILE, "artel.def": DEFINITION, "README": (ROOT / "README.md").read_text()}
    for name, text in texts.items():
        examples = re.findall(r"--build-arg TORCH_INDEX=([^\s`]*)", text)
        assert examples, name
        assert all(
            re.fullmatch(r"https://download\.pytorch\.org/whl/\w+", example) for example in examples
        ), name
