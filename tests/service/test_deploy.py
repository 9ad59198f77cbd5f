"""The files for operation: what they say is what the service takes."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from snl.cli.main import parse
from snl.service.config import read_config

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", ["snl.toml", "compose.toml"])
def test_configurations_are_complete_and_read(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SNL_DB_PASSWORD", "secret")
    monkeypatch.setenv("MES_SECRET", "secret")
    config = read_config(DEPLOY / name)
    assert config.server.host == "0.0.0.0"
    if name == "snl.toml":  # it shows every setting
        text = (DEPLOY / name).read_text()
        for section in ("server", "limits", "retention", "station", "allow"):
            for key in type(getattr(config, section)).model_fields:
                assert re.search(rf"^(# )?{key} = ", text, re.MULTILINE) or key == "model_mib", key


def test_compose_reads_only_as_a_user_without_rights() -> None:
    services: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    ours = services["snl"]
    assert ours["read_only"] and ours["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in ours["ports"])
    parse(ours["command"])
    for volume in ours["volumes"]:
        source = volume.split(":")[0]
        if source.startswith("./") and source != "./parts.snl":
            assert (DEPLOY / source).is_file()


def test_the_container_starts_a_command_that_exists() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    command = next(line for line in lines if line.startswith("CMD ["))
    parse(yaml.safe_load(command.removeprefix("CMD ")))
    users = [line for line in lines if line.startswith("USER ")]
    assert users == ["USER snl"] and any(line.startswith("HEALTHCHECK") for line in lines)
    copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
    assert all((DEPLOY.parent / name).exists() for names in copied for name in names)


def test_the_unit_starts_a_command_that_exists() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read_string((DEPLOY / "snl.service").read_text())
    words = shlex.split(unit["Service"]["ExecStart"])
    assert Path(words[0]).name == "snl"
    parse(words[1:])
    assert unit["Service"]["User"] == "snl"
