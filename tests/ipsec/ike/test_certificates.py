"""Certificates: chains, time, revocation, usage, names, and everything that is to be refused."""

from __future__ import annotations

from base64 import b64decode
from datetime import UTC, datetime, timedelta
from hashlib import sha1
from ipaddress import IPv6Address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given, settings
from hypothesis import strategies as st

from mip6ha.ipsec.ike import certificates
from mip6ha.ipsec.ike.certificates import Identity, Trust, authority_hash, certificate_chain
from mip6ha.wire import Malformed, Refused

from .authorities import DAY, NOW, End, authority_extensions, key_usage, name, root
from .recorded import CERT, IKE_AUTH, WITH_CERTIFICATES, Recording

HOUR = timedelta(hours=1)
NAME = x509.DNSName("mn.example")
IDENTITY = Identity.parse("mn.example")
ROOT = root()
INTERMEDIATE = ROOT.authority("Intermediate")
LEAF = INTERMEDIATE.issue("Mobile Node", names=[NAME, x509.IPAddress(IPv6Address("2001:db8::100"))])
CHAIN = [LEAF.der, INTERMEDIATE.der]
TRUST = Trust((ROOT.certificate,))


def verify(*ends: End, trust: Trust = TRUST, now: datetime = NOW) -> object:
    return trust.verify([end.der for end in ends], IDENTITY, now)


def refuses(reason: str, *ends: End, trust: Trust = TRUST, now: datetime = NOW) -> None:
    with pytest.raises(Refused, match=rf"^{reason}( at|$)"):
        verify(*ends, trust=trust, now=now)


def leaf_with(*extensions: tuple[x509.ExtensionType, bool], issuer: End = ROOT, **options: object) -> End:
    return issuer.issue("Mobile Node", names=[NAME], extensions=extensions, **options)


def test_a_chain_leads_to_the_key() -> None:
    assert verify(LEAF, INTERMEDIATE) == LEAF.key.public_key()
    assert TRUST.verify(CHAIN, Identity.parse("2001:db8::100"), NOW) == LEAF.key.public_key()


def test_the_others_come_in_any_order_and_with_company() -> None:
    stranger = root("Stranger")
    assert verify(LEAF, ROOT, stranger, INTERMEDIATE, LEAF)


def test_each_end_may_have_an_intermediate_authority_as_anchor() -> None:
    assert verify(LEAF, trust=Trust((INTERMEDIATE.certificate,)))


def test_a_peer_s_own_certificate_may_be_the_anchor() -> None:
    own = root("Mobile Node", extensions=[(x509.SubjectAlternativeName([NAME]), False)])
    assert verify(own, trust=Trust((own.certificate,)))
    refuses("certificate_untrusted", own)


@pytest.mark.parametrize("recording", WITH_CERTIFICATES)
def test_charon_s_certificates(recording: str) -> None:
    recorded = Recording(recording)
    trust = Trust((x509.load_der_x509_certificate(recorded.authority),))
    for message, who in zip(recorded.exchange(IKE_AUTH), ("a.example", "b.example"), strict=True):
        body = message.opened(recorded.protection(of_initiator=message.from_initiator))[CERT]
        chain = certificate_chain([(body[0], body[1:])])
        now = x509.load_der_x509_certificate(chain[0]).not_valid_before_utc + HOUR
        assert trust.verify(chain, Identity.parse(who), now)
        for wrong, at in (("c.example", now), (who, now + 4 * DAY)):
            with pytest.raises(Refused, match=r"certificate_(name|expired)"):
                trust.verify(chain, Identity.parse(wrong), at)


def test_no_certificate() -> None:
    refuses("certificate_missing")


def test_without_an_anchor() -> None:
    with pytest.raises(ValueError, match="no trust anchor"):
        Trust(())


def test_a_time_without_a_zone_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="time zone"):
        verify(LEAF, INTERMEDIATE, now=NOW.replace(tzinfo=None))


# Time


def test_an_expired_certificate() -> None:
    end = LEAF.certificate.not_valid_after_utc
    assert verify(LEAF, INTERMEDIATE, now=end)
    refuses("certificate_expired", LEAF, INTERMEDIATE, now=end + timedelta(seconds=1))


