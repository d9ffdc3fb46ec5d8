"""What real programs do wrong with their locks is found, and what only looks alike is not."""

import os
import re
import unittest

from harness import PYTHON, TracedTest

ORDER_AND_USE = (
    "lock_order_inversion",
    "upgrade_deadlock",
    "non_atomic_upgrade",
    "lock_lost_on_close",
    "lock_file_replaced",
    "inherited_lock",
)


class Findings(TracedTest):
    def found(self):
        """Kinds of findings about how locks are used, and the pids in each."""
        return [
            (finding["kind"], [who["pid"] for who in finding["participants"]])
            for finding in self.report().findings()
            if finding["kind"] in ORDER_AND_USE
        ]

    def cast(self, *names):
        """Two processes that opened each of the files, as descriptors 3, 4 …"""
        stage = self.stage()
        actors = stage.cast(2)
        files = [self.file(name) for name in names]
        for actor in actors:
            for path in files:
                actor.call(f"open {path}")
        return stage, actors, files


class Use(Findings):
    def test_posix_lock_lost_by_closing_another_descriptor(self):
        stage, (one, two), (lock,) = self.cast("a")
        one.call("fcntl 3 setlkw wr 0 0")
        other = one.call(f"open {lock} rdonly")
        one.call(f"close {other}")
        two.call("fcntl 3 setlkw wr 0 0")
        two.call("close 3")  # its own: as it should be
        stage.close()
        self.assertEqual(self.found(), [("lock_lost_on_close", [one.pid])])

    def test_lock_file_that_was_made_anew_while_the_old_one_is_held(self):
        stage, (one, two), (lock,) = self.cast("a")
        one.call("flock 3 ex")
        os.unlink(lock)
        lock.touch()
        anew = two.call(f"open {lock}")
        two.call(f"flock {anew} ex")
        self.assertEqual(self.found(), [("lock_file_replaced", [two.pid, one.pid])])
        stage.close()

    def test_lock_that_a_child_holds_on_to(self):
        stage, (one, _), _ = self.cast("a")
        one.call("flock 3 ex")
        child = one.fork()
        one.finish()
        self.assertEqual(self.found(), [("inherited_lock", [child.pid])])
        stage.close()

    def test_child_that_ends_before_its_parent_inherits_nothing(self):
        stage, (one, _), _ = self.cast("a")
        one.call("flock 3 ex")
        child = one.fork()
        child.begin("exit 0")
        one.call(f"wait {child.pid}")
        one.finish()
        stage.close()
        self.assertEqual(self.found(), [])

    def test_flock_upgrade_in_which_another_process_comes_first(self):
        stage, (one, two), (lock,) = self.cast("a")
        one.call("flock 3 sh")
        two.call("flock 3 sh")
        one.block("flock 3 ex", lock)
        two.begin("flock 3 ex")
        first = stage.first_answer([one, two])
        first.call("flock 3 un")
        last = two if first is one else one
        last.end()
        stage.close()
        self.assertEqual(self.found(), [("non_atomic_upgrade", [last.pid, first.pid])])


class Unrecorded(Findings):
    def test_a_shell_that_takes_no_lock_hides_no_deadlock(self):
        # The inner shell has not inherited the descriptor, records nothing, and waits for who can never get the lock.
        script = 'exec 9>"$0"; flock 9; sh -c \'flock -w 1 "$0" true; echo on\' "$0" 9>&-'
        run = self.traced("bash", "-c", script, self.file())
        self.assertEqual((run.returncode, run.stdout), (0, "on\n"), run.stderr)
        (finding,) = self.report().findings("self_deadlock")
        self.assertEqual(finding["certainty"], "likely")
        self.assertEqual([who["process"] for who in finding["participants"]], ["flock"])
        self.assertRegex(finding["summary"], r"flock \d+ waits for .*, which bash \d+ .*holds while it waits for flock \d+ to end")

    def test_a_background_job_of_such_a_shell_is_a_mere_wait(self):
        script = 'exec 9>"$0"; flock 9; sh -c \'flock "$0" true & sleep 0.2\' "$0" 9>&-; exec 9>&-; wait'
        run = self.traced("bash", "-c", script, self.file())
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertEqual(self.report().findings("self_deadlock") + self.report().findings("deadlock"), [])


