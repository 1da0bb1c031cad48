"""The image and the arrangements of containers, as far as that can be checked without an engine.

``docker-compose config`` reads the files as they are; commands, settings, names and ports are held against sfss itself.
"""

from __future__ import annotations

import fnmatch
import functools
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from sfss import cli, config
from sfss.addresses import parse_address
from sfss.config import Settings
from sfss.errors import ConfigError
from sfss.post import serving
from tests.servers import HOST, Service, free_port, sfss_node

ROOT = Path(__file__).resolve().parent.parent
FILES = [ROOT / "compose.yaml", *sorted((ROOT / "docker").glob("compose.*.yaml"))]
SECRETS = {"POSTGRES_PASSWORD": "a1b2", "NODE_SECRET": "c3d4"}
HEALTHY = ROOT / "docker" / "healthy"
DATA = "/var/lib/sfss"  # where the image has its volume

Instructions = list[tuple[str, str]]


def compose(file: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    binary = shutil.which("docker-compose")
    assert binary, "docker-compose is not installed: `make test` installs it, or: apt-get install docker-compose"
    command = [binary, "--file", str(file), "--profile", "grow", "config", *arguments]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PATH": os.environ["PATH"], **environment},
    )


@functools.cache
def arrangement(file: Path) -> dict[str, Any]:
    """What compose makes of it."""
    done = compose(file, **SECRETS)
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = yaml.safe_load(done.stdout)
    for service in found["services"].values():  # as version 1 of docker-compose writes it; version 2 is longer
        if "ports" in service:
            service["ports"] = [_short(port, "host_ip", "published", "target") for port in service["ports"]]
        if "volumes" in service:
            service["volumes"] = [_short(volume, "source", "target") for volume in service["volumes"]]
        if service.get("healthcheck", {}).get("disable"):
            service["healthcheck"] = {"test": ["NONE"]}
    return found


def _short(given: str | dict[str, Any], *keys: str) -> str:
    return given if isinstance(given, str) else ":".join(str(given[key]) for key in keys)


def instructions() -> Instructions:
    """The Dockerfile's, each with what it says, in one line."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    text = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(kind, rest) for kind, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def of_the_image() -> dict[str, str]:
    """The environment that it has."""
    found: dict[str, str] = {}
    for kind, rest in instructions():
        if kind == "ENV":
            found.update(word.partition("=")[::2] for word in shlex.split(rest))
    return found


def ours(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The containers that are sfss."""
    return {name: service for name, service in found["services"].items() if service["image"] == "sfss"}


def command_of(service: dict[str, Any]) -> list[str]:
    image = next(rest for kind, rest in instructions() if kind == "CMD")
    command: list[str] = service.get("command") or yaml.safe_load(image)
    assert command[0] == "sfss"
    return command[1:]


def file_of(path: str, service: dict[str, Any], file: Path) -> Path:
    """What is at a path of a container, here."""
    for volume in service.get("volumes", ()):
        source, target, *_ = volume.split(":")
        if target == path:
            return Path(source)
    assert path.startswith("/etc/sfss/"), path
    return ROOT / "conf" / path.removeprefix("/etc/sfss/")


def settings_of(service: dict[str, Any], file: Path) -> Settings:
    """Those that a front or a worker goes by. Raises ConfigError if they can't be."""
    options = cli._parser().parse_args(command_of(service))
    environment = {**of_the_image(), **service.get("environment", {})}
    given = {key: value for key in ("host", "port") if (value := getattr(options, key, None)) is not None}
    defaults = serving.DEFAULTS if options.run is cli._post else {}
    named = str(file_of(options.config, service, file)) if getattr(options, "config", None) else None
    return config.load(
        named, {name: value for name, value in environment.items() if name.startswith("SFSS_")},
        {"server": given}, serves=options.run in (cli._serve, cli._post), defaults=defaults,
    )  # fmt: skip


def kind_of(service: dict[str, Any]) -> str:
    command = command_of(service)
    return command[0] if command and not command[0].startswith("-") else "front"