def test_a_certificate_of_the_future() -> None:
    begin = LEAF.certificate.not_valid_before_utc
    assert verify(LEAF, INTERMEDIATE, now=begin)
    refuses("certificate_not_yet_valid", LEAF, INTERMEDIATE, now=begin - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("begin", "end", "reason"),
    [
        (NOW - DAY, NOW - HOUR, "certificate_expired"),
        (NOW + HOUR, NOW + DAY, "certificate_not_yet_valid"),
    ],
)
def test_authorities_have_a_time_too(begin: datetime, end: datetime, reason: str) -> None:
    intermediate = ROOT.authority("Intermediate", begin=begin, end=end)
    refuses(reason, leaf_with(issuer=intermediate), intermediate)
    anchor = root(begin=begin, end=end)
    refuses(reason, leaf_with(issuer=anchor), trust=Trust((anchor.certificate,)))
    # An old certificate that has nothing to do with it is not the reason.
    refuses("certificate_untrusted", root("Stranger").issue("x"), intermediate)


def test_time_is_the_caller_s() -> None:
    later = NOW + 10_000 * DAY
    anchor = root(begin=later - DAY, end=later + DAY)
    end = leaf_with(issuer=anchor, begin=later - DAY, end=later + DAY)
    assert verify(end, trust=Trust((anchor.certificate,)), now=later)


# Chains


def test_an_unknown_authority() -> None:
    refuses("certificate_untrusted", leaf_with(issuer=root("Stranger")))
    # The same name, another key.
    refuses("certificate_untrusted", leaf_with(issuer=root()))


def test_a_missing_intermediate_authority() -> None:
    refuses("certificate_untrusted", LEAF)
    refuses("certificate_untrusted", LEAF, ROOT)


def test_an_end_entity_issues_nothing() -> None:
    for extensions in (
        (),
        ((x509.BasicConstraints(ca=False, path_length=None), True),),
        ((key_usage("key_cert_sign"), True),),
        ((x509.BasicConstraints(ca=False, path_length=None), True), (key_usage("key_cert_sign"), True)),
    ):
        intermediate = ROOT.authority("Intermediate", extensions=extensions)
        refuses("certificate_untrusted", leaf_with(issuer=intermediate), intermediate)


def test_an_authority_whose_key_may_not_issue() -> None:
    intermediate = ROOT.authority(
        "Intermediate",
        extensions=[(x509.BasicConstraints(ca=True, path_length=None), True), (key_usage("crl_sign"), True)],
    )
    refuses("certificate_untrusted", leaf_with(issuer=intermediate), intermediate)


def test_an_authority_for_another_purpose() -> None:
    def intermediate(usage: x509.ObjectIdentifier) -> End:
        return ROOT.authority(
            "Intermediate", extensions=[*authority_extensions(), (x509.ExtendedKeyUsage([usage]), False)]
        )

    for usage in (ExtendedKeyUsageOID.IPSEC_IKE, ExtendedKeyUsageOID.SERVER_AUTH):
        issuer = intermediate(usage)
        assert verify(leaf_with(issuer=issuer), issuer)
    issuer = intermediate(ExtendedKeyUsageOID.CODE_SIGNING)
    refuses("certificate_untrusted", leaf_with(issuer=issuer), issuer)


def test_old_roots_without_key_usage() -> None:
    """RFC 5280 4.2.1.3 asks for it in what others issue; many anchors have none, and are trusted by hand."""
    anchor = root(extensions=[(x509.BasicConstraints(ca=True, path_length=None), False)])
    assert verify(leaf_with(issuer=anchor), trust=Trust((anchor.certificate,)))
    bare = root(extensions=[])
    refuses("certificate_untrusted", leaf_with(issuer=bare), trust=Trust((bare.certificate,)))


def test_a_path_longer_than_it_may_be() -> None:
    def chain(path_length: int | None) -> list[End]:
        first = ROOT.authority("First", path_length=path_length)
        second = first.authority("Second")
        return [leaf_with(issuer=second), second, first]

    assert verify(*chain(None))
    assert verify(*chain(1))
    refuses("certificate_untrusted", *chain(0))


