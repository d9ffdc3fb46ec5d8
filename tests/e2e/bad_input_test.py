"""What is wrong with a session, a spool or a program is said in one clear line, and stops nothing else."""

import os
import resource
import shutil
import struct
import subprocess
import unittest

from harness import PROGRAMS, SANITIZERS, TracedTest

VERSION_AT = 8  # in the header of a spool
ENDIAN_AT = 12


class Sessions(TracedTest):
    def test_unknown_session_is_status_2_and_names_the_nearest(self):
        self.session = "nightly-build"
        self.traced("true")
        shown = self.planloop("dev", "locks", "--session", "nihgtly-build")
        self.assertEqual((shown.returncode, shown.stdout), (2, ""))
        (line,) = shown.stderr.splitlines()
        self.assertIn("nihgtly-build", line)
        self.assertIn("'nightly-build'", line.replace('"', "'"))

    def test_no_session_at_all(self):
        shown = self.planloop("dev", "locks")
        self.assertEqual((shown.returncode, shown.stdout), (2, ""))
        self.assertEqual(len(shown.stderr.splitlines()), 1)

    def test_session_names_that_are_no_names(self):
        for name in ("", "..", "a/b", ".hidden"):
            with self.subTest(name=name):
                run = self.planloop("dev", "run", "--session", name, "--", "echo", "ran")
                self.assertEqual((run.returncode, run.stdout), (2, ""))
                self.assertEqual(len(run.stderr.splitlines()), 1)

    def test_prefix_and_latest_are_enough(self):
        lock = self.file()
        for self.session in ("alpha-1", "beta-1"):
            self.traced("flock", lock, "true")
        for wanted, found in {"alp": "alpha-1", "latest": "beta-1", "beta-1": "beta-1"}.items():
            self.assertEqual(self.report(wanted).data["session"], found)


class Spools(TracedTest):
    def setUp(self):
        super().setUp()
        self.lock = self.file()
        self.traced("flock", self.lock, "true")
        (self.spool,) = [path for path in self.spools if path.suffix == ".spool"]

    def check_noted(self, path, acquisitions=1):
        """The report says one thing about the file, on stderr, and shows the rest."""
        shown = self.planloop("dev", "locks", "--session", self.session, "--json")
        self.assertEqual(shown.returncode, 0, shown.stderr)
        lines = [line for line in shown.stderr.splitlines() if path.name in line]
        self.assertEqual(len(lines), 1, shown.stderr)
        report = self.report()
        self.assertEqual(sum(row["acquisitions"] for row in report.locks), acquisitions)
        return lines[0]

    def another(self, content):
        path = self.spool.with_name("locks-v1-00000001.spool")
        path.write_bytes(content)
        return path

    def test_empty(self):
        self.assertIn("empty", self.check_noted(self.another(b"")))

    def test_foreign(self):
        self.check_noted(self.another(b"#!/bin/sh\necho hello\n" * 1000))

    def test_newer_version(self):
        content = bytearray(self.spool.read_bytes())
        content[VERSION_AT : VERSION_AT + 4] = struct.pack("=I", 99)
        self.assertIn("newer", self.check_noted(self.another(content)))

    def test_other_byte_order(self):
        content = bytearray(self.spool.read_bytes())
        content[ENDIAN_AT : ENDIAN_AT + 4] = content[ENDIAN_AT : ENDIAN_AT + 4][::-1]
        self.check_noted(self.another(content))

    def test_header_cut_short(self):
        self.check_noted(self.another(self.spool.read_bytes()[:100]))

    def test_truncated_shows_what_is_left(self):
        whole = self.report().recorded["events"]
        used = len(self.spool.read_bytes().rstrip(b"\0"))
        left = []
        for cut in range(used - 64, 4096, -1024):
            with self.subTest(cut=cut):
                os.truncate(self.spool, cut)
                before = self.spool.read_bytes()
                shown = self.planloop("dev", "locks", "--session", self.session, "--json")
                self.assertEqual(shown.returncode, 0, shown.stderr)
                self.assertIn(self.spool.name, shown.stderr)
                left.append(self.report().recorded["events"])
                self.assertEqual(self.spool.read_bytes(), before, "a reader never writes its input")
        self.assertEqual(left, sorted(left, reverse=True))
        self.assertLessEqual(left[0], whole)
        self.assertLess(left[-1], whole)

    def test_a_folder_in_its_place(self):
        path = self.spool.with_name("locks-v1-00000002.spool")
        path.mkdir()
        self.check_noted(path)

    def test_no_spool_at_all(self):
        shutil.rmtree(self.spool.parent)
        shown = self.planloop("dev", "locks", "--session", self.session)
        self.assertEqual(shown.returncode, 0, shown.stderr)
        self.assertTrue(shown.stdout + shown.stderr)


