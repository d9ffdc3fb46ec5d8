"""What `planloop dev export` writes, judged by the programs that read it: DuckDB, OpenTelemetry's code, speedscope's
schema, Perfetto's trace processor, Graphviz. Run by tests/exports/run.

PLANLOOP_TEST_SEED repeats the random session, PLANLOOP_TEST_ROUNDS makes it longer.
"""

import json
import os
import random
import select
import subprocess
import sys
import unittest
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from harness import PYTHON, TracedTest, kernel_locks, wait_until

CONSUMERS = Path(os.environ["PLANLOOP_CONSUMERS"])
ROUNDS = int(os.environ.get("PLANLOOP_TEST_ROUNDS", "120"))
FORMATS = ("perfetto", "otlp", "speedscope", "csv", "jsonl", "dot")
RANGES = [(0, 10), (10, 10), (0, 20)]

# Takes and releases a lock on each file that its arguments name, some of them through flock(1) under another name.
HOSTILE_PROGRAM = """
import fcntl, os, sys
name, *paths = [os.fsencode(word) for word in sys.argv[1:]]
for path in paths:
    folder, file = os.path.split(path)
    os.chdir(folder)
    with open(file, 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    if os.fork() == 0:
        os.execv('/usr/bin/flock', [name, file, b'true'])
    os.wait()
"""


class ExportTest(TracedTest):
    def export(self, name):
        path = self.folder / f"export.{name}"
        run = self.planloop("dev", "export", "--session", self.session, "--format", name, "-o", path, "--force")
        self.assertEqual((run.returncode, run.stdout), (0, ""), run.stderr)
        return path

    def node(self, script, *arguments):
        run = subprocess.run(["node", CONSUMERS / script, *arguments], capture_output=True, text=True, timeout=300)
        self.assertEqual(run.returncode, 0, f"{script}: {run.stderr}")
        return run.stdout

    def loaded(self, name):
        return json.loads(self.node("duckdb.mjs", self.export(name)))

    def spans(self):
        spans = json.loads(self.node("otlp.mjs", self.export("otlp")))
        for span in spans:
            kinds = {"stringValue": str, "intValue": int, "boolValue": bool}
            for owner in (span, span["resource"], *span.get("links", []), *span.get("events", [])):
                owner["attributes"] = {
                    each["key"]: kinds[kind](value) for each in owner["attributes"] for kind, value in each["value"].items()
                }
        return spans

    def stacks(self):
        path = self.export("speedscope")
        self.node("speedscope.mjs", path)
        data = json.loads(path.read_text())
        frames = [frame["name"] for frame in data["shared"]["frames"]]
        return [
            [([frames[at] for at in sample], weight) for sample, weight in zip(profile["samples"], profile["weights"])]
            for profile in data["profiles"]
        ]

    def trace(self, *queries):
        errors = "select name, value from stats where value > 0 and severity in ('error', 'data_loss')"
        answers = self.node("trace_processor.mjs", self.export("perfetto"), errors, *queries).splitlines()
        rows = [json.loads(answer) for answer in answers]
        self.assertEqual(rows[0], [], "Perfetto found fault with the trace")
        return rows[1:]

    def slices(self):
        """Waits and holds as Perfetto sees them, with their arguments."""
        slices, arguments = self.trace(
            "select id, category, dur, arg_set_id from slice",
            "select arg_set_id, key, display_value from args where key like 'debug.%'",
        )
        by_set = defaultdict(dict)
        for row in arguments:
            by_set[row["arg_set_id"]][row["key"].removeprefix("debug.")] = row["display_value"]
        return [{**row, "dur": int(row["dur"]), **by_set[row["arg_set_id"]]} for row in slices]

    def drawn(self):
        path = self.export("dot")
        run = subprocess.run(["dot", "-Tsvg", path], capture_output=True, text=True)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
        return run.stdout


def sums_by_lock(pairs):
    sums = defaultdict(int)
    for lock, value in pairs:
        sums[lock] += int(value)
    return dict(sums)


def overlap(one, other):
    def last(call):
        return call["start"] + call["len"] if call["len"] else float("inf")

    return one["start"] < last(other) and other["start"] < last(one)


