"""Who shares a lock: copies and children that were made before the first lock call, in every way there is to make them.
Each case compares the report with the kernel's account, and ends when the last sharer lets go."""

import errno
import os
import subprocess
import time
import unittest

from harness import PYTHON, TracedTest, kernel_holders, kernel_holds, wait_until, wait_until_blocked


class SharedDescriptors(TracedTest):
    def setUp(self):
        super().setUp()
        self.lock = self.file()
        self.play = self.stage()
        self.a = self.play.root.spawn()
        self.a.call(f"open {self.lock}")

    def check(self, *actors):
        """These processes hold the lock, says the kernel, and so does the report, at the latest when the supervisor has
        looked."""
        expected = {actor.pid for actor in actors}
        self.assertEqual(kernel_holders(self.play.pids, self.lock), expected)
        recorded = None

        def agrees():
            nonlocal recorded
            recorded = self.report()
            return recorded.holders(self.lock) == expected

        try:
            wait_until("the report names the holders", agrees, patience_s=10)
        except AssertionError:
            self.assertEqual(recorded.holders(self.lock), expected)
        return recorded

    def check_ends_with(self, *actors):
        """Each of them holds until it closes 3, and the hold is over with the last, for the reason `close`."""
        left = list(actors)
        while left:
            self.check(*left)
            left.pop(0).call("close 3")
        report = self.check()
        released = [entry for entry in report.events("lock_released") if not entry["lock"].startswith("posix")]
        self.assertEqual([entry["reason"] for entry in released], ["close"])
        self.assertEqual(report.recorded["dropped"], 0)


class BeforeTheFirstLock(SharedDescriptors):
    def test_copy_and_child_under_two_numbers(self):
        self.a.call("dup 3")
        b = self.a.fork()
        self.a.call("flock 4 ex")
        b.call("fcntl 3 ofd_setlk un 0 0")
        self.check(self.a, b)
        b.call("close 3")
        self.check(self.a, b)
        b.call("close 4")
        self.check(self.a)
        self.a.call("close 4")
        self.check_ends_with(self.a)

    def test_siblings(self):
        b, c = self.a.fork(), self.a.fork()
        other = self.play.root.spawn()
        other.call(f"open {self.lock}")
        other.call("flock 3 sh")
        c.call("flock 3 sh")
        self.assertEqual(c.fails("flock 3 ex nb"), errno.EWOULDBLOCK)  # and has lost the shared lock by that
        b.call("flock 3 sh")
        self.check(self.a, b, c, other)
        c.call("close 3")
        self.check(self.a, b, other)
        b.call("flock 3 un")
        self.check(other)

    def test_sibling_that_closes_before_anybody_found_it(self):
        b, c = self.a.fork(), self.a.fork()
        c.call("flock 3 ex")
        b.call("close 3")
        self.check(self.a, c)
        self.a.call("close 3")
        c.kill()
        self.assertEqual(self.check().events("lock_released")[0]["reason"], "killed")

    def test_orphan(self):
        b = self.a.fork()
        c = b.fork()
        b.finish()
        c.call("flock 3 ex")
        self.check_ends_with(self.a, c)

    def test_grandchild_of_a_child_that_let_go(self):
        b = self.a.fork()
        c = b.fork()
        b.call("close 3")
        self.a.call("flock 3 ex")
        self.check_ends_with(self.a, c)

    def test_spawned_child_whose_parent_moves_the_descriptor(self):
        self.a = self.a.exec()
        self.a.call("dupfd 3 34")
        b = self.a.spawn("vspawn")
        self.a.call("dup2 34 5")
        self.a.call("flock 5 ex")
        for fd in (34, 5):
            self.check(self.a, b)
            self.a.call(f"close {fd}")
        self.check(self.a, b)
        b.call("close 34")
        self.check_ends_with(self.a, b)

    def test_child_that_moved_the_descriptor(self):
        b = self.a.spawn("vspawn")
        b.call("dupfd 3 32")
        b.call("fcntl 32 ofd_setlk rd 0 0")
        self.check(self.a, b)
        b.call("close 32")
        self.check_ends_with(b, self.a)

    def test_lock_of_another_description_of_the_file_is_not_taken_for_it(self):
        self.a.call(f"open {self.lock}")
        b = self.a.fork()
        self.a.call("flock 3 sh")
        self.a.call("close 3")
        b.call("flock 4 sh")
        report = self.check(self.a, b)
        self.assertEqual(sorted(len(held["holders"]) for held in report.held), [1, 2])

    def test_two_descriptions_that_one_process_locked_and_left_are_told_apart(self):
        """Their lines in /proc/PID/fdinfo both name the process that has ended: which is which they do not tell."""
        self.a.call(f"open {self.lock}")
        self.a.call("flock 3 sh")
        b = self.a.fork()
        self.a.call("flock 4 sh")
        self.a.finish()
        self.play.root.call(f"wait {self.a.pid}")
        c = self.play.root.spawn()
        c.call(f"open {self.lock}")
        d, e = c.fork(), c.fork()
        d.call("flock 3 sh")
        self.check(b, c, d, e)  # so a supervisor has looked: it alone finds a brother
        b.call("close 3")
        self.check(b, c, d, e)
        b.call("close 4")
        report = self.check(c, d, e)
        self.assertEqual([entry["reason"] for entry in report.events("lock_released")], ["close", "close"])
        self.assertEqual({entry["pid"] for entry in report.events("lock_released")}, {b.pid})

    def test_child_that_was_told_of_a_description_which_a_posix_lock_was_taken_through(self):
        """POSIX locks are the process's: that its parent has taken one does not mean that the sharers are known."""
        b = self.a.spawn()
        self.a.call("fcntl 3 setlk wr 31 5")
        self.a.call("fcntl 3 setlk un 0 0")
        c = self.a.spawn("vspawn")
        c.call("flock 3 ex")
        self.check_ends_with(self.a, b, c)

    def test_child_that_only_unlocked_before_it_became_another_program(self):
        b = self.a.spawn("vspawn")
        b.call("flock 3 un")
        b = b.exec()
        b.call("flock 3 sh")
        self.check_ends_with(self.a, b)

    def test_descriptor_that_exec_closed_is_not_taken_for_what_is_opened_under_its_number(self):
        self.a.call("close 3")
        self.a.call(f"open {self.lock} cloexec")
        b = self.a.fork()
        self.a.call("flock 3 ex")
        self.a = self.a.exec()
        self.a.call(f"open {self.lock}")
        c = self.a.fork()
        for actor in (self.a, c):
            self.assertEqual(actor.fails("flock 3 ex nb"), errno.EWOULDBLOCK)
            self.check(b)
        b.call("close 3")
        self.check()
        c.call("flock 3 ex")
        self.check(self.a, c)

    def test_sixty_five_and_more(self):
        """More descriptions at once than any fixed few: each is told apart."""
        files = [self.file(f"many{number}") for number in range(150)]
        for path in files:
            self.a.call(f"open {path}")
        b = self.a.fork()
        for fd in range(4, 4 + len(files)):
            b.call(f"flock {fd} ex")
        wait_until("report and kernel agree", lambda: self.report().holds() == kernel_holds(self.play.pids, files),
                   patience_s=20)
        for fd in range(4, 4 + len(files), 2):
            self.a.call(f"close {fd}")
        for fd in range(4, 4 + len(files), 3):
            b.call(f"close {fd}")
        report = self.report()
        self.assertEqual(report.holds(), kernel_holds(self.play.pids, files))
        self.assertEqual(report.recorded["dropped"], 0)


