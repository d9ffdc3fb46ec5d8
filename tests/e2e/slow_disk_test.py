"""A recording on a disk that takes no writes for a while, as one that is frozen for a snapshot: the program waits or goes
on, nobody is blamed for that, and afterwards all is recorded.

Needs root and a loop device: a small ext4 in a mount namespace of its own, frozen by fsfreeze(8).
"""

import os
import select
import subprocess
import sys
import time
import unittest
from pathlib import Path

from harness import PATIENCE_S, TracedTest, kernel_locks, wait_until

PAIRS = 20
LOCKS = (
    "use Fcntl ':flock'; $| = 1; open F, '>', $ARGV[0] or die; sub pair { flock F, LOCK_EX or die; flock F, LOCK_UN or die }"
    f"pair; print \"$$\\n\"; <STDIN>; pair for 1 .. {PAIRS}; print \"done\\n\"; exit 7"
)
TAKES_NO_LOCK = '$| = 1; print "$$\\n"; <STDIN>; system "true"; print "done\\n"; exit 7'


class FrozenDisk(TracedTest):
    def setUp(self):
        super().setUp()
        if os.geteuid() != 0:
            self.not_tested("not root")
        self.home.mkdir()
        # It thaws the disk when this process ends, however it does.
        self.shell = subprocess.Popen(["unshare", "--mount", "sh"], text=True, stdin=subprocess.PIPE,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (self.shell.communicate(), None))
        self.disk = f"/proc/{self.shell.pid}/root{self.home}"
        image = self.folder / "disk"
        said = self.tell_shell(
            f"PATH=$PATH:/usr/sbin:/sbin; truncate -s 32M {image} && mkfs.ext4 -q {image} && mount -o loop {image} {self.home} "
            f"&& fsfreeze -f {self.home} && fsfreeze -u {self.home}"
        )
        if said:
            self.not_tested(said)
        self.environment["PLANLOOP_HOME"] = self.disk
        self.lock = self.file()

    def not_tested(self, why):
        print(f"NOT TESTED, no disk that can be frozen here: a recording on one. {why}", file=sys.stderr)
        self.skipTest(f"no disk that can be frozen here: {why}")

    def tell_shell(self, command):
        """What it prints; nothing when all went well."""
        self.shell.stdin.write(f"{{ {command}; }} 2>&1 || echo failed; echo over\n")
        self.shell.stdin.flush()
        said = ""
        for line in self.shell.stdout:
            if line == "over\n":
                break
            said += line
        return said.strip()

    def freeze(self):
        # The other half stands by in the shell's own input: at its end the disk thaws, too.
        self.shell.stdin.write(f"fsfreeze -f {self.home} && echo frozen; read line; fsfreeze -u {self.home} && echo thawed\n")
        self.shell.stdin.flush()
        self.assertEqual(self.shell.stdout.readline(), "frozen\n")
        self.frozen = True
        self.addCleanup(self.thaw)  # before anybody waits for the program

    def thaw(self):
        if not self.frozen:
            return
        self.frozen = False
        self.shell.stdin.write("\n")
        self.shell.stdin.flush()
        self.assertEqual(self.shell.stdout.readline(), "thawed\n")

    def start(self, program):
        run = subprocess.Popen(self.traced_command(["perl", "-e", program, self.lock]), env=self.environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(lambda: (run.communicate(), None))
        return run, int(run.stdout.readline())

    def test_wait_for_the_disk_is_no_wait_for_the_lock(self):
        run, pid = self.start(LOCKS)
        self.freeze()
        run.stdin.write("\n")
        run.stdin.flush()
        wait_until("the program waits for the disk", lambda: Path(f"/proc/{pid}/stat").read_text().split()[2] == "D")
        waits = time.monotonic_ns()
        self.assertEqual(kernel_locks(self.lock), [], "it does not wait with the lock")
        self.assertEqual(self.report().held, [])
        self.assertEqual(self.planloop("dev", "locks", "--session", self.session, "--waiting").returncode, 0)
        frozen_ns = time.monotonic_ns() - waits
        self.thaw()
        said, errors = run.communicate(timeout=60)
        self.assertEqual((said, run.returncode), ("done\n", 7), errors)
        report = self.report()
        self.assertEqual(report.recorded["dropped"], 0)
        row = report.lock_of(self.lock)
        self.assertEqual((row["acquisitions"], row["failed"]), (1 + PAIRS, 0))
        self.assertLess(row["wait_ns"]["max"], frozen_ns)

    def test_program_that_takes_no_lock_goes_on(self):
        """Only `dev run` waits, when the program has ended."""
        run, pid = self.start(TAKES_NO_LOCK)
        self.freeze()
        run.stdin.write("\n")
        run.stdin.flush()
        self.assertTrue(select.select([run.stdout], [], [], PATIENCE_S)[0], "it waits for the disk")
        self.assertEqual(run.stdout.readline(), "done\n")
        wait_until("it has ended", lambda: not os.path.exists(f"/proc/{pid}/exe") or not os.listdir(f"/proc/{pid}/fd"))
        self.thaw()
        self.assertEqual(run.wait(60), 7)
        self.assertEqual(self.report().recorded["dropped"], 0)


if __name__ == "__main__":
    unittest.main()
