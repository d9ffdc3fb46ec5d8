"""What strace sees of programs plain and traced. Each says `mark` once it has started, taken its first lock of each
file on each thread, and again when it is done: in between, the traced program makes the calls that it makes plain.

Two calls are allowed there, each directly before the program's own on the same descriptor, since a number alone does not
say what it is open on:
  fstat before a lock call that may take a lock, unless this thread's last one on it came back just now;
  fstat before a close, once the process has taken a POSIX lock: the close of any descriptor of the file would drop it.
"""

import os
import re
import subprocess
import time
import unittest
from collections import Counter

from harness import PROGRAMS, PYTHON, SHIM, TracedTest, wait_until

PYTHON_STEADY = """
import fcntl, os, struct, sys
times, family = int(sys.argv[1]), sys.argv[2]
fd, other = os.open("lock", os.O_RDWR), os.open("lock2", os.O_RDWR)
record = {"posix": (6, 7), "ofd": (37, 38)}.get(family)
def pair(fd):
    if family == "flock":
        fcntl.flock(fd, fcntl.LOCK_EX)
        fcntl.flock(fd, fcntl.LOCK_UN)
    else:
        fcntl.fcntl(fd, record[1], struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 5, 5, 0))
        fcntl.fcntl(fd, record[0], struct.pack("hhqqi4x", fcntl.F_UNLCK, 0, 5, 5, 0))
pair(fd)
pair(other)
os.write(1, b"mark\\n")
for _ in range(times):
    pair(fd)
    pair(other)
    file = os.open("count", os.O_RDONLY)
    copy = os.dup(file)
    os.read(file, 10)
    os.close(copy)
    os.close(file)
os.write(1, b"mark\\n")
"""

PERL_STEADY = """
open(my $file, "+<", "lock") or die;
flock($file, 2); flock($file, 8);
syswrite(STDOUT, "mark\\n");
for (1 .. $ARGV[0]) {
    flock($file, 2) or die; flock($file, 8) or die;
    open(my $other, "<", "count") or die; <$other>; close($other);
}
syswrite(STDOUT, "mark\\n");
"""

BASH_STEADY = """
exec 9>lock; flock 9; echo mark
for ((i = 0; i < $1; ++i)); do read -r line < count; echo $line >> lock2; { read -r line <&8; } 8< count; [[ -e lock ]]; done
echo mark
"""

# A lock is waited for and refused, too; each thread takes its own.
THREADS = [str(PROGRAMS / "odd_places"), "steady-threads", "lock"]

LOCK_CALL = re.compile(r"(?:flock|fcntl)\((\d+), (?:LOCK_|F_SETLK|F_OFD_SETLK)")