class WaysToMakeAChild(SharedDescriptors):
    CALLS = ("fork", "clone", "sys_fork", "sys_clone")

    def test_after_the_lock(self):
        for call in self.CALLS:
            with self.subTest(call):
                self.a.call("flock 3 ex")
                b = self.play.arrival(self.a.call(call))
                self.check(self.a, b)
                b.call("close 3")
                self.check(self.a)
                self.a.call("flock 3 un")

    def test_before_the_lock(self):
        for call in self.CALLS:
            with self.subTest(call):
                b = self.play.arrival(self.a.call(call))
                b.call("flock 3 ex")
                self.check(self.a, b)
                b.call("flock 3 un")
                b.finish()

    def test_child_in_the_parents_memory_speaks_for_itself(self):
        """What it closes before it becomes another program, its parent still has."""
        copy = self.a.call("dup 3")
        self.a.call("flock 3 ex")
        b = self.play.arrival(self.a.call("clone_vm 3"))
        self.check(self.a, b)
        self.a.call(f"close {copy}")
        self.check(self.a, b)
        self.a.call("close 3")
        self.check(b)
        b.call(f"close {copy}")
        self.check()

    def test_exec_through_syscall(self):
        for call in ("sys_exec", "sys_execveat"):
            with self.subTest(call):
                self.a.call("flock 3 ex")
                self.a.begin(call)
                self.a = self.play.arrival(self.a.pid)
                self.check(self.a)
                self.a.call("flock 3 un")

    def test_spawn_with_actions_that_move_the_descriptor(self):
        self.a.call("flock 3 ex")
        b = self.play.arrival(self.a.call("spawn_moving 3 7"))
        self.check(self.a, b)
        self.a.call("close 3")
        self.check(b)
        b.call("close 7")
        report = self.check()
        self.assertEqual([entry["reason"] for entry in report.events("lock_released")], ["close"])

    def test_spawn_with_actions_that_put_another_file_there(self):
        """The number alone says nothing: also not when it is the same file, opened again."""
        for other in (self.file("other"), self.lock):
            with self.subTest(other=other.name):
                self.a.call("flock 3 ex")
                fd = self.a.call(f"open {other}")
                b = self.play.arrival(self.a.call(f"spawn_moving {fd} 3"))
                self.check(self.a)
                b.finish()
                self.check(self.a)
                self.a.call(f"close {fd}")
                self.a.call("flock 3 un")

    def test_two_threads_in_system_at_once(self):
        program = (
            "import fcntl, os, subprocess, sys, threading\n"
            "file = open(sys.argv[1])\n"
            "os.set_inheritable(file.fileno(), True)\n"
            "fcntl.flock(file, fcntl.LOCK_EX)\n"
            "command = f'echo $$ >> {sys.argv[2]}; read line < {sys.argv[3]}'\n"
            "threads = [threading.Thread(target=os.system, args=(command,)) for _ in range(2)]\n"
            "for thread in threads: thread.start()\n"
            "for thread in threads: thread.join()\n"
        )
        said, gate = self.file("said"), self.folder / "gate"
        os.mkfifo(gate)
        lock = self.file("systems")
        run = subprocess.Popen(self.traced_command([PYTHON, "-c", program, lock, said, gate]), env=self.environment)
        shells = wait_until("both run", lambda: (words := said.read_text().split()) and len(words) == 2 and words)
        everybody = kernel_holders([int(pid.name) for pid in os.scandir("/proc") if pid.name.isdigit()], lock)
        self.assertLessEqual({int(shell) for shell in shells}, everybody)
        wait_until("the report names all", lambda: self.report().holders(lock) == everybody, patience_s=10)
        writer = os.open(gate, os.O_WRONLY)
        os.write(writer, b"go\ngo\n")
        os.close(writer)
        self.assertEqual(run.wait(60), 0)
        self.assertEqual(self.report().holders(lock), set())


