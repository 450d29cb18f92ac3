"""docs/roles.md is made from the table of transitions: ``python -m tests.test_roles_page`` writes it."""

from __future__ import annotations

import ast
from pathlib import Path

from mip6ha.failover import states
from mip6ha.failover.states import TRANSITIONS, Role

PAGE = Path(__file__).parent.parent / "docs" / "roles.md"


def roles() -> dict[str, str]:
    """Each role's own words, from the source."""
    (found,) = (
        node
        for node in ast.parse(Path(states.__file__).read_text()).body
        if isinstance(node, ast.ClassDef) and node.name == "Role"
    )
    names = [str(each.value.value) for each in found.body if isinstance(each, ast.Assign)]  # type: ignore[attr-defined]
    words = [
        str(each.value.value)
        for each in found.body[1:]
        if isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
    ]
    return dict(zip(names, words, strict=True))


def page() -> str:
    """The page as the table has it."""
    lines = ["# Roles of a member", "", "Made from the table in `mip6ha/failover/states.py`.", ""]
    words = roles()
    lines += ["| role | |", "| --- | --- |"]
    lines += [f"| **{role.value}** | {words[role.value]} |" for role in Role]
    lines += ["", "```"]
    for role, events in TRANSITIONS.items():
        lines.append(role.value)
        lines += [f"    -- {event.value} --> {after.value}" for event, after in events.items()]
    return "\n".join([*lines, "```", ""])


def test_the_page_of_roles_is_what_the_table_says() -> None:
    assert PAGE.read_text() == page()


if __name__ == "__main__":
    PAGE.write_text(page())
