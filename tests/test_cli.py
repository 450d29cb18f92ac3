"""The command line: what is printed, and the exit status."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from dataclasses import fields, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from mip6ha.cli import main
from mip6ha.edge.features import KernelFeatures

GOOD = """
[home_agent]
address = "2001:db8:a::1"
home_link = "nosuchlink"
home_prefixes = ["2001:db8:a::/64"]
control_socket = "ha.sock"

[[mobile_node]]
home_address = "2001:db8:ffff::1"
"""

# A kernel that lacks nothing.
_EVERYTHING = KernelFeatures(*[""] * len(fields(KernelFeatures)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "ha.toml"
    path.write_text(GOOD)
    return path


def test_check_tells_what_would_be_served(path: Path) -> None:
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exit_code == 0
    assert "home agent 2001:db8:a::1 for 2001:db8:a::/64" in result.stdout
    assert "1 mobile nodes, 0 security associations" in result.stdout
    assert "warning: mobile_node[0]: is outside every home prefix" in result.stdout
    assert "cannot run here: home link nosuchlink does not exist" in result.stdout


def test_a_kernel_that_cannot_is_a_mistake_of_the_configuration(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mip6ha.cli._kernel", lambda: replace(_EVERYTHING, tunnel="EOPNOTSUPP"))
    path.write_text(GOOD.replace("[home_agent]", '[home_agent]\ndataplane = "kernel"'))
    result = CliRunner().invoke(main, ["run", "-c", str(path)])
    assert result.exit_code == 2
    wrong = "home_agent.dataplane: this kernel has no tunnel (EOPNOTSUPP); allowed: tun"
    assert result.stderr.splitlines() == [f"mip6ha: {path}: {wrong}"]
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert "dataplane kernel: missing here: tunnel (EOPNOTSUPP)" in result.stdout
    assert "cannot run here: the kernel has no tunnel (EOPNOTSUPP)" in result.stdout


@pytest.mark.parametrize(
    ("lacks", "said"),
    [("", "in the kernel too"), ("ENOENT", "left to the daemon: steering (ENOENT)")],
)
def test_who_seals_payload_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str, said: str
) -> None:
    monkeypatch.setattr("mip6ha.cli._kernel", lambda: replace(_EVERYTHING, steering=lacks))
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert f"payload under ESP: {said}" in result.stdout.splitlines()


def test_check_tells_every_fault(path: Path) -> None:
    path.write_text(GOOD.replace("a::1", "a::g").replace("ffff::1", ":::"))
    result = CliRunner().invoke(main, ["check", "-c", str(path)])
    assert result.exit_code == 2
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments", [["shout"], ["show", "keys"], ["run", "--fast"], ["run", "--log-level", "loud"]]
)
def test_wrong_usage_is_status_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


def test_show_without_a_home_agent_is_status_1(path: Path) -> None:
    for option in (["-c", str(path)], ["--socket", str(path.parent / "ha.sock")]):
        result = CliRunner().invoke(main, ["show", "status", *option])
        assert result.exit_code == 1
        assert "no home agent answers there" in result.stderr


@pytest.mark.parametrize(
    ("answer", "status", "told"),
    [
        (
            b'{"ok": true, "result": [{"home_address": "::1", "lifetime": 1.25, "k": null}]}\n',
            0,
            "1.2",
        ),
        (b'{"ok": true, "result": []}\n', 0, "no bindings"),
        (b'{"ok": false, "error": "not now"}\n', 1, "not now"),
        (b"hello\n", 1, "not JSON"),
        (b"", 1, "not JSON"),
    ],
)
def test_show_prints_whatever_is_answered(tmp_path: Path, answer: bytes, status: int, told: str) -> None:
    where = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(where))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        result = CliRunner().invoke(main, ["show", "bindings", "--socket", str(where)])
        thread.join()
    assert result.exit_code == status
    assert told in result.output


def test_the_module_is_the_command() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "mip6ha", "--version"],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert result.stdout.startswith("mip6ha, version ")
