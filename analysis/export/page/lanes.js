'use strict';
// Which call is drawn where: lanes by thread or by lock, each as many bands high as calls overlap in it.

const MOST_BANDS = 24;

class Band {
  constructor() {
    this.calls = [];
    this.end = -1;
  }
}

// Puts spans that come in order of their begin into the first band that is free by then. What finds none shares the
// last one.
function place(bands, call, begin, end) {
  let band = bands.find(known => known.end <= begin);
  if (!band) {
    if (bands.length < MOST_BANDS) bands.push(new Band());
    band = bands[bands.length - 1];
  }
  band.calls.push(call);
  band.end = Math.max(band.end, end);
}

function layOutLanes(session, by, isShown) {
  const {calls} = session;
  const lanes = new Map();
  for (let i = 0; i < calls.count; ++i) {
    if (!isShown(i)) continue;
    const key = by === 'lock' ? calls.lock[i] : calls.thread[i];
    let lane = lanes.get(key);
    if (!lane) lanes.set(key, lane = {key, holds: [], waits: [], waited: 0});
    lane.waited += calls.wait[i];
    if (by === 'thread') {
      place(lane.holds, i, calls.begin[i], session.endOf(i));
      continue;
    }
    // By lock, holders lie on top and the queue hangs below them. Holds begin in another order than calls do.
    lane.pending = lane.pending || [];
    lane.pending.push(i);
  }
  const list = [...lanes.values()];
  for (const lane of list) {
    if (by === 'lock') {
      const {wait} = calls;
      for (const i of lane.pending)
        if (calls.blockersFrom[i + 1] > calls.blockersFrom[i] || session.isOpen(i) && !calls.hold[i])
          place(lane.waits, i, calls.begin[i], calls.begin[i] + wait[i]);
      const held = lane.pending.filter(i => session.outcome(i) === OUTCOME.acquired);
      held.sort((a, b) => session.acquiredAt(a) - session.acquiredAt(b));
      for (const i of held) place(lane.holds, i, session.acquiredAt(i), session.endOf(i));
      delete lane.pending;
      lane.title = session.lockName(lane.key);
      lane.subtitle = session.locks[lane.key].family;
    } else {
      lane.title = session.threadNames[lane.key];
      lane.subtitle = '';
    }
  }
  const order = by === 'lock'
    ? (a, b) => b.waited - a.waited || a.key - b.key
    : (a, b) => session.threads[a.key][0] - session.threads[b.key][0] || session.threads[a.key][1] - session.threads[b.key][1];
  return list.sort(order);
}
