'use strict';
// Joins the parts: filters, tooltip, details, and the buttons of findings and tables that move the timeline.

const byId = id => document.getElementById(id);

function describeCall(session, i) {
  const {calls} = session;
  const image = session.images[calls.image[i]];
  const [pid, tid] = session.threads[calls.thread[i]];
  const rows = [
    ['process', `${image.process} ${pid === tid ? pid : `${pid}, thread ${tid}`}`],
    ['command line', image.command_line],
    ['lock', session.lockName(calls.lock[i])],
    ['lock id', session.locks[calls.lock[i]].id],
    ['family', session.locks[calls.lock[i]].family],
    ['mode', session.isShared(i) ? 'shared' : 'exclusive'],
  ];
  if (calls.start[i] !== 0 || calls.len[i] !== 0)
    rows.push(['bytes', calls.len[i] === 0 ? `${calls.start[i]} to the end` : `${calls.start[i]} to ${calls.start[i] + calls.len[i] - 1}`]);
  if (calls.site[i] !== 0) rows.push(['called in', session.texts[calls.site[i]]]);
  rows.push(['requested', formatUtc(session, calls.begin[i])]);
  const waited = `${formatDuration(calls.wait[i])} (${calls.wait[i].toLocaleString('en')} ns)`;
  if (session.outcome(i) === OUTCOME.acquired) {
    rows.push(['waited', waited], ['acquired', formatUtc(session, session.acquiredAt(i))],
      ['held', `${formatDuration(calls.hold[i])} (${calls.hold[i].toLocaleString('en')} ns)`],
      [session.isOpen(i) ? 'still held at' : 'released', formatUtc(session, session.endOf(i)) + (session.isApproximate(i) ? ' (about)' : '')]);
    if (!session.isOpen(i)) rows.push(['ended by', session.texts[calls.reason[i]]]);
  } else if (session.outcome(i) === OUTCOME.failed) {
    rows.push(['failed after', waited], ['errno', `${calls.error[i]} ${session.errnos[calls.error[i]] || ''}`]);
  } else {
    rows.push(['still waiting after', waited]);
  }
  if (calls.tries[i] > 1) rows.push(['tries', String(calls.tries[i])]);
  const blockers = session.blockersOf(i).map(({thread, ns}) => session.threadNames[thread] + (ns > 0 ? ` (${formatDuration(ns)})` : ''));
  if (blockers.length > 0) rows.push(['waited for', blockers.join(', ')]);
  const around = session.spansAround(i).map(({name}) => name);
  if (around.length > 0) rows.push(['inside', around.join(' › ')]);
  rows.push(['trace id', session.texts[calls.trace[i]]], ['operation', session.texts[calls.operation[i]]], ['lock_entry_id', session.entryId(i)]);
  return rows.filter(([, value]) => value !== '');
}

function oneLine(session, i) {
  const {calls} = session;
  const what = session.outcome(i) === OUTCOME.acquired ? `waited ${formatDuration(calls.wait[i])}, held ${formatDuration(calls.hold[i])}`
    : session.outcome(i) === OUTCOME.failed ? `failed after ${formatDuration(calls.wait[i])}` : `still waiting after ${formatDuration(calls.wait[i])}`;
  return `${session.threadNames[calls.thread[i]]}: ${session.lockName(calls.lock[i])}, ${what}`;
}

function fillList(element, rows) {
  element.replaceChildren(...rows.flatMap(([name, value]) => {
    const term = document.createElement('dt'), text = document.createElement('dd');
    term.textContent = name;
    text.textContent = value;
    return [term, text];
  }));
}

class Page {
  constructor(session) {
    this.session = session;
    this.timeline = new Timeline(byId('timeline'), session, {
      hover: (call, x, y) => this.showTooltip(call, x, y),
      select: call => this.showDetails(call),
      cursor: t => this.showGraph(t),
      view: (from, to) => this.showView(from, to),
    });
    this.fillChoices();
    this.listen();
    this.timeline.fit();
    const worst = session.deadlocks[0];
    this.timeline.setCursor(worst ? this.insideOf(worst) : this.busiestTime());
    drawHistogram(byId('wait-histogram'), this.contendedWaits());
    drawHistogram(byId('hold-histogram'), this.holdTimes());
  }

