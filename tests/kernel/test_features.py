"""What the kernel dataplane needs is here, and what is found out leaves nothing behind."""

from __future__ import annotations

import json
import subprocess

from mip6ha.edge.features import kernel_features


def links() -> set[str]:
    listed = subprocess.run(["ip", "-json", "link"], capture_output=True, text=True, check=True).stdout
    return {link["ifname"] for link in json.loads(listed)}


def test_everything_is_there() -> None:
    before = links()
    found = kernel_features()
    assert found.missing == ()
    assert found.macvlan == ""
    assert links() == before
