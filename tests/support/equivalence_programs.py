"""The programs that are compared plain and traced: one row each. tests/README.md has them as a table, which a test
keeps true. A row's key is the name of its test."""

from equivalence import Program

# Calls of every kind, with what each returned or which errno it left.
PYTHON_CALLS = """
import fcntl, os, signal, struct, sys
fd, other = os.open("lock", os.O_RDWR), os.open("lock", os.O_RDWR)
read_only = os.open("lock", os.O_RDONLY)
def tell(what, call, *arguments):
    try:
        result = call(*arguments)
    except OSError as error:
        result = f"errno {error.errno}"
    print(what, result)
for name in ("LOCK_SH", "LOCK_EX", "LOCK_UN", "LOCK_NB"):
    tell(name, fcntl.flock, fd, getattr(fcntl, name))
tell("taken", fcntl.flock, fd, fcntl.LOCK_EX)
tell("not to be had", fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
tell("nor shared", fcntl.flock, other, fcntl.LOCK_SH | fcntl.LOCK_NB)
tell("no descriptor", fcntl.flock, 99, fcntl.LOCK_EX)
tell("no operation", fcntl.flock, fd, 77)
tell("released", fcntl.flock, fd, fcntl.LOCK_UN)
def lock(command, type, whence=0, start=0, length=0, pid=0):
    return lambda fd: struct.unpack("hhqqi4x", fcntl.fcntl(fd, command, struct.pack("hhqqi4x", type, whence, start, length, pid)))
SETLK, SETLKW, GETLK, OFD_SETLK, OFD_SETLKW, OFD_GETLK = 6, 7, 5, 37, 38, 36
for command in (SETLK, SETLKW, OFD_SETLK, OFD_SETLKW):
    for type in (fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK, 9):
        for whence, start, length in ((0, 0, 0), (1, 5, 5), (2, -1, 1), (0, 10, -5), (0, -1, 1), (0, 2**63 - 1, 2), (7, 0, 0)):
            tell(f"fcntl {command} {type} {whence} {start} {length}", lock(command, type, whence, start, length), fd)
tell("read only", lock(SETLK, fcntl.F_WRLCK), read_only)
tell("pid", lock(OFD_SETLK, fcntl.F_WRLCK, pid=5), fd)
tell("OFD", lock(OFD_SETLK, fcntl.F_WRLCK), fd)
tell("against OFD", lock(SETLK, fcntl.F_WRLCK), other)
tell("another OFD", lock(OFD_SETLK, fcntl.F_WRLCK), other)
tell("asked", lambda fd: lock(OFD_GETLK, fcntl.F_WRLCK)(fd)[:4], other)
tell("lockf", fcntl.lockf, fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 100)
tell("lockf", fcntl.lockf, fd, fcntl.LOCK_UN, 10, 100)
tell("posix_lockf", os.lockf, other, os.F_TEST, 5)
tell("posix_lockf", os.lockf, fd, os.F_TLOCK, 5)
"""

PYTHON_ALARM = """
import fcntl, os, signal, sys
ready, told = os.pipe()
go, keep = os.pipe()
child = os.fork()
if child == 0:
    os.close(keep)
    file = open("lock", "r+")
    (fcntl.flock if sys.argv[1] == "flock" else fcntl.lockf)(file, fcntl.LOCK_EX)
    os.write(told, b"x")
    os.read(go, 1)
    os._exit(0)
os.read(ready, 1)
class TimeOut(Exception):
    pass
def on_alarm(number, frame):
    raise TimeOut
signal.signal(signal.SIGALRM, on_alarm)
signal.setitimer(signal.ITIMER_REAL, 0.05)
try:
    (fcntl.flock if sys.argv[1] == "flock" else fcntl.lockf)(open("lock", "r+"), fcntl.LOCK_EX)
except TimeOut:
    print(sys.argv[1], "timed out")
os.close(keep)
print(os.waitpid(child, 0)[1])
"""