class NowhereToRecord(TracedTest):
    def check_untouched(self, **options):
        """The program runs as ever; the run says, before it starts, that nothing is recorded."""
        lock = self.file()
        run = self.traced("flock", lock, "sh", "-c", "echo ran; echo program >&2; exit 4", **options)
        self.assertEqual((run.stdout, run.returncode), ("ran\n", 4), run.stderr)
        said, _, _ = run.stderr.partition("program\n")
        self.assertRegex(said, r"(?m)^planloop.*(nothing|not) .*recorded")

    def test_no_permission(self):
        self.home.mkdir()
        self.home.chmod(0o500)
        # Root is stopped by no permission unless it gives up the right to override them.
        wrapper = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
        plain = self.traced_command
        self.traced_command = lambda command: wrapper + plain(command)
        self.check_untouched()

    def test_home_is_a_file(self):
        self.home.touch()
        self.check_untouched()

    @unittest.skipIf("thread" in SANITIZERS, "ThreadSanitizer itself writes a file as it starts, and dies of it")
    def test_no_space(self):
        """A limit on the size of files stands for a full disk: what would be written does not fit."""

        def no_file_may_grow():
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

        self.check_untouched(preexec_fn=no_file_may_grow)

    def test_little_address_space_is_enough(self):
        """What is recorded is mapped, and a program that may map little must neither notice nor be left out."""
        lock = self.file()
        limit = 48 << 20
        run = self.run_program(["flock", lock, "echo", "ran"], env={**self.environment, **self.preloaded()},
                               preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)))  # fmt: skip
        self.assertEqual((run.stdout, run.stderr, run.returncode), ("ran\n", "", 0))
        report = self.report()
        self.assertEqual((len(report.events("lock_acquired")), report.recorded["dropped"]), (1, 0))

    def test_size_limit_is_the_programs_own_business_too(self):
        """Recording past the limit must not send the program the signal that its own writes would."""
        lock = self.file()
        script = f"ulimit -f 1; for i in 1 2 3; do flock {lock} true; done; echo ran"
        run = self.run_program(["bash", "-c", script], env={**self.environment, **self.preloaded()})
        self.assertEqual((run.stdout, run.stderr, run.returncode), ("ran\n", "", 0))

    def preloaded(self):
        return {"LD_PRELOAD": os.environ["PLANLOOP_SHIM"], "PLANLOOP_SESSION": self.session}


class Programs(TracedTest):
    def test_not_found_is_127_as_in_a_shell(self):
        run = self.traced("no-such-program-anywhere")
        self.assertEqual((run.returncode, run.stdout), (127, ""))
        self.assertIn("no-such-program-anywhere", run.stderr)

    def test_not_executable_is_126_as_in_a_shell(self):
        run = self.traced(self.file("plain.txt"))
        self.assertEqual((run.returncode, run.stdout), (126, ""))
        self.assertIn("plain.txt", run.stderr)

    def test_static_program_runs_and_is_reported_as_not_traced(self):
        self.check_not_traced(PROGRAMS / "static_locker", "static")

    def test_static_program_started_by_a_traced_one(self):
        lock = self.file()
        program = PROGRAMS / "static_locker"
        run = self.traced("sh", "-c", f"flock {lock} true; {program} {lock}; exit 9")
        self.assertEqual((run.stdout, run.returncode), ("locked\n", 9), run.stderr)
        (finding,) = self.report().findings("not_traced")
        self.assertIn("static", finding["summary"])
        self.assertIn("static_locker", finding["summary"])

    def test_setuid_program_runs_and_is_reported_as_not_traced(self):
        if os.geteuid() == 0:
            # Set-id to the user who runs it changes nothing, and the loader would still preload.
            program = self.folder / "setuid_flock"
            shutil.copy(shutil.which("flock"), program)
            os.chown(program, 1, 1)
            program.chmod(0o4755)
            self.folder.chmod(0o755)
        else:
            program = shutil.which("su")
        run = self.traced(program, "--version")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("util-linux", run.stdout)
        (finding,) = self.report().findings("not_traced")
        self.assertIn("setuid", finding["summary"])

    def check_not_traced(self, program, why):
        lock = self.file()
        run = self.traced(program, lock)
        self.assertEqual((run.stdout, run.returncode), ("locked\n", 7), run.stderr)
        (finding,) = self.report().findings("not_traced")
        self.assertIn(why, finding["summary"])
        self.assertIn(program.name, finding["summary"])

    def test_bad_usage_is_status_2_and_one_line(self):
        for words in (["dev", "run"], ["dev", "run", "--session"], ["dev", "lokcs"], ["dev", "locks", "--no-such"], []):
            with self.subTest(words=words):
                run = self.planloop(*words)
                self.assertEqual((run.returncode, run.stdout), (2, ""))
                self.assertEqual(len(run.stderr.splitlines()), 1, run.stderr)
        self.assertIn("locks", self.planloop("dev", "lokcs").stderr)

    def test_an_option_given_twice_is_said_to_be(self):
        for words in (
            ["dev", "locks", "--session", "a", "--session", "b"],
            ["dev", "locks", "--session=a", "--json", "--json", "--session=a"],
            ["dev", "run", "--session", "a", "--session", "b", "--", "echo", "ran"],
        ):
            with self.subTest(words=words):
                run = self.planloop(*words)
                self.assertEqual((run.returncode, run.stdout), (2, ""))
                self.assertRegex(run.stderr, r"\A[^\n]*--session is given 2 times[^\n]*\n\Z")
        missing = self.planloop("dev", "locks", "--session", "a", "--session")
        self.assertIn("--session needs a value", missing.stderr)

    def test_output_nobody_reads_is_no_crash(self):
        self.traced("flock", self.file(), "true")
        shown = subprocess.Popen(
            [os.environ["PLANLOOP_BINARY"], "dev", "locks", "--session", self.session],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        shown.stdout.close()
        said = shown.stderr.read()
        shown.stderr.close()
        shown.wait()
        self.assertEqual(said, b"")


if __name__ == "__main__":
    unittest.main()
