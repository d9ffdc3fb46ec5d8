"""What operations leave behind: errors, traces, diffs, metrics, transcripts; and the commands that link them by trace id."""

import json
import os
import resource
import shutil
import signal
import subprocess
import unittest

from harness import BINARY, PROGRAMS, PYTHON, TracedTest

RECORDED = str(PROGRAMS / "recorded_program")
# A sanitizer takes the signals of faults for itself, unless told otherwise.
SANITIZERS_LET_IT_DIE = {
    name: ":".join(f"handle_{fault}=0" for fault in ("segv", "sigbus", "abort", "sigill", "sigfpe"))
    for name in ("ASAN_OPTIONS", "TSAN_OPTIONS")
}

DEFINITION_OF_DONE = r"""
set -e
planloop dev dogfood

# Test 1: Error context
! echo '{"session":"test-invalid","done":true}' | planloop update --session test-invalid  # Force error
jq -e '.error_type and .error_message and .function and .trace_id and (.stack_trace | length > 0)
       and (.local_variables | type == "object")' "$PLANLOOP_HOME"/sessions/test-invalid/logs/errors/*_error.json

# Test 2: Lock logging
echo '{"session":"test","next_steps":["a"]}' | planloop update --session test & one=$!
echo '{"session":"test","next_steps":["b"]}' | planloop update --session test & two=$!
wait $one
wait $two
grep "lock_" "$PLANLOOP_HOME"/sessions/test/logs/planloop.jsonl |
    jq -es 'map(.event) | (map(select(. == "lock_requested")) | length >= 2)
            and (map(select(. == "lock_acquired")) | length >= 2) and (map(select(. == "lock_released")) | length >= 2)'

# Test 3: Performance spans
echo '{"session":"test","context_notes":["c"]}' | planloop update --session test
jq -es 'map(.spans | map(.name)) | (length >= 3) and all(contains(["load_state","apply_update","save_state"]))' \
    "$PLANLOOP_HOME"/sessions/test/logs/traces/*.json

# Test 4: Trace linking
! echo '{"session":"test","tasks":[{"id":99,"status":"DONE"}]}' | planloop update --session test
TRACE_ID=$(jq -r '.trace_id' "$PLANLOOP_HOME"/sessions/test/logs/errors/*_error.json | head -1)
planloop dev trace $TRACE_ID --session test
planloop dev trace $TRACE_ID --session test --json | jq -e '.errors[0].error_type and (.trace.spans | length > 0)'
"""


class RecordsTest(TracedTest):
    session = "test"

    def setUp(self):
        super().setUp()
        self.environment["PATH"] = f"{os.path.dirname(BINARY)}:{self.environment['PATH']}"
        self.planloop("sessions", "create", "--id", self.session)

    def logs(self, session=None):
        return self.home / "sessions" / (session or self.session) / "logs"

    def update(self, payload, *options, **more):
        text = json.dumps({"session": self.session, **payload})
        return self.planloop("update", "--session", self.session, *options, input=text, **more)

    def shown(self, *arguments):
        """What a command prints that must succeed."""
        run = self.planloop("dev", *arguments)
        self.assertEqual(run.returncode, 0, run.stderr)
        return run.stdout

    def json(self, *arguments):
        return json.loads(self.shown(*arguments, "--json"))

    def refused(self, *arguments):
        run = self.planloop("dev", *arguments)
        self.assertEqual((run.returncode, run.stdout), (2, ""))
        self.assertRegex(run.stderr, r"\Aplanloop: [^\n]+\n\Z")
        return run.stderr

    def documents(self, folder, ending=".json", session=None):
        return [json.loads(path.read_text()) for path in sorted((self.logs(session) / folder).glob("*" + ending))]

    def log_lines(self):
        return [json.loads(line) for line in (self.logs() / "planloop.jsonl").read_text().splitlines()]


