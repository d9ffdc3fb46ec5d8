"""`planloop dev export` as a command: what it writes where, and what it says when it cannot. What the files contain is
judged by the programs that read them, in tests/exports.
"""

import csv
import json
import os
import resource
import signal
import subprocess
import unittest

from harness import BINARY, TracedTest

# No mode of a folder stops root, as whom tests may run, but for these rights.
UNPRIVILEGED = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
FORMATS = ("perfetto", "otlp", "speedscope", "csv", "jsonl", "dot")


class DevExport(TracedTest):
    def setUp(self):
        super().setUp()
        self.lock = self.file()
        self.traced("flock", self.lock, "true")
        self.out = self.folder / "out"

    def export(self, *arguments, **options):
        return self.planloop("dev", "export", "--session", self.session, *arguments, **options)

    def complaint(self, *arguments, **options):
        run = self.export(*arguments, **options)
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        self.assertEqual(run.stderr.count("\n"), 1)
        return run.stderr

    def left_over(self):
        return sorted(path.name for path in self.folder.iterdir() if path.name not in ("home", self.lock.name))

    def test_a_file_and_standard_output_get_the_same(self):
        for name in FORMATS:
            run = self.export("--format", name, "-o", self.out, "--force")
            self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "", ""))
            for more in ((), ("-o", "-")):
                run = self.export("--format", name, *more, text=False)
                self.assertEqual((run.returncode, run.stdout), (0, self.out.read_bytes()), name)

    def test_a_recording_that_is_over_has_the_same_times_whenever_it_is_read(self):
        self.traced("flock", self.lock, "sleep", "0.3")
        exports = {self.export("--format", "csv").stdout for _ in range(20)}
        self.assertEqual(len(exports), 1)
        reports = {self.planloop("dev", "locks", "--session", self.session, "--json").stdout for _ in range(5)}
        self.assertEqual(len(reports), 1)

    def test_rows_are_the_reports(self):
        (acquired,) = self.report().events("lock_acquired")
        (line,) = self.export("--format", "jsonl").stdout.splitlines()
        row = json.loads(line)
        (same,) = csv.DictReader(self.export("--format", "csv").stdout.splitlines())
        self.assertEqual(list(row), list(same))
        for name in ("lock_entry_id", "trace_id", "operation", "process", "pid", "tid", "lock", "mode", "wait_ns"):
            self.assertEqual((row[name], same[name]), (acquired[name], str(acquired[name])), name)
        self.assertEqual(row["hold_ns"], self.report().locks[0]["hold_ns"]["total"])
        self.assertEqual(row["path"], str(self.lock))

    def test_list_names_every_format_and_what_opens_it(self):
        run = self.planloop("dev", "export", "--list")
        self.assertEqual(run.returncode, 0)
        self.assertEqual({line.split()[0] for line in run.stdout.splitlines()}, set(FORMATS))
        self.assertTrue(all("; opens in " in line for line in run.stdout.splitlines()))

    def test_an_existing_file_is_kept_unless_forced(self):
        self.out.write_text("mine")
        self.assertIn("--force", self.complaint("--format", "csv", "-o", self.out))
        self.assertEqual(self.out.read_text(), "mine")
        self.assertEqual(self.export("--format", "csv", "-o", self.out, "--force").returncode, 0)
        self.assertTrue(self.out.read_text().startswith("lock_entry_id,"))

    def test_an_unknown_format_is_answered_with_the_nearest(self):
        self.assertIn("did you mean perfetto?", self.complaint("--format", "perfeto"))
        self.assertIn("did you mean jsonl?", self.complaint("--format", "json"))
        self.assertIn("there are perfetto, otlp,", self.complaint("--format", "somethingelse"))
        self.assertIn("perfetto, otlp,", self.complaint())
        self.assertIn("unknown format ?[31m", self.complaint("--format", "\x1b[31m"))

    def test_a_folder_that_is_not_there_or_not_writable(self):
        self.assertIn("No such file", self.complaint("--format", "csv", "-o", self.folder / "none" / "out"))
        self.assertIn("is a folder", self.complaint("--format", "csv", "-o", self.folder))
        self.assertEqual(self.left_over(), [])

    def test_a_full_disk_leaves_no_half_file(self):
        self.assertIn("No space left", self.complaint("--format", "csv", "-o", "/dev/full"))

        def nothing_fits():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))

        for name in FORMATS:
            self.assertIn("cannot write", self.complaint("--format", name, "-o", self.out, preexec_fn=nothing_fits))
        self.assertEqual(self.left_over(), [])
        self.out.write_text("mine")
        self.complaint("--format", "csv", "-o", self.out, "--force", preexec_fn=nothing_fits)
        self.assertEqual(self.out.read_text(), "mine")
        self.assertEqual(self.left_over(), ["out"])

    def test_a_folder_that_may_not_be_written_to(self):
        closed = self.folder / "closed"
        closed.mkdir()
        (closed / "kept").write_text("mine")
        closed.chmod(0o555)
        for command, options in (*(("export", ("--format", name)) for name in FORMATS), ("report", ())):
            dev = [*UNPRIVILEGED, BINARY, "dev", command, "--session", self.session, *options]
            for name, more in (("new", ()), ("kept", ("--force",))):
                run = self.run_program([*dev, "-o", closed / name, *more])
                self.assertEqual((run.returncode, run.stdout), (2, ""))
                self.assertEqual(run.stderr, f"planloop: cannot write {closed / name}: Permission denied\n")
            self.assertEqual(self.run_program([*dev, "-o", self.out, "--force"]).returncode, 0)
        self.assertEqual([path.name for path in closed.iterdir()], ["kept"])
        self.assertEqual((closed / "kept").read_text(), "mine")

    def test_whoever_stops_reading_ends_it_without_a_word(self):
        shell = f"'{BINARY}' dev export --session {self.session} --format csv | true"
        run = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, env=self.environment)
        self.assertEqual((run.returncode, run.stdout, run.stderr), (0, "", ""))

    def test_no_session(self):
        self.assertIn("nothere", self.planloop("dev", "export", "--session", "nothere", "--format", "csv").stderr)


if __name__ == "__main__":
    unittest.main()
