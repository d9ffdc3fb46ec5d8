"""A flight recorder: --ring keeps the newest, in a bounded file, and the report says what that means. And --max-size."""

import fcntl
import json
import shutil
import signal
import subprocess
import unittest
from pathlib import Path

from harness import BINARY, PATIENCE_S, PYTHON, SHIM, TracedTest, stat_field, wait_until

MANY_PAIRS = """
import fcntl, sys
held, busy = open(sys.argv[1], "w"), open(sys.argv[2], "w")
fcntl.flock(held, fcntl.LOCK_EX)
for _ in range(int(sys.argv[3])):
    fcntl.flock(busy, fcntl.LOCK_EX)
    fcntl.flock(busy, fcntl.LOCK_UN)
"""

# The same, and then two children that wait for each other until an alarm ends it.
THEN_A_DEADLOCK = MANY_PAIRS + """
import os, signal
paths = sys.argv[1] + "1", sys.argv[1] + "2"
pipes = [os.pipe(), os.pipe()]
for i in (0, 1):
    if os.fork() == 0:
        signal.signal(signal.SIGALRM, lambda *_: os._exit(0))
        first, second = open(paths[i], "w"), open(paths[1 - i], "w")
        fcntl.flock(first, fcntl.LOCK_EX)
        os.write(pipes[i][1], b"x")
        os.read(pipes[1 - i][0], 1)
        signal.setitimer(signal.ITIMER_REAL, 0.2 + i)
        fcntl.flock(second, fcntl.LOCK_EX)
        os._exit(0)
for _ in (0, 1):
    os.wait()
"""

EIGHT_AT_ONCE = """
import fcntl, os, sys
for number in range(8):
    if os.fork() == 0:
        busy = open(f"{sys.argv[2]}{number}", "w")
        for _ in range(int(sys.argv[3])):
            fcntl.flock(busy, fcntl.LOCK_EX)
            fcntl.flock(busy, fcntl.LOCK_UN)
        os._exit(0)
for _ in range(8):
    os.wait()
"""

FORTY_THAT_NOBODY_WAITS_FOR = """
import fcntl, os, sys
def lock(times):
    with open(sys.argv[2], "w") as busy:
        for _ in range(times):
            fcntl.flock(busy, fcntl.LOCK_EX)
            fcntl.flock(busy, fcntl.LOCK_UN)
for _ in range(40):
    child = os.fork()
    if child == 0:
        lock(1)
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
lock(int(sys.argv[3]))
"""

PAIRS = 20_000  # two records each: 2.5 MB


