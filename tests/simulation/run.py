"""Running seeds, one or many at a time, and saying what came of them."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass, field

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .mutants import mutated
from .plan import plan
from .violation import Violation
from .world import World

__all__ = ["Result", "many", "one", "results"]


@dataclass(slots=True)
class Result:
    """What came of a seed; ``rule`` is the broken one, empty if none. ``happened`` counts events by name."""

    seed: int
    minutes: float
    mutant: str = ""
    rule: str = ""
    said: str = ""
    at: float = 0.0
    timeline: list[str] = field(default_factory=list)
    seconds: float = 0.0
    figures: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)

    @property
    def failed(self) -> bool:
        """Whether a rule was broken."""
        return bool(self.rule)

    def text(self) -> str:
        """For people: the last events, what broke, and how to see it again."""
        figures = ", ".join(f"{value} {name}" for name, value in sorted(self.figures.items()))
        if not self.failed:
            took = f"{self.minutes:g} minutes ({self.seconds:.1f} s)"
            return f"seed {self.seed}: no violation in {took}: {figures}"
        again = f"python -m tests.simulation --seed {self.seed} --minutes {self.minutes:g}"
        again += f" --mutant {self.mutant}" if self.mutant else ""
        return "\n".join(
            [*self.timeline, f"seed {self.seed} at {self.at:.4f} s: {self.said}", f"again: {again}"]
        )


def one(seed: int, minutes: float, mutant: str = "", events: int = 60) -> Result:
    """Run a seed."""
    result = Result(seed, minutes, mutant)
    began = time.perf_counter()
    with mutated(mutant):
        world = World(plan(seed, minutes))
        try:
            world.run()
        except Violation as violation:
            result.rule, result.said = violation.rule, str(violation)
        except Exception:
            result.rule, result.said = "exception", traceback.format_exc()
    checker = world.checker
    result.figures = Counter(
        events=world.events,
        acknowledgements=checker.packets.acknowledgements,
        takeovers=checker.takeovers,
        replays=checker.replays,
        refusals=checker.packets.refusals,
    )
    result.happened = world.timeline.counts
    result.at, result.seconds = world.now, time.perf_counter() - began
    if result.failed:
        result.timeline = world.timeline.lines(events)
    return result


def results(seeds: Iterable[int], minutes: float, *, mutant: str = "", jobs: int = 0) -> Iterable[Result]:
    """The results of many seeds, in the order in which they are done."""
    workers = jobs or len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(workers, initializer=_give_way) as pool:
        futures = [pool.submit(one, seed, minutes, mutant) for seed in seeds]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _give_way() -> None:
    """Simulated time can wait for whoever is in a hurry on this machine."""
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def many(
    seeds: range,
    minutes: float,
    *,
    mutant: str = "",
    jobs: int = 0,
    keep_going: bool = False,
    write: Callable[[str], object] = sys.stdout.write,
) -> list[Result]:
    """Run many seeds with a progress bar; those that failed. Stops at the first unless ``keep_going``."""
    failed: list[Result] = []
    figures: Counter[str] = Counter()
    began = time.monotonic()
    done = 0
    columns = (TextColumn("simulated sets"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[failed]} failed")) as progress:
        task = progress.add_task("seeds", total=len(seeds), failed=0)
        # Interrupted after hours, it still says what was found.
        with suppress(KeyboardInterrupt):
            for result in results(seeds, minutes, mutant=mutant, jobs=jobs):
                done += 1
                figures += result.figures
                if result.failed:
                    failed.append(result)
                progress.update(task, advance=1, failed=len(failed))
                if failed and not keep_going:
                    break
    for result in sorted(failed, key=lambda each: each.seed):
        write(
            (result.text() if len(failed) == 1 else f"seed {result.seed} at {result.at:.4f}: {result.said}")
            + "\n"
        )
    numbers = ", ".join(f"{value:,} {name}" for name, value in sorted(figures.items()))
    write(
        f"{done} seeds x {minutes:g} minutes in {time.monotonic() - began:.0f} s: "
        f"{len(failed)} failed; {numbers}\n"
    )
    return failed
