"""The small planloop: sessions, updates and status, as a user and as many programs at once use them."""

import json
import os
import re
import resource
import stat
import subprocess
import unittest

from harness import BINARY, PATIENCE_S, PROGRAMS, TracedTest, wait_until

WORKER = str(PROGRAMS / "session_worker")


class SessionCommands(TracedTest):
    session = "test"

    def create(self, *options):
        run = self.planloop("sessions", "create", *(options or ("--id", self.session)))
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        return run.stdout.strip()

    @property
    def place(self):
        return self.home / "sessions" / self.session

    @property
    def state_file(self):
        return self.place / "state.json"

    def state(self):
        return json.loads(self.state_file.read_text())

    def update(self, payload, *options, **more):
        text = payload if isinstance(payload, str) else json.dumps({"session": self.session, **payload})
        return self.planloop("update", "--session", self.session, *options, input=text, **more)

    def files(self):
        return {path: (path.read_bytes() if path.is_file() else None) for path in self.place.rglob("*")
                if "logs" not in path.parts and ".lock_wait" not in path.parts}

    def one_line(self, run):
        """A refusal: status 1, nothing on stdout, one line that is returned."""
        self.assertEqual((run.returncode, run.stdout), (1, ""), run.stderr)
        self.assertRegex(run.stderr, r"\Aplanloop: [^\n]+\n\Z")
        return run.stderr

    def test_a_session_is_made_found_and_chosen(self):
        made = self.create("--name", "try it", "--title", "A title", "--purpose", "To see")
        self.assertRegex(made, r"^try-it-\d{8}T\d{6}Z-[0-9a-f]{4}$")
        self.assertEqual(self.create("--name", "test")[:5], "test-")
        self.assertEqual(self.create(), "test")
        self.assertEqual(self.planloop("sessions", "current").stdout, "test\n")
        listed = self.planloop("sessions", "list").stdout
        self.assertRegex(listed, r"(?m)^\* +test +0 +idle +test$")
        self.assertRegex(listed, rf"(?m)^ +{made} +0 +idle +A title$")
        self.assertEqual(self.planloop("sessions", "switch", "--session", "try").stdout, made + "\n")
        info = self.planloop("sessions", "info").stdout
        self.assertIn(f"session  {made}\nname     try it\ntitle    A title\npurpose  To see\n", info)
        self.assertIn(f"folder   {self.home}/sessions/{made}\n", info)
        self.assertIn("is there already", self.one_line(self.planloop("sessions", "create", "--id", "test")))
        self.assertIn("nearest is 'test'", self.one_line(self.planloop("sessions", "switch", "--session", "tset")))

    def test_an_update_changes_the_plan_and_status_tells(self):
        self.create()
        run = self.update({"add_tasks": [{"title": "one"}, {"title": "two", "depends_on": [1]}]})
        self.assertEqual((run.stdout, run.returncode), ('{"status":"ok","version":1}\n', 0))
        payload = self.folder / "payload.json"
        payload.write_text(json.dumps({"session": "test", "tasks": [{"id": 1, "status": "DONE"}]}))
        run = self.planloop("update", "--file", payload)
        self.assertEqual(run.stdout, '{"status":"ok","version":2}\n')
        status = json.loads(self.planloop("status", "--json").stdout)
        self.assertEqual(status["now"], {"reason": "task", "task_id": 2})
        self.assertEqual(status["tasks"], {"DONE": 1, "TODO": 1})
        self.assertEqual(status["lock"], {"holder": None, "waiting": []})
        self.assertIn("now      task: 2. two\n", self.planloop("status").stdout)
        self.assertIn("- [x] 1. one", (self.place / "PLAN.md").read_text())

    def test_a_dry_run_writes_nothing(self):
        self.create()
        before = self.files()
        run = self.update({"add_tasks": [{"title": "one"}]}, "--dry-run")
        self.assertEqual(json.loads(run.stdout), {"status": "ok", "version": 1, "dry_run": True})
        self.assertEqual(self.files(), before)

    def test_all_is_private_and_unknown_fields_survive(self):
        self.create()
        state = {"mine": {"b": [1, None, "é"], "a": 2.5}, **self.state(), "also": "mine"}
        self.state_file.write_text(json.dumps(state))
        self.update({"next_steps": ["x"]})
        after = self.state()
        self.assertEqual((after["mine"], after["also"]), (state["mine"], "mine"))
        self.assertEqual(list(after), list(state), "in their old order")
        for path in self.home.rglob("*"):
            wanted = 0o700 if path.is_dir() else 0o600
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), wanted, path)

    def test_payloads_that_do_not_fit_change_nothing(self):
        self.create()
        self.update({"add_tasks": [{"title": "one"}]})
        before = self.files()
        for payload, says in (
            ("", "payload is empty"),
            ("{", "no valid JSON"),
            ({"session": "other", "done": True}, "payload is for session 'other'"),
            ({"done": True, "last_seen_version": "0"}, "version 0, the plan is at version 1"),
            ({"tasks": [{"id": 1, "status": "DONE"}, {"id": 9, "status": "DONE"}]}, "there is no task 9"),
            ({"add_tasks": [{"title": "x", "depends_on": [2]}]}, "depend on itself"),
            ({}, "it changes nothing"),
        ):
            with self.subTest(payload=payload):
                self.assertIn(says, self.one_line(self.update(payload)))
                self.assertEqual(self.files(), before)
        self.assertIn("missing.json", self.one_line(self.planloop("update", "--file", "missing.json")))
        self.assertIn("unknown session", self.one_line(self.planloop("update", "--session", "x", input="{}")))

    def test_states_that_are_none_are_left_alone(self):
        self.create()
        whole = self.state_file.read_text()
        for content, says in (
            (None, "has no plan"),
            ("", "is empty"),
            (whole[: len(whole) // 2], "no valid JSON"),
            ("[]", "no JSON object"),
            (whole.replace('"tasks": []', '"tasks": 3'), "tasks is no list"),
            (whole.replace('"version": 0', '"version": "0"'), "version is no whole number"),
            (" " * (100 << 20), "100 MiB"),
        ):
            with self.subTest(says=says):
                self.state_file.unlink(missing_ok=True)
                if content is not None:
                    self.state_file.write_text(content)
                before = self.files()
                self.assertIn(says, self.one_line(self.update({"done": True})))
                self.assertIn(says, self.one_line(self.planloop("status")))
                self.assertEqual(self.files(), before)

    def test_a_home_that_cannot_be_written_is_one_line(self):
        self.create()
        self.update({"add_tasks": [{"title": "one"}]})
        before = self.files()
        for folder in (self.place, self.place / ".lock_wait", self.place / ".lock_queue"):
            folder.chmod(0o500)
        wrapper = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
        run = self.run_program([*wrapper, BINARY, "update", "--session", "test"], input='{"session":"test","done":true}')
        self.assertIn("Permission denied", self.one_line(run))
        for folder in (self.place, self.place / ".lock_wait", self.place / ".lock_queue"):
            folder.chmod(0o700)
        self.assertEqual(self.files(), before)
        self.home.chmod(0o500)
        (self.home / "sessions").chmod(0o500)
        run = self.run_program([*wrapper, BINARY, "sessions", "create", "--id", "more"])
        self.assertIn("Permission denied", self.one_line(run))

    def test_a_full_disk_is_one_line_and_the_next_update_works(self):
        self.create()
        before = self.files()

        def few_bytes():
            resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))

        run = self.update({"context_notes": ["x" * 2000]}, preexec_fn=few_bytes)
        self.assertIn("File too large", self.one_line(run))
        self.assertEqual(self.files(), before)
        self.assertEqual(self.update({"context_notes": ["x" * 2000]}).returncode, 0)

    def test_updates_at_once_are_all_there(self):
        self.create()
        payload = {"session": self.session, "artifacts": [{"type": "other", "summary": "x"}]}
        runs = []
        for _ in range(24):
            run = subprocess.Popen([BINARY, "update", "--session", self.session], env=self.environment, text=True,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            runs.append(run)
        for run in runs:
            run.stdin.write(json.dumps(payload))
            run.stdin.close()
        versions = sorted(json.loads(run.stdout.read())["version"] for run in runs)
        for run in runs:
            self.assertEqual(run.wait(), 0)
            run.stdout.close()
            run.stderr.close()
        self.assertEqual(versions, list(range(1, 25)))
        self.assertEqual(len(self.state()["artifacts"]), 24)
        log = (self.place / "logs" / "planloop.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in log]
        for event in ("lock_requested", "lock_acquired", "lock_released"):
            mine = [entry for entry in events if entry.get("event") == event and entry["operation"] == "update"]
            self.assertEqual(len(mine), 24)
            self.assertEqual(len({entry["trace_id"] for entry in mine}), 24)

    def hold(self):
        holder = subprocess.Popen([WORKER, self.session, "hold"], env=self.environment, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.addCleanup(lambda: (holder.kill(), holder.wait(), holder.stdin.close(), holder.stdout.close()))
        self.assertEqual(holder.stdout.readline(), "held\n")
        return holder

    def test_status_shows_the_lock_and_who_waits_for_it(self):
        self.create()
        holder = self.hold()
        waiter = subprocess.Popen([BINARY, "update", "--session", self.session], env=self.environment, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        waiter.stdin.write('{"session":"test","done":true}')
        waiter.stdin.close()

        def status():
            return json.loads(self.planloop("status", "--json").stdout)["lock"]

        wait_until("the update waits", lambda: status()["waiting"])
        lock = status()
        self.assertEqual((lock["holder"]["held_by"], lock["holder"]["operation"]), (f"pid:{holder.pid}", "hold"))
        self.assertEqual([(each["agent"], each["operation"]) for each in lock["waiting"]], [(f"pid:{waiter.pid}", "update")])
        holder.kill()
        self.assertEqual(waiter.stdout.read(), '{"status":"ok","version":1}\n')
        self.assertEqual(waiter.wait(), 0)
        waiter.stdout.close()

    def test_a_queue_that_does_not_move_is_an_open_blocker(self):
        self.create()
        holder = self.hold()
        waiter = subprocess.Popen([BINARY, "update", "--session", self.session], env=self.environment, text=True,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        waiter.stdin.write('{"session":"test","next_steps":["x"]}')
        waiter.stdin.close()
        log = self.place / "logs" / "planloop.jsonl"
        wait_until("somebody says so", lambda: "queue_stall" in log.read_text())
        holder.kill()
        self.assertEqual(waiter.wait(), 0)
        waiter.stdout.close()
        (signal,) = self.state()["signals"]
        self.assertEqual((signal["kind"], signal["level"], signal["open"]), ("queue_stall", "blocker", True))
        self.assertIn(f"pid:{holder.pid} (hold, since ", signal["message"])
        self.assertEqual(self.state()["now"]["reason"], "ci_blocker")
        self.update({"next_steps": ["y"]})
        self.assertFalse(self.state()["signals"][0]["open"], "the queue moves")
        self.assertEqual(self.state()["now"]["reason"], "idle")

    def test_the_report_knows_the_session_lock(self):
        self.create()
        self.update({"done": True})
        report = self.report()
        (row,) = report.locks
        self.assertEqual((row["id"], row["family"], row["acquisitions"]), ("session", "named_mutex", 2))
        self.assertEqual({entry["operation"] for entry in report.timeline}, {"sessions create", "update"})

    def test_the_wrapper_sees_each_lock_once(self):
        self.create()
        payload = self.folder / "payload.json"
        payload.write_text('{"session":"test","done":true}')
        self.assertEqual(self.traced(BINARY, "update", "--file", payload).returncode, 0)
        report = self.report()
        self.assertEqual([row["id"] for row in report.locks], ["session"], "the guard is planloop's own affair")

    def test_a_wait_under_the_wrapper_is_blamed_on_who_held_the_lock(self):
        """The wait stands in planloop.jsonl, and that its process began, in the spool: somewhat later."""
        self.create()
        holder = subprocess.Popen([WORKER, "test", "hold"], env=self.environment,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.kill)
        self.assertEqual(holder.stdout.readline(), "held\n")
        payload = self.folder / "payload.json"
        payload.write_text('{"session":"test","done":true}')
        waiter = subprocess.Popen(self.traced_command([BINARY, "update", "--file", payload]), env=self.environment,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        log = self.place / "logs" / "planloop.jsonl"
        wait_until("the update waits", lambda: log.read_text().count('"lock_requested"') == 3)
        holder.communicate()
        self.assertEqual((waiter.wait(PATIENCE_S), waiter.communicate()[0] != ""), (0, True))
        acquired = self.report().events("lock_acquired")[-1]
        self.assertEqual(acquired["operation"], "update")
        self.assertEqual([blocker["pid"] for blocker in acquired["blocked_by"]], [holder.pid])
        (culprit,) = self.report().data["blame"]["processes"]
        self.assertEqual((culprit["pid"], culprit["waits"]), (holder.pid, 1))

    def test_a_trace_id_is_inherited_in_either_form(self):
        self.create()
        self.environment["TRACEPARENT"] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        self.update({"done": True})
        self.environment["PLANLOOP_TRACE_ID"] = "tr_20261122080000_a3f5c9"
        self.update({"done": True})
        log = (self.place / "logs" / "planloop.jsonl").read_text()
        ids = re.findall(r'"lock_acquired","trace_id":"([^"]+)","operation":"update"', log)
        self.assertEqual(ids[1], "tr_20261122080000_a3f5c9")
        self.assertRegex(ids[0], r"^tr_\d{14}_4bf92f3577b34da6a3ce929d0e0e4736$")


if __name__ == "__main__":
    unittest.main()
