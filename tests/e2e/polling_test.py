"""Who cannot wait for a lock asks again and again: each call is an event, and all of them are one wait with a count of
tries."""

import subprocess
import unittest

from harness import PATIENCE_S, PROGRAMS, PYTHON, TracedTest, wait_until

PROBE = PROGRAMS / "lockcore_probe"
FILELOCK = """
import sys, filelock
try:
    with filelock.FileLock(sys.argv[1], timeout=int(sys.argv[2]) / 1000):
        print("locked")
except filelock.Timeout:
    print("gave up")
"""
# Each opens its lock file, asks, and prints how it ended. The second word is for how many milliseconds it asks.
POLLERS = {
    "Boost's timed_lock": ([PROGRAMS / "boost_locker"], "fcntl 3 setlk wr 0 0", "fcntl 3 setlk un 0 0"),
    "Python's filelock": ([PYTHON, "-c", FILELOCK], "flock 3 ex", "flock 3 un"),
}
ENOUGH_TRIES = 3
ROUNDED_NS = 2  # two times that are worked out from ticks, and their difference


class Polling(TracedTest):
    def start(self, take, poller, milliseconds):
        self.lock = self.file(f"lock{len(take)}")
        self.holder = self.stage().root
        self.holder.call(f"open {self.lock}")
        self.holder.call(take)
        run = subprocess.Popen([str(word) for word in self.traced_command([*poller, self.lock, milliseconds])],
                               env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
        self.addCleanup(run.kill)
        return run

    def finish(self, run, said):
        out, errors = run.communicate(timeout=PATIENCE_S)
        self.assertEqual((out, run.returncode), (said, 0), errors)
        report = self.report()
        return report, report.lock_of(self.lock)

    def calls_recorded(self, tid):
        """How often the thread asked for a lock, whether it got it or not."""
        calls = [self.run_program([PROBE, "lock-calls", spool]).stdout for spool in self.spools if spool.suffix == ".spool"]
        words = [line.split() for line in "".join(calls).splitlines()]
        return len([1 for caller, _, _, mode, *_ in words if int(caller) == tid and mode != "none"])

    def refused(self):
        """Who has been refused some times, 0 if nobody was."""
        refusals = self.report().events("lock_failed") if self.spools else []
        return refusals[-1]["pid"] if len(refusals) >= ENOUGH_TRIES else 0

    def check_one_wait(self, report, row, pid, last):
        """All calls of `pid` are one wait, which `last` is the end of."""
        requests = report.events("lock_requested", pid=pid)
        self.assertEqual(len(requests), self.calls_recorded(pid))
        self.assertEqual(last["tries"], len(requests))
        self.assertEqual([who["pid"] for who in last["blocked_by"]], [self.holder.pid])
        self.assertEqual(row["wait_ns"]["count"], 2, "the holder's and this one")
        self.assertAlmostEqual(row["wait_ns"]["max"], last["t_ns"] - requests[0]["t_ns"], delta=ROUNDED_NS)
        self.assertEqual(sum(culprit["waits"] for culprit in report.data["blame"]["processes"]), 1)

    def test_a_wait_that_is_granted(self):
        for name, (poller, take, give) in POLLERS.items():
            with self.subTest(name):
                self.session = name.split("'")[0]
                run = self.start(take, poller, PATIENCE_S * 1000)
                pid = wait_until("it has been refused some times", self.refused)
                self.holder.call(give)
                report, row = self.finish(run, "locked\n")
                (acquired,) = report.events("lock_acquired", pid=pid)
                self.check_one_wait(report, row, pid, acquired)
                self.assertEqual(acquired["wait_ns"], row["wait_ns"]["max"])
                self.assertEqual((row["acquisitions"], row["contended"]), (2, 1))

    def test_a_wait_in_vain(self):
        for name, (poller, take, _) in POLLERS.items():
            with self.subTest(name):
                self.session = name.split("'")[0]
                report, row = self.finish(self.start(take, poller, 300), "gave up\n")
                *_, failed = report.events("lock_failed")
                self.check_one_wait(report, row, failed["pid"], failed)
                self.assertEqual((row["acquisitions"], row["contended"]), (1, 0))


if __name__ == "__main__":
    unittest.main()
