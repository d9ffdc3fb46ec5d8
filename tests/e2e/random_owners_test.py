"""Random calls of several processes: at every checkpoint the recorded holders are the kernel's.

Descriptors are copied and shared before the first lock call on them and after it. PLANLOOP_TEST_SEED repeats a run,
PLANLOOP_TEST_ROUNDS makes it longer.
"""

import os
import random
import unittest

from harness import TracedTest, kernel_holds, wait_until

ROUNDS = int(os.environ.get("PLANLOOP_TEST_ROUNDS", "150"))
CHECK_EVERY = 5
MOST_ACTORS = 6


class RandomOwners(TracedTest):
    def test_recorded_holders_are_the_kernels(self):
        seed = int(os.environ.get("PLANLOOP_TEST_SEED", random.SystemRandom().randrange(2**32)))
        self.random = random.Random(seed)
        print(f"PLANLOOP_TEST_SEED={seed}")
        self.files = [self.file(name) for name in "abc"]
        self.play = self.stage()
        self.actors = {actor: set() for actor in self.play.cast(3)}  # with the descriptors they have
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
        if fds:
            choices += [(6, self.flock), (6, self.record_lock), (3, self.copy), (2, self.close), (1, self.close_range)]
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
        fds.add(fd)
        return said

    def flock(self, actor, fds):
        return self.attempt(actor, f"flock {self.any_of(fds)} {self.random.choice(['sh', 'ex', 'un'])} nb")[1]

    def record_lock(self, actor, fds):
        command = self.random.choice(["setlk", "ofd_setlk"])
        mode = self.random.choice(["rd", "wr", "un"])
        start, length = self.random.randrange(0, 40), self.random.choice([0, 1, 5, 10, 20])
        return self.attempt(actor, f"fcntl {self.any_of(fds)} {command} {mode} {start} {length}")[1]

    def copy(self, actor, fds):
        fd = self.any_of(fds)
        calls = [f"dup {fd}", f"dup2 {fd} {self.random.randrange(10, 20)}", f"dup3 {fd} {self.random.randrange(20, 30)}",
                 f"dupfd {fd} {self.random.randrange(30, 40)}"]
        result, said = self.attempt(actor, self.random.choice(calls))
        if result >= 0:
            fds.add(result)
        return said

    def close(self, actor, fds):
        fd = self.any_of(fds)
        fds.discard(fd)
        return self.attempt(actor, f"{self.random.choice(['close', 'close', 'fclose'])} {fd}")[1]

    def close_range(self, actor, fds):
        first = self.any_of(fds)
        last = first + self.random.randrange(0, 4)
        for fd in range(first, last + 1):
            fds.discard(fd)
        return self.attempt(actor, f"close_range {first} {last}")[1]

    def inherit(self, actor, fds):
        """What a process that got these descriptors has of them."""
        return {fd for fd in fds if os.path.exists(f"/proc/{actor.pid}/fd/{fd}")}

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