PYTHON_MULTIPROCESSING = """
import fcntl, multiprocessing
def add(times):
    for _ in range(times):
        with open("count", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            value = int(file.read())
            file.seek(0)
            file.write(str(value + 1))
            file.flush()
    return times
if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    with multiprocessing.Pool(4) as pool:
        print(sum(pool.map(add, [25] * 8)))
    print(open("count").read())
"""

PYTHON_THREADING = """
import fcntl, threading
def add():
    for _ in range(50):
        with open("count", "r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            value = int(file.read())
            file.seek(0)
            file.write(str(value + 1))
            file.flush()
            fcntl.flock(file, fcntl.LOCK_UN)
threads = [threading.Thread(target=add) for _ in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(open("count").read())
"""

PYTHON_SUBPROCESS = """
import fcntl, os, subprocess
file = open("lock", "r+")
fcntl.flock(file, fcntl.LOCK_EX)
fd = file.fileno()
def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    print(command[:2], done.returncode, done.stdout, done.stderr)
run("flock", "-n", "lock", "true")
run("flock", "-n", str(fd), pass_fds=[fd])
run("flock", "-u", str(fd), close_fds=False)
run("flock", "-u", str(fd), pass_fds=[fd])
run("flock", "-n", "lock", "echo", "mine")
run("flock", "lock", "sh", "-c", "echo $ONLY", env={"ONLY": "this", "LD_PRELOAD": "", "PATH": os.environ["PATH"]})
run("flock", "lock", "pwd", cwd="/", env={"PATH": os.environ["PATH"]}, preexec_fn=lambda: os.chdir("/tmp"))
run("flock", "other", "true", start_new_session=True)
try:
    run("./no-such-program")
except OSError as error:
    print(error.errno)
print(os.system("flock -n lock true; exit 3"), os.popen("flock -n lock echo popen").read())
print(subprocess.Popen(["flock", "lock", "false"]).wait(), subprocess.getoutput("flock lock echo shell"))
"""

PYTHON_FILELOCK = """
import multiprocessing
from filelock import FileLock, SoftFileLock, Timeout
def add(times):
    for _ in range(times):
        with FileLock("count.lock"):
            value = int(open("count").read())
            open("count", "w").write(str(value + 1))
multiprocessing.set_start_method("fork")
workers = [multiprocessing.Process(target=add, args=(20,)) for _ in range(4)]
for worker in workers: worker.start()
for worker in workers: worker.join()
print(open("count").read())
with FileLock("count.lock") as lock:
    with lock:
        print("again")
    try:
        FileLock("count.lock", timeout=0).acquire()
    except Timeout as error:
        print(error)
"""

PERL = r"""
use Time::HiRes;
use Fcntl qw(:flock :DEFAULT F_SETLK F_SETLKW F_WRLCK F_UNLCK);
$| = 1;
open(my $file, "+<", "lock") or die;
open(my $other, "+<", "lock") or die;
print flock($file, LOCK_EX) ? "taken\n" : "$!\n";
print flock($other, LOCK_EX | LOCK_NB) ? "taken\n" : "$!\n";
print flock($file, LOCK_UN) ? "free\n" : "$!\n";
my $lock = pack("s s l! l! i", F_WRLCK, 0, 0, 0, 0);
print fcntl($file, F_SETLK, $lock) ? "record\n" : "$!\n";
if (my $child = fork) {
    waitpid $child, 0;
    print $? >> 8, "\n";
} else {
    exit(fcntl($other, F_SETLK, $lock) ? 0 : $! + 0);
}
if (my $child = open(my $pipe, "-|")) {
    print <$pipe>;
    close $pipe;
} else {
    flock($file, LOCK_EX) or die;
    local $SIG{ALRM} = sub { print "alarm\n"; exit 5 };
    Time::HiRes::alarm(0.05);
    open(my $third, "+<", "lock") or die;
    flock($third, LOCK_EX);
}
print $? >> 8, "\n";
flock($file, LOCK_UN);
print `flock -n lock echo back`, system("flock lock false") >> 8, "\n";
exec "flock", "lock", "sh", "-c", "echo last; exit 4";
"""