class Order(Findings):
    def nest(self, actor, *descriptors):
        for descriptor in descriptors:
            actor.call(f"flock {descriptor} ex")
        for descriptor in descriptors:
            actor.call(f"flock {descriptor} un")

    def test_inversion_in_a_lucky_run(self):
        stage, (one, two), _ = self.cast("a", "b")
        self.nest(one, 3, 4)
        self.nest(two, 4, 3)
        stage.close()
        self.assertEqual(self.found(), [("lock_order_inversion", [one.pid, two.pid])])

    def test_inversion_behind_a_gate_is_none(self):
        stage, (one, two), _ = self.cast("a", "b", "gate")
        self.nest(one, 5, 3, 4)
        self.nest(two, 5, 4, 3)
        stage.close()
        self.assertEqual(self.found(), [])

    def check_order(self, cases, expected):
        """Each runs `flock a flock b` and `flock b flock a`, never at once."""
        (self.folder / "Makefile").write_text("all: x y\nx:\n\tflock a flock b true; true\n"
                                              "y: x\n\tflock b flock a true; true\n")
        os.mkfifo(self.folder / "end")
        for name in "ab":
            self.file(name)
        for number, command in enumerate(cases):
            with self.subTest(command=command):
                self.session = f"case{number}"
                run = self.traced(*command, cwd=self.folder)
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertEqual([kind for kind, _ in self.found()], expected)
                self.assertEqual(len(self.report().events("lock_acquired")), 4)

    def test_one_program_after_the_other_is_no_inversion(self):
        python = ("import os, subprocess, sys\nfor one, other in ('ab', 'ba'):\n"
                  "    command = f'flock {one} flock {other} true; true'\n    ")
        perl = "for (['a', 'b'], ['b', 'a']) { my $command = \"flock $_->[0] flock $_->[1] true; true\"; "
        middle = "sh -c 'flock a flock b true; true'; sh -c 'flock b flock a true; true'; true"
        self.check_order([
            *((shell, "-c", "flock a flock b true; flock b flock a true; true") for shell in ("sh", "bash")),
            *((shell, "-c", middle) for shell in ("sh", "bash")),
            ("bash", "-c", "(flock a flock b true; true); (flock b flock a true; true); true"),
            ("make", "-s"),
            ("sh", "-c", "printf '%s\\n' 'a b' 'b a' | xargs -L 1 sh -c 'flock $0 flock $1 true; true'"),
            *((PYTHON, "-c", python + call) for call in (
                "subprocess.run(command, shell=True)",
                "subprocess.run(['sh', '-c', command], preexec_fn=os.getpid)",
                "os.waitpid(os.posix_spawn('/bin/sh', ['sh', '-c', command], os.environ), 0)",
                "os.system(command)",
                "os.popen(command).read()")),
            ("perl", "-e", perl + "system($command) }"),
            ("perl", "-e", perl + "my $said = `$command` }"),
            ("perl", "-e", "use POSIX; my $over; $SIG{CHLD} = sub { $over = 1 if waitpid(-1, WNOHANG) > 0 }; "
             + perl + "$over = 0; fork || exec $command; until ($over) { select undef, undef, undef, 0.01 } }"),
        ], [])

    def test_one_that_happened_to_be_over_before_the_other_began_is_one(self):
        """The parent takes no lock. It makes both, or waits for the first only when it is done with the second."""
        shell = "flock a flock b true 3>end & { read x; flock b flock a true; } <end & wait"
        perl = ("sub start { my $child = fork; return $child if $child; exec @_; } pipe my $read, my $write;"
                "use Fcntl; fcntl $write, F_SETFD, 0; my $one = start(qw(flock a flock b true)); close $write; <$read>;"
                "my $two = start(qw(flock b flock a true)); waitpid $two, 0; waitpid $one, 0")
        vfork = ("import os, subprocess\nread, write = os.pipe()\n"
                 "one = subprocess.Popen(['sh', '-c', 'flock a flock b true; true'], pass_fds=[write])\nos.close(write)\n"
                 "os.read(read, 1)\ntwo = subprocess.Popen(['sh', '-c', 'flock b flock a true; true'])\n"
                 "two.wait(), one.wait()")
        spawn = ("import os\nread, write = os.pipe()\nos.set_inheritable(write, True)\n"
                 "one = os.posix_spawn('/usr/bin/flock', ['flock', 'a', 'flock', 'b', 'true'], os.environ)\n"
                 "os.close(write)\nos.read(read, 1)\n"
                 "two = os.posix_spawn('/usr/bin/flock', ['flock', 'b', 'flock', 'a', 'true'], os.environ)\n"
                 "os.waitpid(two, 0), os.waitpid(one, 0)")
        self.check_order([("sh", "-c", shell), ("bash", "-c", shell), ("perl", "-e", perl),
                          (PYTHON, "-c", vfork), (PYTHON, "-c", spawn)], ["lock_order_inversion"])

    def test_only_a_wait_puts_the_children_of_one_parent_in_order(self):
        """The second begins after the first has ended, by luck or because the parent waits for that."""
        program = (
            "import fcntl, os, subprocess, sys\n"
            "with open('own', 'w') as own: fcntl.flock(own, fcntl.LOCK_EX)\n"
            "def start(one, other):\n"
            "    read, write = os.pipe()\n"
            "    os.set_inheritable(write, True)\n"
            "    child = subprocess.Popen(['flock', one, 'flock', other, 'true'], pass_fds=[write])\n"
            "    os.close(write)\n"
            "    os.read(read, 1)  # until nobody has it open\n"
            "    return child\n"
            "first = start('a', 'b')\n"
            "if sys.argv[1] == 'wait': first.wait()\n"
            "if sys.argv[1] == 'poll':\n"
            "    while first.poll() is None: pass\n"
            "second = start('b', 'a')\n"
            "sys.exit(first.wait() or second.wait())\n"
        )
        for name in "ab":
            self.file(name)
        for how, expected in (("wait", []), ("poll", []), ("luck", ["lock_order_inversion"])):
            with self.subTest(how=how):
                self.session = how
                run = self.traced("/usr/bin/python3", "-c", program, how, cwd=self.folder)
                self.assertEqual(run.returncode, 0, run.stderr)
                self.assertEqual([kind for kind, _ in self.found()], expected)

    def test_a_wait_that_does_not_say_who_ended_puts_in_order_too(self):
        """Without a place for the news, or since nobody is told what becomes of children whose parent ignores SIGCHLD. What
        the calls return, and errno, is as without us."""
        program = (
            "import ctypes, fcntl, os, signal, sys\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "P_ALL, P_PID, WNOHANG, WUNTRACED, WEXITED, WNOWAIT = 0, 1, 1, 2, 4, 1 << 24\n"
            "def take(name):\n"
            "    file = open(name, 'a')\n"
            "    fcntl.flock(file, fcntl.LOCK_EX)\n"
            "    return file\n"
            "def start(*names):\n"
            "    read, write = os.pipe()\n"
            "    child = os.fork()\n"
            "    if child == 0:\n"
            "        kept = [take(name) for name in names]\n"
            "        os._exit(0)\n"
            "    os.close(write)\n"
            "    return child, read\n"
            "def say(child, result):\n"
            "    print('child' if result == child else result, ctypes.get_errno() if result < 0 else 0)\n"
            "def poll(child):\n"
            "    while (result := libc.waitpid(-1, None, WNOHANG)) == 0: pass\n"
            "    return result\n"
            "ways = {\n"
            "    'waitid': lambda child: libc.waitid(P_PID, child, None, WEXITED),\n"
            "    'peek': lambda child: libc.waitid(P_PID, child, None, WEXITED | WNOWAIT),\n"
            "    'waitpid': lambda child: libc.waitpid(child, None, WUNTRACED),\n"
            "    'wait3': lambda child: libc.wait3(None, WUNTRACED, None),\n"
            "    'wait4': lambda child: libc.wait4(child, None, WUNTRACED, None),\n"
            "    'ignore wait': lambda child: libc.wait(None),\n"
            "    'ignore waitpid': lambda child: libc.waitpid(child, None, 0),\n"
            "    'ignore waitid': lambda child: libc.waitid(P_ALL, 0, None, WEXITED),\n"
            "    'ignore poll': poll,\n"
            "    'another': lambda child: libc.waitpid(os.getpid(), None, 0),\n"
            "}\n"
            "how = sys.argv[1]\n"
            "if 'ignore' in how: signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
            "mine = take('own')\n"
            "for names in ('ab', 'ba'):\n"
            "    child, end = start(*names)\n"
            "    if how == 'another': os.read(end, 1)  # until it has ended\n"
            "    say(child, ways[how](child))\n"
            "left = 2 if how in ('peek', 'another') else 0\n"
            "for _ in range(left): say(0, libc.waitid(P_ALL, 0, None, WEXITED))\n"
            "say(0, libc.waitid(P_ALL, 0, None, WEXITED | WNOHANG))\n"
            "say(0, libc.waitid(P_ALL, 0, None, 0))\n"
            "say(0, libc.waitid(99, 0, None, WEXITED))\n"
            "say(0, libc.waitpid(-1, None, 1 << 20))\n"
        )
        ways = re.findall(r"^    '(.*)': lambda|^    '(ignore poll)'", program, re.M)
        for how in (one or other for one, other in ways):
            with self.subTest(how=how):
                self.session = how.replace(" ", "-")
                self.same_both_ways(PYTHON, "-c", program, how, cwd=self.folder)
                expected = ["lock_order_inversion"] if how == "another" else []
                self.assertEqual([kind for kind, _ in self.found()], expected)
                self.assertEqual(len(self.report().events("lock_acquired")), 5)


