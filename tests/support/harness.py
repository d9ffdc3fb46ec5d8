"""What the end-to-end tests stand on: run a program plain and traced, read the report, steer lock_actor processes.

Nothing here sleeps to let something happen. A test waits for an answer on a socket, for the end of a process, or for the
kernel's own account (/proc/locks, /proc/PID/fdinfo) to show what it waits for; that polls, a few hundred times a second.

ctest sets where things are: PLANLOOP_BINARY, PLANLOOP_SHIM and PLANLOOP_TEST_PROGRAMS (the folder of lock_actor & co.).
"""

import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import unittest
from dataclasses import dataclass, replace
from pathlib import Path

BINARY = os.environ.get("PLANLOOP_BINARY", "planloop")
SHIM = os.environ.get("PLANLOOP_SHIM", "")
PROGRAMS = Path(os.environ.get("PLANLOOP_TEST_PROGRAMS", "."))
LOCK_ACTOR = str(PROGRAMS / "lock_actor")
PYTHON = "/usr/bin/python3"
SANITIZERS = os.environ.get("PLANLOOP_TEST_SANITIZERS", "")  # what planloop itself was built with
# How long something that must happen may take on a busy machine before the test fails.
PATIENCE_S = 300 if SANITIZERS else 60

# A blocking exclusive lock of a whole file, in lock_actor's words.
LOCK_CALLS = {"flock": "flock {} ex", "ofd": "fcntl {} ofd_setlkw wr 0 0", "posix": "fcntl {} setlkw wr 0 0"}
FAMILIES = tuple(LOCK_CALLS)

# A shell lets what it starts in the background ignore it, and whatever that starts, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

LOCK_EVENTS = ("lock_requested", "lock_acquired", "lock_released", "lock_failed")
REASONS = ("unlock", "close", "exit", "exec", "killed", "converted", "lost")


def wait_until(what, condition, patience_s=PATIENCE_S):
    """The first true value of condition(); fails the test, naming `what`, when there is none in time."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {patience_s} s in vain: {what}")
        time.sleep(0.003)


def wait_for_end(pid):
    """Returns when the process is gone, whosever child it is."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([handle], [], [], PATIENCE_S)[0]:
            raise AssertionError(f"process {pid} does not end")
    finally:
        os.close(handle)


def stat_field(pid, number):
    """Of a process, by its number in proc_pid_stat(5), from 3 on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[number - 3]


@dataclass(frozen=True)
class KernelLock:
    """A line of /proc/locks."""

    waits: bool
    family: str
    mode: str
    pid: int
    inode: int


def remove_while_written(folder):
    """The folder is gone afterwards, though recording may make files in it meanwhile: then it is not empty for the first rm."""
    wait_until(f"{folder} is gone", lambda: subprocess.run(["rm", "-rf", folder], stderr=subprocess.DEVNULL).returncode == 0)


def kernel_locks(path=None):
    inode = os.stat(path).st_ino if path else None
    locks = []
    for line in Path("/proc/locks").read_text().splitlines():
        match = re.match(r"\d+: *(-> )?(\w+) +\w+ +(\w+) (-?\d+) \w+:\w+:(\d+) ", line)
        if match and (inode is None or int(match[5]) == inode):
            locks.append(KernelLock(bool(match[1]), match[2], match[3], int(match[4]), int(match[5])))
    return locks


def wait_until_blocked(pid, path):
    """Until the kernel says that the process waits for a lock of this file."""
    wait_until(f"{pid} waits for {path}", lambda: any(lock.waits and lock.pid in (pid, -1) for lock in kernel_locks(path)))


@dataclass(frozen=True, order=True)
class Hold:
    """A process that holds a lock of a file now. Ranges that touch are one; end None: to the end of the file."""

    path: str
    family: str
    mode: str
    pid: int
    start: int
    end: int | None


def merged(holds):
    """As a set, with neighbouring and overlapping ranges of one holder made one."""
    result = set()
    for hold in sorted(holds, key=lambda each: (each.path, each.family, each.mode, each.pid, each.start)):
        last = next((each for each in result if replace(each, start=0, end=0) == replace(hold, start=0, end=0)
                     and (each.end is None or hold.start <= each.end + 1)), None)
        if last is not None:
            result.remove(last)
            end = None if None in (last.end, hold.end) else max(last.end, hold.end)
            hold = replace(last, end=end)
        result.add(hold)
    return result


def kernel_holds(pids, paths):
    """The kernel's account, from /proc/PID/fdinfo: which of the processes hold which locks of these files."""
    families = {"FLOCK": "flock", "POSIX": "posix", "OFDLCK": "ofd"}
    modes = {"READ": "shared", "WRITE": "exclusive"}
    path_of = {os.stat(path).st_ino: str(path) for path in paths}
    holds = []
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fdinfo").glob("*"):
            try:
                text = entry.read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            for line in re.findall(r"^lock:\s+\d+: (.*)", text, re.MULTILINE):
                family, _, mode, _, identity, start, end = line.split()
                path = path_of.get(int(identity.split(":")[2]))
                if path:
                    last = None if end == "EOF" else int(end)
                    holds.append(Hold(path, families[family], modes[mode], pid, int(start), last))
    return merged(holds)


