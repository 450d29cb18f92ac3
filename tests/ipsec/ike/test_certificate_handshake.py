"""IKE_AUTH with certificates: who is believed, for how long, and what is said to the others."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from mip6ha.ipsec.ike import initial
from mip6ha.ipsec.ike.certificates import Trust
from mip6ha.ipsec.ike.effects import Notice
from mip6ha.ipsec.ike.identities import Identity
from mip6ha.ipsec.ike.message import parse_header
from mip6ha.ipsec.ike.numbers import Exchange, Notification, PayloadKind
from mip6ha.ipsec.ike.parameters import Peer
from mip6ha.ipsec.ike.turn import notify

from .authorities import DAY, End, root
from .tampering import opened
from .world import HA_ID, MN_ID, WALL, World, parameters_of, peer_of

VALID: dict[str, Any] = {"begin": WALL - DAY, "end": WALL + DAY}
ROOT = root(**VALID)
TRUST = Trust((ROOT.certificate,))
OTHER = root("Another root", **VALID)
P384 = ec.generate_private_key(ec.SECP384R1())
RSA = rsa.generate_private_key(65537, 2048)


def end(identity: Identity, issuer: End = ROOT, **options: Any) -> End:
    text = identity.data.decode()
    names = [x509.RFC822Name(text)] if identity.type == 3 else [x509.DNSName(text)]
    return issuer.issue(text, names=names, **{**VALID, **options})


def world_of(mn: End, ha: End, *, chain: tuple[bytes, ...] = (), trust: Trust | None = None) -> World:
    mn_peer = signing("mn", mn, chain=(mn.der, *chain))
    ha_peer = signing("ha", ha, trust=trust or TRUST)
    return World(parameters_of("mn", mn_peer), parameters_of("ha", ha_peer))


def signing(role: str, own: End, **changes: object) -> Peer:
    base: dict[str, object] = {"psk": None, "private_key": own.key, "chain": (own.der,), "trust": TRUST}
    return peer_of(role, **{**base, **changes})


@pytest.mark.parametrize("key", [None, RSA, P384], ids=["p256", "rsa", "p384"])
@pytest.mark.parametrize("hashes", [True, False], ids=["rfc7427", "classic"])
def test_both_ends_sign(key: Any, hashes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(end(MN_ID, key=key), end(HA_ID, key=key))
    if not hashes:
        # As before RFC 7427: neither end says which hashes it knows.
        monkeypatch.setattr(
            initial, "_announced", lambda fragments: [notify(Notification.FRAGMENTATION_SUPPORTED)]
        )
    world.connect()
    world.check()
    assert world.ha.sa.identity == tuple(MN_ID)
    requests = [each for each in world.sent if parse_header(each.octets)[0].exchange == Exchange.IKE_AUTH]
    if len(requests) == 2:
        _, payloads = opened(world.mn, requests[0])
        [auth] = [each for each in payloads if each.kind == PayloadKind.AUTHENTICATION]
        assert (auth.body[0] == 14) is hashes


def test_a_chain_over_an_intermediate_comes_in_fragments() -> None:
    between = ROOT.authority("Between", key=RSA, **VALID)
    mn = end(MN_ID, between, key=rsa.generate_private_key(65537, 2048))
    world = world_of(mn, end(HA_ID), chain=(between.der,))
    world.connect()
    world.check()
    sizes = [len(each.octets) for each in world.sent]
    assert max(sizes) <= 1232
    assert world.exchanges().count((Exchange.IKE_AUTH, False, 1)) > 1


@pytest.mark.parametrize(
    ("mn", "trust", "reason"),
    [
        (lambda: end(MN_ID, OTHER), None, "certificate_untrusted"),
        (lambda: end(MN_ID, begin=WALL - 2 * DAY, end=WALL - DAY), None, "certificate_expired"),
        (lambda: end(MN_ID, begin=WALL + DAY, end=WALL + 2 * DAY), None, "certificate_not_yet_valid"),
        (lambda: end(Identity.parse("other@example.org")), None, "certificate_name"),
        (lambda: end(MN_ID), lambda mn: [mn.certificate], "certificate_revoked"),
    ],
)
def test_who_is_not_believed(mn: Any, trust: Any, reason: str) -> None:
    mobile_node = mn()
    crls = (ROOT.crl(*trust(mobile_node), **VALID),) if trust else ()
    world = world_of(mobile_node, end(HA_ID), trust=Trust((ROOT.certificate,), crls))
    world.connect()
    assert world.ha.endpoint.counters == {reason: 1, "authentication_failed": 1}
    [notice] = [each for each in world.ha.all(Notice) if each.name == "authentication_failed"]
    assert notice.fields["reason"] == reason
    assert not world.mn.sas()
    assert not world.ha.installed


def test_a_home_agent_that_is_not_believed() -> None:
    world = world_of(end(MN_ID), end(HA_ID, OTHER))
    world.connect()
    assert world.mn.endpoint.counters["certificate_untrusted"] == 1
    assert not world.ha.sas()
    assert not world.ha.installed


def test_a_signature_of_another_key() -> None:
    impostor, honest = end(MN_ID), end(MN_ID)
    mn = signing("mn", impostor, chain=(honest.der,))
    world = world_of(honest, end(HA_ID))
    world.mn.endpoint.reconfigure(parameters_of("mn", mn))
    world.connect()
    assert world.ha.endpoint.counters == {"authentication_failed": 1}


def test_a_key_shared_beforehand_is_not_taken_instead_of_a_signature_nor_the_reverse() -> None:
    for swap in (False, True):
        world = world_of(end(MN_ID), end(HA_ID))
        node, role = (world.ha, "ha") if swap else (world.mn, "mn")
        node.endpoint.reconfigure(parameters_of(role))
        world.connect()
        reason = "authentication_method" if swap else "certificate_missing"
        assert world.ha.endpoint.counters[reason] == 1
        assert not world.ha.sas()


def test_everybody_whom_an_authority_vouches_for() -> None:
    mn, ha = end(MN_ID), end(HA_ID)
    anyone = signing("ha", ha, remote=None)
    world = world_of(mn, ha)
    world.ha.endpoint.reconfigure(parameters_of("ha", anyone))
    world.connect()
    world.check()
    assert world.ha.sa.identity == tuple(MN_ID)
