"""Every scenario with the kernel's dataplane, and with both kinds of dataplane at once."""

from __future__ import annotations

import pytest

from .kernel_runs import PERFORMED, RUNS

# Others may have to perform first.
pytestmark = [pytest.mark.kernel, pytest.mark.netns, pytest.mark.tshark, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("name", RUNS)
def test_all_checks_pass(name: str, pytestconfig: pytest.Config) -> None:
    ran = pytestconfig.stash[PERFORMED][name].result()
    assert not ran.failed
    assert ran.status == 0