def kernel_holders(pids, path):
    return {hold.pid for hold in kernel_holds(pids, [path])}


class Report:
    """What `planloop dev locks --json` printed, once its form is found to be right."""

    def __init__(self, text):
        self.data = json.loads(text)
        self.timeline = self.data["timeline"]
        self.locks = self.data["locks"]
        self.held = self.data["held"]
        self.waiting = self.data["waiting"]
        self.recorded = self.data["recorded"]

    def events(self, event=None, **fields):
        return [
            entry
            for entry in self.timeline
            if event in (None, entry["event"]) and all(entry.get(name) == value for name, value in fields.items())
        ]

    def findings(self, kind=None):
        return [finding for finding in self.data["findings"] if kind in (None, finding["kind"])]

    def lock_of(self, path):
        """The row of the file at `path`."""
        rows = [row for row in self.locks if row["path"] == str(path)]
        assert len(rows) == 1, f"{path} should have one row among {[row['path'] for row in self.locks]}"
        return rows[0]

    def holds(self):
        """What the report says is held now, in the form of kernel_holds()."""
        return merged(
            Hold(
                held["path"],
                held["lock"].split(":")[0],
                held["mode"],
                holder["pid"],
                held["start"],
                held["start"] + held["len"] - 1 if held["len"] else None,
            )
            for held in self.held
            for holder in held["holders"]
        )

    def holders(self, path):
        """Who holds a lock of the file now, as pids."""
        return {holder["pid"] for held in self.held if held["path"] == str(path) for holder in held["holders"]}

    def releases(self, pid):
        return [(entry["reason"], entry["hold_ns"]) for entry in self.events("lock_released", pid=pid)]


