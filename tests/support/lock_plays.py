"""Short plays of lock_actor processes: one for each way to take, share, convert and lose a file lock, with who holds it.

A play is `name: step; step; ...` and a step `ACTOR CALL = HOLDERS`: who must hold a lock of the file after it (`-`:
nobody). An actor begins with the file open as descriptor 3; b, c ... are started by a call that ends in their name. A
call is one of lock_actor's, or `kill`, or one of them behind `refused` (it must fail), `blocks`, and later `wakes` or
`interrupted`. `and` joins the calls of one step.

{take}, {give}: the family's calls on descriptor 3; {take9}: on 9; {set}: its record lock; {rival}: the other family of
record locks; {lock}, {link}, {other}: the file, a hard link to it, another file.
"""

from dataclasses import dataclass

TAKE = {"flock": "flock 3 ex", "posix": "fcntl 3 setlk wr 0 0", "ofd": "fcntl 3 ofd_setlk wr 0 0"}
GIVE = {"flock": "flock 3 un", "posix": "fcntl 3 setlk un 0 0", "ofd": "fcntl 3 ofd_setlk un 0 0"}
ALL = ("flock", "posix", "ofd")
DESCRIPTION = ("flock", "ofd")  # whose owner is the open file description
RANGE = ("posix", "ofd")


@dataclass(frozen=True)
class Play:
    name: str
    family: str
    text: str  # with places for words

    def steps(self, **files):
        """[(calls, holders)], with each call an (actor, call)."""
        record = {"posix": "setlk", "ofd": "ofd_setlk"}.get(self.family, "")
        rival = {"posix": "ofd_setlk", "ofd": "setlk"}.get(self.family, "setlk")
        take, give = TAKE[self.family], GIVE[self.family]
        words = {
            "take": take, "give": give, "take9": take.replace(" 3 ", " 9 "), "give9": give.replace(" 3 ", " 9 "),
            "wait": take.replace("setlk ", "setlkw "), "try": take.replace(" ex", " ex nb"),
            "set": f"fcntl 3 {record}", "rival": f"fcntl 3 {rival} wr 0 0",
        }  # fmt: skip
        steps = []
        for step in self.text.format(**words, **files).split(";"):
            calls, _, holders = step.rpartition(" = ")
            steps.append((
                [tuple(call.strip().split(" ", 1)) for call in calls.split(" and ")],
                set(holders.split()) - {"-"},
            ))
        return steps


def plays(families, text):
    """Each play of the text for each of the families. A play goes on in the next line if that is indented further."""
    rows = []
    for line in text.strip("\n").splitlines():
        if line.startswith(" "):
            rows[-1] += line
        else:
            rows.append(line)
    named = [row.split(": ", 1) for row in rows]
    return [Play(name, family, text) for name, text in named for family in families]


SOLE_HOLDER = plays(ALL, """
unlock: a {take} = a; a {give} = -
close: a {take} = a; a close 3 = -
close_range: a {take} = a; a close_range 3 5 = -
close_range of many: a {take} = a; a close_range_to_control 3 = -
fclose: a {take} = a; a fclose 3 = -
freopen: a {take} = a; a freopen 3 /dev/null = -
dup2 over it: a open {other} = -; a {take} = a; a dup2 4 3 = -
dup3 over it: a open {other} = -; a {take} = a; a dup3 4 3 = -
opened anew: a {take} = a; a close 3 = -; a open {lock} = -; a {take} = a; a {give} = -
exec with close-on-exec: a dup3 3 9 = -; a close 3 = -; a {take9} = a; a exec = -
exec: a {take} = a; a exec = a; a close 3 = -
exec that fails: a dup3 3 9 = -; a close 3 = -; a {take9} = a; a refused failing_exec = a; a close 9 = -
exit: a {take} = a; a exit 0 = -
_exit: a {take} = a; a _exit 3 = -
quick_exit: a {take} = a; a quick_exit 0 = -
handed on: a {take} = a; x blocks {wait} = a; a {give} and x wakes = x; x {give} = -
""") + plays(DESCRIPTION, """
closefrom: a dup2 3 950 = -; a {take} = a; a close 3 = a; a closefrom_above_control 950 = -
""")

