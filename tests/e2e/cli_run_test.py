"""`planloop dev run` stands between a program and whoever started it, and neither notices."""

import fcntl
import json
import os
import pty
import resource
import select
import signal
import stat
import subprocess
import unittest

from harness import PATIENCE_S, PROGRAMS, PYTHON, SHIM, TracedTest, stat_field, wait_for_end, wait_until

# A build with sanitizers takes libraries before its own, and lets processes dump core, only when told to.
SANITIZERS_STAND_BACK = {
    "ASAN_OPTIONS": "verify_asan_link_order=0:disable_coredump=0",
    "TSAN_OPTIONS": "disable_coredump=0",
}

# Says what it finds around it: everything that a wrapper could have changed.
SHOW_SURROUNDINGS = """
import os, resource, signal
print(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, [])))
print([number for number in range(1, 65) if number not in (32, 33) and signal.getsignal(number) == signal.SIG_IGN])
print(sorted(os.listdir("/proc/self/fd")))
print([resource.getrlimit(limit) for limit in range(16)])
print(os.getpgrp(), os.getsid(0), os.umask(0), os.getcwd(), os.nice(0))
"""

SAY_READY_AND_COUNT_SIGNALS = """
import signal, sys
numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
print("ready", flush=True)
print(int(signal.sigwait(numbers)), flush=True)
# A second one would be there by now or nearly.
sys.exit(11 if signal.sigtimedwait(numbers, 0.05) is None else 12)
"""


class ProgramNoticesNothing(TracedTest):
    def test_surroundings(self):
        def unusual():
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH, signal.SIGRTMIN])
            resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 7))
            os.umask(0o027)
            os.setpgrp()

        command = [PYTHON, "-c", SHOW_SURROUNDINGS]
        groups = []
        for run in (self.run_program(command, preexec_fn=unusual), self.traced(*command, preexec_fn=unusual)):
            lines = run.stdout.splitlines()
            self.assertEqual(run.returncode, 0, run.stderr)
            groups.append(lines.pop().split(None, 1)[1])  # the process group has another number
            groups.append(lines)
        self.assertEqual(groups[0:2], groups[2:4])

    def test_process_group_is_planloops_own(self):
        run = self.traced("sh", "-c", "ps -o pgid= -p $$ -p $PPID 2>/dev/null || cut -d' ' -f5 /proc/$$/stat /proc/$PPID/stat")
        self.assertEqual(len(set(run.stdout.split())), 1, run.stdout)

    def test_environment_is_added_to(self):
        own = {"LD_PRELOAD": "libm.so.6", "PLANLOOP_HOME": os.path.relpath(self.home)}
        environment = {**self.environment, **SANITIZERS_STAND_BACK, **own}
        run = self.traced("env", env=environment)
        seen = dict(line.partition("=")[::2] for line in run.stdout.splitlines())
        library, _, rest = seen["LD_PRELOAD"].partition(":")
        self.assertTrue(os.path.samefile(library, SHIM))
        self.assertEqual(rest, "libm.so.6")
        self.assertEqual(seen["PLANLOOP_SESSION"].partition("!")[0], self.session)
        self.assertEqual(os.path.realpath(seen["PLANLOOP_HOME"]), os.path.realpath(self.home))
        self.assertTrue(os.path.isabs(seen["PLANLOOP_HOME"]))

    def test_trace_id_is_inherited(self):
        environment = {**self.environment, "PLANLOOP_TRACE_ID": "tr_20260101000000_abcdef"}
        lock = self.file()
        self.traced("flock", lock, "true", env=environment)
        self.assertEqual({entry["trace_id"] for entry in self.report().timeline}, {"tr_20260101000000_abcdef"})

    def test_standard_input_goes_to_the_program(self):
        self.assertEqual(self.traced("cat", input="from outside").stdout, "from outside")

    def test_status_is_the_programs(self):
        for status in (0, 1, 2, 77, 255):
            self.assertEqual(self.traced("sh", "-c", f"exit {status}").returncode, status)

    def test_a_program_behind_no_dashes(self):
        run = self.planloop("dev", "run", "--session", self.session, "echo", "--session", "--", "-h")
        self.assertEqual(run.stdout, "--session -- -h\n")


