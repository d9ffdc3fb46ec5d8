"""Daemons close every descriptor, leave their folder, session, root or user. They keep working, and what they lock is
recorded as long as the recording can be reached: a process that recorded before it was locked in has it mapped."""

import os
import unittest

from equivalence import EquivalenceTest, Program
from harness import PYTHON, SHIM, TracedTest

# Tells through a fifo, since it has closed what it inherited: its pid, then what its calls returned.
DAEMON = """
import fcntl, os, sys
how = sys.argv[1:]
def lock(name):
    fd = os.open(name, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "locked " + name
    except OSError as error:
        return f"{name}: {error.errno}"
folder = os.getcwd()
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
os.chdir(folder if "stay" in how else "/")
prefix = folder + "/"
os.closerange(0, 512)
said = []
if "early" in how:
    said.append(lock(prefix + "lock"))
if "chroot" in how:
    os.chroot(folder)
    prefix = "/"
if "drop" in how:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
said.append(lock(prefix + "lock2"))
said.append(lock(prefix + "count"))
os.close(os.open(prefix + "lock2", os.O_RDWR))
said.append(lock(prefix + "lock2"))
told = [str(os.getpid()), *said]
os.write(os.open(prefix + "fifo", os.O_WRONLY), "\\n".join(told).replace(folder, "").encode())
"""


class Daemons(EquivalenceTest):
    def check_daemon(self, *how, least):
        if os.geteuid() != 0 and {"chroot", "drop"} & set(how):
            self.skipTest("only root may do that")
        self.folder.chmod(0o755)
        # Until the daemon has ended: its locks outlive what it told by a moment.
        script = f"""
            mkfifo fifo; chmod 666 fifo lock lock2 count; "$PYTHON" daemon.py {' '.join(how)}; {{ read -r pid; cat; }} <fifo
            while grep -qs '^State:.[^Z]' /proc/$pid/status; do sleep 0.01; done
        """
        self.check(Program("daemon", "", script, least=least, files=(("daemon.py", DAEMON),), whole=False))

    def test_closes_every_descriptor_and_leaves_folder_and_session(self):
        self.check_daemon(least=12)

    def test_leaves_its_root_before_its_first_lock(self):
        self.check_daemon("chroot", least=0)

    def test_leaves_its_root_after_its_first_lock(self):
        self.check_daemon("early", "chroot", least=16)

    def test_drops_its_rights_before_its_first_lock(self):
        self.check_daemon("drop", least=0)

    def test_drops_its_rights_after_its_first_lock(self):
        self.check_daemon("early", "drop", least=16)


# Makes a child that came by an open file and goes to another root with it, locks the file and closes it, so that the
# child is the last who has the lock; then tells the child to close it, and has the file locked anew.
SHARED_BEYOND_THE_ROOT = """
import fcntl, os, subprocess, sys
CHILD = '''
import os, sys
for folder in ('nowhere', sys.argv[2] + '/lock', sys.argv[2]):
    try: print(os.chroot(folder), flush=True)
    except OSError as error: print(error.errno, flush=True)
sys.stdin.read(1)
os.close(int(sys.argv[1]))
print('closed', flush=True)
sys.stdin.read(1)
'''
fd = os.open("lock", os.O_RDWR)
os.set_inheritable(fd, True)
child = subprocess.Popen([sys.executable, "-c", CHILD, str(fd), os.getcwd()], pass_fds=[fd], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, text=True)
print([child.stdout.readline() for _ in range(3)])
fcntl.flock(fd, fcntl.LOCK_EX)
os.close(fd)
print(subprocess.run(["flock", "-n", "lock", "true"]).returncode)
child.stdin.write(".")
child.stdin.flush()
print(child.stdout.readline())
print(subprocess.run(["flock", "-n", "lock", "true"]).returncode)
open("pid", "w").write(str(child.pid))
child.communicate(".")
"""


class OtherRoots(TracedTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.skipTest("only root may have another root folder")

    def test_who_shares_a_lock_from_another_root_holds_it_until_it_closes(self):
        lock = self.file()
        self.same_both_ways(PYTHON, "-c", SHARED_BEYOND_THE_ROOT, cwd=self.folder)
        child = int((self.folder / "pid").read_text())
        report = self.report()
        ends = [(entry["reason"], entry["pid"] == child) for entry in report.events("lock_released")]
        self.assertEqual(ends, [("close", True), ("exit", False)])
        self.assertEqual(report.findings("killed_while_holding") + report.findings("lost_events"), [])
        self.assertEqual(report.lock_of(lock)["acquisitions"], 2)

    def test_what_does_not_fit_into_what_is_mapped_is_lost_and_said_to_be(self):
        program = (
            "import fcntl, os\n"
            "fd = os.open('lock', os.O_RDWR)\n"
            "os.chroot('.')\n"
            "for _ in range(20_000):\n"
            "    fcntl.flock(fd, fcntl.LOCK_EX)\n"
            "    fcntl.flock(fd, fcntl.LOCK_UN)\n"
        )
        lock = self.file()
        environment = {**self.environment, "LD_PRELOAD": SHIM, "PLANLOOP_SESSION": self.session}
        run = self.run_program([PYTHON, "-c", program], cwd=self.folder, env=environment)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        shown = self.planloop("dev", "locks", "--session", self.session, "--summary")
        self.assertRegex(shown.stderr, "[0-9]+ events were lost by processes that could not reach more of the recording")
        report = self.report()
        self.assertGreater(report.recorded["dropped"], 0)
        self.assertEqual(len(report.findings("lost_events")), 1)


class OtherUsers(TracedTest):
    def test_what_starts_as_a_user_who_may_not_record_is_named(self):
        if os.geteuid() != 0:
            self.skipTest("only root may become another user")
        lock = self.file()
        lock.chmod(0o666)
        self.folder.chmod(0o755)
        for become in (["setpriv", "--reuid", "65534", "--clear-groups"], ["runuser", "-u", "nobody", "--"]):
            with self.subTest(become[0]):
                self.session = f"as-{become[0]}"
                run = self.traced(*become, "flock", lock, "echo", "ran")
                self.assertEqual((run.returncode, run.stdout), (0, "ran\n"), run.stderr)
                (finding,) = self.report().findings("not_traced")
                self.assertIn("/flock was not traced: it runs as a user who may not", finding["summary"])


if __name__ == "__main__":
    unittest.main()
