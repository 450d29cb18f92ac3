"""``mip6ha ike``: what is printed, and the exit status. ``tests/interop`` has it running."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from mip6ha.cli import main

CONFIGURATION = """
[ike]
identity = "ha.example"
address = "2001:db8:1::1"
keys_file = "keys"
control_socket = "control"

[[peer]]
name = "mn"
identity = "mn.example"
keys = "mn"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "keys").touch(mode=0o600)
    (tmp_path / "keys").write_text(f'[mn]\nsecret = "{"11" * 16}"\n')
    (tmp_path / "ike.toml").write_text(CONFIGURATION)
    return tmp_path / "ike.toml"


def ike(path: Path, *arguments: str) -> Result:
    command, *rest = arguments
    return CliRunner().invoke(main, ["ike", command, "-c", str(path), *rest])


def test_check(path: Path) -> None:
    result = ike(path, "check")
    assert (result.exit_code, result.stdout) == (0, f"{path}: is usable; 1 peers\n")


def test_what_is_wrong(path: Path) -> None:
    path.write_text(CONFIGURATION.replace('"mn.example"', '"mn example"'))
    for command in ("check", "run"):
        result = ike(path, command)
        assert result.exit_code == 2
        [line] = result.stderr.splitlines()
        assert line.startswith(
            f"mip6ha: {path}: peer[0].identity: is not an identity ('mn example'); allowed: "
        )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sas", "mn"), "sas takes nothing else"),
        (("rekey",), "rekey takes PEER"),
        (("rekey", "mn", "net"), "rekey takes PEER"),
        (("rekey-child", "mn"), "rekey-child takes PEER and CHILD"),
        (("everything",), "'everything' is not one of"),
    ],
)
def test_what_is_asked_for_wrongly(path: Path, arguments: tuple[str, ...], said: str) -> None:
    result = ike(path, "ask", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_nobody_answers(path: Path) -> None:
    result = ike(path, "ask", "sas")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"mip6ha: {path.parent / 'control'}: no home agent answers there")