class Repeated(Findings):
    def test_the_same_spool_gives_the_same_report_byte_for_byte(self):
        stage, (one, two), _ = self.cast("a", "b")
        one.call("flock 3 ex")
        two.call("flock 4 ex")
        one.block("flock 4 ex", self.folder / "b")
        two.block("flock 3 ex", self.folder / "a")
        one.kill()
        two.end()
        stage.close()
        for options in (["--json"], [], ["--summary"], ["--format", "jsonl"], ["--format", "dot"]):
            with self.subTest(options=options):
                shown = {self.planloop("dev", "locks", "--session", self.session, *options).stdout for _ in range(3)}
                self.assertEqual(len(shown), 1)
                self.assertIn("deadlock" if options != ["--format", "dot"] else "color=red", shown.pop())


class Gates(Findings):
    def test_status_1_for_a_finding_that_is_named(self):
        stage, (one, two), _ = self.cast("a", "b")
        for actor, order in ((one, (3, 4)), (two, (4, 3))):
            for descriptor in order:
                actor.call(f"flock {descriptor} ex")
            for descriptor in order:
                actor.call(f"flock {descriptor} un")
        stage.close()
        for kinds, status in (
            ("lock_order_inversion", 1),
            ("deadlock,lock_order_inversion", 1),
            ("deadlock", 0),
            ("deadlocks", 2),
            ("", 2),
        ):
            for form in ("--json", "--summary"):
                run = self.planloop("dev", "locks", "--session", self.session, form, "--fail-on", kinds)
                self.assertEqual(run.returncode, status, f"{kinds!r}: {run.stderr}")

    def test_dev_run_fails_when_the_program_itself_succeeded(self):
        lock = self.file()
        lose = (
            "import fcntl,sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX);"
            "open(sys.argv[1]).close(); sys.exit(int(sys.argv[2]))"
        )
        for kind, own_status, status in (
            ("lock_lost_on_close", 0, 1),
            ("lock_lost_on_close", 5, 5),
            ("deadlock", 0, 0),
        ):
            run = self.planloop(
                "dev", "run", "--session", f"{kind}{own_status}", "--fail-on", kind,
                "--", "/usr/bin/python3", "-c", lose, lock, own_status,
            )  # fmt: skip
            self.assertEqual(run.returncode, status, run.stderr)

    def test_thresholds_of_long_waits_and_holds(self):
        stage, (one, _), _ = self.cast("a")
        one.call("flock 3 ex")
        one.call("hold 20000000")
        stage.close()
        for seconds, status in (("0.02", 1), ("3600", 0), ("soon", 2)):
            run = self.planloop(
                "dev", "locks", "--session", self.session, "--summary", "--long-hold", seconds, "--fail-on", "long_hold"
            )
            self.assertEqual(run.returncode, status, run.stderr)


if __name__ == "__main__":
    unittest.main()
