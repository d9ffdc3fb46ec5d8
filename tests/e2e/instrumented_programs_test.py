"""Programs that link the lock and record themselves: each lock is counted once, with the preloaded library and without."""

import subprocess
import unittest

from harness import PROGRAMS, SHIM, TracedTest

EXAMPLE = str(PROGRAMS / "file_lock_example")
PROBE = str(PROGRAMS / "lockcore_probe")


class InstrumentedPrograms(TracedTest):
    def setUp(self):
        super().setUp()
        # A sanitized program wants its run time to be loaded first; the preloaded library is harmless.
        self.environment["ASAN_OPTIONS"] = "verify_asan_link_order=0"

    def check(self, runs):
        report = self.report()
        row = report.lock_of(self.folder / "counter.lock")
        self.assertEqual((row["family"], row["acquisitions"]), ("posix", runs))
        self.assertEqual(len(report.events("lock_requested")), runs)
        self.assertEqual(len(report.events("lock_released", reason="unlock")), runs)
        self.assertEqual({entry["operation"] for entry in report.timeline}, {"count"})
        self.assertEqual(report.held, [])
        self.assertEqual(report.recorded["threads"], report.recorded["processes"])
        return report

    def test_the_example_of_the_readme_runs(self):
        counter = self.folder / "counter"
        for count in ("1\n", "2\n"):
            run = self.run_program([EXAMPLE, counter])
            self.assertEqual((run.returncode, run.stdout), (0, count))
        self.assertEqual(counter.read_text(), "2\n")
        self.assertFalse(self.home.exists(), "nothing asked for a recording")

    def test_a_program_that_only_locks_does_not_load_what_names_stack_frames(self):
        shown = subprocess.run(["readelf", "-d", EXAMPLE], capture_output=True, text=True, check=True).stdout
        self.assertRegex(shown, r"NEEDED.*libc\.so")
        self.assertNotIn("libdw", shown)

    def test_a_program_records_itself_without_the_library(self):
        run = self.run_program([EXAMPLE, self.folder / "counter"],
                               env={**self.environment, "PLANLOOP_SESSION": self.session})
        self.assertEqual(run.stdout, "1\n")
        report = self.check(1)
        self.assertEqual(report.recorded["processes"], 1)

    def test_a_lock_is_counted_once_under_the_library(self):
        environment = {**self.environment, "PLANLOOP_SESSION": self.session, "LD_PRELOAD": SHIM}
        self.assertEqual(self.run_program([EXAMPLE, self.folder / "counter"], env=environment).stdout, "1\n")
        self.check(1)

    def test_a_lock_is_counted_once_under_dev_run(self):
        self.assertEqual(self.traced(EXAMPLE, self.folder / "counter").stdout, "1\n")
        self.assertEqual(self.traced(EXAMPLE, self.folder / "counter").stdout, "2\n")
        report = self.check(2)
        lines = (self.home / "sessions" / self.session / "logs" / "planloop.jsonl").read_text().splitlines()
        self.assertEqual(sum('"event":"lock_acquired"' in line for line in lines), 2)
        self.assertTrue(all('"source":"lockcore"' in line for line in lines), lines)
        self.assertEqual(report.recorded["events"], 6)

    def test_a_lock_that_a_close_elsewhere_in_the_program_dropped_is_found(self):
        lock = self.folder / "lock"
        run = self.traced(PROBE, "close-while-locked", lock)
        self.assertEqual((run.returncode, run.stdout), (0, "lost\n"))
        (finding,) = self.report().findings("lock_lost_on_close")
        self.assertRegex(finding["summary"], rf"lost its lock on {lock}, taken through descriptor \d+ .* closed descriptor \d+")

    def test_all_that_a_program_does_belongs_to_the_trace_it_was_started_for(self):
        ours, foreign = "tr_20261122080000_a3f5c9", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        of_foreign = r"tr_\d{14}_4bf92f3577b34da6a3ce929d0e0e4736"
        for variables, wanted in (
            ({"PLANLOOP_TRACE_ID": ours, "TRACEPARENT": foreign}, ours),
            ({"PLANLOOP_TRACE_ID": "no trace id", "TRACEPARENT": foreign}, of_foreign),
            ({"TRACEPARENT": foreign}, of_foreign),
            ({"TRACEPARENT": "00-20261122080000a3f5c9000000000006-00f067aa0ba902b7-01"}, ours),
            ({"TRACEPARENT": "nonsense"}, None),
        ):
            with self.subTest(variables):
                first, second = self.run_program([PROBE, "trace"], env={**self.environment, **variables}).stdout.split()
                if wanted is None:
                    self.assertNotEqual(first, second, "without one, each operation makes its own")
                else:
                    self.assertRegex(first, f"^{wanted}$")
                    self.assertEqual(first, second)

    def test_a_trace_id_is_inherited(self):
        trace_id = "tr_20261122080000_a3f5c9"
        self.environment["PLANLOOP_TRACE_ID"] = trace_id
        self.traced(EXAMPLE, self.folder / "counter")
        self.assertEqual({entry["trace_id"] for entry in self.check(1).timeline}, {trace_id})

    def test_it_works_where_nothing_can_be_recorded(self):
        self.home.write_text("a file")
        run = self.run_program([EXAMPLE, self.folder / "counter"],
                               env={**self.environment, "PLANLOOP_SESSION": self.session})
        self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "1\n", ""))


if __name__ == "__main__":
    unittest.main()
