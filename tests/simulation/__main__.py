"""Run seeds: ``python -m tests.simulation --seed N --minutes M``, or ``--seeds COUNT`` for many."""

from __future__ import annotations

import argparse
import sys

from .run import many, one


def main() -> int:
    """The exit status: 1 if a rule was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and print its last events if it fails")
    parser.add_argument("--seeds", type=int, default=300, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--minutes", type=float, default=2.0, help="simulated time of each")
    parser.add_argument("--mutant", default="", help="with this deliberate fault (see mutants)")
    parser.add_argument("--jobs", type=int, default=0, help="processes; 0: as many as there are cores")
    parser.add_argument("--events", type=int, default=60, help="how many of the last events to print")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failures")
    options = parser.parse_args()
    if options.seed is not None:
        result = one(options.seed, options.minutes, options.mutant, options.events)
        print(result.text())
        return int(result.failed)
    failed = many(
        range(options.first, options.first + options.seeds),
        options.minutes,
        mutant=options.mutant,
        jobs=options.jobs,
        keep_going=options.keep_going,
    )
    return int(bool(failed))


sys.exit(main())