SQLITE = r"""
sqlite3 data 'pragma journal_mode=%s; create table t(writer, step);'
for writer in 1 2 3 4 5 6 7 8; do
    for step in 1 2 3 4 5; do echo "begin immediate; insert into t values($writer, $step); commit;"; done |
        sqlite3 -cmd '.timeout 60000' data &
done
wait
sqlite3 data 'select writer, group_concat(step) from t group by writer; pragma integrity_check;'
"""

IDIOMS = r"""
( flock 9; echo in subshell ) 9>lock; echo $?
exec 8>lock; flock -x 8; ( flock -n 7 || echo refused; ) 7>lock; flock -u 8; exec 8>&-
{ flock 9; echo grouped; } 9>lock; flock -n lock echo free
( flock 9; exec 9>&-; flock -n lock echo dropped ) 9>lock
( flock 9; ( sleep 0.01; echo heir ) & wait; ) 9>lock
( flock 9; exec sh -c 'flock -n lock true; echo $?' ) 9>lock
value=$( flock lock echo substituted ); echo "$value"
echo piped | flock lock cat
( flock -s 9; flock -s -n lock echo shared; flock -n lock true; echo $? ) 9>lock
( trap 'echo trapped' EXIT; flock 9; exit 3 ) 9>lock; echo $?
set -C; ( echo $$ > excl ) 2>/dev/null && echo made; ( echo 1 > excl ) 2>/dev/null || echo there; set +C; rm excl
if ! flock -n lock sh -c 'kill -9 $$'; then echo killed; fi
eval 'exec 9<lock'; flock -s 9; (flock -u 9); flock -n -x lock echo released by a child
"""

MAKEFILE = """
N = 1 2 3 4 5 6 7 8 9 10 11 12
all: $(N:%=out.%)
\t@sort -n -o total total; cat total
out.%:
\t@flock total.lock sh -c 'echo $* >> total; touch $@'
fail:
\t@flock -n total.lock false
"""

GIT = r"""
git init -q -b main repo; cd repo; git config gc.auto 0
for i in 1 2 3 4 5 6; do echo $i > file.$i; done; git add .; git commit -q -m first
for i in 1 2 3 4 5 6; do git worktree add -q -b branch$i ../tree$i; done
for i in 1 2 3 4 5 6; do (cd ../tree$i; echo more >> file.$i; git commit -q -a -m "more $i") & done; wait
for i in 1 2 3 4 5 6; do git -C ../tree$i log --format=%H -1; done
git merge -q -m merged branch1 branch2 branch3; git status --short; git fsck --no-progress; git clone -q . ../clone; git -C ../clone log --oneline | wc -l
"""

APT = r"""
mkdir -p root/var/lib/dpkg/info root/var/lib/dpkg/updates root/var/lib/apt/lists/partial root/var/cache/apt/archives/partial root/etc/apt root/var/log pkg/DEBIAN pkg/usr/share/hello repo
touch root/var/lib/dpkg/status root/var/lib/dpkg/available
printf 'Package: hello-locks\nVersion: 1\nArchitecture: all\nMaintainer: a <a@b>\nDescription: says hello\n' > pkg/DEBIAN/control
echo hello > pkg/usr/share/hello/text
SOURCE_DATE_EPOCH=1700000000 dpkg-deb --root-owner-group -b pkg repo/hello.deb
dpkg --root=root --log=/dev/null --force-not-root --force-script-chrootless -i repo/hello.deb
(cd repo && printf 'Package: hello-locks\nVersion: 2\nArchitecture: all\nMaintainer: a <a@b>\nDescription: says hello\nFilename: ./hello.deb\nSize: 1\n' > Packages)
echo "deb [trusted=yes] file:$PWD/repo ./" > root/etc/apt/sources.list
apt() { apt-get -o Dir=$PWD/root -o Dir::State::status=$PWD/root/var/lib/dpkg/status -o APT::Sandbox::User=root -o Acquire::Languages=none -o Acquire::PDiffs=false -o Debug::NoLocking=false "$@"; }
apt -qq update; echo $?
apt -qq -s install hello-locks; echo $?
apt -qq check; echo $?
dpkg --root=root -s hello-locks | head -2; dpkg --root=root --log=/dev/null --force-not-root --force-script-chrootless -r hello-locks; cat root/usr/share/hello/text
rm -rf root/var/cache
"""


