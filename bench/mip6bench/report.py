"""Figures for people and for programs: progress, the table with targets, the JSON document."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import mip6ha

__all__ = ["document", "progress", "show"]

Figures = Mapping[str, Any]

_MEANING = {
    "bu_refresh_us": "refresh, Binding Update to sealed acknowledgement, µs",
    "aesgcm_open_100_us": "one AESGCM.decrypt of 100 octets, µs",
    "bu_refresh_ratio": "the refresh in decryptions",
    "bu_refresh_us_by_bindings": "refresh spread over all bindings, µs",
    "first_registration_us": "first registration, µs",
    "bytes_per_binding": "memory per binding, octets",
    "bytes_per_binding_aged": "the same, replay windows filled, octets",
    "expiry_us": "expiry, per binding, all at once, µs",
    "idle_timer_us": "timer with nothing due, µs",
    "tunnel_out_us": "packet into the tunnel, µs",
    "tunnel_in_us": "packet out of the reverse tunnel, µs",
    "tun_bu_per_s": "Binding Updates answered a second, whole daemon",
    "tun_registrations_per_s": "first registrations answered a second, whole daemon",
    "tun_round_trip_ms": "round trip of a single Binding Update, whole daemon, ms",
    "tun_burst_of_1000_answered": "answered of 1,000 Binding Updates sent at once",
    "resync_bytes_per_context": "full resynchronisation, octets of ESP per context",
    "resync_us_per_context": "the same, processor time of each side per context, µs",
    "resync_s": "the same, 100,000 contexts, until the standby counts, s",
    "resync_peak_mib": "the same, largest resident set of each process, MiB",
    "bytes_per_context": "memory of a member per context, octets",
    "takeover_ms_by_contexts": "take-over in the core until an answer leaves, ms",
    "sync_ack_rate_ratio": "Binding Updates a second with a standby, of those without a set",
    "sync_bu_per_s": "Binding Updates answered a second, measured in turn",
    "ike_psk_responder_core_ms": "an IKE SA with a child, responder, processor time in the core, ms",
    "ike_psk_responder_cpu_ms": "the same of the whole program, ms",
    "charon_psk_responder_cpu_ms": "the same of strongSwan, ms",
    "bytes_per_ike_sa": "memory of an IKE SA with its child in the core, octets",
    "kernel_request_us": "netlink requests, one of many in a row, µs",
    "kernel_changes_per_s": "kernel dataplane, changes of a mobile node a second",
    "kernel_change_messages": "the same, netlink messages each",
    "kernel_takeover": "kernel dataplane, taking over with 2,000 mobile nodes",
    "kernel_payload_us": "payload lent to the kernel, a mobile node, µs",
    "kernel_payload_messages": "the same, netlink messages",
    "kernel_compare_ms": "comparing 2,000 tunnels, 1,000 loans, ms",
    "kernel_compare_steps": "the same, steps",
    "sync_processor_us_per_bu": "processor time of each daemon per Binding Update, µs",
}


class Target(NamedTuple):
    """A figure that must not exceed ``limit``; with ``least``, must reach it."""

    name: str
    limit: float
    of: Callable[[Figures], float]
    least: bool = False

    def is_met(self, value: float) -> bool:
        """Whether the figure is as it should be."""
        return value >= self.limit if self.least else value <= self.limit

    @property
    def words(self) -> str:
        """The limit for people."""
        return f"{'≥' if self.least else '≤'} {_shown(self.limit)}"


TARGETS = (
    Target("bu_refresh_ratio", 80, lambda figures: figures["bu_refresh_ratio"]),
    Target("bytes_per_binding 100000", 4096, lambda figures: figures["bytes_per_binding"]["100000"]),
    Target(
        "bu_refresh_us_by_bindings 100000 / 1000",
        1.3,
        lambda figures: (
            figures["bu_refresh_us_by_bindings"]["100000"] / figures["bu_refresh_us_by_bindings"]["1000"]
        ),
    ),
    Target("resync_bytes_per_context", 1500, lambda figures: figures["resync_bytes_per_context"]),
    *(
        Target(
            f"resync_us_per_context {side}",
            150,
            lambda figures, side=side: figures["resync_us_per_context"][side],  # type: ignore[misc]
        )
        for side in ("active", "standby")
    ),
    Target(
        "takeover_ms_by_contexts 100000 - 1",
        10,
        lambda figures: (
            figures["takeover_ms_by_contexts"]["100000"] - figures["takeover_ms_by_contexts"]["1"]
        ),
    ),
    Target("bytes_per_context", 4096, lambda figures: max(figures["bytes_per_context"].values())),
    Target("sync_ack_rate_ratio", 0.6, lambda figures: figures["sync_ack_rate_ratio"], least=True),
    Target(
        "ike_psk_responder_cpu_ms / charon",
        1,
        lambda figures: figures["ike_psk_responder_cpu_ms"] / figures["charon_psk_responder_cpu_ms"],
    ),
)


def _reached(figures: Figures) -> Iterator[tuple[Target, float]]:
    for target in TARGETS:
        try:
            yield target, target.of(figures)
        except KeyError:
            continue


def document(figures: Figures) -> dict[str, object]:
    """What goes into bench.json: every figure, the targets, and what it was measured with."""
    targets = {
        target.name: {"value": value, "limit": target.limit, "met": target.is_met(value)}
        for target, value in _reached(figures)
    }
    software = {
        "mip6ha": mip6ha.__version__,
        "python": platform.python_version(),
        "cryptography": version("cryptography"),
    }
    return {**figures, "targets": targets, "software": software}


def progress() -> Progress:
    """A progress bar on standard error."""
    return Progress(
        TextColumn("{task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def show(figures: Figures) -> None:
    """Print every figure, then the targets."""
    # A pipe has no width; do not cut what goes there.
    console = Console() if sys.stdout.isatty() else Console(width=120)
    table = Table()
    table.add_column("figure", no_wrap=True)
    table.add_column("meaning")
    table.add_column("for", no_wrap=True)
    table.add_column("value", justify="right")
    for name, value in figures.items():
        if isinstance(value, Mapping):
            rows = list(value.items())
            table.add_row(name, _MEANING.get(name, ""), rows[0][0], _shown(rows[0][1]))
            for key, each in rows[1:]:
                table.add_row("", "", key, _shown(each))
        else:
            table.add_row(name, _MEANING.get(name, ""), "", _shown(value))
    console.print(table)
    targets = Table("target")
    for column in ("value", "limit"):
        targets.add_column(column, justify="right")
    targets.add_column("")
    for target, value in _reached(figures):
        met = "[green]met[/]" if target.is_met(value) else "[red]missed[/]"
        targets.add_row(target.name, _shown(value), target.words, met)
    if targets.row_count:
        console.print(targets)
