"""The table of numbers, and that page, dissector and code agree about it."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import pytest

from mip6ha.harp import messages
from mip6ha.harp.numbers import DEFAULT, Numbers

_ROOT = Path(__file__).parents[2]


def test_the_numbers_are_those_of_the_page() -> None:
    assert asdict(DEFAULT) == {
        "state_synchronization": 240,
        "control": 241,
        "hello": 242,
        "home_agent_switch": 12,
        "ip_address": 240,
        "binding_cache_information": 241,
        "synchronization_status": 242,
        "aaa_information": 243,
        "term": 244,
        "context": 245,
        "synchronized_members": 246,
        "digest": 247,
        "incarnation": 248,
    }


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"hello": 241}, "hello is 241, which control uses"),
        ({"control": 5}, "control is 5, which binding registration uses"),
        ({"hello": 256}, "hello is 256"),
        ({"hello": -1}, "hello is -1"),
        ({"term": 245}, "context is 245, which term uses"),
        ({"term": 1}, "term is 1, which"),
        ({"context": 6}, "context is 6, which"),
        ({"aaa_information": 300}, "aaa_information is 300"),
    ],
)
def test_numbers_that_clash_are_refused(changes: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Numbers(**changes)


def test_the_page_has_these_numbers_and_alignments() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (.*?) \|$", (_ROOT / "docs" / "harp.md").read_text(), re.M)
    assert {name: int(number) for name, number, _ in rows} == asdict(DEFAULT)
    rules = messages._rules(DEFAULT)
    for _, number, what in rows:
        if what.startswith("option"):
            rule = rules[int(number)]
            at = re.search(r"at (\d)n\+(\d)", what)
            assert (rule.align, rule.at) == ((int(at[1]), int(at[2])) if at else (1, 0))


def test_the_page_names_every_refusal() -> None:
    raised = set()
    for name in ("messages.py", "entries.py"):
        source = (_ROOT / "mip6ha" / "harp" / name).read_text()
        raised |= set(re.findall(r'(?:Malformed|UnknownMessage|Fault)\("(\w+)"', source))
    page = (_ROOT / "docs" / "harp.md").read_text().split("## What is refused")[1]
    assert len(raised) >= 9
    assert not raised - set(re.findall(r"`(\w+)`", page))


def test_the_dissector_has_these_numbers() -> None:
    script = (_ROOT / "share" / "wireshark" / "harp.lua").read_text()
    table = script.split("local NUMBERS")[1].split("for _")[0]
    assert {name: int(number) for name, number in re.findall(r'"(\w+)", (\d+)', table)} == asdict(DEFAULT)
