"""The ways in which shell scripts lock, in bash and in dash: who holds the lock at each step, and until when.

A script stops where it says `step`: it writes a line and waits for one. There the test compares the report's holders with
the kernel's; at the end it compares when each hold ended with when the kernel was last seen to know it.
"""

import contextlib
import datetime
import os
import signal
import subprocess
import threading
import time
import unittest
from pathlib import Path

from harness import PATIENCE_S, TracedTest, kernel_holders, wait_for_end, wait_until

SLACK_NS = 10_000_000  # between two clocks of one machine, and for what /proc tells while it changes


def processes_of(session):
    """The pids of a terminal session (setsid(2))."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[3]) == session:
            yield int(entry.name)


def kill_session(session):
    for pid in processes_of(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def utc_ns(timestamp):
    whole, _, fraction = timestamp.rstrip("Z").partition(".")
    seconds = datetime.datetime.fromisoformat(whole + "+00:00").timestamp()
    return int(seconds) * 1_000_000_000 + int(fraction)


class ShellIdioms(TracedTest):
    def start(self, shell, script):
        """Starts it, traced, in a folder and a terminal session of its own, which does not outlive the test."""
        folder = self.folder / self.session
        folder.mkdir(exist_ok=True)
        run = subprocess.Popen(
            self.traced_command([shell, "-c", f"step() {{ echo step; read go; }}\ncd {folder}\n{script}"]),
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
        )
        watchdog = threading.Timer(PATIENCE_S, kill_session, [run.pid])
        watchdog.start()

        def clean_up():
            watchdog.cancel()
            kill_session(run.pid)
            for stream in (run.stdin, run.stdout, run.stderr):
                stream.close()
            run.wait()

        self.addCleanup(clean_up)
        return run, self.file(f"{self.session}/f")

    def play(self, shell, script):
        """Runs it step by step. Returns, for each step and for the end, how many processes held the lock."""
        self.seen, self.unseen = [], []  # when the kernel was seen to know the lock, and not to
        run, lock = self.start(shell, script)
        counts = []
        for line in run.stdout:
            self.assertEqual(line, "step\n")
            counts.append(self.compare(run.pid, lock))
            run.stdin.write("go\n")
            run.stdin.flush()
        errors = run.stderr.read()
        self.assertEqual(run.wait(PATIENCE_S), 0, errors)
        counts.append(self.compare(run.pid, lock))
        return counts

    def compare(self, session, lock):
        """How many processes hold the lock, which report and kernel agree on.

        A shell may still be on its way back from fork(2) when its child says `step`: what it is about to record comes
        a moment later.
        """
        before = time.time_ns()
        kernel = kernel_holders(processes_of(session), lock)
        after = time.time_ns()
        (self.seen if kernel else self.unseen).append(before if kernel else after)
        self.wait_for_holders(lock, kernel)
        return len(kernel)

    def wait_for_holders(self, lock, expected):
        holders = None

        def agree():
            nonlocal holders
            holders = self.report().holders(lock) if self.spools else set()
            return holders == expected

        try:
            wait_until("the report's holders are the kernel's", agree)
        except AssertionError:
            self.assertEqual(holders, expected)
            raise

    def check_ends(self):
        """Every hold that ended did so after the kernel was last seen to know it and before it was first seen not to."""
        for released in self.report().events("lock_released"):
            ended = utc_ns(released["timestamp"])
            began = ended - released["hold_ns"]
            seen = [moment for moment in self.seen if moment >= began]
            following = [moment for moment in self.unseen if moment >= began]
            last_seen = [moment for moment in seen if not following or moment < following[0]]
            if last_seen:
                self.assertGreaterEqual(ended, last_seen[-1] - SLACK_NS)
            if following:
                self.assertLessEqual(ended, following[0] + SLACK_NS)

    def check(self, script, counts, shells=("bash", "dash")):
        for shell in shells:
            with self.subTest(shell=shell):
                self.session = f"{shell}-{len(script)}"
                self.assertEqual(self.play(shell, script), counts)
                self.check_ends()

    def test_flock_runs_a_command(self):
        self.check("flock f sh -c 'echo step; read go'; step", [2, 0, 0])

    def test_flock_runs_a_command_and_closes_the_lock_for_it(self):
        self.check("flock -o f sh -c 'echo step; read go'; step", [1, 0, 0])

    def test_lock_on_an_inherited_descriptor_until_it_is_closed(self):
        self.check("exec 9>f; step; flock 9; step; exec 9>&-; step", [0, 1, 0, 0])

    def test_unlock_by_flock(self):
        self.check("exec 9>f; flock 9; step; flock -u 9; step", [1, 0, 0])

    def test_subshell_that_locks_its_descriptor(self):
        self.check("( flock 9; step; step ) 9>f; step", [1, 1, 0, 0])

    def test_subshell_that_becomes_its_last_command(self):
        self.check("( flock 9; exec sh -c 'echo step; read go' ) 9>f; step", [1, 0, 0])

    def test_group_that_locks_its_descriptor(self):
        self.check("{ flock 9; step; } 9>f; step", [1, 0, 0])

    def test_descriptor_chosen_by_the_shell(self):
        self.check("exec {fd}>f; flock $fd; step; exec {fd}>&-; step", [1, 0, 0], shells=("bash",))

    def test_another_file_opened_over_it(self):
        self.check("exec 9>f; flock 9; step; exec 9>other; step", [1, 0, 0])

    def test_lock_that_ends_with_the_script(self):
        self.check("exec 9>f; flock 9; step; exit 0", [1, 0])

    def test_script_that_becomes_another_program(self):
        self.check("exec 9>f; flock 9; exec sh -c 'echo step; read go; exec 9>&-; echo step; read go'", [1, 0, 0])

    def test_copy_of_the_descriptor(self):
        self.check("exec 9>f; flock 9; exec 8>&9; exec 9>&-; step; exec 8>&-; step", [1, 0, 0])

    def test_command_under_the_lock_shares_it(self):
        self.check("exec 9>f; flock 9; sh -c 'echo step; read go'; step", [2, 1, 0])

    def test_command_started_without_the_lock(self):
        self.check("exec 9>f; flock 9; sh -c 'echo step; read go' 9>&-; step", [1, 1, 0])

    def test_try_that_is_refused(self):
        self.check("exec 9>f 8>f; flock 9; flock -n 8 || step; flock -u 9; step; flock -n 8 && step", [1, 0, 1, 0])

    def test_background_child_outlives_the_script(self):
        for shell in ("bash", "dash"):
            with self.subTest(shell=shell):
                self.session = f"background-{shell}"
                # Its standard output is closed, else the run's reader would wait for it too.
                counts = self.play(
                    shell, "mkfifo go; exec 9>f; flock 9; sh -c 'read go <go' >/dev/null 2>&1 & exec 9>&-; step"
                )
                self.assertEqual(counts, [1, 1], "the child holds on")
                (held,) = self.report().held
                child = held["holders"][0]["pid"]
                (self.folder / self.session / "go").write_text("go\n")
                wait_for_end(child)
                self.assertEqual(self.report().held, [])

    def killed_holder(self, shell, script):
        run, lock = self.start(shell, script)
        self.assertEqual(run.stdout.readline(), "step\n")
        return run, lock

    def test_killed_subshell_without_a_sharer(self):
        for shell in ("bash", "dash"):
            with self.subTest(shell=shell):
                self.session = f"killed-{shell}"
                run, lock = self.killed_holder(shell, "( flock 9; step; : ) 9>f; echo over; read go")
                (victim,) = kernel_holders(processes_of(run.pid), lock)
                os.kill(victim, signal.SIGKILL)
                wait_for_end(victim)
                self.assertIn("over", run.stdout.readline())
                self.wait_for_holders(lock, set())
                run.stdin.write("go\n")
                run.stdin.close()
                run.wait()
                released = self.report().events("lock_released")[-1]
                self.assertEqual(released["reason"], "killed")

    def test_killed_flock_command_whose_child_holds_on(self):
        run, lock = self.killed_holder("bash", "flock f sh -c 'echo step; read go'; true")
        both = kernel_holders(processes_of(run.pid), lock)
        self.wait_for_holders(lock, both)
        taker = next(pid for pid in both if Path(f"/proc/{pid}/comm").read_text() == "flock\n")
        os.kill(taker, signal.SIGKILL)
        wait_for_end(taker)
        self.wait_for_holders(lock, both - {taker})
        self.assertEqual(self.report().held[0]["acquired_by"]["pid"], taker)


if __name__ == "__main__":
    unittest.main()