def test_a_chain_without_end() -> None:
    authorities = [ROOT]
    for number in range(certificates.MAXIMUM_CERTIFICATES):
        authorities.append(authorities[-1].authority(f"Authority {number}"))
    refuses("certificate_too_large", leaf_with(issuer=authorities[-1]), *authorities[1:])


def test_authorities_that_issue_each_other() -> None:
    first, second = root("First"), root("Second")
    one = second.issue("First", key=first.key, extensions=authority_extensions())
    other = first.issue("Second", key=second.key, extensions=authority_extensions())
    refuses("certificate_untrusted", leaf_with(issuer=first), one, other)


def test_names_that_an_authority_may_not_give() -> None:
    def intermediate(domain: str) -> End:
        constraints = x509.NameConstraints([x509.DNSName(domain)], None)
        return ROOT.authority("Intermediate", extensions=[*authority_extensions(), (constraints, True)])

    issuer = intermediate("example")
    assert verify(leaf_with(issuer=issuer), issuer)
    issuer = intermediate("other.example")
    refuses("certificate_untrusted", leaf_with(issuer=issuer), issuer)


def test_unknown_critical_extensions() -> None:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\0")
    assert verify(leaf_with((unknown, False)))
    refuses("certificate_untrusted", leaf_with((unknown, True)))
    issuer = ROOT.authority("Intermediate", extensions=[*authority_extensions(), (unknown, True)])
    refuses("certificate_untrusted", leaf_with(issuer=issuer), issuer)


def test_a_signature_that_was_changed() -> None:
    changed = LEAF.der[:-1] + bytes((LEAF.der[-1] ^ 1,))
    with pytest.raises(Refused, match="certificate_untrusted"):
        TRUST.verify([changed, INTERMEDIATE.der], IDENTITY, NOW)


# openssl req -x509 ... -sha256, then openssl x509 -req ... -sha1: P-256 both, valid from 2026 to 2126.
SHA1_ROOT = """
MIIBcjCCARigAwIBAgIBATAKBggqhkjOPQQDAjAPMQ0wCwYDVQQDDARSb290MCAXDTI2MTEyMzE1MTA0OVoYDzIxMjYxMDMwMTUxMDQ5
WjAPMQ0wCwYDVQQDDARSb290MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEFdX/X8J+Hwsm6aJ6YiJ+iSFHHbfTzpRlqlE67/nozca3
5pxgI+6SIfhM5QsmB75bAFKSs9rkgDafrupnhPXoAaNjMGEwHQYDVR0OBBYEFKMYC65GLmySsvYgnaxEuqRipiR2MB8GA1UdIwQYMBaA
FKMYC65GLmySsvYgnaxEuqRipiR2MA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0PAQH/BAQDAgIEMAoGCCqGSM49BAMCA0gAMEUCIGXsQaee
Awst++IMCTWXiteoySe6jOckj/2kR8ZQqJYTAiEAunrddBMbOkvKt1iw9jZ9mX0cgR4T7nrrELKFZD74XNI=
"""
SHA1_LEAF = """
MIIBajCCARGgAwIBAgIBAjAJBgcqhkjOPQQBMA8xDTALBgNVBAMMBFJvb3QwIBcNMjYxMTIzMTUxMDQ5WhgPMjEyNjEwMzAxNTEwNDla
MBQxEjAQBgNVBAMMCWEuZXhhbXBsZTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABA5t4JvFTYtVouZviun0JfFx52R5ViULvfcWzIwr
b1C0gR1NKftap9YyDJmXqkXIQsmTjEErkkkGm1NJe2QwFeSjWDBWMBQGA1UdEQQNMAuCCWEuZXhhbXBsZTAdBgNVHQ4EFgQUBq2/R2kU
6MD6yJbQYhHrl6gahqUwHwYDVR0jBBgwFoAUoxgLrkYubJKy9iCdrES6pGKmJHYwCQYHKoZIzj0EAQNIADBFAiAuDEIWiPYBEy0wXLUS
PfSEEaMyLUSqb59Cgp7IOgkXHgIhAMUWWwEXBvmRs6v+etpNFyR8MURgDgeN08WFhZHr/owW
"""


