"""20,000 mutated messages between members: each applies wholly or not at all, and service goes on."""

from __future__ import annotations

import pytest

from .members import MUTATIONS_IN_A_ROUND, Round, rounds

ROUNDS = 20_000 // MUTATIONS_IN_A_ROUND


@pytest.mark.fuzz
def test_twenty_thousand_mutated_messages() -> None:
    total = rounds(0, ROUNDS)
    # They came everywhere: past the cryptography, past the codec, into contexts, roles and switches.
    for reason in [
        "changed",
        "contexts_applied",
        "contexts_known",
        "contexts_merged",
        "harp_bad_icv",
        "harp_replayed",
        "harp_unknown_spi",
        "harp_truncated_esp",
        "harp_selector_mismatch",
        "harp_mobility_header_checksum",
        "harp_mobility_header_length",
        "harp_truncated_mobility_option",
        "harp_mobility_option_length",
        "harp_repeated_option",
        "harp_context_fragment",
        "harp_context_incomplete",
        "harp_context_schema",
        "harp_context_algorithm",
        "harp_context_binding",
        "harp_context_of_another",
        "harp_unknown_state_synchronization_type",
        "harp_unknown_control_type",
        "harp_foreign_group",
        "harp_stale_hello",
        "harp_stale_term",
        "harp_stale_control",
        "harp_unasked_state",
        "harp_term_out_of_range",
    ]:
        assert total[reason], reason


@pytest.mark.parametrize("seed", [0, 1])
def test_a_round_is_the_same_every_time(seed: int) -> None:
    assert Round(seed).run(60) == Round(seed).run(60)
