"""The preloaded library alone records too: LD_PRELOAD and a session's name are enough."""

import fcntl
import os
import stat
import subprocess
import unittest

from harness import PROGRAMS, PYTHON, SHIM, TracedTest, kernel_holders


class Preloaded(TracedTest):
    def preload(self, **more):
        return {**self.environment, "LD_PRELOAD": SHIM, "PLANLOOP_SESSION": self.session, **more}


class WithoutWrapper(Preloaded):
    def test_the_path_of_the_library_is_one_line(self):
        shown = self.planloop("dev", "preload-path")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        (line,) = shown.stdout.splitlines()
        self.assertTrue(os.path.samefile(line, SHIM))

    def test_session_is_created_for_its_owner_only(self):
        lock = self.file()
        run = self.run_program(
            ["sh", "-c", f"umask 0; exec flock {lock} echo locked"], env=self.preload()
        )
        self.assertEqual((run.stdout, run.stderr, run.returncode), ("locked\n", "", 0))
        session = self.home / "sessions" / self.session
        for folder in (session, session / "logs", session / "logs" / "spool"):
            self.assertEqual(stat.S_IMODE(folder.stat().st_mode), 0o700, folder)
        for spool in self.spools:
            self.assertEqual(stat.S_IMODE(spool.stat().st_mode), 0o600, spool)
        self.assertEqual(self.report().lock_of(lock)["acquisitions"], 1)

    def test_default_home_is_in_the_users_home(self):
        environment = self.preload(HOME=str(self.folder))
        del environment["PLANLOOP_HOME"]
        lock = self.file()
        self.run_program(["flock", lock, "true"], env=environment)
        self.assertTrue((self.folder / ".planloop" / "sessions" / self.session).is_dir())
        environment = {**self.environment, "HOME": str(self.folder)}
        del environment["PLANLOOP_HOME"]
        shown = self.planloop("dev", "locks", "--session", self.session, env=environment)
        self.assertIn(str(lock), shown.stdout)

    def test_processes_that_take_no_lock_leave_nothing(self):
        self.run_program(["ls", "/"], env=self.preload())
        self.assertEqual(self.spools, [])

    def test_without_a_session_or_with_a_bad_one_nothing_is_recorded_and_the_program_runs(self):
        lock = self.file()
        for session in ("", "..", "a/b", "x" * 5000):
            with self.subTest(session=session[:10]):
                run = self.run_program(["flock", lock, "echo", "ran"], env=self.preload(PLANLOOP_SESSION=session))
                self.assertEqual((run.stdout, run.stderr, run.returncode), ("ran\n", "", 0))
        self.assertEqual(list(self.folder.rglob("*.spool")), [])

    def test_recording_can_be_switched_off(self):
        lock = self.file()
        self.run_program(["flock", lock, "true"], env=self.preload(PLANLOOP_NO_RECORDING="1"))
        self.assertEqual(self.spools, [])

    def test_a_high_numbered_pipe_makes_nothing_seem_shared(self):
        """Shells and CI jobs leave one to whatever they start. What might be shared has a row in a table of 2,048."""
        reading, writing = os.pipe()
        high = fcntl.fcntl(reading, fcntl.F_DUPFD, 251)
        self.addCleanup(lambda: [os.close(fd) for fd in (reading, writing, high)])
        many = [PROGRAMS / "odd_places", "many-threads", self.file()]
        run = self.run_program(many, env=self.preload(), pass_fds=[high])
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertEqual(self.report().recorded["dropped"], 0)

    def test_the_same_recording_is_the_same_report_whenever_it_is_read(self):
        """The worth of a tick is worked out from two moments; the second one must not be that of reading."""
        take = 'for (1 .. 500) { flock(F, 2) or die; flock(F, 8) or die }'
        for _ in range(2):
            run = self.run_program(["perl", "-e", f"open(F, '>', '{self.file()}') or die; {take}"], env=self.preload())
            self.assertEqual(run.returncode, 0, run.stderr)
        reports = {self.planloop("dev", "locks", "--session", self.session, "--json").stdout for _ in range(5)}
        self.assertEqual(len(reports), 1)

    def test_a_home_that_cannot_be_made_leaves_the_program_alone(self):
        lock = self.file()
        run = self.run_program(["flock", lock, "echo", "ran"], env=self.preload(PLANLOOP_HOME=str(lock)))
        self.assertEqual((run.stdout, run.stderr, run.returncode), ("ran\n", "", 0))

    def test_two_processes_meet_in_one_recording(self):
        lock = self.file()
        holder = subprocess.Popen(
            [PYTHON, "-c", f"import fcntl; f = open('{lock}'); fcntl.flock(f, 2); print(flush=True); input()"],
            env=self.preload(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        holder.stdout.readline()
        refused = self.run_program(["flock", "-w", "0.01", lock, "true"], env=self.preload())
        self.assertEqual(refused.returncode, 1)
        holder.communicate(b"\n", timeout=60)
        report = self.report()
        (failed,) = report.events("lock_failed")
        self.assertEqual([blocker["pid"] for blocker in failed["blocked_by"]], [holder.pid])

    def test_a_background_job_goes_on_holding_what_its_shell_took_and_closed(self):
        """flock(1), which took the lock, looked among its own children and ancestors only, and nobody supervises."""
        lock = self.file()
        shell = subprocess.Popen(
            ["bash", "-c", 'exec 9>"$0" 3<&0; cat <&3 & flock 9; exec 9>&-; echo $!; wait', lock],
            env=self.preload(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        job = int(shell.stdout.readline())
        self.assertEqual(kernel_holders({job, shell.pid}, lock), {job})
        report = self.report()
        self.assertEqual(report.holders(lock), {job})
        self.assertEqual(report.events("lock_released"), [])
        shell.communicate(b"", timeout=60)
        (released,) = self.report().events("lock_released")
        self.assertEqual((released["pid"], released["reason"]), (job, "exit"))

    def test_who_was_only_heard_of_is_not_said_to_have_been_killed(self):
        """The shell is not traced, so that no exit of it was recorded says nothing."""
        lock = self.file()
        script = 'exec 9>"$0"; PRELOAD flock 9; exit 0'.replace("PRELOAD", f"LD_PRELOAD={SHIM}")
        environment = {**self.preload(), "LD_PRELOAD": ""}
        run = self.run_program(["bash", "-c", script, lock], env=environment)
        self.assertEqual(run.returncode, 0, run.stderr)
        report = self.report()
        self.assertEqual(report.findings(), [])
        (released,) = report.events("lock_released")
        self.assertEqual((released["reason"], released["certainty"]), ("exit", "approximate"))

    def test_a_death_that_nobody_watched_is_marked_approximate(self):
        lock = self.file()
        victim = subprocess.Popen(
            [PYTHON, "-c", f"import fcntl; f = open('{lock}'); fcntl.flock(f, 2); print(flush=True); input()"],
            env=self.preload(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        victim.stdout.readline()
        victim.kill()
        victim.communicate(timeout=60)
        self.run_program(["flock", lock, "true"], env=self.preload())
        report = self.report()
        (released,) = report.events("lock_released", pid=victim.pid)
        self.assertEqual(released["certainty"], "approximate")
        (next_one,) = [entry for entry in report.events("lock_acquired") if entry["pid"] != victim.pid]
        self.assertLessEqual(released["t_ns"], next_one["t_ns"])


class CameByAnOpenFile(Preloaded):
    """Two processes with one description, neither the other's parent, and nobody to tell on them. Only one takes a lock;
    the other opens no recording until it has to say that it shares."""

    OBEYS = (
        "import fcntl, os, sys\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    exec(line)\n"
        "    print('done', flush=True)\n"
    )

    def start(self, fd):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        process = subprocess.Popen([PYTHON, "-c", self.OBEYS], env=self.preload(), pass_fds=[fd], **pipes)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        for stream in (process.stdin, process.stdout):
            self.addCleanup(stream.close)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def begin(self, case, recorded_before=True):
        self.session = case
        self.lock = self.file(f"lock-{case}")
        if recorded_before:
            self.run_program(["flock", self.file(f"other-{case}"), "true"], env=self.preload())
        fd = os.open(self.lock, os.O_RDWR)
        self.sharer, self.taker = self.start(fd), self.start(fd)
        os.close(fd)
        self.fd = fd

    def tell(self, process, order):
        print(order.format(fd=self.fd), file=process.stdin, flush=True)
        self.assertEqual(process.stdout.readline(), "done\n")

    def finish(self, process):
        process.stdin.close()
        self.assertEqual(process.wait(60), 0)

    def holders(self):
        return self.report().holders(self.lock)

    def test_whoever_copies_it_says_that_it_shares(self):
        for before in ("pass", "[os.close(os.dup({fd})) for _ in range(100)]"):
            for recorded_before in (True, False):
                with self.subTest(before=before, recorded_before=recorded_before):
                    self.begin(f"copies-{before[:1]}-{recorded_before}", recorded_before)
                    self.tell(self.sharer, before)
                    self.tell(self.taker, "fcntl.flock({fd}, fcntl.LOCK_EX)")
                    self.tell(self.sharer, "os.dup2({fd}, 40)")
                    self.assertEqual(self.holders(), {self.sharer.pid, self.taker.pid})
                    self.finish(self.taker)
                    self.assertEqual(self.holders(), {self.sharer.pid})
                    self.tell(self.sharer, "os.close({fd})")
                    self.assertEqual(self.holders(), {self.sharer.pid})
                    self.tell(self.sharer, "os.close(40)")
                    report = self.report()
                    (end,) = report.events("lock_released", lock=report.lock_of(self.lock)["id"])
                    self.assertEqual((end["pid"], end["reason"]), (self.sharer.pid, "close"))
                    self.assertEqual(report.recorded["dropped"], 0)
                    self.finish(self.sharer)


if __name__ == "__main__":
    unittest.main()
