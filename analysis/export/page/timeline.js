'use strict';
// The timeline on its canvas. A bar is a lock call: first the wait, then the hold. Drawing goes band by band from left to
// right and never draws two bars into the same pixel of a band, so that a frame costs what is seen, not what there is.

const AXIS_HEIGHT = 26;
const BAND_HEIGHT = 12;
const BAND_GAP = 2;
const LANE_GAP = 10;
const LEAST_SPAN_NS = 50;

class Timeline {
  constructor(canvas, session, listeners) {
    this.canvas = canvas;
    this.context = canvas.getContext('2d');
    this.session = session;
    this.listeners = listeners;  // hover(call, x, y), select(call), cursor(t), view()
    this.by = 'thread';
    this.isShown = () => true;
    this.hovered = this.selected = -1;
    this.cursor = 0;
    this.scroll = 0;
    this.pointers = new Map();
    this.span = Math.max(session.duration, LEAST_SPAN_NS);
    this.from = 0;
    this.to = this.span;
    this.layOut();
    this.listen();
    new ResizeObserver(() => this.redraw()).observe(canvas);
    matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => this.redraw());
  }

  // What is shown, and where.
  layOut() {
    this.lanes = layOutLanes(this.session, this.by, this.isShown);
    let y = 0;
    for (const lane of this.lanes) {
      lane.top = y;
      lane.bands = [...lane.holds.map(band => ({band, kind: this.by === 'lock' ? 'hold' : 'call'})),
                    ...lane.waits.map(band => ({band, kind: 'wait'}))];
      lane.spans = this.by === 'thread' ? this.session.spansOf(lane.key) : [];
      lane.spanRows = lane.spans.reduce((most, span) => Math.max(most, span.depth + 1), 0);
      lane.bandsTop = LANE_GAP / 2 + lane.spanRows * (BAND_HEIGHT + BAND_GAP);
      lane.height = Math.max(lane.bands.length, 1) * (BAND_HEIGHT + BAND_GAP) + lane.bandsTop + LANE_GAP / 2;
      y += lane.height;
    }
    this.contentHeight = y;
    this.scroll = Math.min(this.scroll, Math.max(0, y - 50));
    this.redraw();
  }

  setView(from, to) {
    const least = LEAST_SPAN_NS, most = this.span * 1.1;
    let width = Math.min(Math.max(to - from, least), most);
    let middle = (from + to) / 2;
    middle = Math.min(Math.max(middle, 0), this.span);
    this.from = middle - width / 2;
    this.to = middle + width / 2;
    this.listeners.view(this.from, this.to);
    this.redraw();
  }
  fit() { this.setView(-this.span * 0.02, this.span * 1.02); }
  zoom(factor, at = (this.from + this.to) / 2) {
    this.setView(at - (at - this.from) * factor, at + (this.to - at) * factor);
  }
  pan(share) {
    const by = (this.to - this.from) * share;
    this.setView(this.from + by, this.to + by);
  }
  scrollBy(pixels) {
    this.scroll = Math.max(0, Math.min(this.scroll + pixels, this.contentHeight - this.lanesHeight() + LANE_GAP));
    if (this.contentHeight < this.lanesHeight()) this.scroll = 0;
    this.redraw();
  }
  // Moves so that a span of time, and a call's lane, are in sight.
  show(from, to, call = -1) {
    const room = Math.max((to - from) * 0.25, this.span * 1e-4, LEAST_SPAN_NS);
    this.setView(from - room, to + room);
    if (call >= 0) this.scrollTo(call);
  }
  scrollTo(call) {
    const lane = this.laneOf(call);
    if (!lane) return;
    if (lane.top < this.scroll || lane.top + lane.height > this.scroll + this.lanesHeight())
      this.scroll = Math.max(0, Math.min(lane.top - this.lanesHeight() / 3, this.contentHeight - this.lanesHeight()));
    this.redraw();
  }
  select(call) {
    this.selected = call;
    if (call >= 0) this.setCursor(this.session.calls.begin[call] + this.session.calls.wait[call] * 0.999);
    this.listeners.select(call);
    this.redraw();
  }
  setCursor(t) {
    this.cursor = Math.min(Math.max(t, 0), this.span);
    this.listeners.cursor(this.cursor);
    this.redraw();
  }

  width() { return this.canvas.clientWidth; }
  height() { return this.canvas.clientHeight; }
  lanesHeight() { return this.height() - AXIS_HEIGHT; }
  labelWidth() { return this.width() < 560 ? 96 : 190; }
  x(t) { return this.labelWidth() + (t - this.from) / (this.to - this.from) * (this.width() - this.labelWidth()); }
  time(x) { return this.from + (x - this.labelWidth()) / (this.width() - this.labelWidth()) * (this.to - this.from); }
  laneOf(call) {
    const key = this.by === 'lock' ? this.session.calls.lock[call] : this.session.calls.thread[call];
    return this.lanes.find(lane => lane.key === key);
  }
  // Where in its lane a call is: the middle of its band, in canvas pixels.
  bandY(lane, call, part) {
    const wanted = lane.bands.findIndex(({band, kind}) =>
      (kind === 'call' || kind === part) && this.findAt(band, call) >= 0);
    return AXIS_HEIGHT + lane.top - this.scroll + Math.max(wanted, 0) * (BAND_HEIGHT + BAND_GAP) + BAND_HEIGHT / 2 + lane.bandsTop;
  }
  findAt(band, call) {
    let low = 0, high = band.calls.length - 1;
    const begin = this.session.calls.begin[call];
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (band.calls[middle] === call) return middle;
      const other = this.session.calls.begin[band.calls[middle]];
      if (other < begin || (other === begin && band.calls[middle] < call)) low = middle + 1; else high = middle - 1;
    }
    return band.calls.indexOf(call);
  }
  firstEndingAfter(band, t) {
    let low = 0, high = band.calls.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.session.endOf(band.calls[middle]) < t) low = middle + 1; else high = middle;
    }
    // The last band of a crowded lane holds calls that overlap, so ends need not be in order there.
    return band === this.crowded ? 0 : low;
  }

  redraw() {
    if (this.pending) return;
    this.pending = requestAnimationFrame(() => {
      this.pending = 0;
      this.draw();
    });
  }

  draw() {
    const began = performance.now();
    const ratio = window.devicePixelRatio || 1;
    const {canvas, context} = this;
    if (canvas.width !== Math.round(this.width() * ratio) || canvas.height !== Math.round(this.height() * ratio)) {
      canvas.width = Math.round(this.width() * ratio);
      canvas.height = Math.round(this.height() * ratio);
    }
    this.colours = readColours(canvas);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = this.colours.surface;
    context.fillRect(0, 0, this.width(), this.height());
    this.drawFindings();
    this.bars = 0;
    for (const lane of this.lanes) {
      const top = AXIS_HEIGHT + lane.top - this.scroll;
      if (top > this.height() || top + lane.height < AXIS_HEIGHT) continue;
      this.drawLane(lane, top);
    }
    this.drawArrows();
    this.drawCursor();
    this.drawLabels();
    this.drawAxis();
    this.drawScrollbar();
    this.lastFrameMs = performance.now() - began;
  }

  drawFindings() {
    const {context, colours} = this;
    for (const finding of this.session.deadlocks) {
      const left = Math.max(this.x(finding.from_ns), this.labelWidth());
      const right = this.x(finding.to_ns === null ? this.span : finding.to_ns);
      context.fillStyle = colours.deadlockShade;
      if (right > left) context.fillRect(left, AXIS_HEIGHT, right - left, this.height());
    }
  }

  drawLane(lane, top) {
    const {context, colours} = this;
    context.fillStyle = colours.rule;
    context.fillRect(this.labelWidth(), top + lane.height - 0.5, this.width(), 0.5);
    this.drawSpans(lane, top + LANE_GAP / 2);
    let y = top + lane.bandsTop;
    lane.bands.forEach(({band, kind}, i) => {
      this.crowded = i === lane.bands.length - 1 && lane.bands.length >= MOST_BANDS ? band : null;
      if (y + BAND_HEIGHT >= AXIS_HEIGHT && y <= this.height()) this.drawBand(band, kind, y);
      y += BAND_HEIGHT + BAND_GAP;
    });
  }

  // What the thread was doing: named boxes above its lock calls, one row for each depth.
  drawSpans(lane, top) {
    const {context, colours} = this;
    const drawn = [];  // by depth: the pixel up to which the row is painted
    context.font = '10px system-ui, sans-serif';
    context.textBaseline = 'middle';
    for (const span of lane.spans) {
      const left = Math.max(this.x(span.begin), this.labelWidth(), drawn[span.depth] || 0);
      const right = Math.min(Math.max(this.x(span.begin + span.duration), left + 1), this.width());
      if (right <= left || this.x(span.begin + span.duration) < this.labelWidth()) continue;
      const y = top + span.depth * (BAND_HEIGHT + BAND_GAP);
      drawn[span.depth] = right;
      context.fillStyle = span.status === 'ok' ? colours.span : colours.deadlockShade;
      context.fillRect(left, y, right - left, BAND_HEIGHT);
      context.fillStyle = span.status === 'ok' ? colours.muted : colours.deadlock;
      context.fillRect(left, y, 1, BAND_HEIGHT);
      if (right - left > 30) context.fillText(fitText(context, span.name, right - left - 6, false), left + 4, y + BAND_HEIGHT / 2);
    }
  }

  // One pass from left to right. `drawn` is the pixel up to which this band is painted, so that among bars thinner than a
  // pixel only the first of each pixel is; a wait that someone caused wins its pixel over a hold.
  drawBand(band, kind, y) {
    const {session, context, colours} = this;
    const {calls} = session;
    const left = this.labelWidth(), right = this.width();
    const scale = (right - left) / (this.to - this.from);
    let drawn = left - 1, drawnWait = left - 1;
    for (let k = this.firstEndingAfter(band, this.from); k < band.calls.length; ++k) {
      const i = band.calls[k];
      const x0 = left + (calls.begin[i] - this.from) * scale;
      if (x0 > right) {
        if (kind !== 'hold') break;  // holds are in order of their acquisition
        if (left + (session.acquiredAt(i) - this.from) * scale > right) break;
      }
      const x1 = x0 + calls.wait[i] * scale;
      const x2 = x1 + calls.hold[i] * scale;
      const waited = calls.blockersFrom[i + 1] > calls.blockersFrom[i] || session.outcome(i) === OUTCOME.waiting;
      if (kind !== 'hold' && waited && Math.max(x1, x0 + 1) > drawnWait) {
        const from = Math.max(x0, left, drawnWait);
        const width = Math.max(Math.min(x1, right) - from, 1);
        context.fillStyle = session.inDeadlock.has(i) ? colours.deadlock : colours.wait;
        context.fillRect(from, y + 3, width, BAND_HEIGHT - 6);
        drawnWait = from + width;
        ++this.bars;
      }
      if (kind !== 'wait' && session.outcome(i) === OUTCOME.acquired && Math.max(x2, x1 + 1) > drawn) {
        const from = Math.max(x1, left, drawn);
        const width = Math.max(Math.min(x2, right) - from, 1);
        const colour = colours.locks[calls.lock[i] % colours.locks.length];
        context.fillStyle = colour;
        if (session.isShared(i)) {
          context.fillRect(from, y, width, BAND_HEIGHT / 2);
          context.globalAlpha = 0.4;
          context.fillRect(from, y + BAND_HEIGHT / 2, width, BAND_HEIGHT / 2);
          context.globalAlpha = 1;
        } else {
          context.fillRect(from, y, width, BAND_HEIGHT);
        }
        drawn = from + width;
        ++this.bars;
      } else if (kind !== 'hold' && session.outcome(i) === OUTCOME.failed && x1 >= drawn && x1 >= left) {
        context.fillStyle = colours.failed;
        context.fillRect(Math.max(x1 - 1, left), y, 2, BAND_HEIGHT);
        drawn = x1 + 1;
        ++this.bars;
      }
      if (i === this.selected || i === this.hovered) this.outline(x0, x2, y);
    }
  }

  outline(x0, x2, y) {
    const {context, colours} = this;
    const left = Math.max(x0, this.labelWidth());
    context.strokeStyle = colours.text;
    context.lineWidth = 1.5;
    context.strokeRect(left - 1, y - 1, Math.max(Math.min(x2, this.width()) - left, 1) + 2, BAND_HEIGHT + 2);
  }

  // From the holder that was waited for, where it let go, to the waiter, where it came through.
  drawArrows() {
    const {session, context, colours} = this;
    for (const call of new Set([this.selected, this.hovered])) {
      if (call < 0 || !this.isShown(call)) continue;
      const lane = this.laneOf(call);
      if (!lane) continue;
      const end = session.acquiredAt(call);
      for (const {thread} of session.blockersOf(call)) {
        const holder = session.holderCall(call, thread);
        if (holder < 0 || !this.isShown(holder)) continue;
        const holderLane = this.laneOf(holder);
        const from = [this.x(Math.min(session.endOf(holder), end)), this.bandY(holderLane, holder, 'hold')];
        const to = [this.x(end), this.bandY(lane, call, 'wait')];
        context.strokeStyle = context.fillStyle = session.inDeadlock.has(call) ? colours.deadlock : colours.text;
        drawArrow(context, from, to);
      }
    }
  }

  drawCursor() {
    const x = this.x(this.cursor);
    if (x < this.labelWidth() || x > this.width()) return;
    this.context.fillStyle = this.colours.accent;
    this.context.fillRect(x - 0.5, AXIS_HEIGHT - 6, 1, this.height());
  }

  drawLabels() {
    const {context, colours} = this;
    const width = this.labelWidth();
    context.fillStyle = colours.surface;
    context.fillRect(0, AXIS_HEIGHT, width - 1, this.height());
    context.fillStyle = colours.rule;
    context.fillRect(width - 1, AXIS_HEIGHT, 1, this.height());
    context.textBaseline = 'middle';
    for (const lane of this.lanes) {
      const y = AXIS_HEIGHT + lane.top - this.scroll + lane.height / 2;
      if (y < AXIS_HEIGHT - 10 || y > this.height() + 10) continue;
      context.fillStyle = colours.text;
      context.font = '12px system-ui, sans-serif';
      context.fillText(fitText(context, lane.title, width - 14, this.by === 'lock'), 6, y);
    }
  }

  drawAxis() {
    const {context, colours} = this;
    context.fillStyle = colours.surface;
    context.fillRect(0, 0, this.width(), AXIS_HEIGHT);
    context.fillStyle = colours.rule;
    context.fillRect(0, AXIS_HEIGHT - 0.5, this.width(), 0.5);
    context.font = '11px system-ui, sans-serif';
    context.textBaseline = 'middle';
    const step = niceStep((this.to - this.from) / Math.max((this.width() - this.labelWidth()) / 110, 1));
    for (let t = Math.ceil(this.from / step) * step; t <= this.to; t += step) {
      const x = this.x(t);
      if (x < this.labelWidth()) continue;
      context.fillStyle = colours.rule;
      context.fillRect(x, AXIS_HEIGHT - 5, 1, 5);
      context.fillStyle = colours.muted;
      context.fillText(axisLabel(t, step), x + 3, AXIS_HEIGHT / 2 - 1);
    }
    for (const finding of this.session.findings) {
      const x = this.x(finding.from_ns);
      if (x < this.labelWidth() || x > this.width()) continue;
      context.fillStyle = finding.severity === 'error' ? colours.deadlock : finding.severity === 'warning' ? colours.wait : colours.muted;
      context.beginPath();
      context.moveTo(x - 4, AXIS_HEIGHT - 9);
      context.lineTo(x + 4, AXIS_HEIGHT - 9);
      context.lineTo(x, AXIS_HEIGHT - 1);
      context.fill();
    }
  }

  drawScrollbar() {
    if (this.contentHeight <= this.lanesHeight()) return;
    const share = this.lanesHeight() / this.contentHeight;
    this.context.fillStyle = this.colours.muted;
    this.context.globalAlpha = 0.5;
    this.context.fillRect(this.width() - 5, AXIS_HEIGHT + this.scroll * share, 4, Math.max(this.lanesHeight() * share, 12));
    this.context.globalAlpha = 1;
  }

  // The call under a point of the canvas; -1: none. Thin bars can be hit from two pixels away.
  callAt(x, y) {
    if (x < this.labelWidth() || y < AXIS_HEIGHT) return -1;
    const inLanes = y - AXIS_HEIGHT + this.scroll;
    const lane = this.lanes.find(other => inLanes >= other.top && inLanes < other.top + other.height);
    if (!lane) return -1;
    const entry = lane.bands[Math.floor((inLanes - lane.top - lane.bandsTop) / (BAND_HEIGHT + BAND_GAP))];
    if (!entry) return -1;
    this.crowded = entry === lane.bands[MOST_BANDS - 1] ? entry.band : null;
    const slack = (this.to - this.from) / (this.width() - this.labelWidth()) * 2;
    const t = this.time(x);
    let best = -1, bestGap = Infinity;
    for (let k = this.firstEndingAfter(entry.band, t - slack); k < entry.band.calls.length; ++k) {
      const i = entry.band.calls[k];
      const begin = entry.kind === 'hold' ? this.session.acquiredAt(i) : this.session.calls.begin[i];
      if (begin > t + slack) break;
      const end = entry.kind === 'wait' ? this.session.acquiredAt(i) : this.session.endOf(i);
      const gap = t < begin ? begin - t : t > end ? t - end : 0;
      if (gap <= slack && gap < bestGap) {
        best = i;
        bestGap = gap;
      }
    }
    return best;
  }
}

