"""Identities: how they are written, when two are the same, which a certificate vouches for."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

import pytest
from cryptography import x509
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from mip6ha.ipsec.ike.identities import Identity, IdentityType

from .authorities import name, root
from .recorded import IDI, IDR, IKE_AUTH, NAMES, Recording

PRINTABLE, UTF8 = _ASN1Type.PrintableString, _ASN1Type.UTF8String


def dn(*attributes: tuple[x509.ObjectIdentifier, str], string: _ASN1Type = UTF8) -> Identity:
    subject = x509.Name([x509.NameAttribute(kind, value, string) for kind, value in attributes])
    return Identity(9, subject.public_bytes())


@pytest.mark.parametrize(
    ("text", "kind", "data"),
    [
        ("ha.example", 2, b"ha.example"),
        ("HA-1.Example", 2, b"HA-1.Example"),
        ("localhost", 2, b"localhost"),
        ("mn@example.org", 3, b"mn@example.org"),
        ("2001:db8::1", 5, bytes.fromhex("20010db8000000000000000000000001")),
        ("192.0.2.1", 1, bytes((192, 0, 2, 1))),
        ("keyid:00ff", 11, b"\x00\xff"),
        ("CN=mn", 9, bytes.fromhex("300d310b300906035504030c026d6e")),
    ],
)
def test_what_configuration_writes(text: str, kind: int, data: bytes) -> None:
    identity = Identity.parse(text)
    assert identity == Identity(kind, data)
    assert identity.text == str(identity) == text
    assert Identity.parse(str(identity)).same(identity)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "*.example",
        "-a.example",
        "a b",
        "ha.example.",
        "ä.example",
        "a@b@c",
        "@example",
        "mn@",
        "a" * 254,
        "keyid:",
        "keyid:xyz",
        "CN=",
        "=x",
        "CN=a,,O=b",
        "2001:db8::1/64",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="domain name, name@domain"):
        Identity.parse(text)


@pytest.mark.parametrize("recording", NAMES)
def test_charon_s_are_understood(recording: str) -> None:
    recorded = Recording(recording)
    request = recorded.exchange(IKE_AUTH)[0].opened(recorded.protection(of_initiator=True))
    shown = [str(Identity(body[0], body[4:])) for body in (request[IDI], request[IDR])]
    assert shown == ["a.example", "b.example"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("HA.example", "ha.EXAMPLE"),
        ("mn@example.org", "mn@Example.ORG"),
        ("CN=Mobile Node,O=Example", "CN=mobile  node,O=EXAMPLE"),
        ("2001:db8::1", "2001:db8:0::0001"),
    ],
)
def test_the_same_spelled_differently(one: str, other: str) -> None:
    assert Identity.parse(one).same(Identity.parse(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ha.example", "hb.example"),
        ("ha.example", "ha.example.org"),
        ("ha.example", "mn@ha.example"),
        ("MN@example.org", "mn@example.org"),
        ("CN=a,O=b", "O=b,CN=a"),
        ("CN=a", "O=a"),
        ("CN=a", "CN=a,O=b"),
        ("CN=a+O=b", "CN=a,O=b"),
        ("2001:db8::1", "2001:db8::2"),
        ("keyid:aa", "keyid:AABB"),
    ],
)
def test_not_the_same(one: str, other: str) -> None:
    assert not Identity.parse(one).same(Identity.parse(other))


def test_a_string_type_makes_no_difference() -> None:
    attributes = (
        (NameOID.COUNTRY_NAME, "AT"),
        (NameOID.ORGANIZATION_NAME, "Example Org"),
        (NameOID.COMMON_NAME, "MN"),
    )
    printable = dn(*attributes, string=PRINTABLE)
    assert printable.data != dn(*attributes).data
    assert printable.same(dn(*attributes))
    bmp = Identity(9, dn((NameOID.COMMON_NAME, "mn"), string=_ASN1Type.BMPString).data)
    assert bmp.same(Identity.parse("CN=MN"))
    # The order within one relative name is none.
    assert Identity.parse("CN=a+O=b").same(Identity.parse("O=b+CN=a"))


def test_what_is_no_string_compares_as_octets() -> None:
    def attribute(tag: str) -> Identity:
        return Identity(9, bytes.fromhex(f"300d310b30090603550403{tag}026d6e"))

    assert attribute("04").same(attribute("04"))
    assert not attribute("04").same(attribute("03"))
    assert not attribute("04").same(Identity.parse("CN=mn"))
    assert str(attribute("04")) == "CN=#046d6e"


VOUCHED = [
    x509.DNSName("MN.example"),
    x509.DNSName("other.example"),
    x509.DNSName("*.wild.example"),
    x509.RFC822Name("mn@Example.org"),
    x509.IPAddress(IPv6Address("2001:db8::100")),
    x509.IPAddress(IPv4Address("192.0.2.1")),
    x509.DirectoryName(name("Alias")),
    x509.UniformResourceIdentifier("https://uri.example"),
    x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
]
CERTIFICATE = root().issue("Mobile Node", names=VOUCHED).certificate


@pytest.mark.parametrize(
    "text",
    [
        "mn.example",
        "OTHER.example",
        "mn@example.ORG",
        "2001:db8::100",
        "192.0.2.1",
        "CN=mobile node",
        "CN=alias",
    ],
)
def test_what_a_certificate_vouches_for(text: str) -> None:
    assert Identity.parse(text).matches(CERTIFICATE)


@pytest.mark.parametrize(
    "text",
    [
        "example",
        "a.wild.example",
        "wild.example",
        "xmn.example",
        "mn.example.org",
        "MN@example.org",
        "example.org",
        "2001:db8::101",
        "192.0.2.2",
        "CN=Mobile",
        "CN=Mobile Node,O=Example",
        "CN=mn.example",
        "uri.example",
        "keyid:00",
    ],
)
def test_what_it_does_not(text: str) -> None:
    assert not Identity.parse(text).matches(CERTIFICATE)


def test_a_common_name_is_no_domain_name() -> None:
    """RFC 4945 3.1.2: the name must stand in subjectAltName."""
    certificate = root().issue("mn.example").certificate
    assert not Identity.parse("mn.example").matches(certificate)
    assert Identity.parse("CN=mn.example").matches(certificate)


def test_an_address_that_is_a_prefix_vouches_for_nobody() -> None:
    certificate = root().issue("x", names=[x509.IPAddress(IPv6Network("2001:db8::/64"))]).certificate
    for kind in (1, 5, 2, 9):
        assert not Identity(kind, IPv6Address("2001:db8::").packed).matches(certificate)


@given(kind=st.integers(0, 255), data=st.binary(max_size=100))
def test_whatever_a_peer_sends_is_an_identity(kind: int, data: bytes) -> None:
    identity = Identity(kind, data)
    shown = str(identity)
    assert shown.isprintable()
    assert len(shown) <= 259
    assert identity.same(identity)
    hash(identity.normal())
    assert not identity.matches(CERTIFICATE)


@given(st.data())
def test_a_changed_name_is_still_handled(data: st.DataObject) -> None:
    octets = bytearray(CERTIFICATE.subject.public_bytes())
    at = data.draw(st.integers(0, len(octets) - 1))
    octets[at] = data.draw(st.integers(0, 255))
    identity = Identity(IdentityType.DER_ASN1_DN, bytes(octets))
    assert str(identity).isprintable()
    # Only case, spaces (of "Mobile Node") and the string's type may differ in a name that is the same.
    if identity.matches(CERTIFICATE) and bytes(octets) != CERTIFICATE.subject.public_bytes():
        assert at in (11, *range(13, len(octets)))


def test_what_a_peer_sends_cannot_break_a_log_line() -> None:
    assert str(Identity(2, b"a\r\nb\x00\x7f")) == "a\\x0d\\x0ab\\x00\\x7f"
    assert str(Identity(9, dn((NameOID.COMMON_NAME, "a\nb,c=d")).data)) == "CN=a\\x0ab\\,c\\=d"
    assert str(Identity(2, b"\xff")) == "type 2:ff"
    assert str(Identity(5, bytes(15))) == f"type 5:{'00' * 15}"
    assert str(Identity(2, b"a" * 70_000)) == "a" * 256 + "..."
