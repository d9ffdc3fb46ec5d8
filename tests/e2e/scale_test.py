"""Much of everything: a reader's memory and descriptors are bounded by locks and threads, not by events or processes."""

import os
import resource
import unittest

from harness import PROGRAMS, PYTHON, SANITIZERS, TracedTest

# Each child is a process that locks the file once; so many at a time.
MANY_CHILDREN = """
import fcntl, os, sys
path, count = sys.argv[1], int(sys.argv[2])
for number in range(count):
    if number >= 32:
        os.wait()
    if os.fork() == 0:
        with open(path, "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            fcntl.flock(file, fcntl.LOCK_UN)
        os._exit(0)
for _ in range(min(count, 32)):
    os.wait()
"""

DESCRIPTORS = 64
MEGABYTE = 1 << 20


def within(descriptors=None, memory=None):
    """A preexec_fn."""
    def limit():
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
        if memory and not SANITIZERS:  # which set aside terabytes
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    return limit


class Scale(TracedTest):
    def summary(self, **limits):
        shown = self.planloop("dev", "locks", "--session", self.session, "--summary", "--json", preexec_fn=within(**limits))
        self.assertEqual(shown.returncode, 0, shown.stderr)
        return shown

    def test_two_thousand_processes_are_all_recorded_and_read_with_few_descriptors(self):
        lock = self.file()
        ran = self.traced(PYTHON, "-c", MANY_CHILDREN, lock, 2000)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        self.summary(descriptors=DESCRIPTORS, memory=160 * MEGABYTE)
        report = self.report()
        self.assertEqual(report.lock_of(lock)["acquisitions"], 2000)
        self.assertGreaterEqual(report.data["recorded"]["processes"], 2000)
        self.assertEqual(report.data["recorded"]["dropped"], 0)
        self.assertEqual(report.data["held"], [])

    def test_a_spool_larger_than_memory_is_read_whole(self):
        lock, pairs = self.file(), 1_200_000
        ran = self.traced(PROGRAMS / "lock_pairs", lock, pairs)
        self.assertEqual(ran.returncode, 0, ran.stderr)
        (spool,) = self.spools
        self.assertGreater(spool.stat().st_size, 2 * pairs * 64)
        shown = self.summary(memory=100 * MEGABYTE)
        self.assertIn(f'"acquisitions":{pairs}', shown.stdout.replace(" ", ""))

    def test_ten_thousand_empty_spools_are_told_in_a_few_lines(self):
        lock = self.file()
        self.traced("flock", lock, "true")
        folder = self.spools[0].parent
        for number in range(10_000):
            (folder / f"locks-v2-{number:08x}.spool").touch()
        there = sorted(os.listdir(folder))
        shown = self.summary(descriptors=DESCRIPTORS, memory=160 * MEGABYTE)
        self.assertLess(len(shown.stderr.splitlines()), 40)
        self.assertRegex(shown.stderr, r"and \d+ more files cannot be read")
        self.assertEqual(self.report().lock_of(lock)["acquisitions"], 1)
        self.assertEqual(sorted(os.listdir(folder)), there)  # what cannot be read is left alone


if __name__ == "__main__":
    unittest.main()