  insideOf(finding) {
    const to = finding.to_ns === null ? this.session.duration : finding.to_ns;
    return (finding.from_ns + to) / 2;
  }
  contendedWaits() {
    const {calls} = this.session;
    return calls.wait.filter((_, i) => calls.blockersFrom[i + 1] > calls.blockersFrom[i]);
  }
  holdTimes() { return this.session.calls.hold.filter((_, i) => this.session.outcome(i) === OUTCOME.acquired); }
  // In the middle of the longest wait.
  busiestTime() {
    const {calls} = this.session;
    let longest = -1;
    for (let i = 0; i < calls.count; ++i)
      if (calls.blockersFrom[i + 1] > calls.blockersFrom[i] && (longest < 0 || calls.wait[i] > calls.wait[longest])) longest = i;
    return longest < 0 ? 0 : calls.begin[longest] + calls.wait[longest] / 2;
  }

  fillChoices() {
    const fill = (select, names) => {
      names.map((name, i) => [name, i]).sort(([a], [b]) => a.localeCompare(b)).slice(0, 5000).forEach(([name, i]) => {
        select.append(new Option(shorten(name, 80), i));
      });
    };
    fill(byId('filter-lock'), this.session.locks.map((_, i) => this.session.lockName(i)));
    const processes = new Map();
    this.session.threads.forEach(([pid], i) => {
      if (pid !== 0 && !processes.has(pid)) processes.set(pid, this.session.threadNames[i].replace(/\/\d+$/, ''));
    });
    this.pids = [...processes.keys()];
    fill(byId('filter-process'), [...processes.values()]);
  }

  listen() {
    for (const id of ['lanes-by', 'filter-lock', 'filter-process', 'filter-text', 'filter-contended'])
      byId(id).addEventListener('input', () => this.filter());
    byId('filter-reset').addEventListener('click', () => this.resetFilter());
    const {timeline} = this;
    byId('zoom-in').addEventListener('click', () => timeline.zoom(0.5, timeline.zoomCentre()));
    byId('zoom-out').addEventListener('click', () => timeline.zoom(2, timeline.zoomCentre()));
    byId('zoom-fit').addEventListener('click', () => timeline.fit());
    document.body.addEventListener('click', event => {
      const button = event.target.closest('button[data-goto]');
      if (!button) return;
      if (button.dataset.goto === 'finding') this.goToFinding(Number(button.dataset.index));
      if (button.dataset.goto === 'lock') this.only('filter-lock', this.session.lockIndex.get(button.dataset.key));
      if (button.dataset.goto === 'process') this.only('filter-process', this.pids.indexOf(Number(button.dataset.key)));
      if (button.dataset.goto === 'trace') this.only('filter-text', button.dataset.key);
      byId('timeline-section').scrollIntoView({block: 'start'});
      byId('timeline').focus({preventScroll: true});
    });
  }

  only(filter, value) {
    if (value === undefined || value === -1) return;
    this.resetFilter();
    byId(filter).value = value;
    this.filter();
    this.timeline.fit();
  }
  resetFilter() {
    for (const id of ['filter-lock', 'filter-process', 'filter-text']) byId(id).value = '';
    byId('filter-contended').checked = false;
    this.filter();
  }

  filter() {
    const {session} = this;
    const {calls} = session;
    const lock = byId('filter-lock').value, process = byId('filter-process').value;
    const pid = process === '' ? 0 : this.pids[Number(process)];
    const words = byId('filter-text').value.trim().toLowerCase();
    const contended = byId('filter-contended').checked;
    const has = texts => texts.map(text => text.toLowerCase().includes(words));
    // Each text is searched once, not once a call.
    const inThread = has(session.threadNames), inLock = session.locks.map(({id, path}) => `${id}\n${path}`.toLowerCase().includes(words));
    const inText = has(session.texts), inImage = has(session.images.map(({process: name, command_line}) => `${name}\n${command_line}`));
    this.timeline.isShown = i =>
      (lock === '' || calls.lock[i] === Number(lock)) &&
      (pid === 0 || session.threads[calls.thread[i]][0] === pid) &&
      (!contended || calls.blockersFrom[i + 1] > calls.blockersFrom[i]) &&
      (words === '' || inThread[calls.thread[i]] || inLock[calls.lock[i]] || inImage[calls.image[i]] ||
        inText[calls.trace[i]] || inText[calls.operation[i]] || inText[calls.site[i]] || session.entryId(i).includes(words));
    this.timeline.by = byId('lanes-by').value;
    this.timeline.layOut();
    let shown = 0;
    for (let i = 0; i < calls.count; ++i) if (this.timeline.isShown(i)) ++shown;
    byId('filter-count').textContent = shown === calls.count ? `${calls.count.toLocaleString('en')} lock calls`
      : `${shown.toLocaleString('en')} of ${calls.count.toLocaleString('en')} lock calls`;
  }