def test_a_certificate_signed_with_sha_1() -> None:
    trust = Trust((x509.load_der_x509_certificate(b64decode(SHA1_ROOT)),))
    with pytest.raises(Refused, match="certificate_untrusted"):
        trust.verify([b64decode(SHA1_LEAF)], Identity.parse("a.example"), datetime(2030, 1, 1, tzinfo=UTC))


# Keys and what they are for


@pytest.mark.parametrize("usage", ["digital_signature", "content_commitment"])
def test_keys_that_may_sign(usage: str) -> None:
    assert verify(leaf_with((key_usage(usage), True)))
    assert verify(leaf_with((key_usage(usage, "key_encipherment"), False)))


@pytest.mark.parametrize("usage", ["key_encipherment", "key_agreement", "key_cert_sign"])
def test_keys_that_may_not(usage: str) -> None:
    refuses("certificate_usage", leaf_with((key_usage(usage), True)))
    refuses("certificate_usage", leaf_with((key_usage(usage), False)))


def test_an_authority_is_no_peer() -> None:
    refuses("certificate_usage", INTERMEDIATE)


def test_extended_key_usage() -> None:
    for allowed in ("1.3.6.1.5.5.7.3.17", "2.5.29.37.0", "1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"):
        assert verify(leaf_with((x509.ExtendedKeyUsage([x509.ObjectIdentifier(allowed)]), True)))
    others = [ExtendedKeyUsageOID.CODE_SIGNING, ExtendedKeyUsageOID.EMAIL_PROTECTION]
    refuses("certificate_usage", leaf_with((x509.ExtendedKeyUsage(others), False)))
    assert verify(leaf_with((x509.ExtendedKeyUsage([*others, ExtendedKeyUsageOID.IPSEC_IKE]), False)))


@pytest.mark.parametrize(
    "curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda each: each.name
)
def test_keys_of_each_curve(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    issuer = ROOT.authority("Intermediate", key=key)
    assert verify(leaf_with(issuer=issuer, key=key), issuer) == key.public_key()


def test_keys_of_rsa() -> None:
    key, short = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 1024)
    issuer, weak = ROOT.authority("Intermediate", key=key), ROOT.authority("Intermediate", key=short)
    assert verify(leaf_with(issuer=issuer, key=key), issuer) == key.public_key()
    refuses("certificate_key", leaf_with(key=short))
    refuses("certificate_untrusted", leaf_with(issuer=weak), weak)


def test_keys_of_other_kinds() -> None:
    for key in (ec.generate_private_key(ec.SECP256K1()), ed25519.Ed25519PrivateKey.generate()):
        refuses("certificate_key", leaf_with(key=key))


# Names


def test_a_wrong_name() -> None:
    for wrong in ("ha.example", "2001:db8::101", "mn@example", "CN=mn.example", "keyid:00"):
        with pytest.raises(Refused, match="certificate_name"):
            TRUST.verify(CHAIN, Identity.parse(wrong), NOW)


def test_nobody_has_an_empty_name() -> None:
    empty = leaf_with(subject=x509.Name([]))
    assert verify(empty)
    for kind in range(16):
        with pytest.raises(Refused, match="certificate_name"):
            TRUST.verify([empty.der], Identity(kind, b""), NOW)


def test_a_certificate_without_names() -> None:
    plain = ROOT.issue("Mobile Node")
    assert TRUST.verify([plain.der], Identity.parse("CN=Mobile Node"), NOW)
    refuses("certificate_name", plain)


# Revocation


def trust_with(*crls: x509.CertificateRevocationList, require: bool = False) -> Trust:
    return Trust((ROOT.certificate,), crls, require)


def test_a_revoked_certificate() -> None:
    refuses("certificate_revoked", LEAF, INTERMEDIATE, trust=trust_with(INTERMEDIATE.crl(LEAF.certificate)))
    other = leaf_with(issuer=INTERMEDIATE)
    assert verify(other, INTERMEDIATE, trust=trust_with(INTERMEDIATE.crl(LEAF.certificate)))


def test_a_revoked_authority() -> None:
    refuses("certificate_revoked", LEAF, INTERMEDIATE, trust=trust_with(ROOT.crl(INTERMEDIATE.certificate)))


