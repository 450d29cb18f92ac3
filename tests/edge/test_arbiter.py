"""Terms from a real etcd: taken once, held by a lease, and given back."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Namespace
from .redundant import RedundantSet

pytestmark = pytest.mark.netns

ETCD = "2001:db8:e::e"
LEASE = 2


class EtcdProcess:
    """One etcd server in a namespace, with its data below ``directory``."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        client, peer = f"http://[{ETCD}]:2379", "http://[::1]:2380"
        with (directory / "etcd.log").open("w") as log:
            self.process = subprocess.Popen(
                [
                    *("ip", "netns", "exec", namespace.name, "etcd", "--data-dir", str(directory / "etcd")),
                    *("--listen-client-urls", client, "--advertise-client-urls", client),
                    *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                    *("--initial-cluster", f"default={peer}"),
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[RedundantSet]:
    made = RedundantSet(tmp_path)
    etcd = None
    try:
        made.open()
        made.switch.run("ip", "address", "add", f"{ETCD}/64", "dev", "sync", "nodad")
        etcd = EtcdProcess(made.switch, tmp_path)
        # The first endpoint is nobody.
        made.configure(
            arbiter=f'[group.arbiter]\nendpoints = ["http://[{ETCD}]:1", "http://[{ETCD}]:2379"]\n'
            f"lease_s = {LEASE}\n"
        )
        yield made
    finally:
        made.close()
        if etcd is not None:
            etcd.stop()


def test_a_term_needs_the_end_of_the_lease_before_it(world: RedundantSet) -> None:
    active, standby = world.start()
    assert world.mobile_node.register() == 0
    time.sleep(LEASE)
    # It was renewed meanwhile.
    assert active.role == "active"
    killed = time.monotonic()
    active.end(signal.SIGKILL)
    standby.wait(lambda: standby.role == "active")
    assert time.monotonic() - killed > LEASE / 2
    assert world.mobile_node.register() == 0

    active.start_ready()
    active.wait(lambda: bool(active.show("status")["eligible"]))
    # Who stops gives its term up, and nobody waits.
    standby.end(signal.SIGTERM)
    stopped = time.monotonic()
    active.wait(lambda: active.role == "active")
    assert time.monotonic() - stopped < LEASE / 2
    terms = [
        event["term"]
        for member in (active, standby)
        for event in member.events()
        if event["event"] == "active"
    ]
    assert len(terms) == len(set(terms)) == 3


def test_who_cannot_renew_stops_serving(world: RedundantSet) -> None:
    active, standby = world.start()
    world.switch.run("ip", "link", "set", f"sync{active.member}", "down")
    cut = time.monotonic()
    active.wait(lambda: active.role != "active")
    stopped = time.monotonic()
    assert stopped - cut < LEASE
    standby.wait(lambda: standby.role == "active")
    lost = next(event for event in active.events() if event["event"] == "lease_lost")
    taken = next(event for event in standby.events() if event["event"] == "active")
    assert lost["time"] < taken["time"]
    assert world.mobile_node.register() == 0
    world.switch.run("ip", "link", "set", f"sync{active.member}", "up")
    active.wait(lambda: bool(active.show("status")["eligible"]))
    assert (active.role, standby.role) == ("standby", "active")