class SystemCalls(TracedTest):
    def setUp(self):
        super().setUp()
        for name in ("lock", "lock2", "count"):
            (self.folder / name).write_text("1\n")

    def calls(self, command, traced, session="s"):
        """The calls between the marks of each thread that makes marks, and how many calls there were in all."""
        log = self.folder / f"calls-{traced}"
        for old in self.folder.glob(f"{log.name}.*"):
            old.unlink()
        preload = ["-E", f"LD_PRELOAD={SHIM}", "-E", f"PLANLOOP_SESSION={session}"] if traced else []
        run = self.run_program(["strace", "-ff", "-qq", "-e", "signal=none", "-o", log, *preload, *command], cwd=self.folder)
        self.assertEqual(run.returncode, 0, run.stderr)
        between, total = [], Counter()
        for file in sorted(self.folder.glob(f"{log.name}.*"), key=lambda path: int(path.suffix[1:])):
            lines = file.read_text().splitlines()
            total.update(line.split("(")[0] for line in lines)
            marks = [at for at, line in enumerate(lines) if line.startswith('write(1, "mark')]
            if len(marks) == 2:
                between.append([self.normal(line) for line in lines[marks[0] : marks[1]]])
        return between, total

    @staticmethod
    def normal(line):
        return re.sub(r"0x[0-9a-f]+|l_pid=\d+", "*", re.sub(r"\) += .*", ")", line))

    @staticmethod
    def without_allowed(calls):
        kept = []
        for call, following in zip(calls, calls[1:] + [""]):
            asks = re.match(r"fstat\((\d+),", call)
            lock = LOCK_CALL.match(following)
            if asks and (following.startswith(f"close({asks[1]}") or (lock and lock[1] == asks[1])):
                continue
            kept.append(call)
        return kept

    def check(self, command, threads=1):
        plain, _ = self.calls(command, False)
        traced, _ = self.calls(command, True)
        self.assertEqual(len(plain), threads)
        self.assertGreater(min(map(len, plain)), 10)
        self.assertEqual([self.without_allowed(calls) for calls in traced], plain)

    def test_python_flock(self):
        self.check([PYTHON, "-c", PYTHON_STEADY, "8", "flock"])

    def test_python_ofd(self):
        self.check([PYTHON, "-c", PYTHON_STEADY, "8", "ofd"])

    def test_python_posix(self):
        self.check([PYTHON, "-c", PYTHON_STEADY, "8", "posix"])

    def test_perl(self):
        self.check(["perl", "-e", PERL_STEADY, "8"])

    def test_bash_that_holds_a_lock(self):
        self.check(["bash", "-c", BASH_STEADY, "bash", "8"])

    def test_threads(self):
        self.check(THREADS, threads=3)

    def test_calls_do_not_grow_with_locks_but_at_a_segments_end(self):
        extra = {}
        for times in (50, 1050):
            command = [PYTHON, "-c", PYTHON_STEADY, str(times), "flock"]
            (_, plain), (_, traced) = self.calls(command, False), self.calls(command, True, f"s{times}")
            extra[times] = traced - plain
            del extra[times]["fstat"]
        grown = extra[1050] - extra[50]
        # 4,000 records more: three segments of 16, 64 and 256 KiB, each some ten calls
        self.assertLessEqual(sum(grown.values()), 60, grown)

    def test_a_pair_after_a_pair_makes_no_call_at_all(self):
        """At full speed, at which a descriptor that was just locked is known to be what it was: strace lets the kernel pass
        the program's own calls by (--seccomp-bpf) and stops it for any other. Where the program was interrupted in
        between, it is asked for once."""
        lock = self.file()
        counts = {}
        for pairs in (1_000, 41_000):
            log = self.folder / f"at-full-speed-{pairs}"
            run = self.run_program(["strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=!flock", "-e", "signal=none", "-o", log,
                                    "-E", f"LD_PRELOAD={SHIM}", "-E", f"PLANLOOP_SESSION=s{pairs}", PROGRAMS / "lock_pairs", lock, pairs])
            self.assertEqual(run.returncode, 0, run.stderr)
            counts[pairs] = Counter(re.match(r"\d+ +(\w+)", line)[1] for line in log.read_text().splitlines())
        more = counts[41_000] - counts[1_000]
        asked = more.pop("fstat", 0) + more.pop("newfstatat", 0)
        self.assertLess(asked, 40_000 / 10)
        self.assertLess(sum(more.values()), 400, f"80,000 records take some thirty chunks: {more}")

    def test_a_file_that_is_older_than_the_clocks_step_is_asked_for_its_generation_once(self):
        """What replaces it would be younger still, so fstat tells. One that changes all the while is asked each time."""
        for name, change, asked in (("same", "", 1), ("changing", "; os.fchmod(fd, 0o600 + i % 2)", 6)):
            with self.subTest(name):
                path = self.file(name)
                wait_until("it is old", lambda: time.time_ns() - os.stat(path).st_ctime_ns > 10**8)
                script = (f"import fcntl, os, sys\nfor i in range(6):\n    fd = os.open('{path}', os.O_RDONLY); fcntl.flock(fd, 1); "
                          f"os.close(os.dup(fd)){change}; os.close(fd)")
                log = self.folder / f"{name}.calls"
                self.run_program(["strace", "-qq", "-e", "trace=ioctl,flock", "-o", log, "-E", f"LD_PRELOAD={SHIM}",
                                  "-E", f"PLANLOOP_SESSION={name}", PYTHON, "-c", script], check=True)
                calls = log.read_text()
                self.assertEqual(calls.count("LOCK_SH"), 6)
                self.assertEqual(calls.count("FS_IOC_GETVERSION"), asked, calls)

    def whole_run(self, command, settings):
        """The calls of the loader, up to where it gives back its list of libraries, and all that come after it."""
        log = self.folder / "calls"
        subprocess.run(["strace", "-f", "-qq", "-e", "signal=none", "-o", log, *(f"-E{setting}" for setting in settings), *command],
                       check=True, cwd=self.folder, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        lines = [re.sub(r"^\d+ +", "", line) for line in log.read_text().splitlines()]
        opened = next(at for at, line in enumerate(lines) if "/etc/ld.so.cache" in line)
        listed = next(re.search(r"= (0x[0-9a-f]+)", line)[1] for line in lines[opened:] if line.startswith("mmap("))
        done = next(at for at, line in enumerate(lines) if line.startswith(f"munmap({listed},"))
        return lines[: done + 1], [self.normal(re.sub(r"(getrandom|sysinfo)\(.*", r"\1()", line)) for line in lines[done + 1 :]]

    def test_without_a_session_it_makes_no_call(self):
        """None at all; the loader's are those that map this one library."""
        command = [PYTHON, "-c", PYTHON_STEADY, "8", "flock"]
        plain_loader, plain = self.whole_run(command, [])
        self.assertGreater(len(plain), 200)
        preload = f"LD_PRELOAD={SHIM}"
        for settings in ([preload], [preload, "PLANLOOP_SESSION="], [preload, "PLANLOOP_SESSION=s", "PLANLOOP_NO_RECORDING=1"]):
            with self.subTest(settings=settings[1:]):
                loader, calls = self.whole_run(command, settings)
                self.assertEqual(calls, plain)
                begin = next(at for at, line in enumerate(loader) if SHIM in line and line.startswith("openat"))
                end = next(at for at in range(begin, len(loader)) if loader[at].startswith("close("))
                more = Counter(line.split("(")[0] for line in loader) - Counter(line.split("(")[0] for line in plain_loader)
                mapped = Counter(line.split("(")[0] for line in loader[begin : end + 1])
                # What is not written to after relocation; the loader's own memory, which may need a page more.
                self.assertEqual(more - mapped - Counter(mprotect=1, mmap=1), Counter())


if __name__ == "__main__":
    unittest.main()