def test_one_of_several_crls_is_enough() -> None:
    crls = INTERMEDIATE.crl(), INTERMEDIATE.crl(LEAF.certificate), ROOT.crl()
    refuses("certificate_revoked", LEAF, INTERMEDIATE, trust=trust_with(*crls, require=True))


def test_what_was_revoked_stays_so() -> None:
    old = INTERMEDIATE.crl(LEAF.certificate, begin=NOW - 9 * DAY, end=NOW - 8 * DAY)
    refuses("certificate_revoked", LEAF, INTERMEDIATE, trust=trust_with(old))


def test_a_crl_of_somebody_else_says_nothing() -> None:
    """A serial number is the issuer's, and so is its CRL."""
    stranger = root("Intermediate")
    for crl in (
        ROOT.crl(LEAF.certificate),
        stranger.crl(LEAF.certificate),
        ROOT.crl(LEAF.certificate, issuer=name("Intermediate")),
    ):
        assert verify(LEAF, INTERMEDIATE, trust=trust_with(crl))


def test_an_authority_that_may_not_sign_crls() -> None:
    issuer = ROOT.authority(
        "Intermediate",
        extensions=[
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (key_usage("key_cert_sign"), True),
        ],
    )
    end = leaf_with(issuer=issuer)
    assert verify(end, issuer, trust=trust_with(issuer.crl(end.certificate)))


def test_a_crl_may_be_required_of_every_issuer() -> None:
    present = INTERMEDIATE.crl(), ROOT.crl()
    assert verify(LEAF, INTERMEDIATE, trust=trust_with(*present, require=True))
    for missing in present:
        others = tuple(crl for crl in present if crl is not missing)
        assert verify(LEAF, INTERMEDIATE, trust=trust_with(*others))
        refuses("certificate_not_in_crl", LEAF, INTERMEDIATE, trust=trust_with(*others, require=True))


@pytest.mark.parametrize(("begin", "end"), [(NOW - 2 * DAY, NOW - DAY), (NOW + HOUR, NOW + DAY)])
def test_a_crl_that_is_not_valid_now_clears_nobody(begin: datetime, end: datetime) -> None:
    crls = INTERMEDIATE.crl(begin=begin, end=end), ROOT.crl()
    assert verify(LEAF, INTERMEDIATE, trust=trust_with(*crls))
    refuses("certificate_not_in_crl", LEAF, INTERMEDIATE, trust=trust_with(*crls, require=True))


def test_a_crl_with_more_to_say() -> None:
    """RFC 5280 5.2: a critical extension may narrow what the CRL covers."""
    partial = x509.IssuingDistributionPoint(
        full_name=None,
        relative_name=None,
        only_contains_user_certs=True,
        only_contains_ca_certs=False,
        only_some_reasons=None,
        indirect_crl=False,
        only_contains_attribute_certs=False,
    )
    with pytest.raises(ValueError, match="CRL of CN=Root is indirect, partial or a delta"):
        trust_with(ROOT.crl(extensions=[(partial, True)]))
    assert trust_with(ROOT.crl(extensions=[(x509.CRLNumber(7), False)]))


# Payloads


def test_what_stands_in_cert_payloads() -> None:
    assert certificate_chain([]) == []
    assert certificate_chain([(4, b"leaf"), (7, b"crl"), (4, b"issuer")]) == [b"leaf", b"issuer"]


@pytest.mark.parametrize("encoding", [0, 1, 7, 11, 12, 13, 15, 255])
def test_the_first_must_be_a_certificate(encoding: int) -> None:
    with pytest.raises(Refused, match="certificate_encoding"):
        certificate_chain([(encoding, b"x"), (4, b"leaf")])


@pytest.mark.parametrize("encoding", [12, 13])
def test_nothing_is_fetched(encoding: int) -> None:
    with pytest.raises(Refused, match="certificate_encoding"):
        certificate_chain([(4, b"leaf"), (encoding, bytes(20) + b"http://host.example/ca")])


