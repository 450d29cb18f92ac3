"""The Wireshark dissector shows what the codec means, in the clear and in ESP, and leaves the rest alone."""

from __future__ import annotations

import random
import re
import struct
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from mip6ha import ipv6, mobility
from mip6ha.binding import messages as binding
from mip6ha.binding.messages import BindingUpdate, MobileNetworkPrefix
from mip6ha.harp.messages import (
    Body,
    Control,
    Hello,
    HomeAgentSwitch,
    StateAcknowledge,
    StateEntry,
    StateReply,
    StateRequest,
    build,
)
from mip6ha.harp.numbers import DEFAULT
from mip6ha.ipsec import esp
from mip6ha.ipsec.algorithms import Keys, transform
from mip6ha.ipsec.policy import Direction
from mip6ha.mobility import Option
from mip6ha.wire import address, text

from ..captured import CAPTURES, CBC_INTEGRITY_KEY, CBC_KEY, GCM_KEY, esp_sa_lines
from ..ipsec.associations import association
from ..octets import CARE_OF_ADDRESS, HOME_ADDRESS, HOME_AGENT, mutations

pytestmark = pytest.mark.tshark

SCRIPT = Path(__file__).parents[2] / "share" / "wireshark" / "harp.lua"
_PEER = address("2001:db8:a::2")
_CONTEXT = bytes(range(250)) * 2
_ENTRY = StateEntry(
    HOME_ADDRESS,
    CARE_OF_ADDRESS,
    0xC400,
    7,
    15,
    (MobileNetworkPrefix(address("2001:db8:5::"), 48),),
    b"\1mn@example",
    b"avps",
    2**63,
    _CONTEXT,
)
_MESSAGES: list[Body] = [
    Hello(0x1234, -2, 30, 10, 7, True, False, True, 2**64 - 1, (1, 2)),
    Hello(2, 5, 30, 10, 7, True, False, True, 3, (1, 2), (), 2**63 + 1, 77, 9),
    Hello(1, 5, 0, 10, 7, False, True, False, None, None, (Option(99, b"new"), Option(98, b""))),
    StateRequest(9, (HOME_ADDRESS, _PEER), b"sum"),
    StateRequest(9),
    StateReply(9, True, (_ENTRY, _ENTRY._replace(home_address=_PEER, context=b"", prefixes=())), 99),
    StateReply(10, False, (StateEntry(HOME_ADDRESS, CARE_OF_ADDRESS, 0x8000, 7, 0),)),
    StateAcknowledge(9, ((0, HOME_ADDRESS), (131, _PEER))),
    Control(0, 0, 3),
    Control(1, 130, 3),
    Control(4, 0, None, (HOME_ADDRESS,)),
    HomeAgentSwitch((_PEER, HOME_AGENT), True),
    HomeAgentSwitch(()),
]


def _fields(message: Body) -> dict[str, list[int | str]]:
    """What the dissector must print of ``message``: names without harp., numbers, addresses, hex."""
    found: dict[str, list[int | str]] = {}

    def say(name: str, *values: int | bytes | None) -> None:
        for value in values:
            if value is not None and value != b"":
                shown = value if isinstance(value, int) else text(value) if len(value) == 16 else value.hex()
                found.setdefault(name, []).append(int(shown) if isinstance(shown, bool) else shown)

    match message:
        case Hello():
            for name in (
                "sequence",
                "preference",
                "lifetime",
                "interval",
                "group",
                "active",
                "solicit",
                "virtual",
            ):
                say(f"hello.{name}", getattr(message, name))
            say("term", message.term)
            say("member", *message.synchronized or ())
            if message.incarnation is not None:
                say("incarnation.own", message.incarnation)
                say("incarnation.echo", message.echo)
                say("incarnation.floor", message.floor)
            say("option.data", *(option.data for option in message.options))
        case StateRequest():
            say("ss.type", 0)
            say("ss.acknowledge", 0)
            say("ss.identifier", message.identifier)
            say("ip_address.prefix_length", *(128 for _ in message.home_addresses))
            say("ip_address.address", *message.home_addresses)
            say("digest", message.digest)
        case StateReply():
            say("ss.type", 1)
            say("ss.acknowledge", message.acknowledge)
            say("ss.identifier", message.identifier)
            say("term", message.term)
            for entry in message.entries:
                say("binding.home_address", entry.home_address)
                say("binding.care_of_address", entry.care_of_address)
                say("binding.flags", entry.flags)
                say("binding.flags.mobile_router", entry.flags >> 10 & 1)
                say("binding.sequence", entry.sequence)
                say("binding.lifetime", entry.lifetime)
                for prefix in entry.prefixes:
                    say("prefix.length", prefix.length)
                    say("prefix.prefix", prefix.prefix)
                if entry.identifier is not None:
                    say("identifier.subtype", entry.identifier[0])
                    say("identifier.value", entry.identifier[1:])
                say("aaa.avps", entry.aaa)
                pieces = [entry.context[at : at + 244] for at in range(0, len(entry.context) or 1, 244)]
                for index, piece in enumerate(pieces if entry.generation else ()):
                    say("context.index", index)
                    say("context.count", len(pieces))
                    say("context.generation", entry.generation)
                    say("context.data", piece)
        case StateAcknowledge():
            say("ss.type", 2)
            say("ss.acknowledge", 0)
            say("ss.identifier", message.identifier)
            say("status.status", *(status for status, _ in message.statuses))
            say("status.home_address", *(home_address for _, home_address in message.statuses))
        case Control():
            say("control.type", message.type)
            say("control.status", message.status if message.type in (1, 3) else None)
            say("term", message.term)
            say("ip_address.prefix_length", *(128 for _ in message.home_addresses))
            say("ip_address.address", *message.home_addresses)
        case HomeAgentSwitch():
            say("switch.count", len(message.addresses))
            say("switch.rekey", message.rekey)
            say("switch.address", *message.addresses)
    return found