class DefinitionOfDone(RecordsTest):
    def test_it_runs_as_it_is_written(self):
        run = self.run_program(["bash", "-c", DEFINITION_OF_DONE], cwd=self.folder)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn("there is no task 99", run.stdout)

    def test_an_update_leaves_what_the_seeds_name(self):
        self.assertEqual(self.update({"add_tasks": [{"title": "one"}]}).returncode, 0)
        trace = self.documents("traces")[0]
        self.assertEqual(trace["status"], "ok")
        self.assertEqual(trace["command"], ["planloop", "update", "--session", "test"])
        names = [span["name"] for span in trace["spans"]]
        for name in ("update", "lock_wait", "load_state", "apply_update", "save_state"):
            self.assertIn(name, names)
        diff = self.documents("diffs", "_diff.json")[0]
        self.assertEqual(diff["changes"]["version"], {"old": 0, "new": 1})
        self.assertEqual(diff["changes"]["tasks[0]"]["new"]["title"], "one")
        post = json.loads((self.logs() / "diffs" / diff["after_file"]).read_text())
        self.assertEqual(post["version"], 1)
        metrics = [json.loads(line) for line in (self.logs() / "performance.jsonl").read_text().splitlines()]
        self.assertEqual({metric["metric"] for metric in metrics},
                         {"command.duration", "memory.rss_mb", "lock.wait_ms", "lock.hold_ms"})
        for each in (trace, diff, metrics[0]["tags"]):
            self.assertEqual(each["trace_id"], trace["trace_id"])
        for line in self.log_lines():
            self.assertEqual(line.get("event", "lock_").startswith("lock_"), True, line)

    def test_a_refused_payload_is_told_with_where_expected_and_got(self):
        self.assertEqual(self.update({"tasks": [{"id": 1, "status": "DOEN"}]}).returncode, 1)
        self.update({"add_tasks": [{"title": "x"}]})
        self.assertEqual(self.update({"tasks": [{"id": 1, "status": "DOEN"}]}).returncode, 1)
        failure = [line for line in self.log_lines() if line.get("level") == "WARNING"][-1]
        self.assertEqual(failure["context"]["where"], "payload.tasks[0].status")
        self.assertIn("IN_PROGRESS", failure["context"]["expected"])
        self.assertEqual(failure["context"]["got"], "DOEN")


