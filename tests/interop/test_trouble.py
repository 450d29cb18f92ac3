"""Cookies, messages that come twice, and both ends that want the same at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest

from .charon import Charon
from .conftest import CHILD, Credentials, Talk
from .dissection import CREATE_CHILD_SA, IKE_SA_INIT, messages
from .network import OURS, THEIRS, Capture, Network, eventually
from .ours import Ours, configuration, peer
from .test_responder import agree, end

COOKIE = 16390


@pytest.fixture(scope="module")
def talk(
    network: Network, charon: Charon, credentials: Credentials, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Talk]:
    """We demand a cookie of everybody, and give ``psk`` its address."""
    assigned = 'home_addresses = ["2001:db8:a::77"]\nassign = true\n'
    remote = CHILD.replace(CHILD[CHILD.index("remote") :], 'remote = ["home-address"]')
    text = configuration(OURS, "ours.example") + "cookie_threshold = 0\n" + peer("psk", THEIRS, child=CHILD)
    text += peer("mobile", THEIRS, child=remote).replace("[[peer.child]]", f"{assigned}[[peer.child]]")
    made = Ours(network.ours, tmp_path_factory.mktemp("ours"), text)
    yield Talk(made, charon, credentials)
    assert made.stop() == 0, made.log()[-5000:]


def test_a_cookie_is_brought_back(talk: Talk, capture: Capture) -> None:
    talk.load("psk")
    talk.charon.initiate(child="net")
    end(talk, "psk")
    initial = [each for each in messages(capture.close()) if each.exchange == IKE_SA_INIT]
    assert [COOKIE in each.notifications for each in initial] == [False, True, True, False]
    assert len(initial[1].payloads) == 1


def test_a_home_address_is_assigned(talk: Talk) -> None:
    """RFC 5026 4.2: charon asks for any address, and narrows its selectors to it."""
    selectors = {"mode": "tunnel", "esp_proposals": "aes128gcm16", "remote_ts": "2001:db8:a::1/128"}
    talk.load("mobile", vips="::", children={"net": selectors})
    talk.charon.initiate(child="net")
    (association,) = talk.charon.associations().values()
    assert association["local-vips"] == ["2001:db8:a::77"]
    (child,) = association["child-sas"].values()
    assert child["local-ts"] == ["2001:db8:a::77/128"]
    (ours,) = talk.ours.ike_sas("mobile")
    assert ours["children"][0]["remote"] == ["2001:db8:a::77/128"]
    end(talk, "mobile")


@pytest.mark.parametrize("ours_sleeps", [True, False])
def test_what_comes_twice_is_answered_twice(talk: Talk, capture: Capture, ours_sleeps: bool) -> None:
    """RFC 7296 2.1: the same answer to the octet, and nothing happens twice."""
    talk.load("psk")
    talk.charon.initiate(child="net")
    before = agree(talk, "psk")
    if ours_sleeps:
        sent = talk.charon.log().count("retransmit 1 of request")
        talk.ours.process.send_signal(signal.SIGSTOP)
        talk.charon.control("--rekey", "--child", "net")
        eventually(lambda: talk.charon.log().count("retransmit 1 of request") > sent)
        talk.ours.process.send_signal(signal.SIGCONT)
    else:
        talk.charon.process.send_signal(signal.SIGSTOP)
        talk.ours.ask("rekey-child", "psk", "net")
        eventually(lambda: talk.ours.ask("counters").get("request_retransmitted"))
        talk.charon.process.send_signal(signal.SIGCONT)
    talk.ours.says("child_removed", spi_in=before["in"])
    assert agree(talk, "psk")["in"] != before["in"]
    end(talk, "psk")
    found = messages(capture.close(), talk.ours.key_log())
    rekeying = [each for each in found if each.exchange == CREATE_CHILD_SA]
    requests = [each for each in rekeying if not each.response]
    assert len(requests) == 2
    assert len(set(requests)) == 1
    answers = [each for each in rekeying if each.response]
    # charon leaves out a request that comes while it works on the same one.
    assert len(answers) == 2 or (len(answers) == 1 and not ours_sleeps)
    assert len(set(answers)) == 1


Both = Callable[[tuple[str, ...], tuple[str, ...]], None]


@pytest.fixture(params=["crossing", "lost"])
def both(talk: Talk, network: Network, request: pytest.FixtureRequest) -> Both:
    """charon and we are told something at once: our requests cross, or are both lost at first."""

    def crossing(theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
        talk.ours.ask_first(*ours, meanwhile=lambda: talk.charon.control(*theirs))

    def lost(theirs: tuple[str, ...], ours: tuple[str, ...]) -> None:
        with network.cut():
            talk.charon.control(*theirs)
            talk.ours.ask(*ours)

    return {"crossing": crossing, "lost": lost}[request.param]


def test_both_ends_replace_the_child_at_once(talk: Talk, both: Both) -> None:
    """RFC 7296 2.8.1: one of the two is left, the same for both."""
    talk.load("psk")
    talk.charon.initiate(child="net")
    for _ in range(3):
        before = agree(talk, "psk")
        both(("--rekey", "--child", "net"), ("rekey-child", "psk", "net"))
        talk.ours.says("child_removed", spi_in=before["in"])
        eventually(lambda: len(talk.ours.ike_sas("psk")[0]["children"]) == 1)
        eventually(lambda: children(talk) == 1)
        assert agree(talk, "psk") != before
    end(talk, "psk")


def children(talk: Talk) -> int:
    """How many there are beside those that charon keeps for a while after their deletion."""
    (association,) = talk.charon.associations().values()
    return sum(each["state"] != "DELETED" for each in association["child-sas"].values())


def test_both_ends_replace_the_ike_sa_at_once(talk: Talk, both: Both) -> None:
    """RFC 7296 2.8.2."""
    talk.load("psk")
    talk.charon.initiate(child="net")
    for _ in range(3):
        (before,) = talk.ours.ike_sas("psk")
        both(("--rekey", "--ike", "talk"), ("rekey", "psk"))
        talk.ours.says("ike_sa_closed", ike_sa=before["spi"])
        eventually(lambda: len(talk.ours.ike_sas("psk")) == 1)
        eventually(lambda: len(talk.charon.associations()) == 1)
        agree(talk, "psk")
    end(talk, "psk")