def odd_place(place, does, least, **more):
    return Program(f"odd place: {place}", does, f'"$PROGRAMS/odd_places" {place} lock', least, **more)


def preloaded(library, ours_first):
    # Where a script names others alone, the hooks put ours in front again: the order is turned round by hand.
    order = "${LD_PRELOAD:+$LD_PRELOAD:}$OTHER" if ours_first else "$OTHER${LD_PRELOAD:+:$LD_PRELOAD}"
    return Program(
        f"{library}, {'behind' if ours_first else 'before'} our library",
        "an allocator that is preloaded, too, in a shell, Python and their children",
        f'OTHER={library}; export LD_PRELOAD="{order}"; flock lock bash -c \'"$PYTHON" run.py; exit 3\'; echo $?',
        least=200,
        files=(("run.py", PYTHON_MULTIPROCESSING),),
    )


def sanitized(sanitizer):
    return Program(
        f"a program built with -fsanitize={sanitizer}",
        "locks in main, handlers, destructors, forked children, a waiting thread that is cancelled",
        f'"$PROGRAMS/static_locker_{sanitizer}" lock; echo $?; for place in signal-handler exit-handler '
        f'thread-local-destructor interrupted cancelled; do "$PROGRAMS/odd_places_{sanitizer}" $place lock; echo $?; done',
        least=12,
    )


def stress(stressor, least, does="two workers"):
    return Program(
        f"stress-ng --{stressor}",
        f"{does}; for so many operations, and for a second",
        f"stress-ng --quiet --{stressor} 2 --{stressor}-ops 20000; echo $?; "
        f"stress-ng --quiet --{stressor} 2 --timeout 1; echo $?",
        least=least,
        whole=False,  # in a second they may fill the session
    )


