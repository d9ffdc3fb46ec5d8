"""Unmodified programs that use flock(2): traced, they say and return what they say and return plain."""

import fcntl
import os
import signal
import unittest

from harness import PYTHON, TracedTest

PYTHON_PROGRAM = """
import fcntl, sys
with open(sys.argv[1], "w") as file:
    for _ in range(int(sys.argv[2])):
        fcntl.flock(file, fcntl.LOCK_EX)
        fcntl.flock(file, fcntl.LOCK_UN)
    fcntl.flock(file, fcntl.LOCK_SH)
    print("python has it", file.fileno())
"""

PERL_PROGRAM = """
use Fcntl qw(:flock);
open(my $file, ">", $ARGV[0]) or die;
flock($file, LOCK_EX) or die;
print "perl has it\\n";
flock($file, LOCK_UN) or die;
print flock($file, LOCK_SH | LOCK_NB) ? "shared too\\n" : "refused\\n";
"""


class FlockPrograms(TracedTest):
    def test_flock_command_that_runs_a_program(self):
        lock = self.file()
        self.assertEqual(self.same_both_ways("flock", lock, "sh", "-c", "echo inside; exit 5").returncode, 5)
        report = self.report()
        self.assertEqual(report.lock_of(lock)["acquisitions"], 1)
        self.assertEqual(report.lock_of(lock)["contended"], 0)
        self.assertEqual([entry["process"] for entry in report.events("lock_acquired")], ["flock"])

    def test_flock_command_that_is_refused(self):
        lock = self.file()
        with open(lock) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            cases = {
                ("-n",): 1,
                ("-n", "-E", "42"): 42,
                ("-w", "0.02"): 1,  # flock(1) sets an alarm, and the blocked call comes back with EINTR
                ("-s", "-n"): 1,
            }
            for options, status in cases.items():
                with self.subTest(options=options):
                    self.assertEqual(self.same_both_ways("flock", *options, lock, "echo", "never").returncode, status)
        report = self.report()
        self.assertEqual(report.lock_of(lock)["acquisitions"], 0)
        self.assertEqual(report.lock_of(lock)["failed"], len(cases))
        names = [os.strerror(entry["errno"]) for entry in report.events("lock_failed")]
        again, interrupted = "Resource temporarily unavailable", "Interrupted system call"
        self.assertEqual(names, [again, again, interrupted, again])

    def test_flock_command_that_waits_for_an_untraced_holder(self):
        lock = self.file()
        with open(lock) as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            run = self.traced("flock", "-w", "0.05", lock, "true")
        self.assertEqual(run.returncode, 1)
        (failed,) = self.report().events("lock_failed")
        self.assertGreater(failed["wait_ns"], 0)
        self.assertEqual([blocker["pid"] for blocker in failed["blocked_by"]], [0])

    def test_missing_folder_is_reported_by_the_program_itself(self):
        self.assertNotEqual(self.same_both_ways("flock", self.folder / "no" / "lock", "true").returncode, 0)

    def test_python(self):
        lock = self.file()
        self.same_both_ways(PYTHON, "-c", PYTHON_PROGRAM, lock, 100)
        report = self.report()
        counts = [len(report.events(event)) for event in ("lock_requested", "lock_acquired", "lock_released", "lock_failed")]
        self.assertEqual(counts, [101, 101, 101, 0])
        self.assertEqual(report.recorded["events"], 303)
        self.assertEqual(report.recorded["dropped"], 0)
        self.assertEqual({entry["mode"] for entry in report.events("lock_requested")}, {"exclusive", "shared"})
        self.assertIn(report.events("lock_released")[-1]["reason"], ("close", "exit"))

    def test_perl(self):
        lock = self.file()
        self.assertEqual(self.same_both_ways("perl", "-e", PERL_PROGRAM, lock).stdout, "perl has it\nshared too\n")
        report = self.report()
        self.assertEqual(report.lock_of(lock)["acquisitions"], 2)
        self.assertEqual({entry["process"] for entry in report.timeline}, {"perl"})

    def test_many_short_processes(self):
        lock = self.file()
        self.same_both_ways("sh", "-c", f"for i in 1 2 3 4 5 6 7 8 9 10; do flock {lock} true; done; echo done")
        report = self.report()
        self.assertEqual(report.lock_of(lock)["acquisitions"], 10)
        self.assertEqual(len({entry["pid"] for entry in report.events("lock_acquired")}), 10)

    def test_no_lock_no_event(self):
        self.same_both_ways("sh", "-c", "echo a | cat; ls / >/dev/null")
        self.assertEqual(self.report().recorded["events"], 0)


class WhatTheProgramSees(TracedTest):
    def test_standard_input_passes(self):
        self.assertEqual(self.same_both_ways("cat", input="a\nb\n").stdout, "a\nb\n")

    def test_arguments_pass_unchanged(self):
        self.same_both_ways(PYTHON, "-c", "import sys; print(sys.argv[1:])", "a b", "", "--session", "-x", "*", "\n")

    def test_only_the_tracer_s_own_variables_are_added(self):
        show = (PYTHON, "-c", "import os; print('\\n'.join(sorted(os.environ)))")
        plain, traced = self.run_program(show).stdout, self.traced(*show).stdout
        added = set(traced.split()) - set(plain.split())
        self.assertEqual({name for name in added if not name.startswith("PLANLOOP_")}, {"LD_PRELOAD", "ASAN_OPTIONS"})
        self.assertEqual(set(plain.split()) - set(traced.split()), set())

    def test_descriptors_limits_and_signals_are_untouched(self):
        show = (
            "import os, resource, signal;"
            "print(sorted(os.listdir('/proc/self/fd')), resource.getrlimit(resource.RLIMIT_NOFILE),"
            " resource.getrlimit(resource.RLIMIT_CORE), signal.pthread_sigmask(signal.SIG_BLOCK, []),"
            " [signal.getsignal(n) for n in (1, 2, 3, 13, 15, 17, 25)], os.umask(0), os.nice(0))"
        )
        self.same_both_ways(PYTHON, "-c", show)

    def test_death_by_signal_is_passed_on(self):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
            with self.subTest(signal=number.name):
                died = self.same_both_ways("sh", "-c", f"kill -{int(number)} $$")
                self.assertEqual(died.returncode, -number)


if __name__ == "__main__":
    unittest.main()
