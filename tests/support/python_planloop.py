"""A model of the Python planloop's session lock, as its files show it: an entry in `.lock_queue/`, a look every 100 ms
whether it is the oldest, `.lock` made with O_EXCL, `.lock_info` beside it.

One fault of the original is left out: a caller that timed out there removes a `.lock` that it never held.

As a program: python_planloop.py SESSION_FOLDER TURNS INSIDE takes the lock so often, and each time makes and removes the
file INSIDE, which must not be there. Prints the longest wait in seconds.
"""

import json
import os
import sys
import time
import uuid
from pathlib import Path

POLL_S = 0.1


class PythonLock:
    def __init__(self, folder, operation="update", timeout=30.0):
        self.folder, self.operation, self.timeout = Path(folder), operation, timeout
        self.queue = self.folder / ".lock_queue"
        self.lock, self.info = self.folder / ".lock", self.folder / ".lock_info"

    def __enter__(self):
        self.queue.mkdir(exist_ok=True)
        self.id = str(uuid.uuid4())
        self.entry = self.queue / f"{self.id}.json"
        self.requested_at = time.time()
        agent = os.environ.get("PLANLOOP_AGENT_NAME") or f"pid:{os.getpid()}"
        entry = {"id": self.id, "agent": agent, "operation": self.operation, "requested_at": self.requested_at}
        self.entry.write_text(json.dumps(entry))
        deadline = time.monotonic() + self.timeout
        while not (self.is_oldest() and self.take()):
            if time.monotonic() >= deadline:
                self.entry.unlink(missing_ok=True)
                raise TimeoutError(f"no lock after {self.timeout} s")
            time.sleep(POLL_S)
        return self

    def is_oldest(self):
        entries = []
        for path in self.queue.glob("*.json"):
            try:
                entry = json.loads(path.read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                continue
            if time.time() - entry["requested_at"] > self.timeout:
                path.unlink(missing_ok=True)
            else:
                entries.append((entry["requested_at"], entry["id"]))
        return not entries or min(entries)[1] == self.id

    def take(self):
        try:
            os.close(os.open(self.lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            return False
        info = {"held_by": f"pid:{os.getpid()}", "since": time.time(), "operation": self.operation}
        self.info.write_text(json.dumps(info))
        return True

    def __exit__(self, *_):
        self.lock.unlink(missing_ok=True)
        self.info.unlink(missing_ok=True)
        self.entry.unlink(missing_ok=True)


def main():
    folder, turns, inside = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    longest = 0.0
    for _ in range(turns):
        asked = time.monotonic()
        with PythonLock(folder):
            longest = max(longest, time.monotonic() - asked)
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            os.unlink(inside)
    print(longest)


if __name__ == "__main__":
    main()
