"""The lock calls that are recorded are those that strace sees, in programs that nobody wrote for this test."""

import re
import unittest
from collections import Counter

from harness import PYTHON, TracedTest

LOCKING = re.compile(r"(flock\(|F_SETLKW?\b|F_OFD_SETLKW?\b)")
FLOCK_MODES = {"LOCK_SH": "shared", "LOCK_EX": "exclusive", "LOCK_UN": "unlock"}
FCNTL_MODES = {"F_RDLCK": "shared", "F_WRLCK": "exclusive", "F_UNLCK": "unlock"}

PYTHON_FCNTL = """
import fcntl, sys
with open(sys.argv[1], "r+") as file:
    for start in range(5):
        fcntl.lockf(file, fcntl.LOCK_EX, 10, start * 10)
        fcntl.lockf(file, fcntl.LOCK_UN, 10, start * 10)
"""
PERL_FLOCK = """
open(my $file, "+<", $ARGV[0]) or die;
for (1 .. 5) { flock($file, 2) or die; flock($file, 8) or die; }
"""


class StraceAgreement(TracedTest):
    def seen_by_strace(self, log):
        """Counts by mode, unlocks included. A restarted call is one call."""
        counts = Counter()
        pending = {}
        for line in log.read_text().splitlines():
            match = re.match(r"(\d+) +(.*)", line)
            pid, call = match[1], match[2]
            if "<unfinished" in call:
                pending[pid] = call
                continue
            if "resumed>" in call and pid in pending:
                call = pending.pop(pid) + call
            if not LOCKING.search(call) or "ERESTART" in call:
                continue
            for names in (FLOCK_MODES, FCNTL_MODES):
                for name, mode in names.items():
                    counts[mode] += bool(re.search(rf"\b{name}\b", call))
        return counts

    def check(self, *command, least, unlocks=False):
        """`unlocks`: each of the program's unlock calls gives one lock back."""
        log = self.folder / "strace"
        run = self.traced("strace", "-f", "-qq", "-e", "trace=flock,fcntl", "-o", log, *command)
        self.assertEqual(run.returncode, 0, run.stderr)
        report = self.report()
        recorded = Counter(entry["mode"] for entry in report.events("lock_requested"))
        strace = self.seen_by_strace(log)
        if unlocks:
            released = report.events("lock_released")
            self.assertEqual(len([entry for entry in released if entry["reason"] == "unlock"]), strace["unlock"])
            self.assertGreater(strace["unlock"], 0)
        del strace["unlock"]  # else an unlock of what is not held is no event
        self.assertEqual(recorded, +strace)
        self.assertGreaterEqual(sum(recorded.values()), least)

    def test_flock_command(self):
        lock = self.file()
        self.check("sh", "-c", f"for i in 1 2 3; do flock {lock} flock -s -n {lock}2 true; done", least=6)

    def test_python_fcntl(self):
        self.check(PYTHON, "-c", PYTHON_FCNTL, self.file(), least=5, unlocks=True)

    def test_perl_flock(self):
        self.check("perl", "-e", PERL_FLOCK, self.file(), least=5, unlocks=True)

    def test_sqlite(self):
        database = self.folder / "database"
        sql = "create table t(a); begin; insert into t values(1); commit; select * from t;"
        self.check("sqlite3", database, sql, least=5)

    def test_apt_takes_its_lock(self):
        """A package manager's own lock, in a folder of ours."""
        root = self.folder / "root"
        for name in ("var/lib/dpkg", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/apt/sources.list").touch()
        self.check("apt-get", "-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status", "-o",
                   "APT::Sandbox::User=root", "-qq", "update", least=1)


if __name__ == "__main__":
    unittest.main()