# Nobody but the supervisor sees these.
DEATHS = plays(ALL, """
SIGKILL: a {take} = a; a kill = -
abort: a {take} = a; a abort = -
""") + plays(DESCRIPTION, """
the last sharer: a {take} = a; a fork b = a b; a close 3 = b; b kill = -
the taker first: a {take} = a; a fork b = a b; a kill = b; b close 3 = -
""")

SHARED_DESCRIPTION = plays(DESCRIPTION, """
dup: a {take} = a; a dup 3 = a; a close 3 = a; a close 4 = -
dup before: a dup 3 = -; a {take} = a; a close 3 = a; a close 4 = -
dup2: a {take} = a; a dup2 3 20 = a; a close 3 = a; a close 20 = -
dup3: a {take} = a; a dup3 3 21 = a; a close 3 = a; a close 21 = -
F_DUPFD: a {take} = a; a dupfd 3 30 = a; a close 3 = a; a close 30 = -
F_DUPFD_CLOEXEC: a {take} = a; a dupfd 3 31 cloexec = a; a close 3 = a; a exec = -
fork: a {take} = a; a fork b = a b; a close 3 = b; b close 3 = -
fork before: a fork b = -; a {take} = a b; a close 3 = b; b close 3 = -
taken by the child: a fork b = -; b {take} = a b; b exit 0 = a; a close 3 = -
clone: a {take} = a; a clone b = a b; a close 3 = b; b close 3 = -
clone by syscall: a {take} = a; a sys_clone b = a b; a close 3 = b; b close 3 = -
clone3 by syscall: a {take} = a; a sys_clone3 b = a b; a close 3 = b; b close 3 = -
fork by syscall: a {take} = a; a sys_fork b = a b; a close 3 = b; b close 3 = -
fork and exec: a {take} = a; a spawn b = a b; a close 3 = b; b close 3 = -
vfork and exec: a {take} = a; a vspawn b = a b; a close 3 = b; b close 3 = -
vfork and exec before: a vspawn b = -; b {take} = a b; b exit 0 = a; a close 3 = -
posix_spawn that moves it: a {take} = a; a spawn_moving 3 7 b = a b; a close 3 = b; b close 7 = -
clone with CLONE_VM: a dup 3 = -; a {take} = a; a clone_vm 3 b = a b; a close 4 = a b; a close 3 = b; b close 4 = -
exec and fork: a {take} = a; a exec = a; a fork b = a b; a exit 0 = b; b close 3 = -
SCM_RIGHTS: a {take} = a; a park 3 = a; a fork b = a b; b close 3 = a; b fetch = a b; a close 3 = b; b close 3 = -
SCM_RIGHTS before: a park 3 = -; a fork b = -; b close 3 = -; b fetch = -; b {take} = a b; b exit 0 = a; a close 3 = -
unlock by the child: a {take} = a; a fork b = a b; b {give} = -; a {take} = a b; b exit 0 = a; a close 3 = -
unlock by the parent: a fork b = -; b {take} = a b; a {give} = -
unlock through a copy: a dup2 3 9 = -; a {take} = a; a {give9} = -
last of several: a {take} = a; a fork b = a b; b fork c = a b c; b exit 0 = a c; a _exit 0 = c; c close 3 = -
a sharer puts another file over it: a {take} = a; a fork b = a b; b open {other} = a b; b dup2 4 3 = a; a close 3 = -
a sharer execs without it: a dup3 3 9 = -; a {take9} = a; a close 3 = a; a fork b = a b; b exec = a; a exec = -
close of another description: a {take} = a; a open {lock} = a; a close 4 = a; a close 3 = -
two descriptions: a open {lock} = -; a {take} = a; a fork b = a b; b close 3 = a; b close 4 = a; a close 3 = -
""")

