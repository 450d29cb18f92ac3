"""The direction of imports, and that nothing pure touches the world (design: one way, outwards)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "mip6ha"

# What each part may import of the package. A part is the longest entry that names the module or a package
# around it; a part may always import itself.
ALLOWED: dict[str, set[str]] = {
    "wire": set(),
    "effects": {"ipsec"},
    "ipv6": {"wire"},
    "mobility": {"wire", "ipv6"},
    "icmpv6": {"wire", "ipv6"},
    "udp": {"wire", "ipv6"},
    "binding": {"wire", "ipv6", "mobility", "icmpv6"},
    "ipsec": {"wire", "ipv6", "mobility", "icmpv6", "rate"},
    "harp": {"wire", "ipv6", "mobility", "icmpv6", "binding", "ipsec"},
}
ALLOWED["failover"] = ALLOWED["harp"] | {"harp"}
ALLOWED["parameters"] = {"wire", "binding", "ipsec", "harp"}
_CORES = ALLOWED["failover"] | {"failover", "parameters", "effects", "udp"}
ALLOWED["tunnel"] = ALLOWED["binding"]
ALLOWED["rate"] = set()
ALLOWED["associations"] = _CORES
ALLOWED["forwarding"] = _CORES | {"associations", "tunnel"}
ALLOWED["signalling"] = ALLOWED["negotiation"] = _CORES | {"associations"}
ALLOWED["refusals"] = _CORES | {"rate"}
ALLOWED["discovery"] = _CORES | {"signalling"}
_CORES = ALLOWED["forwarding"] | {"forwarding", "rate", "signalling", "negotiation"}
ALLOWED["mobile_nodes"] = ALLOWED["lending"] = _CORES
ALLOWED["views"] = {"wire", "binding", "harp"}
_CORES |= {"refusals", "discovery", "mobile_nodes", "views", "lending"}
ALLOWED["node"] = _CORES
ALLOWED["mobile"] = _CORES
ALLOWED["numbering"] = {"wire", "effects", "ipsec", "associations", "parameters"}
ALLOWED["channel"] = ALLOWED["numbering"] | {"harp", "ipv6"}
ALLOWED["member_keys"] = ALLOWED["channel"] | {"channel"}
ALLOWED["replica"] = _CORES | {"node", "numbering"}
ALLOWED["switching"] = ALLOWED["replica"] | {"replica"}
ALLOWED["journaling"] = {"effects"}
ALLOWED["contexts"] = ALLOWED["replica"] | {"replica", "journaling"}
ALLOWED["journaled"] = ALLOWED["contexts"] | {"journaling"}
ALLOWED["hellos"] = ALLOWED["inquiries"] = _CORES
ALLOWED["member"] = ALLOWED["contexts"] | {"channel", "contexts", "switching", "journaling"}
ALLOWED["reconfiguration"] = ALLOWED["contexts"] | {"contexts"}
ALLOWED["commits"] = ALLOWED["exchange"] = ALLOWED["member"] | {"inquiries"}
ALLOWED["member"] |= {"hellos", "inquiries", "member_keys", "commits", "exchange", "reconfiguration"}
_OUTSIDE = _CORES | {"mobile", "node", "member", "tables", "group_config", "config", "mobile_config", ""}
_OUTSIDE |= {"ike_config", "journaled"}
ALLOWED["tables"] = _CORES
ALLOWED["group_config"] = _CORES | {"tables", "ike_config", "ike_texts"}
ALLOWED["config"] = ALLOWED["replica"] | {"replica", "tables", "group_config", "ike_config"}
ALLOWED["edge"] = _OUTSIDE
ALLOWED["mobile_config"] = ALLOWED["config"] | {"mobile", "ike_texts"}
ALLOWED["ike_texts"] = {"ipsec"}
ALLOWED["ike_config"] = ALLOWED["tables"] | {"tables", "ike_texts"}
_PROGRAMS = _OUTSIDE | {"edge"}
ALLOWED["ike_cli"] = _PROGRAMS
ALLOWED["cli"] = _PROGRAMS | {"ike_cli"}
ALLOWED["mobile_cli"] = _PROGRAMS
ALLOWED["__main__"] = {"cli"}
ALLOWED[""] = set()

IMPURE = {"tables", "group_config", "config", "mobile_config", "edge", "cli", "mobile_cli", "__main__"}
IMPURE |= {"ike_config", "ike_cli"}
WORLD = {
    "asyncio",
    "multiprocessing",
    "os",
    "pathlib",
    "pyroute2",
    "random",
    "scapy",
    "secrets",
    "select",
    "signal",
    "socket",
    "subprocess",
    "threading",
    "time",
    "twisted",
}


def part(module: str) -> str:
    """The entry of ``ALLOWED`` that a module below the package belongs to."""
    first = module.split(".", maxsplit=1)[0]
    assert first in ALLOWED, f"{module} is in no layer: give it one here"
    return first


def imports(source: str, module: str, *, package: bool) -> Iterator[tuple[int, str]]:
    """Every imported module as (line, absolute name), wherever in the file the import stands.

    ``module`` is the importing module's name below mip6ha, "" for the package itself.
    """
    parents = ["mip6ha", *filter(None, module.split("."))]
    if not package:
        parents.pop()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = parents[: len(parents) - node.level + 1] if node.level else []
            name = ".".join([*base, *filter(None, [node.module])])
            for alias in node.names:
                # `from . import x` names a module; `from .x import y` may name one or something in it.
                yield node.lineno, f"{name}.{alias.name}"


def offences(source: str, module: str, *, package: bool = False) -> list[str]:
    """What is wrong with the imports of a module."""
    own = part(module)
    found = []
    for line, name in imports(source, module, package=package):
        top, _, below = name.partition(".")
        if top == "mip6ha":
            first = below.split(".")[0]
            other = "" if first.startswith("__") else part(below)
            if other != own and other not in ALLOWED[own]:
                found.append(f"{module}:{line} imports {name}: {own or 'mip6ha'} may not import {other}")
        elif top in WORLD and own not in IMPURE:
            found.append(f"{module}:{line} imports {name}: {own} is pure")
    return found


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of the package: its name below mip6ha, and its file."""
    for path in sorted(ROOT.rglob("*.py")):
        names = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(names[:-1] if names[-1] == "__init__" else names), path