def expected_flows(report):
    """For each acquisition that was let through: the holds, mostly one, whose end did that, as they ended last among those
    that stood in its way."""
    acquisitions, releases, flows = {}, [], {}
    for entry in report.timeline:
        if entry["event"] == "lock_released":
            releases.append((entry["t_ns"], entry["lock_entry_id"]))
        if entry["event"] != "lock_acquired":
            continue
        blockers = {(each["pid"], each["tid"]) for each in entry["blocked_by"]}

        def stood_in_the_way(hold):
            return (hold["lock"] == entry["lock"] and (hold["pid"], hold["tid"]) in blockers and overlap(hold, entry)
                    and "exclusive" in (hold["mode"], entry["mode"]))

        ended = [(t_ns, released) for t_ns, released in releases if stood_in_the_way(acquisitions[released])]
        if ended:
            flows[entry["lock_entry_id"]] = {released for t_ns, released in ended if t_ns == max(ended)[0]}
        acquisitions[entry["lock_entry_id"]] = entry
    return flows


class RandomSession(ExportTest):
    def test_every_format_says_what_the_report_says(self):
        seed = int(os.environ.get("PLANLOOP_TEST_SEED", random.SystemRandom().randrange(2**32)))
        print(f"PLANLOOP_TEST_SEED={seed}", file=sys.stderr)
        self.random = random.Random(seed)
        self.play()
        report = self.report()
        acquired = report.events("lock_acquired")
        waits = {row["id"]: row["wait_ns"]["total"] for row in report.locks}
        holds = {row["id"]: row["hold_ns"]["total"] for row in report.locks}
        counts = {row["id"]: row["acquisitions"] for row in report.locks}
        self.assertGreater(len(acquired), ROUNDS // 10)
        self.assertTrue(any(entry["blocked_by"] for entry in acquired))

        with self.subTest("rows"):
            waits_for_locks = sums_by_lock((entry["lock"], entry["wait_ns"]) for entry in acquired)
            for name in ("csv", "jsonl"):
                table = self.loaded(name)
                self.assertEqual({row["lock"]: int(row["rows"]) for row in table["locks"]},
                                 {lock: count for lock, count in counts.items() if count})
                self.assertEqual({row["lock"]: int(row["wait_ns"]) for row in table["locks"]}, waits_for_locks)
                self.assertEqual({row["lock"]: int(row["hold_ns"]) for row in table["locks"]},
                                 {lock: holds[lock] for lock in waits_for_locks})
                self.assertEqual([row["lock_entry_id"] for row in table["all"]], [e["lock_entry_id"] for e in acquired])
                for column in ("pid", "tid", "range_start", "range_len", "wait_ns", "hold_ns", "tries", "acquired_unix_ns"):
                    self.assertEqual(table["types"][column], "BIGINT", column)
                for column in ("requested_at", "acquired_at", "released_at"):
                    self.assertIn("TIMESTAMP", table["types"][column])
                self.assertEqual(table["types"]["contended"], "BOOLEAN")
                self.assertEqual(table["types"]["lock_entry_id"], "VARCHAR")

        with self.subTest("speedscope"):
            def by_lock(stacks):
                return sums_by_lock((stack[2][:-1].rpartition(" (")[2], weight) for stack, weight in stacks)

            wait_stacks, hold_stacks = self.stacks()
            self.assertEqual(by_lock(wait_stacks), waits)
            self.assertEqual(by_lock(hold_stacks), {lock: holds[lock] for lock in by_lock(hold_stacks)})
            self.assertEqual(sum(weight for _, weight in hold_stacks), sum(holds.values()))

        with self.subTest("otlp"):
            self.check_spans(report, waits, holds)

        with self.subTest("perfetto"):
            self.check_slices(report, waits, holds)

        with self.subTest("dot"):
            self.assertIn("Lock order", self.drawn())

    def check_spans(self, report, waits, holds):
        spans = self.spans()
        by_id = {span["spanId"]: span for span in spans}
        self.assertEqual(len(by_id), len(spans), "span ids are unique")
        for span in spans:
            self.assertRegex(span["traceId"], "^[0-9a-f]{32}$")
            self.assertRegex(span["spanId"], "^[0-9a-f]{16}$")
            if "parentSpanId" in span:
                parent = by_id[span["parentSpanId"]]
                self.assertEqual(parent["traceId"], span["traceId"])
                self.assertLessEqual(int(parent["startTimeUnixNano"]), int(span["startTimeUnixNano"]))
                self.assertGreaterEqual(int(parent["endTimeUnixNano"]), int(span["endTimeUnixNano"]))
            for link in span.get("links", []):
                self.assertIn("planloop.hold_ns", by_id[link["spanId"]]["attributes"])
                self.assertEqual(by_id[link["spanId"]]["traceId"], link["traceId"])

        def sums(attribute):
            chosen = [span for span in spans if attribute in span["attributes"]]
            for span in chosen:
                length = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
                self.assertEqual(length, span["attributes"][attribute])
            return sums_by_lock((span["attributes"]["planloop.lock.id"], span["attributes"][attribute]) for span in chosen)

        self.assertEqual(sums("planloop.wait_ns"), waits)
        self.assertEqual(sums("planloop.hold_ns"), {lock: ns for lock, ns in holds.items() if ns})
        linked = sum(len(span.get("links", [])) for span in spans)
        blamed = [each for entry in report.events("lock_acquired") for each in entry["blocked_by"] if each["pid"]]
        self.assertGreaterEqual(linked, len(blamed))

    def check_slices(self, report, waits, holds):
        slices = self.slices()
        self.assertEqual(sums_by_lock((each["lock"], each["dur"]) for each in slices if each["category"] == "wait"), waits)
        held = [each for each in slices if each["category"] == "hold"]
        self.assertEqual(sums_by_lock((each["lock"], each["dur"]) for each in held),
                         {lock: ns for lock, ns in holds.items() if ns})
        acquired = report.events("lock_acquired")
        self.assertEqual(sorted(each["lock_entry_id"] for each in held), sorted(e["lock_entry_id"] for e in acquired))
        waited = {each["lock_entry_id"]: each for each in slices if each["category"] == "wait"}
        for entry in acquired:
            for blocker in entry["blocked_by"][:1]:
                self.assertEqual(waited[entry["lock_entry_id"]]["holder_pid"], str(blocker["pid"]))
        findings = [each for each in slices if each["category"] == "finding"]
        self.assertEqual(len(findings), len(report.findings()))

        names = {each["id"]: each["lock_entry_id"] for each in held}
        flows, counters = self.trace(
            "select slice_out, slice_in from flow",
            "select t.name as name, c.value as value from counter c join counter_track t on c.track_id = t.id order by c.ts, c.id",
        )
        sources = {names[each["slice_in"]]: names[each["slice_out"]] for each in flows}
        self.assertEqual(len(sources), len(flows), "one arrow to each")
        expected = expected_flows(report)
        self.assertEqual({target: {sources.get(target)} & possible for target, possible in expected.items()},
                         {target: {sources.get(target)} for target in expected})
        self.assertEqual(set(sources), set(expected))
        last = {each["name"]: float(each["value"]) for each in counters}
        self.assertEqual(set(last.values()), {0.0}, "in the end nobody waits")
        self.assertTrue(all(float(each["value"]) >= 0 for each in counters))

    def play(self):
        """Processes that take and release whole locks and fixed ranges, block, are interrupted and killed."""
        stage = self.stage()
        files = [self.file(name) for name in ("one", "two", "three")]
        self.idle, self.blocked = {}, set()
        for actor in stage.cast(5):
            self.idle[actor] = {file: (actor.call(f"open {file}"), actor.call(f"open {file}")) for file in files}
        everything = dict(self.idle)
        for _ in range(ROUNDS):
            self.collect(everything)
            if self.blocked and (not self.idle or self.random.random() < 0.1):
                actor = self.random.choice(sorted(self.blocked, key=lambda each: each.pid))
                self.blocked.remove(actor)
                if self.random.random() < 0.3 and len(everything) > 3:
                    actor.kill()
                    del everything[actor]
                else:
                    actor.interrupt()
                    self.idle[actor] = everything[actor]
                continue
            actor = self.random.choice(sorted(self.idle, key=lambda each: each.pid))
            self.act(actor, self.idle[actor])
        for actor in list(self.blocked):
            actor.kill()
        stage.close()

    def act(self, actor, descriptors):
        file = self.random.choice(list(descriptors))
        whole, ranged = descriptors[file]
        start, length = self.random.choice(RANGES)
        actor.begin(self.random.choice([
            f"flock {whole} ex", f"flock {whole} sh", f"flock {whole} un", f"flock {whole} un", f"flock {whole} ex nb",
            f"fcntl {ranged} setlkw wr {start} {length}", f"fcntl {ranged} setlkw rd {start} {length}",
            f"fcntl {ranged} setlk un 0 20", f"fcntl {ranged} setlk un 0 20",
        ]))
        wait_until("an answer or a wait", lambda: self.answered(actor) or self.waits(actor))
        if self.answered(actor):
            actor.end()
        else:
            self.blocked.add(actor)
            del self.idle[actor]

    def collect(self, everything):
        for actor in list(self.blocked):
            if self.answered(actor):
                actor.end()
                self.blocked.remove(actor)
                self.idle[actor] = everything[actor]

    @staticmethod
    def answered(actor):
        return bool(select.select([actor.connection], [], [], 0)[0])

    @staticmethod
    def waits(actor):
        return any(lock.waits and lock.pid == actor.pid for lock in kernel_locks())


class HostileNames(ExportTest):
    def test_names_of_any_bytes_come_through_every_format(self):
        long_folder = self.folder
        while len(str(long_folder)) < 3500:
            long_folder = long_folder / ("d" * 200)
        # Too long for one call.
        subprocess.run(["mkdir", "-p", long_folder], check=True)
        files = [
            os.fsencode(self.folder) + b"/new\nline\t\x1b[31m",
            os.fsencode(self.folder) + b"/\"quotes'` \\back\\slash\\",
            os.fsencode(self.folder) + b"/not utf-8 \xff\xfe\xc3",
            os.fsencode(self.folder) + "/öfter 🔒 ‮ left".encode(),
            os.fsencode(self.folder) + b"/\"><img src=x onerror=alert(1)>,;{}|=1+1",
            os.fsencode(long_folder) + b"/lock",
        ]
        name = b"na\"me\n\xff</script>,\\"
        run = self.traced(PYTHON, "-c", HOSTILE_PROGRAM, os.fsdecode(name), *[os.fsdecode(path) for path in files],
                          errors="replace")
        self.assertEqual(run.returncode, 0, run.stderr)
        report = self.report()
        paths = {row["path"] for row in report.locks}
        self.assertEqual(len(paths), len(files))
        expected = {path.decode(errors="replace") for path in files}
        names = {entry["process"] for entry in report.timeline}

        for name in ("csv", "jsonl"):
            table = self.loaded(name)
            self.assertEqual({row["path"] for row in table["all"]}, paths, name)
            self.assertEqual({row["process"] for row in table["all"]}, names, name)
        self.assertEqual({path.replace("\ufffd", "") for path in paths}, {path.replace("\ufffd", "") for path in expected})
        spans = self.spans()
        self.assertEqual({span["attributes"]["file.path"] for span in spans if "file.path" in span["attributes"]}, paths)
        self.assertEqual({span["resource"]["attributes"]["service.name"] for span in spans}, names)
        self.assertEqual({each["path"] for each in self.slices()}, paths)
        stacks = self.stacks()[0]
        self.assertEqual({stack[2].rpartition(" (")[0] for stack, _ in stacks}, paths)
        self.assertNotIn("<img", self.drawn())


class EmptySession(ExportTest):
    def test_nothing_locked_is_a_valid_file_in_every_format(self):
        self.traced("true")
        for name in ("csv", "jsonl"):
            self.assertEqual(self.loaded(name)["rows"], 0)
        self.assertEqual(self.spans(), [])
        self.assertEqual(self.stacks(), [[], []])
        self.assertEqual(self.slices(), [])
        self.assertIn("nobody waits", self.drawn())


class Operations(ExportTest):
    """What instrumented programs recorded of their own work stands in both formats as it stands in their files."""

    def setUp(self):
        super().setUp()
        self.planloop("sessions", "create", "--id", self.session)
        for payload, status in (({"add_tasks": [{"title": "one"}]}, 0), ({"tasks": [{"id": 9, "status": "DONE"}]}, 1)):
            run = self.planloop("update", "--session", self.session, input=json.dumps({"session": self.session, **payload}))
            self.assertEqual(run.returncode, status, run.stderr)
        logs = self.home / "sessions" / self.session / "logs"
        self.traces = [json.loads(path.read_text()) for path in sorted(logs.glob("traces/*.json"))]
        self.assertEqual({trace["status"] for trace in self.traces}, {"ok", "error"})
        (self.error,) = [json.loads(path.read_text()) for path in logs.glob("errors/*_error.json")]

    @staticmethod
    def nanoseconds(timestamp):
        whole, _, fraction = timestamp.removesuffix("Z").partition(".")
        seconds = int(datetime.fromisoformat(whole + "+00:00").timestamp())
        return seconds * 10**9 + int(fraction.ljust(9, "0"))

    def recorded(self):
        """(trace id, name): begin, end, name of the parent, status, metadata."""
        return {
            (trace["trace_id"], span["name"]): (
                self.nanoseconds(span["start_time"]), self.nanoseconds(span["end_time"]), span.get("parent"),
                span["status"], {key: str(value) for key, value in span["metadata"].items()})
            for trace in self.traces for span in trace["spans"]
        }

    def test_otlp_has_their_spans_and_errors_above_the_waits_and_holds(self):
        spans = self.spans()
        by_id = {span["spanId"]: span for span in spans}
        own = [span for span in spans if "planloop.status" in span["attributes"]]
        got = {}
        for span in own:
            attributes = span["attributes"]
            parent = by_id[span["parentSpanId"]]["name"] if "parentSpanId" in span else None
            metadata = {key.removeprefix("planloop.metadata."): value for key, value in attributes.items() if "metadata" in key}
            got[attributes["planloop.trace_id"], span["name"]] = (
                int(span["startTimeUnixNano"]), int(span["endTimeUnixNano"]), parent, attributes["planloop.status"], metadata)
            self.assertEqual(span["status"].get("code", 0), 2 if attributes["planloop.status"] == "error" else 0)
        self.assertEqual(got, self.recorded())

        (exception,) = [event for span in own for event in span.get("events", [])]
        self.assertEqual(exception["attributes"]["exception.type"], self.error["error_type"])
        self.assertEqual(exception["attributes"]["exception.message"], self.error["error_message"])
        updates = {span["traceId"]: span["spanId"] for span in own if "parentSpanId" not in span}
        for span in spans:
            if span["traceId"] in updates:
                while "parentSpanId" in span:
                    span = by_id[span["parentSpanId"]]
                self.assertEqual(span["spanId"], updates[span["traceId"]], "the update is above all that it did")

    def test_perfetto_has_them_as_slices_inside_each_other(self):
        rows, arguments = self.trace(
            "select id, ts, dur, name, parent_id, arg_set_id from slice where category = 'span'",
            "select arg_set_id, key, display_value from args where key like 'debug.%'",
        )
        by_set = defaultdict(dict)
        for row in arguments:
            by_set[row["arg_set_id"]][row["key"].removeprefix("debug.")] = row["display_value"]
        names = {row["id"]: row["name"] for row in rows}
        got = {}
        for row in rows:
            of = dict(by_set[row["arg_set_id"]])  # slices with the same arguments share them
            trace_id, status = of.pop("trace_id"), of.pop("status")
            of.pop("error", None)
            begin = int(row["ts"])
            got[trace_id, row["name"]] = (begin, begin + int(row["dur"]), names.get(row["parent_id"]), status, of)
        self.assertEqual(got, self.recorded())


class Deadlock(ExportTest):
    def test_it_is_drawn_and_marked(self):
        a, b = self.file("a"), self.file("b")
        stage = self.stage()
        one, two = stage.cast(2)
        fds = {path: [actor.call(f"open {path}") for actor in (one, two)][0] for path in (a, b)}
        one.call(f"flock {fds[a]} ex")
        two.call(f"flock {fds[b]} ex")
        one.block(f"flock {fds[b]} ex", b)
        two.block(f"flock {fds[a]} ex", a)
        one.interrupt()
        one.call(f"flock {fds[a]} un")
        two.end()
        stage.close()
        drawn = self.drawn()
        self.assertIn("waits for", drawn)
        self.assertIn('stroke="red"', drawn)
        instants = [each for each in self.slices() if each["category"] == "finding"]
        self.assertEqual(len(instants), 1)
        events = [event for span in self.spans() for event in span.get("events", [])]
        self.assertEqual({event["attributes"]["planloop.finding.kind"] for event in events}, {"deadlock"})
        self.assertEqual(len(events), 2, "one for each participant")


if __name__ == "__main__":
    unittest.main()