class Commands(RecordsTest):
    def failed_update(self):
        self.assertEqual(self.update({"tasks": [{"id": 9, "status": "DONE"}]}).returncode, 1)
        return self.documents("errors", "_error.json")[-1]["trace_id"]

    def test_an_error_is_found_from_its_trace_id_alone(self):
        """It waited for a lock in vain: the page says for which, and who held it."""
        holder = subprocess.Popen([str(PROGRAMS / "session_worker"), self.session, "hold"], env=self.environment,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addCleanup(holder.kill)
        self.assertEqual(holder.stdout.readline(), "held\n")
        run = self.update({"done": True}, "--timeout", "0.2")
        self.assertEqual(run.returncode, 1, run.stdout)
        holder.communicate()
        trace_id = self.documents("errors", "_error.json")[0]["trace_id"]
        page = self.shown("trace", trace_id)
        self.assertRegex(page, r"did not get [^\n]*/\.lock, waited 2\d\dms: Connection timed out, "
                               rf"held by session_worker {holder.pid} \([^\n]*tr_")
        self.assertIn("waited for named_mutex", page)

    def test_errors_are_listed_and_shown(self):
        self.assertIn("no errors in session test", self.shown("errors", "list", "--session", "test"))
        self.assertEqual(self.json("errors", "list"), [])
        trace_id = self.failed_update()
        listed = self.json("errors", "list", "--session", "test")
        self.assertEqual([each["trace_id"] for each in listed], [trace_id])
        text = self.shown("errors", "show", trace_id)
        self.assertIn("error planloop::OperationFailed: payload.tasks[0]: there is no task 9", text)
        self.assertIn('payload = {"session": "test"', text)
        self.assertRegex(text, r"(?m)^held named_mutex .*/\.lock, exclusive, ")
        self.assertRegex(text, r"(?m)^state +/.*_state\.json$")
        self.assertEqual(self.json("errors", "show", trace_id)["trace_id"], trace_id)

    def test_spans_are_shown_with_shares_and_the_bottleneck(self):
        self.update({"add_tasks": [{"title": "one"}]})
        trace_id = self.documents("traces")[0]["trace_id"]
        text = self.shown("perf", "show", trace_id)
        self.assertEqual(text.count("<- BOTTLENECK"), 1)
        self.assertRegex(text, r"(?m)^  - save_state: \S+ +\d+\.\d%")
        self.assertRegex(text, r"(?m)^waiting for locks: \S+ of \S+ \(\d+\.\d%\)$")
        shown = self.json("perf", "show", trace_id)
        self.assertEqual(sum(span["bottleneck"] for span in shown["spans"]), 1)
        # Recording itself is nobody's bottleneck, and two spans can be as long to the digit that is shown.
        own = {span["path"]: span["own_ms"] for span in shown["spans"] if not span["path"].endswith("/record_diff")}
        self.assertEqual(own[shown["bottleneck"]], max(own.values()))
        listed = self.json("perf")
        self.assertEqual(listed["operations"][0]["count"], 1)
        self.assertRegex(self.shown("perf"), r"(?m)^update +1 ")

    def test_two_operations_are_compared(self):
        self.update({"add_tasks": [{"title": "one"}]})
        failed = self.failed_update()
        fine = next(t["trace_id"] for t in self.documents("traces") if t["trace_id"] != failed)
        text = self.shown("compare", fine, failed)
        self.assertRegex(text, r"(?m)^update/save_state +\S+ +- ")
        self.assertRegex(text, r"second +planloop::OperationFailed: ")
        compared = self.json("compare", fine, failed)
        self.assertEqual([len(trace["errors"]) for trace in compared["traces"]], [0, 1])
        self.assertEqual(next(s["count"] for s in compared["spans"] if s["path"] == "update/load_state"), [1, 1])

    def test_ids_may_be_short_and_mistakes_are_answered(self):
        trace_id = self.failed_update()
        self.update({"add_tasks": [{"title": "one"}]})
        self.assertIn(trace_id, self.shown("errors", "show", trace_id[:-2]))
        several = self.refused("trace", "tr_")
        for each in self.documents("traces"):
            self.assertIn(each["trace_id"], several)
        self.assertIn(f"nearest is '{trace_id}'", self.refused("errors", "show", trace_id[:-1] + "x"))
        self.assertIn("no error 'zz'", self.refused("errors", "show", "zz"))
        self.assertIn("needs ID", self.refused("trace"))
        self.assertIn("needs ID ID", self.refused("compare", trace_id))
        self.assertIn("dev errors what?", self.refused("errors"))
        self.assertIn("unknown session", self.refused("perf", "--session", "none"))

    def test_exports_are_arrays_also_when_there_is_nothing(self):
        for what in ("logs", "llm", "traces", "diffs", "performance"):
            self.planloop("sessions", "create", "--id", "empty")
            self.assertIsInstance(self.json(f"export-{what}", "--session", "empty"), list)
        self.assertEqual(self.shown("export-llm"), "[]\n")
        for title in ("one", "two", "three"):
            self.update({"add_tasks": [{"title": title}]})
        self.assertEqual(len(self.json("export-traces", "--session", "test")), 3)
        last = self.json("export-diffs", "--session", "test", "--tail", "1")
        self.assertEqual(last[0]["changes"]["version"]["new"], 3)
        self.assertEqual(len(self.json("export-performance", "--session", "test", "--tail", "5")), 5)
        self.assertIn("--tail wants a number", self.refused("export-logs", "--tail", "x"))

    def test_export_logs_finishes_what_no_supervisor_wrote_and_repeats_nothing(self):
        environment = {**self.environment, "LD_PRELOAD": os.environ["PLANLOOP_SHIM"], "PLANLOOP_SESSION": "test"}
        path = self.file("lock")
        for _ in range(2):
            self.assertEqual(self.run_program(["flock", str(path), "true"], env=environment).returncode, 0)
            events = [line for line in self.json("export-logs", "--session", "test")
                      if line.get("lock", {}).get("path") == str(path)]
            keys = [(line["event"], line["lock_entry_id"]) for line in events]
            self.assertEqual(len(keys), len(set(keys)), "nothing twice")
        self.assertEqual(sorted(line["event"] for line in events).count("lock_acquired"), 2)

    def test_a_transcript_stands_on_the_page(self):
        self.assertEqual(self.run_program([RECORDED, "test", "spans"]).returncode, 0)
        transcript = self.json("export-llm", "--session", "test")[0]
        self.assertEqual(transcript["request"]["prompt"], "the password=[REDACTED] is secret")
        self.assertEqual(transcript["response"]["usage"]["output_tokens"], 20)
        page = self.shown("trace", transcript["trace_id"])
        self.assertRegex(page, r"(?m) llm +example small, 2300ms, 10 tokens in, 20 out: do task 1$")
        trace = self.documents("traces")[0]
        self.assertEqual(trace["spans"][1]["metadata"]["api_key"], "[REDACTED]")

    def test_dev_mode_marks_switches_and_restores(self):
        self.assertIn("not chosen, all is recorded", self.shown("status"))
        self.shown("on")
        self.assertEqual((self.home / ".dev_mode").read_text().strip(), "dev")
        self.assertEqual(self.json("status")["mode"], "dev")
        self.shown("off")
        self.assertFalse((self.home / ".dev_mode").exists())
        self.update({"add_tasks": [{"title": "one"}]})
        self.failed_update()
        self.assertEqual(self.documents("traces") + self.documents("diffs"), [], "off: errors only")
        self.assertEqual(len(self.documents("errors", "_error.json")), 1)

        place = self.folder / "bin"
        place.mkdir()
        installed = place / "planloop-1.0"
        shutil.copy("/bin/true", installed)
        (place / "planloop").symlink_to("planloop-1.0")
        environment = {**self.environment, "PATH": f"{place}:/usr/bin:/bin"}
        before = installed.read_bytes()
        subprocess.run(["git", "init", "-q", self.folder], check=True, env=environment)
        git = ["git", "-C", self.folder, "-c", "user.name=x", "-c", "user.email=x@example.org"]
        subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "x"], check=True, env=environment)
        run = self.planloop("dev", "dogfood", env=environment, cwd=self.folder)
        self.assertEqual(run.returncode, 0, run.stderr)
        tags = subprocess.run([*git, "tag"], capture_output=True, text=True, env=environment).stdout
        self.assertRegex(tags, r"^planloop-dogfood-\d{8}T\d{6}Z\n$")
        mode = json.loads((self.home / ".dev_mode.json").read_text())
        self.assertEqual((mode["mode"], mode["features"]["tracing"]), ("dogfood", True))
        self.assertEqual(mode["repo_path"], str(self.folder))
        installed.write_bytes(b"something else")
        (place / "planloop").unlink()
        (place / "planloop").symlink_to("elsewhere")
        self.assertEqual(self.planloop("dev", "restore", env=environment).returncode, 0)
        self.assertEqual(installed.read_bytes(), before)
        self.assertEqual(os.readlink(place / "planloop"), "planloop-1.0")
        again = self.planloop("dev", "restore", env=environment)
        self.assertEqual(again.returncode, 1)
        self.assertIn("nothing to restore", again.stderr)

    def test_scrub_takes_secrets_out_and_loses_no_line(self):
        self.update({"add_tasks": [{"title": "one"}]})
        log = self.logs() / "planloop.jsonl"
        with log.open("a") as out:
            out.write('{"message":"x","api_key":"abc","max_tokens":12,"ok":true}\nforeign token=abcdef line\n{"password":"to')
        (self.logs() / "errors").mkdir(exist_ok=True)
        (self.logs() / "errors" / "tr_20250101000000_abcdef_error.json").write_text(
            '{"trace_id": "tr_20250101000000_abcdef", "local_variables": {"token": "abc", "n": "1"}}')
        before = log.read_text().split("\n")
        scrubbed = self.json("scrub", "--session", "test")
        self.assertEqual(scrubbed["changed"], 2)
        after = log.read_text().split("\n")
        self.assertEqual(len(after), len(before))
        self.assertEqual(after[:-3], before[:-3], "what has no secret is as it was")
        self.assertEqual(json.loads(after[-3]), {"message": "x", "api_key": "[REDACTED]", "max_tokens": 12, "ok": True})
        self.assertEqual(after[-2], "foreign token=[REDACTED] line")
        error = self.json("errors", "show", "tr_20250101")
        self.assertEqual(error["local_variables"], {"token": "[REDACTED]", "n": "1"})
        self.assertEqual(self.json("scrub", "--session", "test")["changed"], 0, "once is enough")
        with log.open("a"):
            run = self.planloop("dev", "scrub", "--session", "test")
            self.assertEqual(run.returncode, 1)
            self.assertIn(f"process {os.getpid()} writes to", run.stderr)


