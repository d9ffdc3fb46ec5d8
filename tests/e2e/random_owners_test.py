"""Random calls of several processes: at every checkpoint the recorded holders are the kernel's.

PLANLOOP_TEST_SEED repeats a run, PLANLOOP_TEST_ROUNDS makes it longer, PLANLOOP_TEST_ANY_COPY=1 makes it harder.
"""

import os
import random
import unittest

from harness import TracedTest, kernel_holds, wait_until

ROUNDS = int(os.environ.get("PLANLOOP_TEST_ROUNDS", "150"))
CHECK_EVERY = 5
MOST_ACTORS = 6


class Description:
    """An open file description, and what the test knows of it."""

    def __init__(self):
        self.shared = False  # more than one descriptor refers to it
        self.locked = False  # a lock call was made through one of them


class RandomOwners(TracedTest):
    def test_recorded_holders_are_the_kernels(self):
        """Copies are made only of descriptors that a lock call was made through; PLANLOOP_TEST_ANY_COPY=1 makes others too,
        where who shares a lock has to be found out after the fact."""
        self.play_rounds(lock_first=not os.environ.get("PLANLOOP_TEST_ANY_COPY"))

    def play_rounds(self, lock_first):
        seed = int(os.environ.get("PLANLOOP_TEST_SEED", random.SystemRandom().randrange(2**32)))
        self.random = random.Random(seed)
        self.lock_first = lock_first
        print(f"PLANLOOP_TEST_SEED={seed}")
        self.files = [self.file(name) for name in "abc"]
        self.play = self.stage()
        self.actors = {actor: {} for actor in self.play.cast(3)}  # with their descriptors
        done = []
        for round_number in range(ROUNDS):
            done.append(self.step())
            if round_number % CHECK_EVERY == 0:
                self.check_agreement(f"seed {seed}, after:\n" + "\n".join(done))
        self.play.close()
        self.assertEqual(self.report().held, [])

    def check_agreement(self, history):
        """All processes wait for their next command, so the kernel's account stands still; the supervisor may still be
        about to find who shares what."""
        kernel = kernel_holds(self.play.pids, self.files)
        recorded = None

        def agree():
            nonlocal recorded
            recorded = self.report().holds()
            return recorded == kernel

        try:
            wait_until("report and kernel agree", agree, patience_s=5)
        except AssertionError:
            self.assertEqual(recorded, kernel, history)
            raise

    def step(self):
        actor = self.random.choice(list(self.actors))
        fds = self.actors[actor]
        choices = [(3, self.open)]
        lockable = [fd for fd, description in fds.items()
                    if not self.lock_first or description.locked or not description.shared]
        if lockable:
            choices += [(6, self.flock), (6, self.record_lock)]
        self.lockable = lockable
        if fds:
            choices += [(3, self.copy), (2, self.close), (1, self.close_range)]
        if len(self.actors) < MOST_ACTORS:
            choices += [(1, self.fork), (1, self.spawn)]
        choices += [(1, self.exec)]
        if len(self.actors) > 2:
            choices += [(1, self.end)]
        weights, steps = zip(*choices)
        return f"{actor.pid}: {self.random.choices(steps, weights)[0](actor, fds)}"

    def attempt(self, actor, command):
        actor.begin(command)
        answer = actor.end()
        return answer.result, f"{command} = {answer.result} {os.strerror(answer.error) if answer.error else ''}"

    def open(self, actor, fds):
        fd, said = self.attempt(actor, f"open {self.random.choice(self.files)} {self.random.choice(['', 'cloexec'])}")
        fds[fd] = Description()
        return said

    def flock(self, actor, fds):
        fd = self.random.choice(self.lockable)
        fds[fd].locked = True
        return self.attempt(actor, f"flock {fd} {self.random.choice(['sh', 'ex', 'un'])} nb")[1]

    def record_lock(self, actor, fds):
        command = self.random.choice(["setlk", "ofd_setlk"])
        mode = self.random.choice(["rd", "wr", "un"])
        start, length = self.random.randrange(0, 40), self.random.choice([0, 1, 5, 10, 20])
        fd = self.random.choice(self.lockable)
        fds[fd].locked = True
        return self.attempt(actor, f"fcntl {fd} {command} {mode} {start} {length}")[1]

    def copy(self, actor, fds):
        fd = self.any_of(fds)
        calls = [f"dup {fd}", f"dup2 {fd} {self.random.randrange(10, 20)}", f"dup3 {fd} {self.random.randrange(20, 30)}",
                 f"dupfd {fd} {self.random.randrange(30, 40)}"]
        result, said = self.attempt(actor, self.random.choice(calls))
        if result >= 0:
            fds[result] = fds[fd]
            fds[fd].shared = True
        return said

    def close(self, actor, fds):
        fd = self.any_of(fds)
        del fds[fd]
        return self.attempt(actor, f"{self.random.choice(['close', 'close', 'fclose'])} {fd}")[1]

    def close_range(self, actor, fds):
        first = self.any_of(fds)
        last = first + self.random.randrange(0, 4)
        for fd in range(first, last + 1):
            fds.pop(fd, None)
        return self.attempt(actor, f"close_range {first} {last}")[1]

    def inherit(self, actor, fds):
        """What a process that shares these descriptors has of them."""
        for description in fds.values():
            description.shared = True
        return {fd: each for fd, each in fds.items() if os.path.exists(f"/proc/{actor.pid}/fd/{fd}")}

    def fork(self, actor, fds):
        child = actor.fork()
        self.actors[child] = self.inherit(child, fds)
        return f"fork = {child.pid}"

    def spawn(self, actor, fds):
        how = self.random.choice(["spawn", "vspawn"])
        child = actor.spawn(how)
        self.actors[child] = self.inherit(child, fds)
        return f"{how} = {child.pid}"

    def exec(self, actor, fds):
        following = actor.exec()
        del self.actors[actor]
        self.actors[following] = self.inherit(following, fds)
        return "exec"

    def end(self, actor, _):
        del self.actors[actor]
        how = self.random.choice(["exit 0", "_exit 0", "SIGKILL"])
        if how == "SIGKILL":
            actor.kill()
        else:
            actor.finish(how)
        return how

    def any_of(self, fds):
        return self.random.choice(sorted(fds))


if __name__ == "__main__":
    unittest.main()