class Ring(TracedTest):
    def locks(self, *options):
        shown = self.planloop("dev", "locks", "--session", self.session, *options)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        return shown

    def record(self, program, *options, pairs=PAIRS):
        held, busy = self.file("held"), self.file("busy")
        ran = self.planloop("dev", "run", "--session", self.session, *options, "--", PYTHON, "-c", program, str(held),
                            str(busy), str(pairs))
        self.assertEqual(ran.returncode, 0, ran.stderr)
        return held, busy, ran

    def test_keeps_the_newest_in_a_bounded_file_and_says_so(self):
        _, busy, _ = self.record(MANY_PAIRS, "--ring", "512K")
        (spool,) = self.spools
        self.assertLessEqual(spool.stat().st_size, (512 + 16) << 10)
        shown = self.locks("--json")
        self.assertIn("older events were overwritten: it keeps the newest 512 KiB", shown.stderr)
        report = self.report()
        row = report.lock_of(busy)
        self.assertGreater(row["acquisitions"], 3000)
        self.assertLess(row["acquisitions"], PAIRS)
        self.assertEqual(report.data["recorded"]["dropped"], 0)
        self.assertEqual(report.findings("unlock_without_lock") + report.findings("lost_events"), [])
        self.assertTrue(all(entry["process"].startswith("python3") for entry in report.data["timeline"]))

    def test_what_was_overwritten_while_the_run_did_not_look_makes_no_verdict(self):
        """The run sees a lock call that waits, and not how it goes on."""
        held, busy = self.file("held"), self.file("busy")
        log = self.home / "sessions" / self.session / "logs" / "planloop.jsonl"
        with open(held) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            run = subprocess.Popen([BINARY, "dev", "run", "--session", self.session, "--ring", "256K", "--fail-on=deadlock",
                                    "--", PYTHON, "-c", MANY_PAIRS, held, busy, str(PAIRS)],
                                   env=self.environment, text=True, stderr=subprocess.PIPE)  # fmt: skip
            self.addCleanup(run.kill)
            wait_until("the run sees the lock call", lambda: log.exists() and "lock_requested" in log.read_text())
            program = json.loads(log.read_text().splitlines()[0])["pid"]
            run.send_signal(signal.SIGSTOP)
            wait_until("the run is stopped", lambda: stat_field(run.pid, 3) == "T")
        wait_until("the program is done", lambda: stat_field(program, 3) == "Z")
        run.send_signal(signal.SIGCONT)
        _, said = run.communicate(timeout=PATIENCE_S)
        self.assertEqual(run.returncode, 0, said)
        self.assertIn(f" {self.report().data['recorded']['events']} lock events on 1 lock", said)

    def test_nothing_is_said_to_be_overwritten_while_there_is_room(self):
        _, busy, _ = self.record(MANY_PAIRS, "--ring", "512K", pairs=50)
        shown = self.locks()
        self.assertNotIn("overwritten", shown.stderr)
        self.assertEqual(self.report().lock_of(busy)["acquisitions"], 50)

    def test_verdicts_over_a_past_that_is_gone_are_possible_ones(self):
        self.record(THEN_A_DEADLOCK, "--ring", "512K")
        (deadlock,) = self.report().findings("deadlock")
        self.assertEqual(deadlock["certainty"], "possible")
        self.assertEqual(len(deadlock["participants"]), 2)

    def test_the_same_verdict_is_certain_where_nothing_was_overwritten(self):
        self.record(THEN_A_DEADLOCK, "--ring", "512K", pairs=10)
        (deadlock,) = self.report().findings("deadlock")
        self.assertEqual(deadlock["certainty"], "confirmed")

    def test_without_the_wrapper_a_variable_asks_for_it(self):
        environment = {**self.environment, "LD_PRELOAD": SHIM, "PLANLOOP_SESSION": self.session, "PLANLOOP_RING": "256k"}
        self.run_program([PYTHON, "-c", MANY_PAIRS, self.file("held"), self.file("busy"), str(PAIRS)], env=environment)
        (spool,) = self.spools
        self.assertLessEqual(spool.stat().st_size, (256 + 16) << 10)
        self.assertIn("older events were overwritten", self.locks().stderr)

    def test_a_cap_stops_recording_and_counts_what_is_missing(self):
        _, busy, _ = self.record(MANY_PAIRS, "--max-size", "1M")
        (spool,) = self.spools
        self.assertLessEqual(spool.stat().st_size, 1 << 20)
        report = self.report()
        self.assertGreater(report.data["recorded"]["dropped"], PAIRS)
        self.assertTrue(report.findings("lost_events"))
        self.assertLess(report.lock_of(busy)["acquisitions"], PAIRS)

    def test_events_of_eight_busy_processes_are_all_recorded(self):
        self.record(EIGHT_AT_ONCE, pairs=2000)
        data = self.report().data
        self.assertEqual(data["recorded"]["dropped"], 0)
        self.assertEqual([lock["acquisitions"] for lock in data["locks"]], 8 * [2000])
        self.assertEqual(data["recorded"]["events"], 8 * 2000 * 3)

    def test_children_that_nobody_waited_for_take_no_room(self):
        """A ring of sixteen chunks, forty who wrote to it and are zombies, and then one who writes."""
        _, busy, _ = self.record(FORTY_THAT_NOBODY_WAITS_FOR, "--ring", "256K", pairs=200)
        report = self.report()
        self.assertEqual((report.data["recorded"]["dropped"], report.findings("lost_events")), (0, []))
        self.assertGreaterEqual(report.lock_of(busy)["acquisitions"], 200)

    def test_events_of_eight_busy_processes_are_counted_where_there_is_no_room_for_them(self):
        self.record(EIGHT_AT_ONCE, "--max-size", "1M", pairs=2000)
        data = self.report().data
        acquired = sum(lock["acquisitions"] for lock in data["locks"])
        self.assertGreater(data["recorded"]["dropped"], 0)
        # A pair is two records: those that are there, and those that are counted.
        self.assertGreaterEqual(2 * acquired + data["recorded"]["dropped"], 8 * 2000 * 2)

    def test_what_cannot_be_a_size_is_refused_in_one_line(self):
        cases = (
            (("--ring", "100"), "--ring 100 is too small: 256K at least"),
            (("--ring", "64Q"), "--ring wants a size, as 64M or 2G, not '64Q'"),
            (("--ring", "-1"), "--ring wants a size"),
            (("--max-size", "1"), "--max-size 1 is too small: 64K at least"),
            (("--max-size", "99999999999999999999"), "--max-size wants a size"),
            (("--ring", "1M", "--max-size", "1M"), "--ring and --max-size: one of them"),
        )
        for options, words in cases:
            with self.subTest(options=options):
                refused = self.planloop("dev", "run", *options, "--", "true")
                self.assertEqual((refused.returncode, refused.stdout), (2, ""))
                self.assertIn(words, refused.stderr)
                self.assertEqual(len(refused.stderr.splitlines()), 1, refused.stderr)

    def test_a_session_stays_what_it_was_made_as(self):
        self.record(MANY_PAIRS, pairs=1)
        again = self.planloop("dev", "run", "--session", self.session, "--ring", "1M", "--", "echo", "ran")
        self.assertEqual((again.returncode, again.stdout), (0, "ran\n"))
        self.assertIn("is recorded without --ring already; choose another session", again.stderr)

    def test_spools_of_the_first_format_are_read(self):
        golden = Path(__file__).parents[1] / "golden" / "format-1.spool"
        folder = self.home / "sessions" / self.session / "logs" / "spool"
        folder.mkdir(parents=True)
        shutil.copy(golden, folder / "locks-v1-fd97ea52.spool")
        report = self.report()
        self.assertEqual([entry["event"] for entry in report.data["timeline"]],
                         ["lock_requested", "lock_acquired", "lock_requested", "lock_failed", "lock_released"])
        self.assertEqual(report.data["locks"][0]["path"], "/tmp/golden.lock")


if __name__ == "__main__":
    unittest.main()