class Deaths(RecordsTest):
    def test_killed_inside_a_span(self):
        self.update({"add_tasks": [{"title": "one"}]})
        before = {path: path.read_bytes() for path in (self.logs() / "traces").glob("*.json")}
        program = subprocess.Popen([RECORDED, "test", "killed"], stdout=subprocess.PIPE, text=True, env=self.environment)
        self.assertEqual(program.stdout.readline(), "ready\n")
        program.kill()
        program.wait()
        program.stdout.close()
        traces = self.json("perf", "--session", "test")["traces"]
        self.assertEqual([trace["status"] for trace in traces], ["ok", "unfinished"])
        self.assertIn("ask_model", self.shown("perf", "show", traces[1]["trace_id"]))
        for path, content in before.items():
            self.assertEqual(path.read_bytes(), content)

    def test_killed_inside_error_reports(self):
        for _ in range(8):
            program = subprocess.Popen([RECORDED, "test", "reports"], stdout=subprocess.PIPE, text=True,
                                       env=self.environment)
            program.stdout.readline()
            program.kill()
            program.wait()
            program.stdout.close()
        reports = self.documents("errors", "_error.json")
        self.assertGreaterEqual(len(reports), 8)
        for report in reports:
            self.assertEqual(report["local_variables"], {"task_id": "1"})
        self.assertEqual(len(self.json("errors", "list", "--session", "test")), len(reports))

    def test_killed_inside_a_save(self):
        """Whenever an update is killed, state, diffs and traces are whole, and the next update works."""
        payload = json.dumps({"session": "test", "context_notes": ["x" * 100_000]})
        for delay in range(12):
            program = subprocess.Popen([BINARY, "update", "--session", "test"], env=self.environment,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            program.stdin.write(payload)
            program.stdin.close()
            for _ in range(delay):  # somewhere else each time; where does not matter
                self.run_program(["true"])
            program.kill()
            program.wait()
            program.stdout.close()
            program.stderr.close()
            json.loads((self.home / "sessions" / "test" / "state.json").read_text())
        self.assertEqual(self.update({"next_steps": ["y"]}).returncode, 0)
        for trace in self.json("perf", "--session", "test")["traces"]:
            self.assertIn(trace["status"], ("ok", "unfinished"))
        for folder in ("traces", "diffs"):
            self.assertTrue(self.documents(folder))

    def crash(self, *what, **options):
        environment = {**self.environment, **SANITIZERS_LET_IT_DIE}
        return self.run_program([RECORDED, "test", *what], preexec_fn=no_core, env=environment, **options)

    def test_crashes_are_named_when_they_are_read(self):
        for what, number in (("segv", signal.SIGSEGV), ("abrt", signal.SIGABRT), ("bus", signal.SIGBUS),
                             ("fpe", signal.SIGFPE), ("ill", signal.SIGILL), ("overflow", signal.SIGSEGV)):
            with self.subTest(what):
                run = self.crash("crash", what)
                self.assertEqual(run.returncode, -number, "it dies as it would have")
                report = self.json("errors", "list", "--session", "test")[-1]
                self.assertEqual(report["error_type"], number.name)
                full = self.json("errors", "show", report["trace_id"])
                self.assertEqual(full["stack_trace_of"], "signal")
                names = " ".join(frame["function"] for frame in full["stack_trace"])
                self.assertIn("overflow" if what == "overflow" else "die_by", names)
                if what != "overflow":
                    self.assertIn("main", names)
                self.assertEqual([(lock["family"], lock["path"]) for lock in full["locks_held"]], [("mutex", "work")])
                if what == "segv":
                    frame = full["stack_trace"][0]
                    self.assertTrue(frame["file"].endswith("recorded_program.cpp"), frame)
                    self.assertEqual(full["operation"], "suggest")
        self.assertEqual(len(self.json("errors", "list", "--session", "test")), 6, "each once")

    def test_crashes_of_programs_that_know_nothing_of_it_are_captured_on_request(self):
        lock = self.file("lock")
        code = f"import fcntl, os; f = open({str(lock)!r}); fcntl.flock(f, fcntl.LOCK_EX); os.abort()"
        plain = self.run_program([PYTHON, "-c", code], preexec_fn=no_core)
        for options in ((), ("--capture-crashes",)):
            run = self.planloop("dev", "run", "--session", "test", *options, "--", PYTHON, "-c", code,
                                preexec_fn=no_core)
            self.assertEqual(run.returncode, plain.returncode)
            self.assertEqual(len(self.json("errors", "list", "--session", "test")), len(options), "only on request")
        report = self.json("errors", "list", "--session", "test")[0]
        full = self.json("errors", "show", report["trace_id"])
        self.assertEqual((full["error_type"], full["process"]), ("SIGABRT", "python3"))
        self.assertIn("abort", " ".join(frame["function"] for frame in full["stack_trace"]))
        self.assertEqual([(each["family"], each["path"]) for each in full["locks_held"]], [("flock", str(lock))])
        self.assertIn(f"acquired {lock}", self.shown("trace", report["trace_id"]), "linked by its trace id")

    def test_a_program_with_its_own_handler_keeps_it(self):
        code = ("import os, signal, sys; signal.signal(signal.SIGABRT, lambda *_: os.write(1, b'own') and os._exit(7));"
                "os.kill(os.getpid(), signal.SIGABRT)")
        run = self.planloop("dev", "run", "--session", "test", "--capture-crashes", "--", PYTHON, "-c", code)
        self.assertEqual((run.returncode, run.stdout), (7, "own"))
        self.assertEqual(self.json("errors", "list", "--session", "test"), [])

    def test_a_signal_that_was_sent_kills_as_before(self):
        program = subprocess.Popen([RECORDED, "test", "crash", "kill"], stdout=subprocess.PIPE, text=True,
                                   env=self.environment, preexec_fn=no_core)
        self.assertEqual(program.stdout.readline(), "ready\n")
        program.send_signal(signal.SIGABRT)
        self.assertEqual(program.wait(), -signal.SIGABRT)
        program.stdout.close()
        self.assertEqual(self.json("errors", "list", "--session", "test")[0]["error_type"], "SIGABRT")

    def test_a_handler_that_was_there_before_is_called(self):
        run = self.crash("handled")
        self.assertEqual((run.returncode, run.stdout), (7, "own handler\n"))
        self.assertEqual(len(self.json("errors", "list", "--session", "test")), 1)


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class BadInput(RecordsTest):
    def test_foreign_and_broken_files_are_passed_over(self):
        self.update({"add_tasks": [{"title": "one"}]})
        logs = self.logs()
        with (logs / "planloop.jsonl").open("ab") as out:
            out.write(b"\xff\xfe not json\n[1,2]\n" + b'{"a":' * 5000 + b"\n" + b'{"message":"' + b"x" * 3_000_000 + b'"}\n')
            out.write(b'{"event":"lock_acquired","trace_id":"tr_20250101000000_aaaaaa","unknown":{"deep":[1]}}\n{"torn":')
        (logs / "errors").mkdir(exist_ok=True)
        for folder, name in (("traces", "tr_20250101000000_bbbbbb.json"), ("errors", "tr_20250101000000_bbbbbb_error.json"),
                             ("diffs", "tr_20250101000000_bbbbbb_diff.json")):
            (logs / folder / name).write_bytes(b'{"torn')
            (logs / folder / name.replace("bbbbbb", "cccccc")).write_text("[]")
            (logs / folder / name.replace("bbbbbb", "dddddd")).write_text('{"trace_id":5,"spans":[1,{"name":[]}],"unknown":1}')
        os.mkfifo(logs / "traces" / "tr_20250101000000_eeeeee.json")
        for arguments in (("perf",), ("errors", "list"), ("export-logs",), ("export-traces",), ("export-diffs",),
                          ("export-performance",), ("export-llm",), ("scrub",)):
            with self.subTest(arguments):
                run = self.planloop("dev", *arguments, "--session", "test")
                self.assertEqual(run.returncode, 0, run.stderr)
        for prefix in ("bbbbbb", "cccccc", "dddddd"):
            for command in ("trace", "perf show", "errors show"):
                run = self.planloop("dev", *command.split(), f"tr_20250101000000_{prefix}")
                self.assertIn(run.returncode, (0, 2), run.stderr)
        self.assertIsInstance(self.json("export-logs", "--session", "test"), list)
        self.assertEqual(self.update({"next_steps": ["x"]}).returncode, 0)

    def test_without_recording_all_works_and_nothing_is_written(self):
        shutil.rmtree(self.logs())
        environment = {**self.environment, "PLANLOOP_NO_RECORDING": "1"}
        self.assertEqual(self.update({"add_tasks": [{"title": "one"}]}, env=environment).returncode, 0)
        self.assertEqual(self.update({"tasks": [{"id": 9}]}, env=environment).returncode, 1)
        for what in ("spans", "throws"):
            self.assertEqual(self.run_program([RECORDED, "test", what], env=environment).returncode, 0)
        for arguments in (("perf",), ("errors", "list"), ("export-logs",), ("export-traces",), ("status",)):
            self.assertEqual(self.planloop("dev", *arguments, env=environment).returncode, 0)
        files = [path for path in self.home.rglob("*") if path.is_file() and "logs" in path.parts]
        self.assertEqual(files, [])

    def test_a_full_disk_leaves_nothing_half_written(self):
        self.update({"add_tasks": [{"title": "one"}]})
        whole = {path: path.read_bytes() for path in self.logs().rglob("*.json")}

        def little_room():
            resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))

        run = self.update({"add_tasks": [{"title": "two"}]}, preexec_fn=little_room)
        self.assertEqual(run.returncode, 1)
        self.assertNotIn("Traceback", run.stderr)
        for path, content in whole.items():
            self.assertEqual(path.read_bytes(), content)
        for path in self.logs().rglob("*.json"):
            json.loads(path.read_text())
        self.assertEqual([path for path in self.logs().rglob(".unfinished*")], [])


if __name__ == "__main__":
    unittest.main()
