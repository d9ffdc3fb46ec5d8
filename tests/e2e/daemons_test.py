"""Daemons close every descriptor, leave their folder, session, root or user. They keep working, and what they lock is
recorded as long as the recording can be reached: a process that recorded before it was locked in has it mapped."""

import os
import unittest

from equivalence import EquivalenceTest, Program
from harness import TracedTest

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
