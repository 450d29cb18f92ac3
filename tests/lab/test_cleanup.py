"""Whatever happens to a run, its processes and namespaces are gone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from netnslab.main import run_scenario
from netnslab.performance import Interrupted
from netnslab.processes import ProcessFailed
from netnslab.scenario import Options, Outcome, Run, Scenario
from netnslab.scenarios import SCENARIOS
from netnslab.topology import NAMESPACE_DIRECTORY, Attachment, CommandFailed, Network, Node, Topology
from rich.console import Console

LAB = Path(__file__).resolve().parents[2] / "netns-lab" / "run"
SMALL = Topology(("wire",), (Node("one"),), (Attachment("one", "eth0", "wire", ("2001:db8::1/64",)),))

pytestmark = pytest.mark.netns


def namespaces(prefix: str) -> list[str]:
    if not NAMESPACE_DIRECTORY.exists():
        return []
    return sorted(entry.name for entry in NAMESPACE_DIRECTORY.iterdir() if entry.name.startswith(prefix))


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def perform_with(started: list[int], then: Callable[[], None]) -> Callable[[Run], Callable[[], Outcome]]:
    def perform(run: Run) -> Callable[[], Outcome]:
        started.append(run.processes.start("sleep", ["sleep", "60"], run.network.namespace("one")).pid)
        then()
        return Outcome

    return perform


def fail_with(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def scenario(perform: Callable[[Run], Callable[[], Outcome]]) -> Scenario:
    return Scenario("small", "A small one.", SMALL, ("only",), perform)


def quiet() -> Console:
    return Console(file=io.StringIO())


@pytest.mark.parametrize("error", [CommandFailed("broken"), ProcessFailed("gone"), OSError("no")])
def test_step_that_fails_is_told_and_leaves_nothing(tmp_path: Path, error: Exception) -> None:
    started: list[int] = []
    failing = scenario(perform_with(started, fail_with(error)))
    result = run_scenario(failing, Options(), tmp_path / "r.json", tmp_path / "report", quiet())
    assert result["ok"] is False
    assert result["error"] == str(error)
    assert not namespaces(f"lab{os.getpid()}")
    assert not alive(started[0])
    assert (tmp_path / "r.json").exists()


def test_step_with_a_mistake_leaves_nothing(tmp_path: Path) -> None:
    started: list[int] = []
    failing = scenario(perform_with(started, fail_with(ZeroDivisionError())))
    with pytest.raises(ZeroDivisionError):
        run_scenario(failing, Options(), tmp_path / "r.json", tmp_path / "report", quiet())
    assert not namespaces(f"lab{os.getpid()}")
    assert not alive(started[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_in_a_step_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    started: list[int] = []
    before = signal.getsignal(number)

    def interrupt() -> None:
        os.kill(os.getpid(), number)
        time.sleep(5)

    with pytest.raises(Interrupted):
        run_scenario(
            scenario(perform_with(started, interrupt)),
            Options(),
            tmp_path / "r.json",
            tmp_path / "report",
            quiet(),
        )
    assert not namespaces(f"lab{os.getpid()}")
    assert not alive(started[0])
    assert signal.getsignal(number) is before


def test_only_its_own_namespaces_are_removed() -> None:
    first, second = Network(SMALL, f"t{os.getpid()}a"), Network(SMALL, f"t{os.getpid()}b")
    with first:
        with second:
            assert len(second.left_over()) == 2
        assert not second.left_over()
        assert len(first.left_over()) == 2
    assert not first.left_over()


def test_namespaces_of_somebody_else_are_refused_and_stay() -> None:
    with Network(SMALL, f"t{os.getpid()}") as first:
        with pytest.raises(CommandFailed, match="File exists"), Network(SMALL, f"t{os.getpid()}"):
            pass
        assert len(first.left_over()) == 2


def test_namespaces_can_be_kept() -> None:
    network = Network(SMALL, f"t{os.getpid()}k")
    with network:
        kept = network.keep()
    try:
        assert sorted(network.left_over()) == sorted(kept)
    finally:
        for name in kept:
            subprocess.run(["ip", "netns", "delete", name], check=True)


def test_cable_gives_and_takes_carrier() -> None:
    def carrier() -> str:
        return network.execute("one", "cat", "/sys/class/net/eth0/carrier").strip()

    with Network(SMALL, f"t{os.getpid()}c") as network:
        network.detach("one", "eth0")
        assert carrier() == "0"
        network.attach("one", "eth0", "wire")
        assert carrier() == "1"


def test_terminated_run_leaves_nothing(tmp_path: Path) -> None:
    argv: list[str | Path] = [LAB, "handover", "--json", tmp_path / "r.json", "--report", tmp_path / "report"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    prefix = f"lab{process.pid}-"
    pids: set[int] = set()
    events = tmp_path / "report" / "mn-events.jsonl"
    try:
        end = time.monotonic() + 30
        while time.monotonic() < end and not (events.exists() and events.stat().st_size):
            time.sleep(0.05)
        for name in namespaces(prefix):
            said = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True, check=True
            ).stdout
            pids |= {int(pid) for pid in said.split()}
        assert len(namespaces(prefix)) == 7
        assert len(pids) >= 10
    finally:
        process.terminate()
        _, said_at_the_end = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert b"cleaned up" in said_at_the_end
    assert not namespaces(prefix)
    assert not [pid for pid in pids if alive(pid)]


def test_namespaces_of_another_kernel_cannot_be_kept() -> None:
    done = subprocess.run([LAB, "handover", "--uml", "--keep"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "netns-lab: --keep: User-Mode Linux ends with the scenario\n"


@pytest.mark.parametrize("scenario", ["ike-handover", "ike-failover", "interop-strongswan-initiator"])
def test_who_negotiates_is_no_mobile_node_of_the_kernel(scenario: str) -> None:
    argv: list[str | Path] = [LAB, scenario, "--mobile-dataplane", "kernel"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == f"netns-lab: --mobile-dataplane of {scenario}: tun\n"


def test_mobile_nodes_dataplane_is_the_home_agents_where_it_can_be() -> None:
    plane = SCENARIOS["failover"].mobile_dataplane
    assert [plane(None, "kernel"), plane("tun", "kernel"), plane("kernel", "tun")] == [
        "kernel",
        "tun",
        "kernel",
    ]
    plane = SCENARIOS["ike-failover"].mobile_dataplane
    assert [plane(None, "kernel"), plane("tun", "kernel"), plane("kernel", "kernel")] == ["tun", "tun", None]


@pytest.mark.kernel
def test_terminated_run_in_another_kernel_leaves_nothing(tmp_path: Path) -> None:
    argv: list[str | Path] = [LAB, "handover", "--uml"]
    argv += ["--json", tmp_path / "r.json", "--report", tmp_path / "report"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "network up" in line:
            break
    process.send_signal(signal.SIGINT)
    _, said_at_the_end = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT
    assert said_at_the_end == "netns-lab: SIGINT; everything was cleaned up\n"
    assert json.loads((tmp_path / "r.json").read_text())["error"] == "interrupted by SIGINT"
    assert (tmp_path / "report" / "index.html").exists()
    assert {path.name for path in tmp_path.iterdir()} == {"r.json", "report"}


def test_list() -> None:
    done = subprocess.run([LAB, "--list"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("handover: ")
