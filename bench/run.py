#!/usr/bin/env python3
"""Measure the home agent: a table on the terminal, and bench-out/bench.json.

Without arguments everything is measured; ``--only`` picks parts. docs/numbers.md says what the figures mean.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from functools import partial
from pathlib import Path

from mip6bench import (
    core,
    dataplane,
    failover,
    generator,
    ike,
    kernel,
    members,
    population,
    replication,
    report,
)

PARTS = {
    "core": (core.refresh_figures, core.REFRESH_STEPS),
    "payload": (core.payload_figures, core.PAYLOAD_STEPS),
    "population": (population.population_figures, population.STEPS),
    "failover": (failover.failover_figures, failover.STEPS),
    "dataplane": (dataplane.dataplane_figures, dataplane.STEPS),
    "replication": (replication.replication_figures, replication.STEPS),
    "ike": (ike.ike_figures, ike.STEPS),
    "kernel": (kernel.kernel_figures, kernel.STEPS),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="measure this part (may be repeated)")
    parser.add_argument("--out", type=Path, default=Path("bench-out"), help="directory for bench.json")
    parser.add_argument("--population", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--member", nargs=3, type=int, help=argparse.SUPPRESS)
    parser.add_argument("--generator", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--generator-rounds", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--ike-population", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ike-initiator", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--kernel", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.population:
        population.serve(arguments.population)
        return 0
    if arguments.ike_population:
        ike.serve(arguments.ike_population)
        return 0
    if arguments.ike_initiator:
        ike.initiate(arguments.ike_initiator)
        return 0
    if arguments.kernel:
        kernel.measure()
        return 0
    if arguments.member:
        members.serve(*arguments.member)
        return 0
    if arguments.generator:
        interface, station, secret = arguments.generator
        generator.generate(interface, station, bytes.fromhex(secret))
        return 0
    if arguments.generator_rounds:
        interface, station, secret = arguments.generator_rounds
        generator.generate_rounds(interface, station, bytes.fromhex(secret))
        return 0
    # Whatever ends this, namespaces and processes end with it.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    figures: dict[str, object] = {}
    chosen = arguments.only or list(PARTS)
    lack = dataplane.lacks()
    for name in {"dataplane", "replication"} & set(chosen) if lack else ():
        chosen.remove(name)
        print(f"{name}: not measured, {lack}", file=sys.stderr)
    with report.progress() as bar:
        for name in chosen:
            measure, steps = PARTS[name]
            task = bar.add_task(name, total=steps)
            figures |= measure(partial(bar.advance, task))
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "bench.json"
    path.write_text(json.dumps(report.document(figures), indent=2) + "\n")
    report.show(figures)
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