  goToFinding(index) {
    const finding = this.session.findings[index];
    this.resetFilter();
    const to = finding.to_ns === null ? this.session.duration : Math.max(finding.to_ns, finding.from_ns);
    const call = this.callOf(finding);
    this.timeline.show(finding.from_ns, to);
    if (call >= 0) {
      this.timeline.select(call);
      this.timeline.scrollTo(call);
    }
    this.timeline.setCursor((finding.from_ns + to) / 2);
  }

  // A call to point at: a participant's, or one of the lock's that goes on while the finding does.
  callOf(finding) {
    const {calls} = this.session;
    const to = finding.to_ns === null ? this.session.duration : finding.to_ns;
    const pids = new Set(finding.participants.map(({pid}) => pid));
    let best = -1;
    for (const id of [...finding.participants.map(({waits_for}) => waits_for), ...finding.locks]) {
      const lock = this.session.lockIndex.get(id);
      if (lock === undefined) continue;
      for (const i of this.session.byLock[lock]) {
        if (calls.begin[i] > to || this.session.endOf(i) < finding.from_ns) continue;
        if (pids.size > 0 && !pids.has(this.session.threads[calls.thread[i]][0])) continue;
        if (best < 0 || calls.wait[i] > calls.wait[best]) best = i;
      }
      if (best >= 0) break;
    }
    return best;
  }

  showTooltip(call, x, y) {
    const tip = byId('tooltip');
    tip.hidden = call < 0;
    if (call < 0) return;
    const {calls} = this.session;
    const rows = describeCall(this.session, call).filter(([name]) => !['command line', 'lock id', 'family', 'lock_entry_id', 'operation', 'trace id'].includes(name));
    tip.replaceChildren(...rows.map(([name, value]) => {
      const line = document.createElement('div'), label = document.createElement('span');
      label.textContent = `${name} `;
      line.append(label, shorten(value, 120));
      return line;
    }));
    const canvas = byId('timeline');
    const left = Math.min(x + 14, canvas.clientWidth - tip.offsetWidth - 4);
    tip.style.left = `${Math.max(left, 0)}px`;
    tip.style.top = `${y + 16}px`;
    tip.dataset.call = `${this.session.entryId(call)} ${calls.wait[call]}`;
  }

  showDetails(call) {
    const panel = byId('details');
    panel.hidden = call < 0;
    if (call < 0) {
      byId('announce').textContent = 'nothing selected';
      return;
    }
    fillList(byId('details-list'), describeCall(this.session, call));
    const {calls} = this.session;
    const set = (id, kind, key) => Object.assign(byId(id).dataset, {goto: kind, key});
    set('details-lock', 'lock', this.session.locks[calls.lock[call]].id);
    set('details-process', 'process', this.session.threads[calls.thread[call]][0]);
    set('details-trace', 'trace', this.session.texts[calls.trace[call]]);
    byId('announce').textContent = oneLine(this.session, call);
  }

  showGraph(t) {
    byId('cursor-time').textContent = `${formatUtc(this.session, t)} (${formatDuration(t)} after the start)`;
    drawWaitGraph(this.session, t, byId('wait-graph'), byId('wait-graph-list'));
  }

  showView(from, to) {
    byId('view-range').textContent = `${formatDuration(Math.max(to - from, 0))} in view`;
  }
}

function start() {
  initTables();
  const session = new Session(JSON.parse(byId('session-data').textContent));
  window.planloop = new Page(session);
  window.planloop.filter();
}
start();