class WaysToLetGo(SharedDescriptors):
    def test_closefrom(self):
        self.a.call("flock 3 ex")
        b_pid = self.a.call("closefrom 3")
        wait_until("the child closed it", lambda: not os.path.exists(f"/proc/{b_pid}/fd/3"))
        self.check(self.a)
        self.a.call("close 3")
        self.check()
        os.kill(b_pid, 9)

    def test_close_range_over_a_lock_and_a_copy(self):
        self.a.call("flock 3 ex")
        self.a.call("dup 3")
        b = self.a.fork()
        b.call("close_range_to_control 3")
        self.check(self.a)
        self.a.call("close_range 3 3")
        self.check(self.a)
        self.a.call("close_range_to_control 4")
        self.check()


class OverASocket(SharedDescriptors):
    def pass_descriptor(self, sender, receiver, fd=3):
        path = self.folder / f"passing-{time.monotonic_ns()}"
        receiver.begin(f"receive {path}")
        wait_until("it listens", lambda: sender_connects(path))
        sender.call(f"send {fd} {path}")
        return receiver.end().result

    def test_sent_after_the_lock(self):
        b = self.play.root.spawn()
        self.a.call("flock 3 ex")
        fd = self.pass_descriptor(self.a, b)
        self.check(self.a, b)
        self.a.call("close 3")
        self.check(b)
        b.call(f"close {fd}")
        self.assertEqual(self.check().events("lock_released")[-1]["reason"], "close")

    def test_sent_before_the_lock(self):
        b = self.play.root.spawn()
        fd = self.pass_descriptor(self.a, b)
        b.call(f"fcntl {fd} ofd_setlk wr 0 0")
        self.check(self.a, b)
        b.call(f"close {fd}")
        self.check_ends_with(self.a)


def sender_connects(path):
    """Whether somebody listens there, without connecting: the kernel lists the sockets that do."""
    flags_listening = "00010000"
    return any(line.endswith(f" {path}") and flags_listening in line for line in open("/proc/net/unix").read().splitlines())


