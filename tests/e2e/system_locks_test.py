"""`planloop dev locks --system`: locks, waiters and circular waits of programs that nobody traced."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import unittest

from harness import BINARY, FAMILIES, LOCK_CALLS, TracedTest, kernel_locks, wait_until


class System(TracedTest):
    def look(self):
        run = self.planloop("dev", "locks", "--system", "--json")
        self.assertEqual(run.returncode, 0, run.stderr)
        return json.loads(run.stdout)

    def look_that_sees_a_wait_for(self, lock):
        report = self.look()
        return report if any(wait["path"] == str(lock) for wait in report["waiting"]) else None

    def circles(self, pids):
        """Findings about these processes: other programs of the machine have locks too."""
        return [
            finding
            for finding in self.look()["findings"]
            if set(pids) & {who["pid"] for who in finding["participants"]}
        ]

    def ring(self, families):
        stage = self.stage(traced=False)
        actors = stage.cast(len(families))
        files = [self.file(f"lock{place}") for place in range(len(families))]
        for place, actor in enumerate(actors):
            actor.call(f"open {files[place]}")
            actor.call(f"open {files[(place + 1) % len(files)]}")
            actor.call(LOCK_CALLS[families[place]].format(3))
        for place, actor in enumerate(actors):
            following = (place + 1) % len(actors)
            actor.block(LOCK_CALLS[families[following]].format(4), files[following])
        # One look can miss lines: the kernel's list moves while it is read, and other programs lock, too.
        pids = [actor.pid for actor in actors]
        (found,) = wait_until("the circle is found", lambda: self.circles(pids))
        self.assertEqual((found["kind"], found["certainty"]), ("deadlock", "confirmed"))
        self.assertEqual(sorted(who["pid"] for who in found["participants"]), sorted(actor.pid for actor in actors))
        by_pid = {who["pid"]: who for who in found["participants"]}
        for place, actor in enumerate(actors):
            self.assertEqual(by_pid[actor.pid]["waits_on"], [actors[(place + 1) % len(actors)].pid])
        actors[0].kill()
        stage.close()

    def test_rings_of_flock(self):
        for size in (2, 3, 13, 64):
            with self.subTest(size=size):
                self.ring(["flock"] * size)

    def test_rings_of_ofd_locks_whose_takers_the_kernel_does_not_name(self):
        for size in (2, 3, 13, 64):
            with self.subTest(size=size):
                self.ring(["ofd"] * size)

    def test_ring_of_13_posix_locks_which_the_kernel_misses(self):
        self.ring(["posix"] * 13)

    def test_rings_of_two_families(self):
        for families in itertools.combinations(FAMILIES, 2):
            with self.subTest(families=families):
                self.ring(families)

    def test_ring_of_all_families(self):
        for size in (3, 13, 64):
            with self.subTest(size=size):
                self.ring([FAMILIES[place % len(FAMILIES)] for place in range(size)])

    def test_ring_of_threads(self):
        files = [self.file(name) for name in "ab"]
        stage = self.stage(traced=False)
        process = stage.root.spawn()
        threads = [process, process.thread()]
        for place, thread in enumerate(threads):
            thread.own = thread.call(f"open {files[place]}")
            thread.next = thread.call(f"open {files[1 - place]}")
            thread.call(f"flock {thread.own} ex")
        for place, thread in enumerate(threads):
            thread.block(f"flock {thread.next} ex", files[1 - place])
        found = self.circles([process.pid])
        self.assertEqual([each["kind"] for each in found], ["deadlock"])
        self.assertEqual(sorted(who["tid"] for who in found[0]["participants"]), sorted(thread.tid for thread in threads))
        process.kill()
        stage.close()

    def test_rings_of_shells_that_hold_through_inherited_descriptors(self):
        for size in (2, 3, 13):
            with self.subTest(size=size):
                self.ring_of_shells([self.file(f"{size}-{place}") for place in range(size)])

    def ring_of_shells(self, files):
        script = 'exec 9>"$1"; flock 9; echo ready; read x; flock "$2" true; :'
        shells = [
            subprocess.Popen(["bash", "-c", script, "shell", str(file), str(files[(place + 1) % len(files)])],
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
            for place, file in enumerate(files)
        ]
        try:
            for shell in shells:
                shell.stdout.readline()
            for shell in shells:
                shell.stdin.write(b"\n")
                shell.stdin.flush()
            for file in files:
                wait_until(f"a flock(1) waits for {file}", lambda: any(lock.waits for lock in kernel_locks(file)))
            inodes = {str(file.stat().st_ino) for file in files}

            def circles():  # one look can miss lines of /proc/locks
                return [finding for finding in self.look()["findings"]
                        if inodes & {lock.rpartition(":")[2] for lock in finding["locks"]}]

            (found,) = wait_until("the circle is found", circles)
            self.assertEqual(found["kind"], "deadlock")
            self.assertEqual([who["process"] for who in found["participants"]], ["flock"] * len(files))
            self.assertEqual({who["waits_for"].rpartition(":")[2] for who in found["participants"]}, inodes)
        finally:
            for shell in shells:
                os.killpg(shell.pid, signal.SIGKILL)  # the flock(1) that it waits for, too
                shell.wait()
                shell.stdin.close()
                shell.stdout.close()

    def test_a_mere_wait_is_shown_and_is_no_finding(self):
        stage = self.stage(traced=False)
        holder, waiter = stage.cast(2)
        lock = self.file()
        for actor in (holder, waiter):
            actor.call(f"open {lock}")
        holder.call("flock 3 ex")
        waiter.block("flock 3 ex", lock)
        report = self.look()
        (held,) = [hold for hold in report["held"] if hold["path"] == str(lock)]
        self.assertEqual([one["pid"] for one in held["holders"]], [holder.pid])
        (waiting,) = [wait for wait in report["waiting"] if wait["path"] == str(lock)]
        self.assertEqual((waiting["pid"], waiting["blocked_by"][0]["pid"]), (waiter.pid, holder.pid))
        self.assertEqual(self.circles([holder.pid, waiter.pid]), [])
        holder.kill()
        waiter.end()
        stage.close()

    def test_several_locks_through_one_descriptor(self):
        """All of them are shown, and who waits for any of them is seen to wait for who has them."""
        calls = {
            "flock": ("flock", 0, 0, "flock 3 ex"),
            "byte 0": ("ofd", 0, 1, "fcntl 3 ofd_setlkw wr 0 1"),
            "byte 2": ("ofd", 2, 1, "fcntl 3 ofd_setlkw wr 2 1"),
            "posix": ("posix", 4, 1, "fcntl 3 setlkw wr 4 1"),
        }
        for order in itertools.permutations(calls, 3):
            with self.subTest(order=order):
                stage = self.stage(traced=False)
                holder, waiter = stage.cast(2)
                lock = self.file("-".join(order).replace(" ", ""))
                for actor in (holder, waiter):
                    actor.call(f"open {lock}")
                for name in order:
                    holder.call(calls[name][3])
                waiter.block(calls[order[0]][3], lock)
                # One look can miss a line of the kernel's list.
                report = wait_until("the wait is seen", lambda: self.look_that_sees_a_wait_for(lock))
                expected = sorted(calls[name][:3] for name in order)
                held = [one for one in report["held"] if one["path"] == str(lock)]
                self.assertEqual(sorted((one["lock"].split(":")[0], one["start"], one["len"]) for one in held), expected)
                self.assertEqual([[who["pid"] for who in one["holders"]] for one in held], [[holder.pid]] * 3)
                (waiting,) = [wait for wait in report["waiting"] if wait["path"] == str(lock)]
                self.assertEqual((waiting["pid"], waiting["blocked_by"][0]["pid"]), (waiter.pid, holder.pid))
                holder.kill()
                waiter.end()
                stage.close()

    def test_who_waits_through_a_descriptor_keeps_what_it_has_through_it(self):
        for kept, wanted in (("flock", "ofd"), ("flock", "posix"), ("ofd", "flock"), ("posix", "flock")):
            with self.subTest(kept=kept, wanted=wanted):
                stage = self.stage(traced=False)
                holder, waiter = stage.cast(2)
                lock = self.file(f"{kept}-{wanted}")
                for actor in (holder, waiter):
                    actor.call(f"open {lock}")
                holder.call(LOCK_CALLS[wanted].format(3))
                waiter.call(LOCK_CALLS[kept].format(3))
                waiter.block(LOCK_CALLS[wanted].format(3), lock)
                held = [one for one in self.look()["held"] if one["path"] == str(lock)]
                self.assertEqual(
                    sorted((one["lock"].split(":")[0], [who["pid"] for who in one["holders"]]) for one in held),
                    sorted([(wanted, [holder.pid]), (kept, [waiter.pid])]),
                )
                holder.kill()
                waiter.end()
                stage.close()

    @unittest.skipUnless(os.geteuid() == 0, "only root can be another user too")
    def test_who_may_not_look_into_a_process_is_told_so(self):
        lock = self.file()
        stage = self.stage(traced=False)
        stage.root.call(f"open {lock}")
        stage.root.call("flock 3 ex")
        binary = self.folder / "planloop"  # where it was built others may not be let in
        shutil.copy(BINARY, binary)
        self.folder.chmod(0o755)
        binary.chmod(0o755)
        run = self.run_program(["setpriv", "--reuid", "65534", "--clear-groups", binary, "dev", "locks", "--system", "--json"])
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("of other users", run.stderr)
        (held,) = [held for held in json.loads(run.stdout)["held"] if held["lock"].endswith(f":{lock.stat().st_ino}")]
        self.assertEqual((held["acquired_by"]["pid"], held["path"]), (stage.root.pid, ""))
        stage.close()

    def test_a_lock_whose_taker_is_gone_is_its_sharers(self):
        lock = self.file()
        shell = subprocess.Popen(["bash", "-c", 'exec 9>"$1"; flock 9; echo ready; read x', "shell", str(lock)],
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            shell.stdout.readline()
            (held,) = [hold for hold in self.look()["held"] if hold["path"] == str(lock)]
            self.assertEqual([one["pid"] for one in held["holders"]], [shell.pid])
        finally:
            shell.communicate(b"\n")


if __name__ == "__main__":
    unittest.main()
