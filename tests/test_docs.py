"""The documentation names everything that a reader would look up there, and its examples work."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from mip6ha import config, ike_config, mobile_config, tables
from mip6ha.binding.messages import Status
from mip6ha.ipsec.algorithms import ENCRYPTION, INTEGRITY
from mip6ha.ipsec.policy import Use

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(DOCS.glob("*.md"))]

# Parts with pages of their own.
ELSEWHERE = {"harp", "failover"}
COUNTERS = {"self.counters", "self._counters"}
REFUSALS = {"Refused", "Malformed", "UnknownMessage", "_UnknownBinding"}


def calls() -> Iterator[tuple[str, ast.Call]]:
    for path in sorted((ROOT / "mip6ha").rglob("*.py")):
        if path.parent.name in ELSEWHERE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                function = node.func
                if isinstance(function, ast.Name):
                    yield function.id, node
                elif isinstance(function, ast.Attribute):
                    yield function.attr, node


def reasons() -> set[str]:
    """Every reason to drop a packet that stands in the source."""
    return {
        str(node.args[0].value)
        for name, node in calls()
        if name in REFUSALS and node.args and isinstance(node.args[0], ast.Constant)
    }


def counters() -> set[str]:
    """Every counter that the home agent's core counts under a name of its own."""
    found = set()
    for name in ("node.py", "forwarding.py"):
        for node in ast.walk(ast.parse((ROOT / "mip6ha" / name).read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) in {
                "self.counters",
                "self._counters",
            }:
                found |= {
                    str(each.value)
                    for each in ast.walk(node.slice)
                    if isinstance(each, ast.Constant) and re.fullmatch(r"[a-z_]+[a-z]", str(each.value))
                }
    return found


def named(page: str) -> set[str]:
    """What a page names in code type."""
    text = re.sub(r"^```.*?^```", "", (DOCS / page).read_text(), flags=re.S | re.M)
    return set(re.findall(r"`([^`\n]+)`", text))


def test_every_drop_reason_is_documented() -> None:
    assert len(reasons()) > 60
    assert not reasons() - named("home-agent.md") - named("failover.md") - named("ike.md")


def test_no_documented_drop_reason_is_gone() -> None:
    text = (DOCS / "home-agent.md").read_text().split("### Drop reasons")[1]
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert not {name for row in rows for name in re.findall(r"`(\w+)`", row)} - reasons()


def test_every_counter_is_documented() -> None:
    assert len(counters()) > 10
    assert not counters() - named("home-agent.md")


def test_every_status_that_is_sent_is_documented() -> None:
    sent = {
        Status[node.attr]
        for name in ("registration.py", "authentication.py")
        for node in ast.walk(ast.parse((ROOT / "mip6ha/binding" / name).read_text()))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Status"
    }
    text = (DOCS / "home-agent.md").read_text().split("### Statuses")[1].split("##")[0]
    assert set(map(int, re.findall(r"^\| (\d+) \|", text, re.M))) == sent


def test_every_transform_and_use_is_documented() -> None:
    assert {*ENCRYPTION, *INTEGRITY, *Use} - {Use.HARP} <= named("esp.md")


def tables_of(model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """A table and those inside it, with the key each stands under."""
    for key, field in model.model_fields.items():
        for inner in models_in(field.annotation):
            yield key, inner
            yield from tables_of(inner)


def models_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in get_args(annotation) for found in models_in(argument)]


@pytest.mark.parametrize(
    "model",
    [config._File, mobile_config._File, mobile_config._LoadFile, ike_config._File, tables.KeyTable],
)
def test_every_configuration_key_is_documented(model: type[BaseModel]) -> None:
    keys = set(model.model_fields) if model is tables.KeyTable else set()
    for key, table in tables_of(model):
        keys |= {key, *table.model_fields}
    assert keys
    text = (DOCS / "configuration.md").read_text()
    assert not {key for key in keys if not re.search(rf"`\[*(mobile_node\.)?{key}\]*`", text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_in_toml_are_toml(page: Path) -> None:
    for block in re.findall(r"```toml\n(.*?)```", page.read_text(), re.S):
        tomllib.loads(block)


def test_the_quick_start_is_usable(tmp_path: Path) -> None:
    home_agent, mobile_node = re.findall(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    for name in ("ha", "mn"):
        keys = tmp_path / f"{name}.keys"
        keys.touch(mode=0o600)
        keys.write_text(f'[update]\nencryption = "{"11" * 20}"\n[answer]\nencryption = "{"22" * 20}"\n')
    (tmp_path / "ha.toml").write_text(home_agent)
    (tmp_path / "mn.toml").write_text(mobile_node)
    loaded = config.load(tmp_path / "ha.toml")
    assert not loaded.warnings
    assert len(loaded.parameters.mobile_nodes[0].associations) == 2
    assert len(mobile_config.load(tmp_path / "mn.toml").parameters.associations) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert not [link for link in local if not (page.parent / link).exists()]