class OtherCalls(SharedDescriptors):
    def test_flock_and_ofd_through_syscall(self):
        for take, release in (("sys_flock 3 ex", "sys_flock 3 un"), ("sys_ofd 3 ex", "sys_ofd 3 un")):
            with self.subTest(take):
                self.a.call(take)
                b = self.a.fork()
                self.check(self.a, b)
                b.call(release)
                report = self.check()
                self.assertEqual(report.events("lock_released")[-1]["reason"], "unlock")
                b.finish()

    def test_thread_cancelled_while_it_waits(self):
        b = self.play.root.spawn()
        b.call(f"open {self.lock}")
        b.call("fcntl 3 setlkw wr 0 0")
        self.a.call("waiter 3")
        wait_until_blocked(self.a.pid, self.lock)
        self.a.call("cancel_waiter")
        report = self.check(b)
        self.assertEqual(report.waiting, [])
        (failed,) = report.events("lock_failed")
        self.assertEqual((failed["pid"], failed["errno"]), (self.a.pid, errno.ECANCELED))

    def test_lock_calls_without_a_descriptor_to_spare_are_counted_as_lost(self):
        """The recorder needs one for a moment. Later calls, when there is one again, are recorded."""
        b = self.play.root.spawn()
        b.call(f"open {self.lock}")
        b.call("limit 4")
        for _ in range(3):
            b.call("flock 3 ex")
            b.call("flock 3 un")
        b.call("limit 64")
        b.call("flock 3 ex")
        b.call("flock 3 un")
        b.call("flock 3 ex")
        report = self.check(b)
        self.assertGreaterEqual(report.recorded["dropped"], 6)
        self.assertEqual(len(report.findings("lost_events")), 1)

    @unittest.skipUnless(os.geteuid() == 0, "/etc/.pwd.lock is root's: run as root to test lckpwdf")
    def test_the_lock_of_the_password_files(self):
        path = "/etc/.pwd.lock"
        self.assertEqual(self.a.call("lckpwdf"), 0)
        self.assertEqual(kernel_holders(self.play.pids, path), {self.a.pid})
        self.assertEqual(self.report().holds(), kernel_holds(self.play.pids, [path]))
        b = self.play.root.spawn()
        b.block("lckpwdf", path)
        (waiting,) = self.report().waiting
        self.assertEqual((waiting["pid"], [who["pid"] for who in waiting["blocked_by"]]), (b.pid, [self.a.pid]))
        self.a.call("ulckpwdf")
        b.end()
        self.assertEqual(self.report().holders(path), {b.pid})
        b.call("close_range_to_control 3")  # libc's own descriptor is in there
        self.assertEqual(kernel_holders(self.play.pids, path), set())
        self.assertEqual(self.report().holders(path), set())

    @unittest.skipUnless(os.geteuid() == 0, "/etc/.pwd.lock is root's: run as root to test lckpwdf")
    def test_the_first_lock_of_the_password_files_makes_the_file(self):
        """On a machine, and here in a mount namespace, where there is none yet."""
        if self.run_program(["unshare", "--mount", "true"]).returncode != 0:
            self.skipTest("may not make a mount namespace: run with CAP_SYS_ADMIN to test the first lckpwdf")
        program = (
            "import ctypes, os\n"
            "libc = ctypes.CDLL(None)\n"
            "assert not os.path.exists('/etc/.pwd.lock')\n"
            "print(libc.lckpwdf(), libc.ulckpwdf(), libc.lckpwdf(), libc.ulckpwdf())\n"
        )
        script = 'mount -t tmpfs none /etc && exec "$0" -c "$1"'
        run = self.traced("unshare", "--mount", "sh", "-c", script, PYTHON, program)
        self.assertEqual((run.stdout, run.returncode), ("0 0 0 0\n", 0), run.stderr)
        row = self.report().lock_of("/etc/.pwd.lock")
        self.assertEqual((row["family"], row["acquisitions"], row["hold_ns"]["count"]), ("posix", 2, 2))
        self.assertEqual([entry["reason"] for entry in self.report().events("lock_released")], ["unlock", "unlock"])


class Marked(TracedTest):
    def test_whatever_has_the_marks_name_stands_for_it_and_holds_nobody_up(self):
        """Who first shares a lock leaves an empty file `shared` beside the recording, for those who then look for it."""
        for kind, make in (("fifo", os.mkfifo), ("folder", os.mkdir), ("file", lambda path: path.touch())):
            with self.subTest(kind):
                self.session = kind
                lock = self.file(kind)
                folder = self.home / "sessions" / kind / "logs" / "spool"
                self.assertEqual(self.traced("true").returncode, 0)
                folder.mkdir(parents=True, exist_ok=True)
                make(folder / "shared")
                run = self.traced("bash", "-c", f"exec 9>{kind}; flock 9; exec 9>&-; flock -n {kind} true", cwd=self.folder)
                self.assertEqual(run.returncode, 0, run.stderr)
                report = self.report()
                self.assertEqual([entry["reason"] for entry in report.events("lock_released")], ["close", "exit"])
                self.assertEqual((report.lock_of(lock)["acquisitions"], report.recorded["dropped"]), (2, 0))


if __name__ == "__main__":
    unittest.main()
