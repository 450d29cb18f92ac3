"""tools/kernel-run: streams, statuses, ends, and nothing left behind."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[1] / "tools" / "kernel-run"

pytestmark = pytest.mark.kernel


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(RUNNER), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )


def kernels() -> list[int]:
    """Processes of kernels of this test run."""
    mark = f"init={tempfile.gettempdir()}/kernel-run-".encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if mark in path.read_bytes():
                found.append(int(path.parent.name))
    return found


def leftovers() -> list[str]:
    """Kernels of this test run, and their files; a kernel needs a moment to end."""
    deadline = time.monotonic() + 5
    while True:
        found = [path.name for path in Path(tempfile.gettempdir()).glob("kernel-run-*")]
        found += map(str, kernels())
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


@pytest.fixture(autouse=True)
def own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of others may run at the same time."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_a_command_runs_on_another_kernel_on_the_same_files(tmp_path: Path) -> None:
    script = f"uname -r; echo wrong >&2; pwd; echo '{'it'}'\"'\"'s' $ODD > {tmp_path}/file; id -u; exit 7"
    done = run("--uml", "sh", "-c", script, ODD="odd  'value'")
    assert done.returncode == 7
    release, directory, user = done.stdout.splitlines()
    assert release != os.uname().release
    assert (directory, user) == (str(Path.cwd()), "0")
    assert done.stderr == "wrong\n"
    assert (tmp_path / "file").read_text() == "it's odd 'value'\n"
    assert leftovers() == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell has what it starts in the background ignore interrupts, and so everything that begins there."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_output_streams_and_an_interrupt_ends_everything() -> None:
    command = [str(RUNNER), "--uml", "sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.3; done; sleep 60"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    times = []
    for expected in "123":
        assert process.stdout.readline() == f"{expected}\n"
        times.append(time.monotonic())
    assert times[2] - times[0] > 0.4
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    process.stdout.close()
    assert leftovers() == []


def test_a_killed_runner_leaves_nothing() -> None:
    command = [str(RUNNER), "--uml", "sh", "-c", "echo up; sleep 60"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.kill()
    assert leftovers() == []


def test_time_is_limited() -> None:
    done = run("--uml", "--timeout", "1", "sleep", "60")
    assert (done.returncode, done.stderr) == (124, "kernel-run: stopped after 1 s\n")
    assert leftovers() == []


def test_one_kernel_at_a_time_goes_before_everything_else() -> None:
    command = [str(RUNNER), "--uml", "--first", "sh", "-c", "echo up; sleep 60"]
    handle = os.open("/usr/lib/uml/modules", os.O_RDONLY)
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            running = kernels()
            assert running
            for each in running:
                assert os.sched_getscheduler(each) == os.SCHED_RR
                assert len(os.sched_getaffinity(each)) == 1
            with pytest.raises(BlockingIOError):
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process.send_signal(signal.SIGTERM)
        assert process.returncode == 130
        assert leftovers() == []
        fcntl.flock(handle, fcntl.LOCK_EX)
    finally:
        os.close(handle)


def test_the_host_is_used_when_told_so() -> None:
    done = run("--host", "sh", "-c", "uname -r; echo $MIP6_KERNEL_RUN; exit 3")
    assert (done.returncode, done.stdout.split()) == (3, [os.uname().release, "host"])
    assert run("--host", "/no/such/program").returncode == 127


def test_what_is_missing_is_said_in_one_line(tmp_path: Path) -> None:
    source = RUNNER.read_text().replace("/usr/lib/uml/modules", "/no/such/modules")
    other = tmp_path / "kernel-run"
    other.write_text(source)
    done = subprocess.run(
        ["/usr/bin/env", "python3", str(other), "--uml", "true"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 125
    assert done.stderr == "kernel-run: missing: apt-get install user-mode-linux\n"