class Signals(TracedTest):
    def start(self, *command, **options):
        process = subprocess.Popen(
            self.traced_command(command), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
        )
        self.addCleanup(process.communicate)
        return process

    def test_are_forwarded(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            with self.subTest(number=number):
                process = self.start(PYTHON, "-c", SAY_READY_AND_COUNT_SIGNALS)
                process.stdout.readline()
                process.send_signal(number)
                self.assertEqual(process.stdout.readline().split(), [str(int(number))])
                self.assertEqual(process.wait(), 11)

    def test_dies_of_the_programs_own_signal(self):
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGINT):
            with self.subTest(number=number):
                run = self.traced("sh", "-c", f"kill -{int(number)} $$")
                self.assertEqual(run.returncode, -number)
                self.assertIn(f"session {self.session}", run.stderr)

    def test_leaves_no_second_core(self):
        def allowed():
            resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

        folder = self.folder / "cores"
        counts = []
        for command in (["sh", "-c", "kill -SEGV $$"], self.traced_command(["sh", "-c", "kill -SEGV $$"])):
            folder.mkdir()
            environment = {**self.environment, **SANITIZERS_STAND_BACK}
            process = subprocess.Popen(command, env=environment, cwd=folder, preexec_fn=allowed, stderr=subprocess.DEVNULL)
            self.assertEqual(process.wait(), -signal.SIGSEGV)
            counts.append(len(list(folder.iterdir())))
            for core in folder.iterdir():
                core.unlink()
            folder.rmdir()
        self.assertEqual(counts[0], counts[1])

    def test_a_stopped_program_shows_as_stopped_and_goes_on(self):
        process = self.start("sh", "-c", "kill -STOP $$; echo on; exit 6")
        pid, status = os.waitpid(process.pid, os.WUNTRACED)
        self.assertTrue(os.WIFSTOPPED(status))
        os.kill(process.pid, signal.SIGCONT)
        self.assertEqual(process.stdout.readline(), "on\n")
        self.assertEqual(process.wait(), 6)

    def test_orphans_are_not_collected(self):
        """A grandchild whose parent ends goes to whoever it would have gone to."""
        script = "exec 3<&0; (sh -c 'read line; cut -d\" \" -f4 /proc/$$/stat' <&3 & ) ; exit 0"
        plain, traced = map(self.parent_of_orphan, (["sh", "-c", script], self.traced_command(["sh", "-c", script])))
        self.assertEqual(plain, traced)

    def parent_of_orphan(self, command):
        process = subprocess.Popen(
            command, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        process.wait()
        return process.communicate("\n")[0]


class Terminal(TracedTest):
    """With a terminal: job control must work as if planloop were not there."""

    def start(self, *command):
        pid, terminal = pty.fork()
        if pid == 0:
            try:
                self.be_a_shell(self.traced_command(command))
            finally:
                os._exit(99)
        self.addCleanup(os.close, terminal)
        self.leader, self.terminal, self.seen = pid, terminal, ""

    def be_a_shell(self, command):
        """A session leader that runs one job in the foreground, and puts it there again when it was stopped."""
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgrp()
            os.tcsetpgrp(0, os.getpgrp())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            os.execvpe(command[0], command, self.environment)
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            if not os.WIFSTOPPED(status):
                os._exit(os.waitstatus_to_exitcode(status) & 255)
            os.tcsetpgrp(0, os.getpgrp())
            os.write(1, b"[stopped]\n")
            os.read(0, 1)
            os.tcsetpgrp(0, job)
            os.killpg(job, signal.SIGCONT)

    def expect(self, text):
        def found():
            while text not in self.seen and select.select([self.terminal], [], [], 0)[0]:
                try:
                    self.seen += os.read(self.terminal, 1000).decode()
                except OSError:
                    break
            return text in self.seen

        try:
            wait_until(text, found)
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {self.seen!r}") from None

    def status(self):
        return os.waitstatus_to_exitcode(os.waitpid(self.leader, 0)[1])

    def test_interrupt_key_reaches_the_program_once(self):
        self.start(PYTHON, "-c", SAY_READY_AND_COUNT_SIGNALS)
        self.expect("ready\r\n")
        os.write(self.terminal, b"\x03")
        self.expect("2\r\n")
        self.assertEqual(self.status(), 11)

    def test_stop_key_and_foreground(self):
        self.start("sh", "-c", "echo ready; read line; echo got $line; exit 4")
        self.expect("ready")
        os.write(self.terminal, b"\x1a")
        self.expect("[stopped]")
        os.write(self.terminal, b"\n")
        os.write(self.terminal, b"word\n")
        self.expect("got word")
        self.assertEqual(self.seen.count("[stopped]"), 1)
        self.assertEqual(self.status(), 4)


class Supervision(TracedTest):
    def log(self):
        path = self.home / "sessions" / self.session / "logs" / "planloop.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()]

    def traced_to_the_verdict(self, *command):
        """Waits for it however busy the machine is, as a run does for nobody but who wants it as a status."""
        words = self.traced_command(command)
        return self.run_program([*words[:3], "--fail-on=deadlock", *words[3:]])

    def test_verdict_is_two_lines(self):
        said = self.traced_to_the_verdict("flock", self.file(), "true").stderr.splitlines()
        self.assertEqual(len(said), 2, said)
        for line in said:
            self.assertTrue(line.startswith("planloop: "), line)
        self.assertIn("no deadlock", said[1])
        self.assertIn(f"planloop dev locks --session {self.session}", said[1])

    def test_session_gets_a_name_from_program_and_time(self):
        run = self.planloop("dev", "run", "--", "flock", self.file(), "true")
        (session,) = (self.home / "sessions").iterdir()
        self.assertRegex(session.name, r"^flock-\d{8}T\d{6}Z-[0-9a-f]{4}$")
        self.assertIn(session.name, run.stderr)
        self.assertIn(session.name, self.planloop("dev", "sessions").stdout)

    def test_log_has_the_timeline_when_the_run_is_over(self):
        lock = self.file()
        self.traced("sh", "-c", f"flock {lock} true; flock -n {lock} flock -n {lock} true; true")
        timeline = self.report().timeline
        log = self.log()
        self.assertTrue(timeline)
        names = ("timestamp", "event", "trace_id", "operation", "lock_entry_id", "pid", "tid", "process", "mode")
        key = lambda entry: tuple(entry[name] for name in names)
        self.assertEqual({key(line)[1:] for line in log}, {key(entry)[1:] for entry in timeline})
        self.assertEqual(len(log), len(timeline))
        for line in log:
            self.assertEqual(line["source"], "preload")
            self.assertEqual(line["session_id"], self.session)
            self.assertEqual([line["spool"]], [path.name for path in self.spools])
            self.assertEqual(line["lock"]["path"], str(lock))
            if line["event"] == "lock_acquired":
                self.assertAlmostEqual(line["wait_ms"] * 1e6, line["wait_ns"], delta=1000)
            if line["event"] == "lock_released":
                self.assertIn("hold_ms", line)
                self.assertIn(line["reason"], ("unlock", "close", "exit"))

    def test_log_is_whole_after_a_busy_run(self):
        """What was written since the last look belongs to it, however much that is."""
        program = "import fcntl, sys\nfile = open(sys.argv[1])\nfor _ in range(5000): fcntl.flock(file, 2), fcntl.flock(file, 8)"
        run = self.traced_to_the_verdict(PYTHON, "-c", program, self.file())
        self.assertIn("15000 lock events", run.stderr)
        self.assertEqual(len(self.log()), 15000)

    def test_log_gets_no_event_twice(self):
        lock = self.file()
        for rounds in (1, 2, 3):
            self.traced("flock", lock, "true")
            log = self.log()
            keys = {(line["lock_entry_id"], line["event"]) for line in log}
            self.assertEqual(len(keys), len(log))
            self.assertEqual(len([line for line in log if line["event"] == "lock_acquired"]), rounds)

    def test_log_grows_while_the_program_runs(self):
        lock = self.file()
        stage = self.stage()
        fd = stage.root.call(f"open {lock}")
        stage.root.call(f"flock {fd} ex")
        path = self.home / "sessions" / self.session / "logs" / "planloop.jsonl"
        wait_until("the acquisition is in the log", lambda: path.exists() and "lock_acquired" in path.read_text())

    def test_events_in_the_log_count_once_in_the_report(self):
        lock = self.file()
        self.traced("flock", lock, "true")
        first = self.report().recorded["events"]
        self.assertEqual(first, len(self.log()))
        for spool in self.spools:
            spool.unlink()
        self.assertEqual(self.report().recorded["events"], first, "without the spool the log tells it")

    def test_two_runs_at_once_write_each_event_once(self):
        lock = self.file()
        first = self.stage()
        second = self.stage_two()
        for stage in (first, second):
            fd = stage.root.call(f"open {lock}")
            stage.root.call(f"flock {fd} ex")
            stage.root.call(f"flock {fd} un")
        first.close()
        fd = second.root.call(f"open {lock}")
        second.root.call(f"flock {fd} ex")
        second.close()
        log = self.log()
        keys = {(line["lock_entry_id"], line["event"]) for line in log}
        self.assertEqual(len(keys), len(log))
        self.assertEqual(len([line for line in log if line["event"] == "lock_acquired"]), 3)
        self.assertEqual(len(log), len(self.report().timeline))

    def stage_two(self):
        folder, self.folder = self.folder, self.folder / "two"
        self.folder.mkdir()
        try:
            return self.stage()
        finally:
            self.folder = folder

    def test_supervisor_sleeps_when_nothing_happens(self):
        stage = self.stage()
        supervisor = stage.program.pid
        before = int(stat_field(supervisor, 14)) + int(stat_field(supervisor, 15))
        select.select([], [], [], 2)  # the time that is measured
        used = int(stat_field(supervisor, 14)) + int(stat_field(supervisor, 15)) - before
        self.assertLessEqual(used / os.sysconf("SC_CLK_TCK") / 2, 0.02)

    def test_children_that_live_on_keep_recording(self):
        lock = self.file()
        stage = self.stage()
        child = stage.root.spawn()
        stage.root.finish()
        stage.program.wait()
        fd = child.call(f"open {lock}")
        child.call(f"flock {fd} ex")
        self.assertEqual([held["pid"] for held in self.report().held], [child.pid])

    def sixty_holders(self, limits):
        """Of one lock, run with these limits of descriptors; comes back when all hold it. They end with their input, and until
        then nobody waits for them."""

        def limited():
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

        holder = f"flock -so {self.file()} sh -c 'read line' <&3"
        script = f"ulimit -n; exec 3<&0; for i in $(seq 60); do {holder} & done; read line; wait"
        process = subprocess.Popen(
            self.traced_command(["sh", "-c", script]), env=self.environment, preexec_fn=limited, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        self.assertEqual(process.stdout.readline(), f"{limits[0]}\n")

        def acquisitions():
            run = self.planloop("dev", "locks", "--session", self.session, "--json")
            return run.returncode == 0 and [e for e in json.loads(run.stdout)["timeline"] if e["event"] == "lock_acquired"]

        wait_until("all hold the lock", lambda: len(acquisitions() or []) == 60)
        return process

    def test_more_processes_than_descriptors(self):
        """The supervisor holds a descriptor for each process, with a soft limit that the program keeps."""
        self.sixty_holders((24, 4096)).communicate()
        report = self.report()
        self.assertEqual(report.held, [])
        self.assertEqual(len(report.events("lock_released", certainty="exact")), 60)

    def test_more_processes_than_the_supervisor_may_have_descriptors(self):
        """Those that it has none for are not taken for dead, and their deaths are seen all the same."""
        process = self.sixty_holders((40, 40))
        holders = self.report().held
        self.assertEqual(len(holders), 60)
        killed = max(held["pid"] for held in holders)
        os.kill(killed, signal.SIGKILL)
        log = self.home / "sessions" / self.session / "logs" / "planloop.jsonl"  # tells what the supervisor saw, no more
        wait_until("the death is recorded", lambda: log.exists() and "lock_released" in log.read_text())
        process.communicate()
        report = self.report()
        self.assertEqual(report.held, [])
        self.assertEqual(len(report.events("lock_released", reason="exit")), 59)
        self.assertEqual([event["pid"] for event in report.events("lock_released", reason="killed")], [killed])

    def test_a_verdict_that_cannot_be_had_is_not_a_good_one(self):
        """However few descriptors there are, either the recording is read or its run fails."""
        for most in range(5, 16):
            with self.subTest(most=most):

                def limited(most=most):
                    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

                command = self.traced_command(["flock", self.file(), "true"])
                command[3:3] = ["--fail-on=long_wait"]
                run = self.run_program(command, preexec_fn=limited)
                self.assertIn(run.returncode, (0, 2), run.stderr)
                self.assertIn("lock events on" if run.returncode == 0 else "cannot", run.stderr)
                self.assertNotIn("no lock call was recorded", run.stderr)


class NotTraced(TracedTest):
    def test_reason_is_told_at_once(self):
        run = self.traced(PROGRAMS / "static_locker", self.file())
        self.assertIn("static_locker is not traced: it is linked statically", run.stderr)

    def test_interpreters_are_followed(self):
        script = self.folder / "script"
        script.write_text(f"#! {PROGRAMS / 'static_locker'}\n")
        script.chmod(0o755)
        self.assertIn("static_locker is not traced", self.traced(script).stderr)

    def test_programs_that_slipped_away_are_found_while_they_run(self):
        """A static program, told of by the shell that starts it, and again by nobody; a traced one; and one that was started
        without LD_PRELOAD behind the library's back. The last is found last, so the look that finds it saw all."""
        lock, static, python = self.file(), PROGRAMS / "static_locker", os.path.realpath(PYTHON)
        waits = "print('ready', flush=True); input()"
        script = f'{static} {lock} >&2 & flock {lock} true & exec {PROGRAMS}/raw_exec {PYTHON} -c "{waits}"'

        def told():
            return {finding["participants"][0]["process"]: finding for finding in self.report().findings("not_traced")}

        with open(lock, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            program = subprocess.Popen(self.traced_command(["bash", "-c", script]), env=self.environment, text=True,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertEqual(program.stdout.readline(), "ready\n")
            wait_until("the supervisor finds it", lambda: python in told())
        _, errors = program.communicate("end\n", timeout=PATIENCE_S)
        self.assertEqual(program.returncode, 0, errors)
        findings = told()
        self.assertEqual(set(findings), {python, str(static.resolve())})
        for finding in findings.values():
            self.assertNotIn("times)", finding["summary"])
            self.assertEqual(len(finding["participants"]), 1)
        self.assertIn("LD_PRELOAD", findings[python]["summary"])

    def test_script_of_a_dynamic_interpreter_is_traced(self):
        lock = self.file()
        script = self.folder / "script"
        for first_line in ("#!/bin/sh -e\n", ""):
            script.write_text(f"{first_line}flock {lock} echo ran\n")
            script.chmod(0o755)
            run = self.traced(script)
            self.assertEqual(run.stdout, "ran\n")
            self.assertNotIn("not traced", run.stderr)

    def test_recording_switched_off(self):
        run = self.traced("sh", "-c", "echo ran; exit 3", env={**self.environment, "PLANLOOP_NO_RECORDING": "1"})
        self.assertEqual((run.stdout, run.returncode), ("ran\n", 3))
        self.assertRegex(run.stderr, r"^planloop: nothing is recorded: .*\n$")
        self.assertFalse(self.home.exists())

    def test_library_missing(self):
        run = self.traced("sh", "-c", "echo ran", env={**self.environment, "PLANLOOP_PRELOAD": "/nowhere.so"})
        self.assertEqual(run.stdout, "ran\n")
        self.assertRegex(run.stderr, r"^planloop: nothing is recorded: .*/nowhere.so.*\n$")

    def test_words_of_a_shell(self):
        """The message is the shell's, with our name in front; the status too."""
        folder = self.folder / "folder"
        folder.mkdir()
        plain = self.file("plain.txt")
        for word in ("no-such-program", str(self.folder / "nothing"), str(plain), str(folder)):
            with self.subTest(word=word):
                shell = self.run_program(["bash", "-c", '"$0"', word])
                run = self.traced(word)
                self.assertEqual(run.returncode, shell.returncode)
                self.assertEqual(run.stderr.partition(": ")[2], shell.stderr.partition("line 1: ")[2])
        self.assertFalse(self.home.exists(), "nothing was run, so there is no session")


class SessionFolders(TracedTest):
    def test_are_their_owners_only(self):
        def open_umask():
            os.umask(0)

        self.traced("flock", self.file(), "true", preexec_fn=open_umask)
        session = self.home / "sessions" / self.session
        for folder, _, files in os.walk(session):
            self.assertEqual(stat.S_IMODE(os.stat(folder).st_mode), 0o700, folder)
            for name in files:
                self.assertEqual(stat.S_IMODE(os.stat(os.path.join(folder, name)).st_mode), 0o600, name)


if __name__ == "__main__":
    unittest.main()
