'use strict';
// The session as the page holds it: the lock calls in typed arrays, one place a call, in order of their begin. Times
// are nanoseconds since the recording began.

const OUTCOME = {waiting: 0, acquired: 1, failed: 2};

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; ++i) bytes[i] = text.charCodeAt(i);
  return bytes;
}

// LEB128, as the report wrote it. Numbers stay below 2^53.
class VarintReader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }
  next() {
    let value = 0, scale = 1, byte;
    do {
      byte = this.bytes[this.at++];
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value;
  }
}

function decodeCalls(columns) {
  const count = columns.count;
  const numbers = (name, into) => {
    const reader = new VarintReader(bytesOf(columns[name]));
    for (let i = 0; i < count; ++i) into[i] = reader.next();
    return into;
  };
  const calls = {
    count,
    begin: numbers('begin', new Float64Array(count)),
    wait: numbers('wait', new Float64Array(count)),
    hold: numbers('hold', new Float64Array(count)),
    thread: numbers('thread', new Uint32Array(count)),
    image: numbers('image', new Uint32Array(count)),
    lock: numbers('lock', new Uint32Array(count)),
    trace: numbers('trace', new Uint32Array(count)),
    operation: numbers('operation', new Uint32Array(count)),
    reason: numbers('reason', new Uint32Array(count)),
    site: numbers('site', new Uint32Array(count)),
    error: numbers('error', new Uint16Array(count)),
    tries: numbers('tries', new Uint32Array(count)),
    start: numbers('start', new Float64Array(count)),
    len: numbers('len', new Float64Array(count)),
    entryHigh: numbers('entry_high', new Uint32Array(count)),
    entryLow: numbers('entry_low', new Uint32Array(count)),
    flags: bytesOf(columns.flags),
    blockersFrom: new Uint32Array(count + 1),
  };
  for (let i = 1; i < count; ++i) calls.begin[i] += calls.begin[i - 1];

  const reader = new VarintReader(bytesOf(columns.blockers));
  const threads = [], times = [];
  for (let i = 0; i < count; ++i) {
    for (let left = reader.next(); left > 0; --left) {
      threads.push(reader.next());
      times.push(reader.next());
    }
    calls.blockersFrom[i + 1] = threads.length;
  }
  calls.blockerThread = Uint32Array.from(threads);
  calls.blockerTime = Float64Array.from(times);
  return calls;
}

class Session {
  constructor(data) {
    Object.assign(this, data);
    this.calls = decodeCalls(data.columns);
    this.byLock = this.locks.map(() => []);
    for (let i = 0; i < this.calls.count; ++i) this.byLock[this.calls.lock[i]].push(i);
    this.lockIndex = new Map(this.locks.map((lock, i) => [lock.id, i]));
    this.sortSpans();
    this.nameThreads();
    this.markDeadlocks();
  }

  sortSpans() {
    this.spansByThread = new Map();
    for (const [pid, tid, begin, duration, depth, name, status] of this.spans) {
      const key = `${pid}/${tid}`;
      if (!this.spansByThread.has(key)) this.spansByThread.set(key, []);
      this.spansByThread.get(key).push({begin, duration, depth, name, status});
    }
    for (const spans of this.spansByThread.values()) spans.sort((a, b) => a.begin - b.begin || a.depth - b.depth);
  }
  spansOf(thread) { return this.spansByThread.get(this.threads[thread].join('/')) || []; }
  // The spans around a call, outermost first.
  spansAround(i) {
    const t = this.calls.begin[i];
    return this.spansOf(this.calls.thread[i]).filter(({begin, duration}) => begin <= t && t <= begin + duration);
  }

  // A thread is called by what it ran, in order: `sh → make`.
  nameThreads() {
    const {thread, image, count} = this.calls;
    const names = this.threads.map(() => []);
    for (let i = 0; i < count; ++i) {
      const name = this.images[image[i]].process;
      const known = names[thread[i]];
      if (known.length < 4 && known[known.length - 1] !== name && !known.includes(name)) known.push(name);
    }
    this.threadNames = this.threads.map(([pid, tid], i) => {
      if (pid === 0) return 'not traced';
      const number = pid === tid ? `${pid}` : `${pid}/${tid}`;
      return `${names[i].join(' → ') || 'process'} ${number}`;
    });
  }

