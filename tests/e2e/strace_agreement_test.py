"""The lock calls that are recorded are those that strace sees, in programs that nobody wrote for this test: each thread's
calls, unlocks too, in their order, with family, mode, range and errno."""

import errno
import re
import unittest
from collections import defaultdict

from harness import PROGRAMS, PYTHON, TracedTest

PROBE = PROGRAMS / "lockcore_probe"
FAMILIES = {"LOCK_": "flock", "F_SETLK": "posix", "F_OFD_SETLK": "ofd"}
MODES = {"LOCK_SH": "shared", "LOCK_EX": "exclusive", "LOCK_UN": "none",
         "F_RDLCK": "shared", "F_WRLCK": "exclusive", "F_UNLCK": "none"}  # fmt: skip
FLOCK_CALL = re.compile(r"flock\(\d+, (LOCK_\w\w)\S*\) += (.*)")
RECORD_LOCK_CALL = re.compile(
    r"fcntl\(\d+, (F_SETLK|F_OFD_SETLK)W?, \{l_type=(\w+), l_whence=SEEK_SET, l_start=(\d+), l_len=(\d+).*\}\) += (.*)"
)

PYTHON_FCNTL = """
import fcntl, os, sys
with open(sys.argv[1], "r+") as file:
    for start in range(5):
        fcntl.lockf(file, fcntl.LOCK_EX, 10, start * 10)
        fcntl.lockf(file, fcntl.LOCK_UN, 10, start * 10)
    fcntl.lockf(file, fcntl.LOCK_SH)
    if os.fork() == 0:
        for call, mode in ((fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB), (fcntl.flock, fcntl.LOCK_EX)):
            try:
                call(file, mode)
            except OSError:
                pass
        os._exit(0)
    os.wait()
"""
PERL_FLOCK = """
open(my $file, "+<", $ARGV[0]) or die;
for (1 .. 5) { flock($file, 2) or die; flock($file, 8) or die; }
open(my $other, "+<", $ARGV[0]) or die;
flock($file, 1) or die;
flock($other, 6) and die;
flock($other, 8) or die;
"""
WAITS = """
exec 9>"$1"; flock 9
flock "$1" true & waiter=$!
until grep -q -- "->.*:$(stat -c %i "$1") " /proc/locks; do :; done
flock -u 9
wait $waiter
"""


class StraceAgreement(TracedTest):
    def seen_by_strace(self, log):
        """By thread, its lock calls. A restarted call is one call."""
        calls = defaultdict(list)
        pending = {}
        for line in log.read_text().splitlines():
            tid, call = line.split(maxsplit=1)
            if call.endswith("<unfinished ...>"):
                pending[tid] = call.removesuffix(" <unfinished ...>")
                continue
            if "resumed>" in call:
                call = pending.pop(tid) + call.partition("resumed>")[2]
            if "ERESTART" in call or not re.match(r"flock\(|fcntl\(\d+, F_(OFD_)?SETLK", call):
                continue
            calls[tid].append(self.parsed(call))
        return dict(calls)

    def parsed(self, call):
        if match := FLOCK_CALL.fullmatch(call):
            mode, result = match.groups()
            family, start, length = "LOCK_", "0", "0"
        else:
            match = RECORD_LOCK_CALL.fullmatch(call)
            self.assertIsNotNone(match, f"not understood: {call}")
            family, mode, start, length, result = match.groups()
        error = getattr(errno, result.split()[1]) if result.startswith("-1") else 0
        return FAMILIES[family], MODES[mode], int(start), int(length), error

    def recorded(self):
        calls = defaultdict(list)
        for spool in self.spools:
            if spool.suffix != ".spool":
                continue
            printed = self.run_program([PROBE, "lock-calls", spool])
            self.assertEqual(printed.returncode, 0, printed.stderr)
            for line in printed.stdout.splitlines():
                tid, begin, family, mode, start, length, error = line.split()
                calls[tid].append((int(begin), (family, mode, int(start), int(length), int(error))))
        return {tid: [call for _, call in sorted(of_thread)] for tid, of_thread in calls.items()}

    def check(self, *command, locks, unlocks, **options):
        """`locks`, `unlocks`: at least so many calls."""
        log = self.folder / "strace"
        run = self.traced("strace", "-f", "-qq", "-e", "trace=flock,fcntl", "-o", log, *command, **options)
        self.assertEqual(run.returncode, 0, run.stderr)
        seen = self.seen_by_strace(log)
        self.assertEqual(self.recorded(), seen)
        modes = [mode for calls in seen.values() for _, mode, *_ in calls]
        self.assertGreaterEqual(len(modes) - modes.count("none"), locks)
        self.assertGreaterEqual(modes.count("none"), unlocks)
        report = self.report()
        self.assertEqual(len(report.events("lock_requested")), len(modes) - modes.count("none"))
        self.assertEqual(report.recorded["dropped"], 0)
        self.assertEqual(report.held, [])

    def test_flock_command(self):
        lock = self.file()
        self.check("sh", "-c", f"for i in 1 2 3; do flock {lock} flock -s -n {lock}2 true; done", locks=6, unlocks=0)

    def test_flock_command_that_waits_and_unlocks(self):
        self.check("sh", "-c", WAITS, "sh", self.file(), locks=2, unlocks=1)

    def test_python_fcntl(self):
        self.check(PYTHON, "-c", PYTHON_FCNTL, self.file(), locks=8, unlocks=5)

    def test_perl_flock(self):
        self.check("perl", "-e", PERL_FLOCK, self.file(), locks=7, unlocks=6)

    def test_sqlite(self):
        sql = "create table t(a); begin; insert into t values(1); commit; select * from t;"
        self.check("sqlite3", self.folder / "database", sql, locks=5, unlocks=5)

    def test_apt_takes_its_lock(self):
        """A package manager's own lock, in a folder of ours."""
        root = self.folder / "root"
        for name in ("var/lib/dpkg", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial", "etc/apt"):
            (root / name).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (root / "etc/apt/sources.list").touch()
        self.check("apt-get", "-o", f"Dir={root}", "-o", f"Dir::State::status={root}/var/lib/dpkg/status", "-o",
                   "APT::Sandbox::User=root", "-qq", "update", locks=1, unlocks=0)  # fmt: skip

    def test_dpkg_takes_its_locks(self):
        database = self.folder / "dpkg"
        for name in ("info", "updates", "triggers"):
            (database / name).mkdir(parents=True)
        (database / "status").touch()
        self.check("dpkg", f"--admindir={database}", "--force-not-root", "--configure", "-a", locks=3, unlocks=3)


if __name__ == "__main__":
    unittest.main()