function drawArrow(context, from, to) {
  const bend = Math.max(Math.abs(to[1] - from[1]) * 0.25, 12);
  context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(from[0], from[1]);
  context.bezierCurveTo(from[0] + bend, from[1], to[0] + bend, to[1], to[0] + 5, to[1]);
  context.stroke();
  context.beginPath();
  context.moveTo(to[0], to[1]);
  context.lineTo(to[0] + 7, to[1] - 4);
  context.lineTo(to[0] + 7, to[1] + 4);
  context.fill();
}

function readColours(element) {
  const style = getComputedStyle(element);
  const value = name => style.getPropertyValue(name).trim();
  return {
    surface: value('--surface'), text: value('--text'), muted: value('--muted'), rule: value('--rule'), accent: value('--accent'),
    wait: value('--wait'), deadlock: value('--deadlock'), deadlockShade: value('--deadlock-shade'), failed: value('--failed'), span: value('--span'),
    locks: [0, 1, 2, 3, 4, 5].map(i => value(`--lock-${i}`)),
  };
}

// Shortens at the end, or in the middle where the end says more, as it does in a path.
function fitText(context, text, width, keepEnd) {
  if (context.measureText(text).width <= width) return text;
  let low = 0, high = Math.min(text.length, 200);
  const cut = length => keepEnd ? `…${text.slice(text.length - length)}` : `${text.slice(0, length)}…`;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (context.measureText(cut(middle)).width <= width) low = middle; else high = middle - 1;
  }
  return cut(low);
}

function niceStep(ns) {
  const power = Math.pow(10, Math.floor(Math.log10(Math.max(ns, 1))));
  return [1, 2, 5, 10].map(factor => factor * power).find(step => step >= ns);
}

function axisLabel(t, step) {
  if (Math.abs(t) < step / 2) return '0';
  for (const [size, unit] of [[1e9, 's'], [1e6, 'ms'], [1e3, 'µs'], [1, 'ns']]) {
    if (step < size && size > 1) continue;
    return `${(t / size).toLocaleString('en', {maximumFractionDigits: 0})} ${unit}`;
  }
  return '';
}