def fronts(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those that go by settings: workers, too."""
    return {
        name: service
        for name, service in ours(found).items()
        if kind_of(service) in ("front", "worker", "post") and "migrate" not in command_of(service)
    }


def hosts_of(settings: Settings) -> set[str]:
    """The machines that a front asks."""
    named = {address.host for address in settings.nodes} if settings.storage.nodes else set()
    named |= {parse_address(url).host for url in settings.short_term}
    if settings.catalogue.url:
        named.add(urlsplit(settings.catalogue.url).hostname or "")
    return named


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
class TestArrangements:
    def test_compose_takes_it_and_each_command_is_one_of_sfss(self, file: Path) -> None:
        for service in ours(arrangement(file)).values():
            assert cli._parser().parse_args(command_of(service)).run

    def test_settings_hold_and_name_containers_that_there_are(self, file: Path) -> None:
        found = arrangement(file)
        assert fronts(found)
        for service in fronts(found).values():
            settings = settings_of(service, file)
            assert hosts_of(settings) <= found["services"].keys()
            if kind_of(service) == "worker":
                continue
            nodes = {address.host: address.port for address in settings.nodes} if settings.storage.nodes else {}
            for name, port in nodes.items():
                command = [str(word) for word in found["services"][name].get("command") or ()]
                if command[:2] == ["sfss", "node"]:
                    options = cli._parser().parse_args(command[1:])
                    assert (options.host, options.port) == ("0.0.0.0", port)

    def test_ports_that_are_let_out_are_listened_on_and_let_out_to_this_machine_only(self, file: Path) -> None:
        found = arrangement(file)
        published = {name: it["ports"] for name, it in found["services"].items() if "ports" in it}
        assert published
        shared = {it["network_mode"].removeprefix("service:"): name
                  for name, it in found["services"].items() if "network_mode" in it}  # fmt: skip
        for name, ports in published.items():
            for port in ports:
                host, _, inner = re.fullmatch(r"([\d.]+):(\d+):(\d+)(?:/tcp)?", port).groups()  # type: ignore[union-attr]
                assert host == "127.0.0.1"
                if name in shared:
                    assert inner == "80"  # conf/post-nginx.conf listens there
                else:
                    settings = settings_of(found["services"][name], file)
                    assert (settings.server.host, str(settings.server.port)) == ("0.0.0.0", inner)

    def test_health_checks_ask_where_somebody_answers(self, file: Path) -> None:
        for service in ours(arrangement(file)).values():
            test = service.get("healthcheck", {}).get("test")
            if test == ["NONE"]:
                assert kind_of(service) == "worker" or "migrate" in command_of(service)
                continue
            if test is None:  # the image's
                test = ["CMD", *yaml.safe_load(next(rest for kind, rest in instructions() if kind == "HEALTHCHECK")
                                               .partition("CMD ")[2])]  # fmt: skip
            assert test[:2] == ["CMD", "healthy"]
            if kind_of(service) == "node":
                assert test[2] == f"127.0.0.1:{cli._parser().parse_args(command_of(service)).port}"
            else:
                assert test[2] == f"http://127.0.0.1:{settings_of(service, file).server.port}/readyz"

    def test_volumes_are_declared_and_used_and_nobody_shares_one(self, file: Path) -> None:
        found = arrangement(file)
        used = [volume for it in found["services"].values() for volume in it.get("volumes", ())]
        named = [volume.split(":")[0] for volume in used if not volume.startswith("/")]
        assert sorted(named) == sorted(found.get("volumes", {}))
        for source in (volume.split(":")[0] for volume in used if volume.startswith("/")):
            assert Path(source).is_file()
        for service in ours(found).values():
            kept = [target for volume in service.get("volumes", ()) if (target := volume.split(":")[1]) == DATA]
            if kind_of(service) == "node":
                assert kept == [cli._parser().parse_args(command_of(service)).data]
            writes_nothing = DATA in service["tmpfs"]
            assert writes_nothing != bool(kept)
            assert service["read_only"]

    def test_who_is_waited_for_is_there(self, file: Path) -> None:
        services = arrangement(file)["services"]
        for service in services.values():
            waited = service.get("depends_on", {})
            assert set(waited) <= services.keys()
            for name, how in waited.items() if isinstance(waited, dict) else ():
                if how["condition"] == "service_healthy":
                    assert "healthcheck" in services[name]

    def test_its_first_lines_name_it(self, file: Path) -> None:
        head = file.read_text().partition("\n\n")[0] + file.read_text().partition("\n\n")[2].partition("\n\n")[0]
        assert file.name == "compose.yaml" or f"docker compose -f docker/{file.name} " in head


@pytest.mark.parametrize("name", ["variant-2", "post"])
def test_passwords_have_to_be_said(name: str) -> None:
    done = compose(ROOT / "docker" / f"compose.{name}.yaml", "--quiet")
    assert done.returncode != 0
    assert "say one" in done.stderr


def test_the_settings_of_the_test_storage_system_are_those_of_its_configuration_elsewhere() -> None:
    there = config.load(str(ROOT / "docker" / "test-storage.toml"))
    here = config.load(str(ROOT / "conf" / "test-storage.toml"))
    assert [address.name for address in there.nodes] == [address.name for address in here.nodes]
    assert [address.host for address in there.nodes] == [address.name for address in there.nodes]
    assert there.json == here.json
    assert there.limits == here.limits
    assert {prefix: rules._replace(write_behind="") for prefix, rules in there.by_prefix.items()} == {
        prefix: rules._replace(write_behind="") for prefix, rules in here.by_prefix.items()
    }
    assert list(map(bool, there.short_term)) == list(map(bool, here.short_term)) == [True]


class TestTheImage:
    def test_all_that_is_copied_is_there_and_not_ignored(self) -> None:
        ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
        kept = [line[1:] for line in ignored if line.startswith("!")]
        assert ignored[0] == "*"
        copied = [word for kind, rest in instructions() if kind == "COPY" and "--from" not in rest
                  for word in rest.split()[:-1]]  # fmt: skip
        assert sorted(copied) == sorted(kept)
        for name in copied:
            assert (ROOT / name).exists()
            assert not any(fnmatch.fnmatch(name, pattern) for pattern in ignored[1:] if pattern[0] != "!")

    def test_it_runs_as_somebody_who_may_nothing_and_is_stopped_as_sfss_wants_it(self) -> None:
        kinds = [kind for kind, _ in instructions()]
        last = dict(instructions()[len(kinds) - kinds[::-1].index("FROM") :])
        assert (last["USER"], last["WORKDIR"], last["VOLUME"], last["STOPSIGNAL"]) == ("sfss", DATA, DATA, "SIGTERM")
        assert last["EXPOSE"].split() == [str(config.Server().port), "7900"]
        assert kinds.count("FROM") == 2
        assert not [
            rest for kind, rest in instructions() if kind in ("ENV", "ARG") and re.search("(?i)secret|passw", rest)
        ]

    def test_it_doesnt_serve_others_before_it_is_told_what_they_may(self) -> None:
        with pytest.raises(ConfigError, match="SFSS_ACCESS_ANONYMOUS"):
            config.load(None, {"SFSS_SERVER_HOST": of_the_image()["SFSS_SERVER_HOST"]}, serves=True)

    def test_what_is_copied_is_enough_to_build_all_of_sfss(self, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.mkdir()
        build = instructions()[: [kind for kind, _ in instructions()].index("FROM", 1)]
        for name in (word for kind, rest in build if kind == "COPY" for word in rest.split()[:-1]):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, source / name)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
               "--wheel-dir", str(tmp_path), str(source)]  # fmt: skip
        done = subprocess.run(pip, capture_output=True, text=True, timeout=100, check=False)
        assert done.returncode == 0, done.stderr
        with zipfile.ZipFile(next(tmp_path.glob("sfss-*.whl"))) as wheel:
            built = {name for name in wheel.namelist() if name.startswith("sfss/")}
            wheel.extractall(tmp_path / "installed")
        there = {
            str(file.relative_to(ROOT))
            for file in (ROOT / "sfss").rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
        assert built == there
        installed = tmp_path / "installed"
        environment = {"PATH": "/bin", "PYTHONPATH": ":".join([str(installed), *sys.path])}
        command = [sys.executable, "-m", "sfss", "--version"]
        assert subprocess.check_output(command, cwd=installed, env=environment, timeout=60).startswith(b"sfss ")


def test_healthy_says_how_fronts_and_nodes_are(service: Service, tmp_path: Path) -> None:
    def told(where: str) -> tuple[int, str]:
        done = subprocess.run([HEALTHY, where], capture_output=True, text=True, timeout=20, check=False)
        assert done.stderr == ""
        return done.returncode, done.stdout

    status, said = told(f"{service.url}/readyz")
    assert (status, "ready" in said) == (0, True)
    with sfss_node(tmp_path / "node") as (port, _):
        status, said = told(f"{HOST}:{port}")
        assert (status, said.startswith("VERSION")) == (0, True)
    for gone in (f"http://{HOST}:{free_port()}/readyz", f"{HOST}:{free_port()}", f"{service.url}/none", "x"):
        status, said = told(gone)
        assert (status, bool(said)) == (1, True)