_NAMES = sorted({"type", *(name for message in _MESSAGES for name in _fields(message))})


def _capture(path: Path, packets: list[bytes]) -> Path:
    """A pcap file of IPv6 packets without a link layer."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    records = (struct.pack("<IIII", 0, 0, len(packet), len(packet)) + packet for packet in packets)
    path.write_bytes(head + b"".join(records))
    return path


def _tshark(capture: Path, *arguments: str, script: bool = True) -> str:
    chosen = ["-X", f"lua_script:{SCRIPT}"] if script else []
    command = ["tshark", "-n", *chosen, "-r", str(capture), *arguments]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    assert "Lua Error" not in result.stdout + result.stderr
    return result.stdout


def _value(printed: str) -> int | str:
    if printed in ("True", "False"):
        return int(printed == "True")
    try:
        return int(printed, 0)
    except ValueError:
        return printed.replace(":", "") if "::" not in printed and printed.count(":") != 7 else printed


def _printed(capture: Path, *arguments: str) -> list[dict[str, list[int | str]]]:
    """The dissector's fields of every packet."""
    chosen = [part for name in _NAMES for part in ("-e", f"harp.{name}")]
    lines = _tshark(
        capture, *arguments, "-T", "fields", "-E", "separator=;", "-E", "aggregator=|", *chosen
    ).split("\n")[:-1]
    octets = {"aaa.avps", "context.data", "digest", "identifier.value", "option.data"}
    return [
        {
            name: [one.replace(":", "") if name in octets else _value(one) for one in values.split("|")]
            for name, values in zip(_NAMES, line.split(";"), strict=True)
            if values
        }
        for line in lines
    ]


def _packet(message: Body, numbers: object = DEFAULT) -> bytes:
    octets = build(message, HOME_AGENT, _PEER, numbers)  # type: ignore[arg-type]
    return ipv6.build(HOME_AGENT, _PEER, ipv6.MOBILITY, octets)


def _type(message: Body) -> int:
    return build(message, HOME_AGENT, _PEER)[2]


def test_every_field_in_the_clear(tmp_path: Path) -> None:
    capture = _capture(tmp_path / "plain.pcap", [_packet(message) for message in _MESSAGES])
    expected = [{"type": [_type(message)]} | _fields(message) for message in _MESSAGES]
    assert _printed(capture) == expected


@pytest.mark.parametrize("kind", ["cbc", "gcm"])
def test_every_field_inside_esp(kind: str, tmp_path: Path) -> None:
    if kind == "gcm":
        chosen, keys = transform("aes-gcm-16"), Keys(GCM_KEY)
    else:
        chosen, keys = transform("aes-cbc", "hmac-sha2-256-128"), Keys(CBC_KEY, CBC_INTEGRITY_KEY)
    sender = association(chosen, Direction.OUT, keys=keys)
    packets = []
    for message in _MESSAGES:
        octets = build(message, HOME_AGENT, _PEER)
        sealed = esp.protect(sender, ipv6.MOBILITY, octets, random.Random(1).randbytes)
        packets.append(ipv6.build(HOME_AGENT, _PEER, ipv6.ESP, sealed))
    printed = _printed(
        _capture(tmp_path / "esp.pcap", packets),
        "-o",
        "esp.enable_encryption_decode:TRUE",
        "-o",
        f'uat:esp_sa:"IPv6","*","*","*",{esp_sa_lines()[kind]}',
    )
    assert printed == [{"type": [_type(message)]} | _fields(message) for message in _MESSAGES]


