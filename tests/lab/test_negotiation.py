"""``ike-handover``: both daemons accept what the lab writes for them, and every fault fails its check."""

from __future__ import annotations

from pathlib import Path

import pytest
from netnslab.dissection import IkeSeen
from netnslab.mobility_network import write_home_agent, write_mobile_node
from netnslab.negotiation import HOME_AGENT, MOBILE_NODE, checks, negotiate, new_secret

from mip6ha import config, mobile_config
from mip6ha.ipsec.policy import Use

INIT, AUTH = 34, 35


def test_both_daemons_accept_their_configuration(tmp_path: Path) -> None:
    home_agent, _ = write_home_agent(tmp_path, tmp_path, (), dataplane="tun", dad=False)
    mobile_node, _ = write_mobile_node(tmp_path, tmp_path, ())
    secret = new_secret()
    negotiate(home_agent, HOME_AGENT, ("binding", "prefix"), secret, key_log=tmp_path / "keys")
    negotiate(mobile_node, MOBILE_NODE, ("binding", "prefix"), secret)
    theirs, ours = config.load(home_agent), mobile_config.load(mobile_node)
    assert theirs.parameters.ike is not None
    assert ours.parameters.ike is not None
    (node,), (agent,) = theirs.parameters.ike.peers, ours.parameters.ike.peers
    assert node.psk == agent.psk == bytes.fromhex(secret)
    assert (node.local, node.remote) == (agent.remote, agent.local)
    assert ours.parameters.negotiated == (Use.BINDING, Use.PREFIX)
    assert theirs.parameters.mobile_nodes[0].negotiated == (Use.BINDING, Use.PREFIX)
    assert theirs.edge.key_log == tmp_path / "keys"
    assert ours.edge.key_log is None
    for path in (home_agent, mobile_node):
        assert secret not in path.read_text()
        assert path.with_suffix(".keys").stat().st_mode & 0o777 == 0o600
    assert new_secret() != secret


def handshake() -> list[IkeSeen]:
    return [IkeSeen(0.0, INIT, False, False)] * 2 + [IkeSeen(0.1, AUTH, True, False)] * 2


GOOD = {"foreign1": handshake(), "foreign2": []}
ESTABLISHED = [{"event": "ike_established"}]


def test_a_good_run_passes() -> None:
    assert not [check.name for check in checks(GOOD, ESTABLISHED, 12.0) if not check.ok]


@pytest.mark.parametrize(
    ("seen", "events", "ike_ms", "failed"),
    [
        (GOOD, ESTABLISHED, None, "IKE before the first BU, ms"),
        (GOOD | {"foreign1": handshake() * 2}, ESTABLISHED, 1.0, "tshark: IKE_SA_INIT on foreign link 1"),
        (
            GOOD | {"foreign2": [IkeSeen(9.0, AUTH, True, False)]},
            ESTABLISHED,
            1.0,
            "tshark: IKE messages after the move",
        ),
        (
            GOOD | {"foreign1": [*handshake(), IkeSeen(0.2, AUTH, False, False)]},
            ESTABLISHED,
            1.0,
            "tshark: IKE messages decrypted",
        ),
        (
            GOOD | {"foreign1": [*handshake(), IkeSeen(0.2, AUTH, True, True)]},
            ESTABLISHED,
            1.0,
            "tshark: malformed, of 5 IKE messages",
        ),
        (GOOD, ESTABLISHED * 2, 1.0, "IKE SAs established"),
        (GOOD, [*ESTABLISHED, {"event": "ike_closed"}], 1.0, "IKE SAs closed before the end"),
    ],
)
def test_a_fault_fails_its_check(
    seen: dict[str, list[IkeSeen]], events: list[dict[str, object]], ike_ms: float | None, failed: str
) -> None:
    assert [check.name for check in checks(seen, events, ike_ms) if not check.ok] == [failed]