def check_form(test, report):
    """What holds for every report, whatever was recorded."""
    test.assertEqual(report.data["schema"], "planloop.locks/1")
    for name in ("processes", "threads", "events", "dropped"):
        test.assertGreaterEqual(report.recorded[name], 0)
    known = set()
    last = None
    for entry in report.timeline:
        test.assertIn(entry["event"], LOCK_EVENTS)
        test.assertRegex(entry["trace_id"], r"^tr_\d{14}_[0-9a-f]{6,}$", entry)
        test.assertRegex(entry["timestamp"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$")
        if last is not None:
            test.assertGreaterEqual(entry["t_ns"], last, "the timeline is in order")
        last = entry["t_ns"]
        if entry["event"] == "lock_requested":
            known.add(entry["lock_entry_id"])
        else:
            test.assertIn(entry["lock_entry_id"], known, f"a request comes first: {entry}")
        if entry["event"] == "lock_released":
            test.assertIn(entry["reason"], REASONS)
            test.assertGreaterEqual(entry["hold_ns"], 0)
        elif entry["event"] != "lock_requested":
            test.assertGreaterEqual(entry["wait_ns"], 0)
    for row in report.locks:
        for figure in ("wait_ns", "hold_ns"):
            test.assertLessEqual(row[figure]["p50"], row[figure]["p99"])
            test.assertLessEqual(row[figure]["p99"], max(row[figure]["max"], 1) * 1.02)
    for finding in report.findings():
        test.assertIn(finding["severity"], ("info", "warning", "error"))
        test.assertIn(finding["certainty"], ("confirmed", "likely", "possible"))
        test.assertTrue(finding["summary"])


class TracedTest(unittest.TestCase):
    """A test with a folder, a planloop home and a session of its own."""

    session = "test"
    maxDiff = None

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="planloop-e2e-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.home = self.folder / "home"
        inherited = ("LD_PRELOAD", "PLANLOOP_SESSION", "PLANLOOP_TRACE_ID", "PLANLOOP_NO_RECORDING")
        self.environment = {name: value for name, value in os.environ.items() if name not in inherited}
        self.environment.update(PLANLOOP_HOME=str(self.home), LC_ALL="C", NO_COLOR="1")

    def file(self, name="lock"):
        path = self.folder / name
        path.touch()
        return path

    @property
    def spools(self):
        return sorted((self.home / "sessions" / self.session / "logs" / "spool").glob("*"))

    def run_program(self, command, **options):
        options = {"capture_output": True, "text": True, "env": self.environment, "timeout": PATIENCE_S, **options}
        options.setdefault("stdin", None if "input" in options else subprocess.DEVNULL)
        return subprocess.run([str(word) for word in command], **options)

    def planloop(self, *arguments, **options):
        return self.run_program([BINARY, *arguments], **options)

    def traced_command(self, command):
        return [BINARY, "dev", "run", "--session", self.session, "--", *[str(word) for word in command]]

    def traced(self, *command, **options):
        return self.run_program(self.traced_command(command), **options)

    def same_both_ways(self, *command, **options):
        """Runs it plain, then traced; the program must not show the difference. Returns the plain run."""
        plain = self.run_program(command, **options)
        traced = self.traced(*command, **options)
        said = [line for line in traced.stderr.splitlines(True) if not line.startswith("planloop")]
        self.assertEqual((traced.stdout, "".join(said), traced.returncode), (plain.stdout, plain.stderr, plain.returncode))
        return plain

    def report(self, session=None):
        run = self.planloop("dev", "locks", "--session", session or self.session, "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        report = Report(run.stdout)
        check_form(self, report)
        return report

    def stage(self, traced=True):
        stage = Stage(self, traced)
        self.addCleanup(stage.close)
        return stage


@dataclass(frozen=True)
class Answer:
    result: int
    error: int
    before: int  # CLOCK_MONOTONIC, ns, just before the call
    after: int  # just after it


class Actor:
    """One thread of one process that does as it is told. See tests/support/lock_actor for the commands."""

    def __init__(self, stage, connection, pid, tid):
        self.stage, self.pid, self.tid = stage, pid, tid
        self.connection = connection
        self.answers = connection.makefile("r")

    def begin(self, command):
        """Starts a call that may block; `end` waits for its answer."""
        self.connection.sendall(f"{command}\n".encode())

    def end(self):
        line = self.answers.readline()
        if not line:
            raise AssertionError(f"actor {self.pid} ended instead of answering")
        return Answer(*map(int, line.split()))

    def call(self, command):
        """Does a call that must succeed and returns what it returned."""
        return self.timed(command).result

    def timed(self, command):
        self.begin(command)
        answer = self.end()
        if answer.result == -1:
            raise AssertionError(f"{command}: {os.strerror(answer.error)}")
        return answer

    def fails(self, command):
        """Does a call that must fail and returns its errno."""
        self.begin(command)
        answer = self.end()
        if answer.result != -1:
            raise AssertionError(f"{command} should have failed")
        return answer.error

    def block(self, command, path):
        """Starts a lock call and returns once the kernel says that it waits."""
        self.begin(command)
        wait_until_blocked(self.pid, path)

    def interrupt(self):
        """A signal whose handler does not restart calls; returns how the blocked call failed."""
        os.kill(self.pid, signal.SIGUSR1)
        return self.end().error

    def fork(self):
        return self.stage.arrival(self.call("fork"))

    def spawn(self, how="spawn"):
        return self.stage.arrival(self.call(how))

    def exec(self):
        """The same process with a new program image, as a new Actor."""
        self.begin("exec")
        return self.stage.arrival(self.pid)

    def thread(self):
        self.call("thread")
        return self.stage.arrival(self.pid)

    def finish(self, command="exit 0"):
        """Ends the process by a call and waits until it is gone."""
        self.begin(command)
        wait_for_end(self.pid)

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)
        wait_for_end(self.pid)

    def leave(self):
        """Closes the connection: a thread ends, with a main thread the process."""
        self.answers.close()
        self.connection.close()


class Stage:
    """Actors under one `planloop dev run`: the root, and all that it and its descendants start."""

    def __init__(self, test, traced):
        self.test, self.pids, self.waiting = test, set(), []
        self.actors = []
        self.address = tempfile.mktemp(prefix="stage", dir=test.folder)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.address)
        self.listener.listen(256)
        self.listener.settimeout(PATIENCE_S)
        command = [LOCK_ACTOR, self.address]
        self.program = subprocess.Popen(
            test.traced_command(command) if traced else command,
            env=test.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.root = self.arrival()

    def arrival(self, pid=None):
        """The next actor that says hello, or the next one of the process `pid`."""
        while True:
            for actor in self.waiting:
                if pid in (None, actor.pid):
                    self.waiting.remove(actor)
                    return actor
            connection, _ = self.listener.accept()
            connection.settimeout(PATIENCE_S)
            hello = b""
            while not hello.endswith(b"\n"):
                got = connection.recv(1)
                if not got:
                    raise AssertionError("an actor ended before it said hello")
                hello += got
            _, arrived, tid = hello.split()
            actor = Actor(self, connection, int(arrived), int(tid))
            self.pids.add(actor.pid)
            self.actors.append(actor)
            self.waiting.append(actor)

    def cast(self, count):
        """So many processes, each started by the root."""
        return [self.root.spawn() for _ in range(count)]

    def first_answer(self, actors):
        """The actor whose call comes back first; its answer is consumed."""
        ready = select.select([actor.connection for actor in actors], [], [], PATIENCE_S)[0]
        if not ready:
            raise AssertionError("none of the blocked calls comes back")
        (actor, *_) = [actor for actor in actors if actor.connection in ready]
        actor.end()
        return actor

    def close(self):
        """Ends every actor and the run, and returns what the run said on stderr."""
        if self.program.stderr.closed:
            return self.said
        for actor in self.actors:
            actor.leave()
        for pid in self.pids:
            try:
                wait_for_end(pid)
            except AssertionError:
                os.kill(pid, signal.SIGKILL)
                raise
        _, self.said = self.program.communicate(timeout=PATIENCE_S)
        self.listener.close()
        return self.said
