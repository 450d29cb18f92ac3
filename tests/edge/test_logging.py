"""Log lines never hold up whoever logs, whatever becomes of them."""

from __future__ import annotations

import os
import subprocess
import sys

from mip6ha.edge.logging import Lines


def read(descriptor: int) -> list[str]:
    with os.fdopen(descriptor) as stream:
        return stream.read().splitlines()


def test_every_line_is_written_in_its_order() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer)
    for each in range(500):
        lines.put(f"line {each}")
    lines.close()
    os.close(writer)
    assert read(reader) == [f"line {each}" for each in range(500)]
    assert lines.lost == 0


def test_who_logs_does_not_wait_for_a_reader_and_what_is_lost_is_counted() -> None:
    reader, writer = os.pipe()
    lines = Lines(writer, most=100)
    # More than the pipe holds.
    text = "x" * 4096
    for _ in range(1000):
        lines.put(text)
    lines.close(patience=0.01)
    # A hundred wait, as many may be under way, and some are in the pipe.
    assert 700 < lines.lost < 1000
    os.close(reader)
    lines.close()
    os.close(writer)


def test_without_a_reader_lines_are_lost() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = Lines(writer)
    for _ in range(3):
        lines.put("nobody reads this")
    lines.close()
    assert lines.lost == 3
    os.close(writer)


def test_a_process_ends_though_nobody_reads_its_log() -> None:
    program = (
        "from mip6ha.edge import logging\n"
        "from twisted.logger import Logger\n"
        "logging.start('json', 'info')\n"
        "log = Logger('mip6ha')\n"
        "for _ in range(2000):\n    log.info('{text}', text='x' * 4096)\n"
        "print('done', flush=True)\n"
    )
    reader, writer = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", program], stderr=writer, stdout=subprocess.PIPE)
    os.close(writer)
    assert process.stdout is not None
    assert process.stdout.readline() == b"done\n"
    assert process.wait(20) == 0
    os.close(reader)
    process.stdout.close()