def test_the_hash_of_an_authority() -> None:
    """RFC 7296 3.7: SHA-1 of the SubjectPublicKeyInfo, all of it."""
    info = ROOT.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert authority_hash(ROOT.certificate) == sha1(info).digest()
    trust = Trust((ROOT.certificate, INTERMEDIATE.certificate))
    assert trust.key_hashes() == sha1(info).digest() + authority_hash(INTERMEDIATE.certificate)


# Hostile octets


def test_too_much() -> None:
    large = leaf_with((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(1 << 16)), False))
    refuses("certificate_too_large", large)
    refuses("certificate_too_large", *[LEAF] * 11)


@pytest.mark.parametrize(
    "octets", [b"", b"\0", b"0", b"0\x80", b"0\x84\xff\xff\xff\xff", LEAF.der[:-1], LEAF.der + b"\0"]
)
def test_what_is_no_certificate(octets: bytes) -> None:
    for chain in ([octets, INTERMEDIATE.der], [LEAF.der, octets], [octets]):
        with pytest.raises(Malformed, match="certificate_malformed"):
            TRUST.verify(chain, IDENTITY, NOW)


CRLS = trust_with(ROOT.crl(), INTERMEDIATE.crl(), require=True)


def accepted(chain: list[bytes]) -> bool:
    try:
        CRLS.verify(chain, IDENTITY, NOW)
    except Refused:
        return False
    return True


def is_the_same(octets: bytes, original: End) -> bool:
    """All that an issuer's signature covers, and the signature."""
    certificate = x509.load_der_x509_certificate(octets)
    signed, signature = original.certificate.tbs_certificate_bytes, original.certificate.signature
    return (certificate.tbs_certificate_bytes, certificate.signature) == (signed, signature)


@pytest.mark.fuzz
@given(st.data())
def test_a_chain_with_changed_octets(data: st.DataObject) -> None:
    """Whatever is changed, somebody refuses it; nothing but that happens."""
    end = data.draw(st.sampled_from([LEAF, INTERMEDIATE]))
    changed = bytearray(end.der)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    chain = [bytes(changed) if each is end else each.der for each in (LEAF, INTERMEDIATE)]
    assert not accepted(chain) or is_the_same(bytes(changed), end)


@pytest.mark.fuzz
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_a_certificate_with_any_one_octet_changed() -> None:
    for at in range(len(LEAF.der)):
        for difference in (0x01, 0x80, 0xFF):
            changed = bytearray(LEAF.der)
            changed[at] ^= difference
            assert not accepted([bytes(changed), INTERMEDIATE.der]) or is_the_same(bytes(changed), LEAF)


def element(tag: int, content: bytes) -> bytes:
    size = len(content).to_bytes(2, "big")
    return bytes((tag, 0x82)) + size + content


def signed(tbs: bytes) -> bytes:
    """A certificate whose issuer put its signature under just these octets."""
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = b"\0" + INTERMEDIATE.key.sign(tbs, ec.ECDSA(SHA256()))
    size = len(signature)
    return element(0x30, tbs + algorithm + bytes((0x03, size)) + signature)


RICH = INTERMEDIATE.issue(
    "Mobile Node",
    names=[
        NAME,
        x509.RFC822Name("mn@example.org"),
        x509.DirectoryName(name("x")),
        x509.IPAddress(IPv6Address(1)),
    ],
    extensions=[
        (key_usage("digital_signature"), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.IPSEC_IKE]), False),
        (x509.BasicConstraints(ca=False, path_length=None), True),
    ],
).certificate.tbs_certificate_bytes


def test_the_signing_by_hand_signs() -> None:
    assert accepted([signed(RICH), INTERMEDIATE.der])


@pytest.mark.fuzz
@settings(max_examples=500)
@given(st.data())
@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
def test_wrong_certificates_that_their_issuer_signed(data: st.DataObject) -> None:
    """What stands behind the signature meets hostile octets too: it is a certificate, or it is refused."""
    changed = bytearray(RICH)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    chain = [signed(bytes(changed)), INTERMEDIATE.der]
    if accepted(chain):
        leaf = x509.load_der_x509_certificate(chain[0])
        assert IDENTITY.matches(leaf)
        assert leaf.not_valid_before_utc <= NOW <= leaf.not_valid_after_utc
