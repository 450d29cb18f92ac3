"""Agreement with scapy, which knows the same formats and shares no code with us."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers import inet6
from scapy.layers.inet6 import IPv6
from scapy.layers.ipsec import ESP
from scapy.layers.ipsec import SecurityAssociation as ScapyAssociation

from mip6ha import icmpv6, ipv6
from mip6ha.binding import messages
from mip6ha.binding.messages import Body
from mip6ha.icmpv6 import PrefixInformation
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Transform, transform
from mip6ha.ipsec.policy import Direction
from mip6ha.mobility import Option
from mip6ha.wire import text

from .ipsec.associations import association
from .octets import CARE_OF_ADDRESS, CORRESPONDENT, HOME_ADDRESS, HOME_AGENT
from .strategies import ADDRESSES, ROUTABLE, U8, U16, U32

_EIGHT = st.binary(min_size=8, max_size=8)
# Types for which scapy has no class and no alignment of its own.
_UNKNOWN = [kind for kind in range(17, 256) if kind != messages.OptionType.VENDOR_SPECIFIC]

_OPTIONS = st.lists(
    st.one_of(
        st.builds(Option, st.just(2), st.binary(min_size=2, max_size=2)),
        st.builds(Option, st.just(3), ADDRESSES),
        st.builds(Option, st.just(4), st.binary(min_size=4, max_size=4)),
        st.builds(Option, st.just(5), st.binary(min_size=12, max_size=12)),
        st.builds(Option, st.just(6), U8.flatmap(lambda n: ADDRESSES.map(lambda a: bytes((0, n)) + a))),
        st.builds(Option, st.just(8), st.binary(min_size=2, max_size=30)),
        st.builds(Option, st.just(9), st.binary(min_size=5, max_size=30)),
        st.builds(Option, st.just(10), _EIGHT),
        st.builds(Option, st.sampled_from(_UNKNOWN), st.binary(max_size=20)),
    ),
    max_size=4,
).map(tuple)

_MESSAGES: st.SearchStrategy[Body] = st.one_of(
    st.builds(messages.BindingRefreshRequest, _OPTIONS),
    st.builds(messages.HomeTestInit, _EIGHT, _OPTIONS),
    st.builds(messages.CareOfTestInit, _EIGHT, _OPTIONS),
    st.builds(messages.HomeTest, U16, _EIGHT, _EIGHT, _OPTIONS),
    st.builds(messages.CareOfTest, U16, _EIGHT, _EIGHT, _OPTIONS),
    st.builds(messages.BindingUpdate, U16, U16, U16, _OPTIONS),
    st.builds(messages.BindingAcknowledgement, U8, U8, U16, U16, _OPTIONS),
    # scapy does not pad behind the options of a Binding Error.
    st.builds(messages.BindingError, U8, ADDRESSES, st.just(())),
)


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "big")


def _option(option: Option) -> Any:
    kind, data = option
    match kind:
        case 2:
            return inet6.MIP6OptBRAdvice(rinter=_number(data))
        case 3:
            return inet6.MIP6OptAltCoA(acoa=text(data))
        case 4:
            return inet6.MIP6OptNonceIndices(olen=4, hni=_number(data[:2]), coni=_number(data[2:]))
        case 5:
            return inet6.MIP6OptBindingAuthData(olen=12, authenticator=_number(data))
        case 6:
            return inet6.MIP6OptMobNetPrefix(reserved=data[0], plen=data[1], prefix=text(data[2:]))
        case 8:
            return inet6.MIP6OptMNID(subtype=data[0], id=data[1:])
        case 9:
            return inet6.MIP6OptMsgAuth(subtype=data[0], mspi=_number(data[1:5]), authdata=data[5:])
        case 10:
            return inet6.MIP6OptReplayProtection(timestamp=_number(data))
    return inet6.MIP6OptUnknown(otype=kind, odata=data)


def _message(message: Body) -> Any:
    options = [_option(option) for option in message.options]
    match message:
        case messages.BindingRefreshRequest():
            return inet6.MIP6MH_BRR(res=0, res2=0, options=options)
        case messages.HomeTestInit(cookie=cookie):
            return inet6.MIP6MH_HoTI(res=0, cookie=cookie, options=options)
        case messages.CareOfTestInit(cookie=cookie):
            return inet6.MIP6MH_CoTI(mhtype=2, res=0, cookie=cookie, options=options)
        case messages.HomeTest(nonce_index=index, cookie=cookie, keygen_token=token):
            return inet6.MIP6MH_HoT(res=0, index=index, cookie=cookie, token=token, options=options)
        case messages.CareOfTest(nonce_index=index, cookie=cookie, keygen_token=token):
            return inet6.MIP6MH_CoT(mhtype=4, res=0, index=index, cookie=cookie, token=token, options=options)
        case messages.BindingUpdate(sequence=sequence, flags=flags, lifetime=lifetime):
            return inet6.MIP6MH_BU(
                res=0,
                seq=sequence,
                flags=flags >> 9,
                reserved=flags & 0x1FF,
                mhtime=lifetime,
                options=options,
            )
        case messages.BindingAcknowledgement(status, flags, sequence, lifetime):
            return inet6.MIP6MH_BA(
                res=0,
                status=status,
                flags=flags >> 5,
                res2=flags & 0x1F,
                seq=sequence,
                mhtime=lifetime,
                options=options,
            )
        case messages.BindingError(status, home_address):
            return inet6.MIP6MH_BE(status=status, ha=text(home_address))


def _headers(source: bytes, destination: bytes, home_address: bytes | None, routing: bytes | None) -> Any:
    built = IPv6(src=text(source), dst=text(destination), hlim=64)
    if routing is not None:
        built /= inet6.IPv6ExtHdrRouting(type=2, segleft=1, addresses=[text(routing)])
    if home_address is not None:
        built /= inet6.IPv6ExtHdrDestOpt(options=[inet6.HAO(hoa=text(home_address))])
    return built


def _agree(ours: bytes, theirs: Any) -> None:
    assert ours == bytes(theirs)


_PATHS = st.tuples(ROUTABLE, ROUTABLE, st.none() | ROUTABLE, st.none() | ROUTABLE)


@given(_MESSAGES, _PATHS)
def test_mobility_headers_in_whole_packets(
    message: Body, path: tuple[bytes, bytes, bytes | None, bytes | None]
) -> None:
    source, destination, home_address, routing = path
    theirs = bytes(_headers(*path) / _message(message))
    between = (home_address or source, routing or destination)
    ours = ipv6.build(
        source,
        destination,
        ipv6.MOBILITY,
        messages.build(message, *between),
        home_address=home_address,
        routing=routing,
    )
    assert ours == theirs
    parsed = ipv6.parse(theirs)
    assert (parsed.home_address, parsed.routing) == (home_address, routing)
    assert messages.parse(parsed.payload, parsed.logical_source, parsed.logical_destination) == message


@given(U16, U16, U16, _OPTIONS)
def test_scapy_reads_our_binding_updates(
    sequence: int, flags: int, lifetime: int, options: tuple[Option, ...]
) -> None:
    update = messages.BindingUpdate(sequence, flags, lifetime, options)
    payload = messages.build(update, HOME_ADDRESS, HOME_AGENT)
    octets = ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ipv6.MOBILITY, payload, home_address=HOME_ADDRESS)
    found = IPv6(octets)
    assert found[inet6.HAO].hoa == text(HOME_ADDRESS)
    body = found[inet6.MIP6MH_BU]
    assert (body.seq, int(body.flags) << 9 | body.reserved, body.mhtime) == (sequence, flags, lifetime)
    kinds = [option.otype for option in body.options if option.otype > 1]
    assert kinds == [option.type for option in options]


@given(U8, U8, U16, U16)
def test_scapy_reads_our_binding_acknowledgements(
    status: int, flags: int, sequence: int, lifetime: int
) -> None:
    message = messages.BindingAcknowledgement(status, flags, sequence, lifetime)
    payload = messages.build(message, HOME_AGENT, HOME_ADDRESS)
    found = IPv6(ipv6.build(HOME_AGENT, CARE_OF_ADDRESS, ipv6.MOBILITY, payload, routing=HOME_ADDRESS))
    assert found[inet6.IPv6ExtHdrRouting].addresses == [text(HOME_ADDRESS)]
    body = found[inet6.MIP6MH_BA]
    assert (body.status, int(body.flags) << 5 | body.res2) == (status, flags)
    assert (body.seq, body.mhtime) == (sequence, lifetime)


_PREFIX = st.builds(PrefixInformation, ADDRESSES, st.integers(0, 128), U8, U32, U32)


def _prefix(prefix: PrefixInformation) -> Any:
    return inet6.ICMPv6NDOptPrefixInfo(
        prefixlen=prefix.length,
        L=prefix.flags >> 7,
        A=prefix.flags >> 6 & 1,
        R=prefix.flags >> 5 & 1,
        res1=prefix.flags & 0x1F,
        validlifetime=prefix.valid,
        preferredlifetime=prefix.preferred,
        prefix=text(prefix.prefix),
    )


@given(U16, st.sampled_from((0, 0x40, 0x80, 0xC0)), st.lists(_PREFIX, max_size=3).map(tuple))
def test_mobile_prefix_messages(identifier: int, flags: int, prefixes: tuple[PrefixInformation, ...]) -> None:
    theirs = _headers(HOME_AGENT, CARE_OF_ADDRESS, None, HOME_ADDRESS)
    theirs /= inet6.ICMPv6MPAdv(id=identifier, flags=flags >> 6)
    for prefix in prefixes:
        theirs /= _prefix(prefix)
    body = icmpv6.mobile_prefix_advertisement(identifier, flags, prefixes)
    octets = icmpv6.message(icmpv6.MOBILE_PREFIX_ADVERTISEMENT, 0, body, HOME_AGENT, HOME_ADDRESS)
    _agree(ipv6.build(HOME_AGENT, CARE_OF_ADDRESS, ipv6.ICMPV6, octets, routing=HOME_ADDRESS), theirs)
    parsed = ipv6.parse(bytes(theirs))
    icmp = icmpv6.parse(parsed.payload, HOME_AGENT, HOME_ADDRESS)
    assert icmpv6.parse_prefixes(icmp.body) == prefixes

    theirs = _headers(CARE_OF_ADDRESS, HOME_AGENT, HOME_ADDRESS, None) / inet6.ICMPv6MPSol(id=identifier)
    body = identifier.to_bytes(2, "big") + bytes(2)
    octets = icmpv6.message(icmpv6.MOBILE_PREFIX_SOLICITATION, 0, body, HOME_ADDRESS, HOME_AGENT)
    _agree(ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ipv6.ICMPV6, octets, home_address=HOME_ADDRESS), theirs)


@given(U16, st.lists(ROUTABLE, max_size=4))
def test_home_agent_discovery_messages(identifier: int, addresses: list[bytes]) -> None:
    theirs = IPv6(src=text(CARE_OF_ADDRESS), dst=text(HOME_AGENT), hlim=64)
    body = identifier.to_bytes(2, "big") + bytes(2)
    octets = icmpv6.message(icmpv6.HOME_AGENT_DISCOVERY_REQUEST, 0, body, CARE_OF_ADDRESS, HOME_AGENT)
    _agree(
        ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ipv6.ICMPV6, octets),
        theirs / inet6.ICMPv6HAADRequest(id=identifier, R=0),
    )
    octets = icmpv6.message(
        icmpv6.HOME_AGENT_DISCOVERY_REPLY, 0, body + b"".join(addresses), CARE_OF_ADDRESS, HOME_AGENT
    )
    reply = inet6.ICMPv6HAADReply(id=identifier, R=0, addresses=[text(value) for value in addresses])
    _agree(ipv6.build(CARE_OF_ADDRESS, HOME_AGENT, ipv6.ICMPV6, octets), theirs / reply)


def test_neighbor_discovery() -> None:
    mac = bytes.fromhex("02005e100001")
    target = text(HOME_ADDRESS)
    _agree(
        icmpv6.duplicate_address_probe(HOME_ADDRESS),
        IPv6(src="::", dst="ff02::1:ff00:100", hlim=255) / inet6.ICMPv6ND_NS(tgt=target),
    )
    _agree(
        icmpv6.unsolicited_advertisement(HOME_AGENT, HOME_ADDRESS, mac),
        IPv6(src=text(HOME_AGENT), dst="ff02::1", hlim=255)
        / inet6.ICMPv6ND_NA(R=0, S=0, O=1, tgt=target)
        / inet6.ICMPv6NDOptDstLLAddr(lladdr=mac.hex(":")),
    )
    _agree(
        icmpv6.router_solicitation(CORRESPONDENT, mac),
        IPv6(src=text(CORRESPONDENT), dst="ff02::2", hlim=255)
        / inet6.ICMPv6ND_RS()
        / inet6.ICMPv6NDOptSrcLLAddr(lladdr=mac.hex(":")),
    )


@given(_PREFIX, U16, U8, st.integers(-(1 << 15), (1 << 15) - 1), U16)
def test_router_advertisements(
    prefix: PrefixInformation, lifetime: int, hops: int, preference: int, agent_lifetime: int
) -> None:
    theirs = (
        IPv6(src="fe80::1", dst="ff02::1", hlim=255)
        / inet6.ICMPv6ND_RA(chlim=hops, M=0, O=1, H=1, P=0, prf=0, res=0, routerlifetime=lifetime)
        / inet6.ICMPv6NDOptMTU(mtu=1400)
        / _prefix(prefix)
        / inet6.ICMPv6NDOptHAInfo(pref=preference & 0xFFFF, lifetime=agent_lifetime)
    )
    parsed = ipv6.parse(bytes(theirs))
    found = icmpv6.parse_router_advertisement(icmpv6.parse(parsed.payload, parsed.source, parsed.destination))
    assert found == icmpv6.RouterAdvertisement(
        hops, 0x60, lifetime, (prefix,), 1400, None, preference, agent_lifetime
    )


@given(st.integers(1300, 4000), st.integers(1280, 1500), U32)
def test_scapy_puts_our_fragments_together(size: int, mtu: int, identification: int) -> None:
    whole = ipv6.build(CORRESPONDENT, HOME_ADDRESS, 253, bytes(n & 0xFF for n in range(size)))
    pieces = ipv6.fragments(whole, mtu, identification)
    if len(pieces) > 1:
        found = inet6.defragment6([IPv6(piece) for piece in pieces])  # type: ignore[no-untyped-call]
        assert bytes(found) == whole


# Our transform, and scapy's names and splits of the same keys.
_ESP: dict[str, tuple[Transform, str, str | None]] = {
    "aes-gcm-16": (transform("aes-gcm-16"), "AES-GCM", None),
    "chacha20-poly1305": (transform("chacha20-poly1305"), "CHACHA20-POLY1305", None),
    "aes-cbc": (transform("aes-cbc", "hmac-sha2-256-128"), "AES-CBC", "SHA2-256-128"),
    "aes-cbc-512": (transform("aes-cbc", "hmac-sha2-512-256"), "AES-CBC", "SHA2-512-256"),
    "null": (transform("null", "hmac-sha2-256-128"), "NULL", "SHA2-256-128"),
    "null-384": (transform("null", "hmac-sha2-384-192"), "NULL", "SHA2-384-192"),
    "null-sha1": (transform("null", "hmac-sha1-96"), "NULL", "HMAC-SHA1-96"),
}


def _theirs(name: str, *, esn: int | None, tunnel: Any = None) -> Any:
    chosen, encryption, integrity = _ESP[name]
    keys = association(chosen, Direction.IN).keys
    # scapy 2.8 wants the salt at the end of the key, as we do.
    return ScapyAssociation(  # type: ignore[no-untyped-call]
        ESP,
        spi=0x2000,
        crypt_algo=encryption,
        crypt_key=keys.encryption or None,
        auth_algo=integrity,
        auth_key=keys.integrity or None,
        tunnel_header=tunnel,
        esn_en=esn is not None,
        esn=esn or 0,
    )


def _zeros(count: int) -> bytes:
    return bytes(count)


_PLAINTEXT = st.binary(max_size=70)
_EPOCHS = st.none() | st.integers(1, 0xFF)


@pytest.mark.parametrize("name", _ESP)
@settings(max_examples=40)
@given(payload=_PLAINTEXT, sequence=st.integers(1, 0xFFFFFFF0), esn=_EPOCHS)
def test_scapy_opens_what_we_seal(name: str, payload: bytes, sequence: int, esn: int | None) -> None:
    sender = association(_ESP[name][0], Direction.OUT, esn=esn is not None)
    sender.sequence = ((esn or 0) << 32) + sequence - 1
    # Without extension headers: scapy takes those for the headers of what it decrypted.
    sealed = ipv6.build(HOME_ADDRESS, HOME_AGENT, ipv6.ESP, esp.protect(sender, 253, payload, _zeros))
    found = bytes(_theirs(name, esn=esn).decrypt(IPv6(sealed)))
    assert found == ipv6.build(HOME_ADDRESS, HOME_AGENT, 253, payload)


@pytest.mark.parametrize("name", _ESP)
@settings(max_examples=40)
@given(payload=_PLAINTEXT, sequence=st.integers(1, 0xFFFFFFF0), esn=_EPOCHS, tunnelled=st.booleans())
def test_we_open_what_scapy_seals(
    name: str, payload: bytes, sequence: int, esn: int | None, tunnelled: bool
) -> None:
    receiver = association(_ESP[name][0], Direction.IN, esn=esn is not None)
    assert receiver.window is not None
    receiver.window.top = ((esn or 0) << 32) + sequence - 1
    inner = ipv6.build(HOME_ADDRESS, CORRESPONDENT, 253, payload)
    outer = IPv6(src=text(CARE_OF_ADDRESS), dst=text(HOME_AGENT)) if tunnelled else None
    sealed = bytes(_theirs(name, esn=esn, tunnel=outer).encrypt(IPv6(inner), seq_num=sequence))
    parsed = ipv6.parse(sealed)
    assert parsed.next_header == ipv6.ESP
    expected = (ipv6.IPV6, inner) if tunnelled else (253, payload)
    assert esp.unprotect(receiver, parsed.payload) == expected
    assert receiver.window.top == ((esn or 0) << 32) + sequence
