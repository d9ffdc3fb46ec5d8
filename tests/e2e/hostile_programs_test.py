"""Programs that treat the system roughly get the kernel's own answers, traced or not."""

import unittest

from harness import PROGRAMS, PYTHON, TracedTest

BAD_POINTERS = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
nowhere, path, none = ctypes.c_void_p(8), b"/bin/true", None
def call(name, *arguments):
    ctypes.set_errno(0)
    print(name, getattr(libc, name)(*arguments), ctypes.get_errno())
call("execve", nowhere, none, none)
call("execve", none, none, none)
call("execve", path, nowhere, none)
call("execve", path, (ctypes.c_char_p * 2)(path, none), nowhere)
call("execv", nowhere, none)
call("fcntl", 0, 6, nowhere)
call("fcntl", 0, 38, nowhere)
"""

# The program holds a POSIX lock and asks for an open-file-description lock with a pid, which must be zero.
SENSELESS_CALL = """
import fcntl, os, struct, sys
file = open(sys.argv[1], "r+")
fcntl.lockf(file, fcntl.LOCK_EX)
try:
    fcntl.fcntl(file, 38, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 7))
except OSError as error:
    print(error.errno)
"""

CLOSE_ALL = """
import fcntl, os, sys
first = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(first, fcntl.LOCK_EX)
os.closerange(3, 1000)
second = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(second, fcntl.LOCK_EX | fcntl.LOCK_NB)
print(first, second)
"""


class Hostile(TracedTest):
    def test_pointers_that_lead_nowhere(self):
        self.same_both_ways(PYTHON, "-c", BAD_POINTERS)

    def test_senseless_call_is_no_wait(self):
        self.same_both_ways(PYTHON, "-c", SENSELESS_CALL, self.file())
        report = self.report()
        self.assertEqual([entry["errno"] for entry in report.events("lock_failed")], [22])
        self.assertEqual(report.findings("self_deadlock"), [])

    def test_program_with_address_sanitizer(self):
        lock = self.file()
        self.same_both_ways(PROGRAMS / "static_locker_address", lock)
        self.assertEqual(len(self.report().events("lock_acquired")), 1)

    def test_program_that_closes_what_is_not_its_own(self):
        self.same_both_ways(PYTHON, "-c", CLOSE_ALL, self.file())
        self.assertEqual(len(self.report().events("lock_acquired")), 2)


class OutOfSight(TracedTest):
    def test_lock_in_a_pid_namespace_outlives_its_taker(self):
        enter = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
        if self.run_program([*enter, "true"]).returncode != 0:
            self.skipTest("no namespaces here")
        self.traced(*enter, "bash", "-c", f"( flock 9; sleep .1 ) 9>'{self.file()}'; true")
        report = self.report()
        (release,) = report.events("lock_released")
        self.assertEqual(release["reason"], "exit")
        self.assertGreaterEqual(release["hold_ns"], 100_000_000)
        self.assertEqual(report.findings("killed_while_holding"), [])

    def test_end_of_an_untraced_holder_is_no_kill(self):
        program, lock = PROGRAMS / "static_locker", self.file()
        self.traced("sh", "-c", f"exec 9>'{lock}'; flock 9; exec {program} '{self.file('other')}'")
        self.assertEqual(self.report().findings("killed_while_holding"), [])


if __name__ == "__main__":
    unittest.main()