ROWS = {
    "flock_command": Program(
        "flock(1)",
        "every option, refusals, time-outs, commands that fail or are killed",
        """
        flock lock echo a; flock -n lock flock -n lock true; echo $?; flock -E 9 -n lock flock -E 9 -w 0.01 lock true; echo $?
        flock -s lock flock -s -n lock echo b; flock -c lock; flock lock -c 'exit 5'; echo $?; flock . echo folder
        flock -o lock flock -n lock echo closed; flock new true; flock -x lock sh -c 'kill $$'; echo $?
        flock /no/such/file true; echo $?; flock lock no-such-command; echo $?; flock 77; echo $?; flock -u 1
        flock -F lock echo no fork; flock -n lock; echo $?""",
        least=14,
    ),
    "bash_idioms": Program(
        "bash",
        "subshells, groups, traps, heirs, substitutions, coprocesses",
        IDIOMS
        + """
        coproc flock lock cat; echo x >&${COPROC[1]}; read -u ${COPROC[0]} y; echo $y; eval "exec ${COPROC[1]}>&-"; wait
        exec {fd}>lock; flock $fd; flock -n lock true <<< x; echo $?""",
        least=20,
    ),
    "dash_idioms": Program("dash", "the same, as a POSIX shell does it", IDIOMS, least=15, shell="dash"),
    "python_fcntl": Program(
        "Python fcntl",
        "flock, fcntl and lockf with good and senseless arguments, each errno; waits that an alarm ends",
        '"$PYTHON" calls.py; for how in flock lockf; do "$PYTHON" alarm.py $how; done',
        least=100,
        files=(("calls.py", PYTHON_CALLS), ("alarm.py", PYTHON_ALARM)),
    ),
    "python_multiprocessing": Program(
        "Python multiprocessing", "four forked workers count in a file", '"$PYTHON" run.py', least=200,
        files=(("run.py", PYTHON_MULTIPROCESSING),)),
    "python_threading": Program(
        "Python threading", "six threads count in a file", '"$PYTHON" run.py', least=300,
        files=(("run.py", PYTHON_THREADING),)),
    "python_subprocess": Program(
        "Python subprocess", "descriptors passed and closed, environments of its own, system, popen", '"$PYTHON" run.py',
        least=10, files=(("run.py", PYTHON_SUBPROCESS),)),
    "python_filelock": Program(
        "Python filelock", "four processes count; reentrance; a time-out", '"$PYTHON" run.py', least=80,
        files=(("run.py", PYTHON_FILELOCK),)),
    "perl": Program(
        "perl", "flock, fcntl, fork, a pipe to itself, an alarm, exec", "perl run.pl; echo $?", least=9,
        files=(("run.pl", PERL),)),
    "sqlite_delete": Program(
        "sqlite3, rollback journal", "eight writers, forty transactions", SQLITE % "delete", least=200, contents=False),
    "sqlite_wal": Program(
        "sqlite3, write-ahead log", "eight writers, forty transactions", SQLITE % "wal", least=200, contents=False),
    "git_parallel": Program(
        "git", "six worktrees commit at once; merge, fsck, clone (it locks with O_EXCL files)", GIT, contents=False,
        varies=r"warning: .*"),
    "make_parallel": Program(
        "make -j4", "twelve recipes share a locked file; one recipe fails", "make -s -j4; make -s fail; echo $?", least=13,
        files=(("Makefile", MAKEFILE),)),
    "tar": Program(
        "tar", "packs, lists and unpacks, compressed, under a lock",
        """
        mkdir in out; for i in 1 2 3 4 5; do seq $i 1000 > in/$i; done; ln in/1 in/hard; ln -s 1 in/soft
        flock lock tar --mtime=@1700000000 --sort=name --owner=a:1 --group=a:1 --use-compress-program='gzip -n' -cf in.tgz in
        tar -tf in.tgz; flock lock tar -C out -xf in.tgz; diff -r in out/in; tar -xf lock; echo $?""",
        least=2),
    "apt_get": Program(
        "apt-get and dpkg", "update, simulated install and check in a root of their own; a package installed and removed", APT,
        least=5, contents=False, varies=r"Reading database.*|Selecting.*|Preparing.*"),
    "timeout": Program(
        "timeout", "ends a waiting flock(1), by TERM and by KILL; and does not end one that is quick",
        "exec 8>lock; flock 8; timeout 0.1 flock lock true; echo $?; timeout -s KILL 0.1 flock lock true; echo $?; "
        "timeout -k 1 0.1 sh -c 'trap \"\" TERM; flock -w 0.2 lock true; exit 4'; echo $?; timeout 60 flock -n lock2 echo fine",
        least=5),
    "setsid": Program(
        "setsid, nohup", "a session of its own; no hang-up",
        "setsid -w flock lock echo session; nohup flock lock echo hang-up 2>&1; cat nohup.out; "
        "setsid -w sh -c '(flock 9; kill -HUP $$; echo on) 9>lock'; echo $?",
        least=3, varies=r"nohup: .*\n"),
    "env_empty": Program(
        "env -i", "an empty environment, a chain of them, PATH gone",
        "env -i flock lock echo empty; env -i PATH=\"$PATH\" sh -c 'env -i flock lock sh -c \"flock -n lock true; exit 6\"'; echo $?; "
        "env - $(command -v flock) lock sh -c 'flock lock2 echo two'; env -u HOME flock lock true; echo $?",
        least=6),
    "descriptor_limit": Program(
        "ulimit -n 16", "shell, Python and children with sixteen descriptors",
        "ulimit -n 16; flock lock sh -c 'flock lock2 echo inner; (flock 9; echo ninth) 9>lock2'; \"$PYTHON\" run.py; cat count",
        least=200, files=(("run.py", PYTHON_THREADING),)),
    "file_size_limit": Program(
        "ulimit -f 8", "no file of more than 8 KiB",
        "ulimit -f 8; flock lock echo locked; (flock 9; head -c 20000 /dev/zero > big; echo $?) 9>lock2; stat -c %s big",
        whole=False),
    "stress_flock": stress("flock", 10000),
    "stress_lockf": stress("lockf", 10000),
    "stress_lockofd": stress("lockofd", 0, "two workers that ask and unlock (version 0.15 takes no lock)"),
    "stress_locka": stress("locka", 0, "two workers that ask and unlock (version 0.15 takes no lock)"),
    "jemalloc_behind": preloaded("libjemalloc.so.2", True),
    "jemalloc_before": preloaded("libjemalloc.so.2", False),
    "tcmalloc_behind": preloaded("libtcmalloc_minimal.so.4", True),
    "tcmalloc_before": preloaded("libtcmalloc_minimal.so.4", False),
    "address_sanitizer": sanitized("address"),
    "thread_sanitizer": sanitized("thread"),
    "gdb": Program(
        "gdb", "runs flock(1) and stops at its lock call, which is made in the library",
        "gdb -nx -q -batch -ex 'set print frame-info location' -ex 'catch syscall flock' -ex run -ex continue -ex continue -ex 'info inferiors' "
        "--args flock -n lock true < /dev/null; echo $?",
        least=1, varies=r"0x[0-9a-f]+ in .*|process \d+|Detaching.*\n|warning: .*\n"),
    "before_constructors": Program(
        "odd place: before constructors",
        "libraries that are initialised before ours, one even before libc, lock in their constructors; the latter call is not seen",
        'touch locked-early; "$PROGRAMS/odd_places" before-constructors lock', least=6),
    "signal_handler": odd_place("signal-handler", "the first lock call of the process, and one between others", 3),
    "small_signal_stack": odd_place("small-signal-stack", "a handler on a stack of 16 KiB", 2),
    "reaping_handler": odd_place("reaping-handler", "SIGCHLD on a stack with room for waitpid, and a child that locked", 1),
    "exit_handler": odd_place("exit-handler", "atexit, a global destructor", 2),
    "thread_local_destructor": odd_place("thread-local-destructor", "C++ and pthread_key destructors", 2),
    "while_another_forks": odd_place("while-another-forks", "two threads lock while a third forks a hundred times", 300),
    "many_threads": odd_place("many-threads", "2,500 threads at once", 2500),
    "many_descriptors": odd_place(
        "many-descriptors", "100,000 descriptors, or as many as the machine lets root have; locks of the first, the last and a child", 9, varies=r"(open|last) \d+"),
    "small_stacks": odd_place("small-stacks", "threads of PTHREAD_STACK_MIN, 16 KiB", 6),
    "interrupted": odd_place("interrupted", "a handler without SA_RESTART ends a wait: EINTR", 4),
    "cancelled": odd_place("cancelled", "a thread that is cancelled while it waits in F_SETLKW", 3),
    "local_library": odd_place("local-library", "dlopen with RTLD_LOCAL", 1),
    "deepbind_library": odd_place("deepbind-library", "dlopen with RTLD_DEEPBIND: its calls are not seen", 0),
}


