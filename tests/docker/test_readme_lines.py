"""The `docker run` lines that people copy: images, mounts, names and options are those of the files beside them."""

from __future__ import annotations

import re
import shlex

import yaml

from tests.docker.build_context import ROOT
from tests.docker.command_lines import DOCKER, JOIN_LINE, compose, parse

GRAFANA = DOCKER / "grafana"
# of `docker run`, those that have no value
FLAGS = {"--rm", "-d"}


def docker_runs(text: str) -> list[tuple[dict[str, list[str]], list[str]]]:
    """Options by name, and image and command, of every `docker run` in indented lines."""
    whole = text.replace("\\\n", " ")
    lines = re.findall(r"^    docker run (.*)$", whole, re.M)
    return [_split(shlex.split(line, comments=True)) for line in lines]


def _split(words: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    options: dict[str, list[str]] = {}
    while words[0].startswith("-"):
        name, *words = words
        value = "" if name in FLAGS else words.pop(0)
        options.setdefault(name, []).append(value)
    return options, words


def test_a_volunteers_container_has_room_time_and_a_cache():
    ((options, (image, *command)),) = docker_runs((ROOT / "README.md").read_text())
    dockerfile = (DOCKER / "Dockerfile").read_text()
    assert image in re.findall(r"-t (artel:\w+)", dockerfile)
    line = " ".join(command).replace("peer join --initial-peers … --run …", JOIN_LINE)
    assert int(options["--stop-timeout"][0]) > parse(line.split())["grace"] + 5
    assert options["--shm-size"] == ["2g"]
    assert options["-e"] == ["ARTEL_TICKET"]
    (volume,) = options["-v"]
    assert f"XDG_CACHE_HOME={volume.partition(':')[2]}" in dockerfile


def test_prometheus_and_grafana_find_their_files_and_one_another():
    runs = {words[0]: options for options, words in docker_runs((GRAFANA / "README.md").read_text())}
    assert set(runs) == {"prom/prometheus", "grafana/grafana"}
    network = f"{compose()['name']}_default"
    assert all(options["--network"] == [network] for options in runs.values())
    mounted = {
        target: source
        for options in runs.values()
        for source, target, mode in (volume.split(":") for volume in options["-v"])
        if mode == "ro"
    }
    assert all((ROOT / source.removeprefix("$PWD/")).exists() for source in mounted.values())
    provider = yaml.safe_load((GRAFANA / "dashboards.yaml").read_text())["providers"][0]
    assert mounted[provider["options"]["path"]] == "$PWD/docker/grafana"
    source = yaml.safe_load((GRAFANA / "datasources.yaml").read_text())["datasources"][0]
    assert source["url"] == f"http://{runs['prom/prometheus']['--name'][0]}:9090"
    scraped = yaml.safe_load((GRAFANA / "prometheus.yaml").read_text())["scrape_configs"][0]
    (target,) = scraped["static_configs"][0]["targets"]
    service = compose()["services"][target.partition(":")[0]]
    assert service["command"][-1] == f"0.0.0.0:{target.partition(':')[2]}"