OF_THE_PROCESS = plays(("posix",), """
close of a copy: a {take} = a; a dup 3 = a; a close 4 = -
close of another description: a {take} = a; a open {lock} = a; a close 4 = -
close of a hard link: a {take} = a; a open {link} rdonly = a; a close 4 = -
close_range over another: a {take} = a; a open {lock} = a; a close_range 4 9 = -
closefrom over another: a {take} = a; a dup2 3 950 = a; a closefrom_above_control 950 = -
fclose of another: a {take} = a; a open {lock} = a; a fclose 4 = -
freopen of another: a {take} = a; a open {lock} = a; a freopen 4 /dev/null = -
dup2 over another: a {take} = a; a open {lock} = a; a dup2 0 4 = -
dup3 over another: a {take} = a; a open {lock} = a; a dup3 0 4 = -
dup2 onto itself: a {take} = a; a dup2 3 3 = a; a {give} = -
close of an O_PATH descriptor: a {take} = a; a open {lock} opath = a; a close 4 = a; a {give} = -
close of another file: a {take} = a; a open {other} = a; a close 4 = a; a {give} = -
fork: a {take} = a; a fork b = a; b close 3 = a; b exit 0 = a; a exit 0 = -
the child for itself: a {take} = a; a fork b = a; b refused {take} = a; a {give} = -; b {take} = b; a close 3 = b;
    b close 3 = -
spawned child: a {take} = a; a vspawn b = a; b close 3 = a; a close 3 = -
exec closes another: a {take} = a; a open {lock} cloexec = a; a exec = -
exec closes another file: a {take} = a; a open {other} cloexec = a; a exec = a; a close 3 = -
received and closed: a {take} = a; a park 3 = a; a fetch = a; a close 4 = -
""")

CONVERSIONS = plays(("flock",), """
a new hold each: a flock 3 sh = a; a flock 3 ex = a; a flock 3 sh = a; a flock 3 un = -
refused, and lost: a flock 3 sh = a; x flock 3 sh = a x; a refused flock 3 ex nb = x; x flock 3 un = -
waits, and has lost it: a flock 3 sh = a; x flock 3 sh = a x; a blocks flock 3 ex = x; x flock 3 un and a wakes = a;
    a close 3 = -
interrupted, and has lost it: a flock 3 sh = a; x flock 3 sh = a x; a blocks flock 3 ex = x; a interrupted = x;
    x flock 3 un = -
sees no record lock: a flock 3 ex = a; x {rival} = a x; a close 3 = x; x close 3 = -
""") + plays(RANGE, """
refused, and kept: a {set} rd 0 0 = a; x {set} rd 0 0 = a x; a refused {set} wr 0 0 = a x; a {give} = x; x {give} = -
against the other family in one process: a {take} = a; a refused {rival} = a; a {give} = -; a {rival} = a; a close 3 = -
""") + plays(("posix",), """
two upgraders, one refused: a {set} rd 0 0 = a; x {set} rd 0 0 = a x; a blocks {set}w wr 0 0 = a x;
    x refused {set}w wr 0 0 = a x; x {give} and a wakes = a; a {give} = -
""") + plays(("ofd",), """
two upgraders hang: a {set} rd 0 0 = a; x {set} rd 0 0 = a x; a blocks {set}w wr 0 0 = a x; x blocks {set}w wr 0 0 = a x;
    x interrupted = a x; x {give} and a wakes = a; a {give} = -
""")

RANGES = plays(RANGE, """
split, merged, converted: a {set} wr 0 100 = a; a {set} un 40 20 = a; a {set} wr 40 20 = a; a {set} rd 10 10 = a;
    a {set} rd 90 20 = a; a {set} wr 5 200 = a; a {set} un 0 6 = a; a {set} un 50 1 = a; a {set} un 0 0 = -
made absolute: a truncate 3 1000 = -; a lseek 3 200 = -; a {set} wr 10 5 cur = a; a {set} rd -10 5 end = a;
    a {set} wr 500 -20 = a; a {set} un 0 0 = -; a {set} wr 700 0 = a; a close 3 = -
side by side: a {set} wr 0 10 = a; x {set} wr 10 10 = a x; x refused {set} rd 5 10 = a x; a close 3 = x; x exit 0 = -
""")

# The kernel keeps these locks and tells nobody who does (docs/limits.md): fdinfo and report name no holder.
UNSEEN = plays(DESCRIPTION, """
kept by a descriptor in flight: a {take} = a; a park 3 = a; a close 3 = -; x refused {try} = -
kept by a mapping: a truncate 3 4096 = -; a {take} = a; a map 3 = a; a close 3 = -; x refused {try} = -; a unmap = -;
    x {take} = x
""")