# Compared in the same way by tests that need more than a script.
ELSEWHERE = (
    ("a program that forbids itself all system calls but those that it makes plain", "seccomp: the process is killed at any other", 6, "sandbox_test.py"),
    ("flock(1), started behind such a filter", "by exec", 0, "sandbox_test.py"),
    ("sh and flock(1), started behind such a filter", "by posix_spawn", 0, "sandbox_test.py"),
    ("daemons", "every descriptor closed; other folder, session, root, user; before or after the first lock", 12, "daemons_test.py"),
    ("Python with four threads", "its recording is removed, replaced, full or limited while it runs", 0, "trouble_test.py"),
    ("calls with pointers that lead nowhere", "errno", 0, "hostile_programs_test.py"),
    ("Python, perl, bash and threads between two of their locks", "every system call, by strace", 0, "equivalence_system_calls_test.py"),
    ("40,000 pairs of calls, one after the other", "every system call but theirs, at full speed, by strace --seccomp-bpf", 0, "equivalence_system_calls_test.py"),
)


def table():
    """The rows as tests/README.md has them."""
    lines = ["| program | what it does | lock events recorded, at least |", "| --- | --- | --- |"]
    lines += [f"| {row.name} | {row.does} | {row.least or '-'} |" for row in ROWS.values()]
    lines += [f"| {name} | {does} ({test}) | {least or '-'} |" for name, does, least, test in ELSEWHERE]
    return "\n".join(lines) + "\n"