def test_imports_point_one_way() -> None:
    found = [
        offence
        for module, path in modules()
        for offence in offences(path.read_text(), module, package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


def test_the_whole_package_is_seen() -> None:
    assert {"wire", "binding.messages", "ipsec.esp", "node", "edge.service", "cli"} <= dict(modules()).keys()


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from .ipv6 import parse", "wire"),
        ("from ..ipsec import esp", "binding.registration"),
        ("from ..ipsec.esp import protect", "binding.registration"),
        ("from mip6ha.binding.messages import Status", "ipsec.sad"),
        ("import mip6ha.node", "binding.registration"),
        ("from .. import node", "failover.machine"),
        ("from .edge.service import run", "node"),
        ("from .config import load", "node"),
        ("from .wire import text", "effects"),
        ("from ..failover import context", "harp.sync"),
        ("import time", "node"),
        ("from time import monotonic", "binding.cache"),
        ("import twisted.internet", "node"),
        ("def late():\n    import socket", "ipsec.esp"),
        ("if True:\n    from random import random", "parameters"),
        ("from ..cli import main", "edge.service"),
    ],
)
def test_a_wrong_import_is_found(source: str, module: str) -> None:
    assert len(offences(source, module)) == 1


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("from ..wire import text", "binding.messages"),
        ("from . import messages", "binding.registration"),
        ("from .binding.messages import Status\nfrom .ipsec import esp", "node"),
        ("import time\nfrom ..node import HomeAgent", "edge.service"),
        ("from . import __version__", "cli"),
        ("from .binding.messages import Status\nfrom .ipsec.sad import counter_limit", "parameters"),
    ],
)
def test_a_right_import_is_not(source: str, module: str) -> None:
    assert not offences(source, module)


def test_a_module_without_a_layer_is_found() -> None:
    with pytest.raises(AssertionError, match="no layer"):
        part("newcomer.thing")
