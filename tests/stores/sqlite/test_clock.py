"""Clock domains: times are compared within one; between two a lock file that is held proves life."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resumable_sync import SQLiteStore, Status
from resumable_sync.stores.sqlite import clock, tables
from resumable_sync.stores.sqlite.connection import Connections
from resumable_sync.stores.sqlite.liveness import Liveness, ProcessLock
from resumable_sync.stores.sqlite.tables import Row, Steps
from resumable_sync.stores.sqlite.upkeep import Upkeep

from ...support import PATIENCE, ROOT, Process, wait_until
from ..faults.test_kill import PROGRAMS
from .conftest import GRACE, alter, run_directory


def row(lock: ProcessLock, **changes: object) -> Row:
    """A running stream of the other domain, silent for long by any clock of ours."""
    wall = time.time()
    there = Row(
        *(1, Status.STREAMING, 0, 0, None, "{}", 60.0, lock.token, "another"),
        *(0.0, 0.0, wall - 1, wall - 1000, wall - 1000, None),
    )
    return there._replace(**changes)  # type: ignore[arg-type]


def test_the_domain_of_an_ordinary_process_is_its_boot_id_alone() -> None:
    """Both editions of this package share one store: a row must look as edition 1 wrote it."""
    try:
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        initial = os.readlink("/proc/self/ns/time") == "time:[4026531834]"
    except OSError:
        pytest.skip("needs Linux 5.6 or later")
    assert clock.domain() == boot_id if initial else clock.domain().startswith(boot_id)


@pytest.mark.skipif(sys.platform == "win32", reason="locks differ")
def test_elsewhere_a_held_lock_proves_life_and_a_free_one_death(liveness: Liveness, lock: ProcessLock) -> None:
    silent = row(lock)
    assert not silent.expired and silent.overdue and silent.life > 0
    assert not liveness.is_orphan(silent)
    lock.release(leave_proof=True)
    liveness._proofs.clear()
    assert liveness.is_orphan(row(lock, updated_at=time.time(), lease_until=clock.now() + 60))


def test_elsewhere_the_wall_clock_decides_without_a_lock_file(liveness: Liveness, lock: ProcessLock) -> None:
    lock.release()
    silent = time.time() - GRACE
    assert liveness.is_orphan(row(lock, updated_at=silent - 1))
    assert not liveness.is_orphan(row(lock, updated_at=silent + 30, lease_until=clock.now() - 1000))


def test_within_one_domain_the_lease_decides_whatever_the_lock(liveness: Liveness, lock: ProcessLock) -> None:
    """A stopped process holds its lock."""
    here = row(lock, boot_id=clock.domain(), expires_boot=clock.now() + 60, updated_at=0.0)
    assert liveness.is_orphan(here._replace(lease_until=clock.now() - 1))
    assert not liveness.is_orphan(here._replace(lease_until=clock.now() + 60))
    assert here._replace(expires_boot=clock.now() - 1).expired and not here.overdue


@pytest.mark.parametrize("held", [True, False])
def test_a_sweep_keeps_what_lives_elsewhere(
    path: Path, store: SQLiteStore, connections: Connections, liveness: Liveness, lock: ProcessLock, held: bool
) -> None:
    assert store.acquire("s") is not None
    alter(
        path,
        f"UPDATE streams SET boot_id = 'another', owner = '{lock.token}', lease_until = 0, expires_boot = 0,"
        " expires_at = 1, updated_at = 1",
    )
    if not held:
        lock.release(leave_proof=True)
    upkeep = Upkeep(connections, run_directory(path), liveness, lambda ids: None, 60.0)
    assert upkeep.sweep() == (0 if held else 1)
    assert store.status("s") is (Status.STREAMING if held else Status.MISSING)
    assert (store.acquire("s") is None) is held


def test_an_overdue_stream_of_the_dead_is_free_at_once(path: Path, store: SQLiteStore, lock: ProcessLock) -> None:
    """As after a reboot."""
    assert store.acquire("s") is not None
    lock.release(leave_proof=True)
    alter(path, f"UPDATE streams SET boot_id = 'before', owner = '{lock.token}', expires_at = 1")
    assert store.acquire("s") is not None


def test_appends_and_renewals_bring_all_clocks_up_to_date(connections: Connections, steps: Steps) -> None:
    with connections.write() as connection:
        lease = steps.begin(connection, "s", None, 60.0, "{}", "own")
        for renewed in (False, True):
            connection.execute(
                "UPDATE streams SET boot_id = 'another', lease_until = 0, expires_at = 0, updated_at = 0"
            )
            if renewed:
                assert steps.renew(connection, lease) is None
            else:
                assert isinstance(steps.append(connection, lease, [b"x"], 1), list)
            found = tables.select(connection, "s")
            assert found is not None and found.boot_id == clock.domain()
            assert found.lease_until > clock.now() and found.expires_at > time.time()
            assert abs(time.time() - found.updated_at) < PATIENCE


# In containers: what they share is the file and the kernel.


def _works(*command: str) -> bool:
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    return subprocess.run([*command, "true"], capture_output=True).returncode == 0


def _other_boot_id(directory: Path) -> list[str]:
    """A mount namespace with a boot id of its own."""
    if not _works("unshare", "-m"):
        pytest.skip("needs root and unshare -m")
    (directory / "boot_id").write_text("11111111-2222-3333-4444-555555555555\n")
    script = f'mount --bind {directory}/boot_id /proc/sys/kernel/random/boot_id && exec "$@"'
    return ["unshare", "-m", "sh", "-c", script, "sh"]


def _other_clock(directory: Path, boottime: int = 1_000_000, monotonic: int = 0) -> list[str]:
    """A time namespace, 11 days ahead."""
    command = ["unshare", "--time", "--boottime", str(boottime), "--monotonic", str(monotonic)]
    if not _works(*command):
        pytest.skip("needs root and unshare --time")
    seen = subprocess.run([*command, "readlink", "/proc/self/ns/time"], capture_output=True, text=True)
    if seen.stdout.strip() == os.readlink("/proc/self/ns/time"):
        pytest.skip("needs a kernel that enters a time namespace on exec")
    return command


class Contained(Process):
    """A process that is started by a command."""

    def __init__(self, command: list[str], module: str, *arguments: object) -> None:
        script = Path(str(arguments[0])).with_name(f"run-{time.monotonic_ns()}")
        words = " ".join(f"'{word}'" for word in [*command, sys.executable])
        script.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        script.chmod(0o755)
        executable, sys.executable = sys.executable, str(script)
        try:
            super().__init__(module, *arguments[1:])
        finally:
            sys.executable = executable


SWEEP = """
import sys
from resumable_sync import SQLiteStore
store = SQLiteStore(sys.argv[1])
print(store.sweep(), store.status("s"))
"""


@pytest.mark.parametrize("container", [_other_boot_id, _other_clock])
@pytest.mark.parametrize("producer_inside", [False, True])
def test_containers_share_a_file(container: object, producer_inside: bool, path: Path, tmp_path: Path) -> None:
    assert callable(container)
    command: list[str] = container(tmp_path)
    inside, outside = (command, []) if producer_inside else ([], command)
    SQLiteStore(path).close()
    with Contained(inside, PROGRAMS, path, "append", path, "s", 1, 3600, 0.01) as producer:
        producer.until("stored")
        with Contained(outside, PROGRAMS, path, "follow", path, "s") as viewer:
            viewer.until("at")
            for _ in range(2):
                swept = subprocess.run(
                    [*outside, sys.executable, "-c", SWEEP, str(path)], capture_output=True, text=True, cwd=ROOT
                )
                assert swept.stdout.split() == ["0", "streaming"], swept
                producer.until("stored")
            killed_at = producer.kill()
            assert viewer.until("ended").split()[-1] == "ProducerInterruptedError"
            assert time.monotonic() - killed_at < 10.0  # a moment; its lease would last an hour
    with SQLiteStore(path) as store:
        wait_until(lambda: store.status("s") is Status.INTERRUPTED)


@pytest.mark.parametrize("container", [_other_boot_id, _other_clock])
def test_a_stopped_producer_elsewhere_is_not_ended(container: object, path: Path, tmp_path: Path) -> None:
    """Its lock is held, and its lease is by a clock that is not ours."""
    assert callable(container)
    with SQLiteStore(path, grace=0.5) as store:
        with Contained(container(tmp_path), PROGRAMS, path, "append", path, "s", 1, 3600, 0.01) as producer:
            producer.until("stored")
            producer.signal(signal.SIGSTOP)
            alter(path, "UPDATE streams SET updated_at = 1, expires_at = 1")
            assert store.sweep() == 0 and store.status("s") is Status.STREAMING
            producer.kill()
        wait_until(lambda: store.status("s") is not Status.STREAMING)


DOMAIN = "from resumable_sync.stores.sqlite import clock; print(clock.domain())"


def test_a_clock_domain_goes_by_what_the_clock_shows(tmp_path: Path) -> None:
    """The kernel gives the number of a time namespace that has gone to the next one."""

    def domain(boottime: int, monotonic: int = 0) -> str:
        command = [*_other_clock(tmp_path, boottime, monotonic), sys.executable, "-c", DOMAIN]
        return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.strip()

    assert domain(1000) == domain(1000, monotonic=5)
    assert len({domain(1000), domain(2000), domain(0), domain(-1)}) == 4
    assert domain(0, monotonic=5) == clock.domain()


ORPHANS = """
import sys
from resumable_sync import SQLiteStore
store = SQLiteStore(sys.argv[1])
print(store.status("s"), *store.orphans())
"""


def test_the_next_container_judges_by_its_own_clock(path: Path, tmp_path: Path) -> None:
    """The number of its time namespace is mostly that of the one that has just gone."""
    code = (
        "import os, sys; from resumable_sync import SQLiteStore\n"
        "store = SQLiteStore(sys.argv[1])\n"
        "store.append(store.acquire('s', handover=3600), b'begun')\n"
        "os._exit(0)"
    )
    subprocess.run(
        [*_other_clock(tmp_path, -60), sys.executable, "-c", code, str(path)],
        check=True,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    seen = subprocess.run(
        [*_other_clock(tmp_path), sys.executable, "-c", ORPHANS, str(path)],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert seen.stdout.split() == ["streaming", "s"], seen