def test_numbers_come_from_preferences(tmp_path: Path) -> None:
    other = replace(DEFAULT, hello=200, term=100, context=101, binding_cache_information=102)
    chosen = [_MESSAGES[0], _MESSAGES[5]]
    capture = _capture(tmp_path / "other.pcap", [_packet(message, other) for message in chosen])
    preferences = ("hello:200", "term:100", "context:101", "binding_cache_information:102")
    printed = _printed(capture, *(part for name in preferences for part in ("-o", f"harp.{name}")))
    assert printed == [{"type": [200]} | _fields(chosen[0]), {"type": [240]} | _fields(chosen[1])]


def test_a_line_for_people(tmp_path: Path) -> None:
    capture = _capture(tmp_path / "plain.pcap", [_packet(message) for message in _MESSAGES])
    lines = _tshark(capture, "-T", "fields", "-e", "_ws.col.Info").splitlines()
    assert lines == [
        "HA-HELLO seq=4660 group=7 active",
        "HA-HELLO seq=2 group=7 active",
        "HA-HELLO seq=1 group=7 standby R leaving",
        "SS-REQ id=9 2 wanted",
        "SS-REQ id=9",
        "SS-REP id=9 A 2 bindings",
        "SS-REP id=10 1 bindings",
        "SS-ACK id=9 2 statuses",
        "SWO-REQ",
        "SWO-REP: not the active home agent",
        "SW-COMP",
        "Home Agent Switch, 2 addresses, re-key",
        "Home Agent Switch, 0 addresses",
    ]


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
def test_other_mobility_headers_look_as_they_did(path: Path) -> None:
    keys = esp_sa_lines()["gcm" if "gcm" in path.name else "cbc"]
    options = ("-o", "esp.enable_encryption_decode:TRUE", "-o", f'uat:esp_sa:"IPv6","*","*","*",{keys}')
    show = partial(_tshark, path, *options, "-T", "pdml")
    # The head tells the time of day.
    with_script, without = (show(script=script).partition("<packet>")[2] for script in (True, False))
    # Wireshark leaves two traces of any script that it asked: a hidden item, a name in the list of protocols.
    hidden = r' *<proto name="fake-field-wrapper">\n.*_ws\.lua\.fake.*\n *</proto>\n'
    assert re.sub(rf"{hidden}|\bharp:", "", with_script) == without
    assert "mip6.mhtype" in without


def test_a_binding_update_between_our_messages(tmp_path: Path) -> None:
    update = binding.build(BindingUpdate(7, 0xC000, 15), HOME_ADDRESS, HOME_AGENT)
    packets = [
        _packet(_MESSAGES[0]),
        ipv6.build(HOME_ADDRESS, HOME_AGENT, ipv6.MOBILITY, update),
        _packet(_MESSAGES[3]),
    ]
    capture = _capture(tmp_path / "mixed.pcap", packets)
    fields = ("-T", "fields", "-e", "mip6.mhtype", "-e", "mip6.bu.seqnr", "-e", "harp.type")
    assert _tshark(capture, *fields).splitlines() == ["\t\t242", "5\t7\t", "\t\t240"]


def test_broken_messages_are_marked_and_break_nothing(tmp_path: Path) -> None:
    short = mobility.build(242, bytes(10), HOME_AGENT, _PEER)
    option = mobility.build(241, b"\0\0\xf4\x20" + bytes(6), HOME_AGENT, _PEER)
    length = mobility.build(241, b"\0\0\xf4\x02" + bytes(6), HOME_AGENT, _PEER)
    addresses = mobility.build(12, b"\2\0" + bytes(16), HOME_AGENT, _PEER)
    whole = build(_MESSAGES[5], HOME_AGENT, _PEER)
    packets = [
        ipv6.build(HOME_AGENT, _PEER, ipv6.MOBILITY, data)
        for data in (short, option, length, addresses, whole[:40])
    ]
    capture = _capture(tmp_path / "broken.pcap", packets)
    marks = _tshark(capture, "-T", "fields", "-e", "_ws.expert.message").splitlines()
    assert marks == [
        "It ends too early",
        "It ends too early",
        "The option's length is wrong",
        *["It ends too early"] * 2,
    ]
    hostile = [
        ipv6.build(HOME_AGENT, _PEER, ipv6.MOBILITY, data)
        for number, message in enumerate(_MESSAGES)
        for data in mutations(build(message, HOME_AGENT, _PEER), random.Random(number).random, 60)
    ]
    # What is not a message of ours is Wireshark's to dissect; _tshark refuses any error of the script.
    _tshark(_capture(tmp_path / "hostile.pcap", hostile), "-V")
