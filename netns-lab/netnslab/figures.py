"""Pictures of a run: probe latency and loss in both directions over time, with events and outages."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from .probes import Phase, Stream
from .roles import RoleSpan
from .timeline import Mark

__all__ = ["draw", "inline_svg", "save"]

mpl.use("Agg")

_MARKED = {
    "carrier_down": ("tab:red", "carrier down"),
    "carrier_up": ("tab:green", "carrier up"),
    "router_advertisement": ("tab:olive", "RA"),
    "care_of_address": ("tab:blue", "care-of address"),
    "binding_update_sent": ("tab:purple", "BU"),
    "binding_acknowledged": ("tab:brown", "BA"),
    "deregistered": ("black", "de-registered"),
    "at_home": ("tab:cyan", "at home"),
    "fault": ("black", "fault"),
    "healed": ("tab:green", "healed"),
    "member_failed": ("tab:orange", "member missed"),
    "active": ("tab:pink", "active"),
    "stopping": ("tab:gray", "SIGTERM"),
    "replayed": ("tab:olive", "replay"),
    "switchover": ("tab:cyan", "switchover"),
    "switchback": ("tab:cyan", "switchback"),
}
_ROLES = {
    "active": "tab:green",
    "yielding": "yellowgreen",
    "claiming": "tab:orange",
    "standby": "lightsteelblue",
    "starting": "gainsboro",
}
_MOST_SHAPES = 3000
# A span narrower than this part of the picture has no room for its term.
_LABELLED = 0.06


def draw(
    streams: Sequence[Stream],
    marks: Sequence[Mark],
    outages: Sequence[Phase],
    *,
    zero: float,
    window: tuple[float, float],
    title: str,
    roles: Sequence[RoleSpan] = (),
) -> Any:
    """A figure of one window (monotonic times); one panel per direction, and one with a lane per member."""
    lanes = len({span.member for span in roles})
    heights = [2.2] * len(streams) + [0.4 + 0.25 * lanes] * bool(lanes)
    figure = Figure(figsize=(11, 1.6 + sum(heights)), layout="constrained")
    rows = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    panels = rows[: len(streams)]
    start, end = window
    legend: dict[str, Any] = {}
    if lanes:
        _draw_roles(rows[-1], roles, zero=zero, window=window, legend=legend)
    for panel, stream in zip(panels, streams, strict=True):
        inside = [sample for sample in stream.samples if start <= sample.sent <= end]
        there = [
            (sample.sent - zero, sample.received - sample.sent)
            for sample in inside
            if sample.received is not None
        ]
        missing = [sample.sent - zero for sample in inside if sample.received is None]
        if there:
            panel.plot(
                *zip(*((when, late * 1000) for when, late in there), strict=True),
                ".",
                ms=3,
                color="tab:blue",
                # Beyond this as pixels: a picture of all of them as shapes has megabytes.
                rasterized=len(there) > _MOST_SHAPES,
            )
        panel.plot(missing, [0.02] * len(missing), "|", ms=9, color="tab:red")
        panel.set_yscale("log")
        panel.set_ylim(0.01, 2000)
        panel.set_ylabel("latency, ms")
        lost = f"{len(missing)} of {len(inside)} lost" if inside else "nothing sent"
        panel.set_title(f"{stream.name.replace('_', ' ')}: {lost}", fontsize=9, loc="left")
        for outage in outages:
            if outage.start < end and outage.end > start:
                shade = panel.axvspan(outage.start - zero, outage.end - zero, color="tab:red", alpha=0.15)
                legend["outage"] = shade
        for mark in marks:
            if mark.name in _MARKED and start <= mark.time <= end:
                colour, label = _MARKED[mark.name]
                legend[label] = panel.axvline(mark.time - zero, color=colour, lw=0.9, alpha=0.8)
        panel.set_xlim(start - zero, end - zero)
        panel.grid(alpha=0.25)
    rows[-1].set_xlabel("seconds")
    figure.suptitle(title, fontsize=11)
    if legend:
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def _draw_roles(
    panel: Any, roles: Sequence[RoleSpan], *, zero: float, window: tuple[float, float], legend: dict[str, Any]
) -> None:
    """A bar for each role that a member had, with its term; a lane per member."""
    members = sorted({span.member for span in roles})
    start, end = window
    for span in roles:
        first, last = max(span.start, start), min(span.end, end)
        if first >= last:
            continue
        lane = len(members) - 1 - members.index(span.member)
        colour = _ROLES.get(span.role, "white")
        legend[span.role] = panel.broken_barh(
            [(first - zero, last - first)], (lane - 0.4, 0.8), facecolors=colour, edgecolors="white", lw=0.5
        )
        if last - first > _LABELLED * (end - start):
            middle = (first + last) / 2 - zero
            text = f"{span.role}, term {span.term}"
            panel.text(middle, lane, text, ha="center", va="center", fontsize=7, clip_on=True)
    panel.set_yticks(range(len(members)), reversed(members))
    panel.set_ylim(-0.6, len(members) - 0.4)
    panel.set_title("roles", fontsize=9, loc="left")


def save(figure: Any, path: Path) -> None:
    """Write a figure; the suffix (.svg, .png) says how."""
    figure.savefig(path)


def inline_svg(figure: Any) -> str:
    """The figure as an ``<svg>`` element for a page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    text = buffer.getvalue()
    return text[text.index("<svg") :]