  markDeadlocks() {
    this.deadlocks = this.findings.filter(f => f.kind === 'deadlock' || f.kind === 'self_deadlock');
    this.inDeadlock = new Set();
    for (const finding of this.deadlocks) {
      const to = finding.to_ns === null ? this.duration : finding.to_ns;
      for (const {pid, tid, waits_for} of finding.participants) {
        const lock = this.lockIndex.get(waits_for);
        if (lock === undefined) continue;
        for (const i of this.byLock[lock]) {
          const [callPid, callTid] = this.threads[this.calls.thread[i]];
          if (callPid !== pid || callTid !== tid || this.calls.wait[i] === 0) continue;
          if (this.calls.begin[i] <= to && this.calls.begin[i] + this.calls.wait[i] >= finding.from_ns)
            this.inDeadlock.add(i);
        }
      }
    }
  }

  outcome(i) { return this.calls.flags[i] & 3; }
  isShared(i) { return (this.calls.flags[i] & 4) !== 0; }
  isOpen(i) { return (this.calls.flags[i] & 8) !== 0; }
  isApproximate(i) { return (this.calls.flags[i] & 16) !== 0; }
  acquiredAt(i) { return this.calls.begin[i] + this.calls.wait[i]; }
  endOf(i) { return this.calls.begin[i] + this.calls.wait[i] + this.calls.hold[i]; }
  lockName(lock) { return this.locks[lock].path || this.locks[lock].id; }
  entryId(i) {
    const hex = number => number.toString(16).padStart(8, '0');
    return hex(this.calls.entryHigh[i]) + hex(this.calls.entryLow[i]);
  }

  blockersOf(i) {
    const list = [];
    for (let k = this.calls.blockersFrom[i]; k < this.calls.blockersFrom[i + 1]; ++k)
      list.push({thread: this.calls.blockerThread[k], ns: this.calls.blockerTime[k]});
    return list;
  }

  // The call by which `thread` (or another thread of its process) held what call i waited for; -1: not in the table.
  holderCall(i, thread) {
    const {begin, wait} = this.calls;
    const pid = this.threads[thread][0];
    const end = begin[i] + wait[i];
    let best = -1;
    for (const k of this.byLock[this.calls.lock[i]]) {
      if (begin[k] > end) break;
      if (k === i || this.outcome(k) !== OUTCOME.acquired) continue;
      if (this.threads[this.calls.thread[k]][0] !== pid) continue;
      if (this.acquiredAt(k) <= end && this.endOf(k) >= begin[i]) best = k;
    }
    return best;
  }

  // Who waits and who holds at an instant, lock by lock.
  stateAt(t) {
    const holds = [], waits = [];
    const {begin, count} = this.calls;
    for (let i = 0; i < count && begin[i] <= t; ++i) {
      if (this.endOf(i) < t) continue;
      if (t < this.acquiredAt(i) || (this.outcome(i) === OUTCOME.waiting && this.isOpen(i))) {
        if (this.calls.blockersFrom[i + 1] > this.calls.blockersFrom[i]) waits.push(i);
      } else if (this.outcome(i) === OUTCOME.acquired) {
        holds.push(i);
      }
    }
    return {holds, waits};
  }
}

function formatDuration(ns) {
  const units = [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']];
  if (ns >= 600e9) {
    const minutes = Math.floor(ns / 60e9);
    return minutes < 600 ? `${minutes} min ${Math.floor(ns / 1e9) % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }
  for (const [size, unit] of units) {
    if (ns < size && size > 1) continue;
    const value = ns / size;
    return `${value >= 100 || Number.isInteger(value) ? Math.floor(value) : value.toPrecision(3)} ${unit}`;
  }
  return '0';
}

// 2026-11-22T08:00:02.350123456Z; BigInt, since a double does not hold nanoseconds since 1970.
function formatUtc(session, t) {
  const ns = BigInt(session.from_utc_ns) + BigInt(Math.round(t));
  const seconds = new Date(Number(ns / 1000000000n) * 1000).toISOString().slice(0, 19);
  return `${seconds}.${(ns % 1000000000n).toString().padStart(9, '0')}Z`;
}
