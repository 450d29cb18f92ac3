"""The report of a run: one HTML page that needs nothing else, and the JSON with its figures.

Not covered: comparisons between runs.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import figures
from .scenario import Outcome, Scenario
from .timeline import Mark, Timeline

__all__ = ["timeline_text", "write_html", "write_json"]

ZOOM_BEFORE, ZOOM_AFTER = 0.08, 0.12

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 72em; padding: 0 1em; color: #222 }
table { border-collapse: collapse } td, th { border: 1px solid #ccc; padding: .25em .6em; text-align: left }
.ok { color: #17753a } .failed { color: #b3261e; font-weight: bold }
pre { background: #f6f6f6; padding: 1em; overflow-x: auto }
svg { width: 100%; height: auto } code { background: #f6f6f6 }
"""


def write_json(path: Path, result: dict[str, Any]) -> None:
    """Write the figures of a run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def timeline_text(marks: Sequence[Mark], zero: float) -> str:
    """The timeline, one line a mark."""
    return "".join(
        f"{mark.time - zero:9.3f}  {mark.source:<4} {mark.name.replace('_', ' ')}  {mark.detail}".rstrip()
        + "\n"
        for mark in marks
    )


def write_html(
    directory: Path, scenario: Scenario, outcome: Outcome, timeline: Timeline, result: dict[str, Any]
) -> Path:
    """Write ``index.html`` and the whole run's picture (``timeline.svg``, ``timeline.png``); returns the
    page.
    """
    marks = timeline.in_order()
    (directory / "timeline.txt").write_text(timeline_text(marks, timeline.start))
    pictures = []
    if outcome.streams and any(stream.samples for stream in outcome.streams):
        sent = [sample.sent for stream in outcome.streams for sample in stream.samples]
        whole = figures.draw(
            outcome.streams,
            marks,
            outcome.outages,
            zero=timeline.start,
            window=(min(sent), max(sent)),
            title=scenario.name,
            roles=outcome.roles,
        )
        figures.save(whole, directory / "timeline.svg")
        figures.save(whole, directory / "timeline.png")
        pictures.append(figures.inline_svg(whole))
        for outage in outcome.outages:
            window = (outage.start - ZOOM_BEFORE, outage.end + ZOOM_AFTER)
            zoom = figures.draw(
                outcome.streams,
                marks,
                outcome.outages,
                zero=timeline.start,
                window=window,
                title=outage.name,
                roles=outcome.roles,
            )
            pictures.append(figures.inline_svg(zoom))
    page = directory / "index.html"
    page.write_text(_page(scenario, pictures, timeline_text(marks, timeline.start), result))
    return page


def _page(scenario: Scenario, pictures: Sequence[str], marks: str, result: dict[str, Any]) -> str:
    escape = html.escape
    verdict = '<span class="ok">passed</span>' if result.get("ok") else '<span class="failed">FAILED</span>'
    checks = "".join(
        f'<tr><td class="{"ok" if check["ok"] else "failed"}">{"ok" if check["ok"] else "FAILED"}</td>'
        f"<td>{escape(check['name'])}</td><td>{escape(str(check['measured']))}</td>"
        f"<td>{escape(str(check['limit']))}</td></tr>"
        for check in result.get("checks", [])
    )
    simple = {name: value for name, value in result.items() if isinstance(value, str | int | float | bool)}
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in simple.items()
    )
    detail = {name: value for name, value in result.items() if name not in simple and name != "checks"}
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>netns-lab: {escape(scenario.name)}</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(scenario.name)}: {verdict}</h1>
<p>{escape(scenario.description)}</p>
<table><tr><th></th><th>check</th><th>measured</th><th>limit</th></tr>{checks}</table>
<h2>Traffic</h2>
<p>Each dot is a probe, at the time it was sent; red ticks at the bottom are probes that never arrived.
Shaded: the longest time without arrivals around what happened.</p>
{"".join(pictures)}
<h2>Figures</h2>
<table>{rows}</table>
<pre>{escape(json.dumps(detail, indent=2))}</pre>
<h2>Timeline</h2>
<pre>{escape(marks)}</pre>
<h2>Captures</h2>
<p>One file per link beside this page. Decrypted, with Mobility Header checksums verified:</p>
<pre>WIRESHARK_CONFIG_DIR=wireshark tshark -r home.pcap -Y mipv6 -V</pre>
</body></html>
"""
