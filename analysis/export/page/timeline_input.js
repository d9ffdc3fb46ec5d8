'use strict';
// Mouse, touch and keys of the timeline. The wheel zooms, with Shift it moves in time, dragging moves both ways, two
// fingers pinch. While the timeline has the focus all of it works by keys too.

Timeline.prototype.listen = function () {
  const {canvas} = this;
  canvas.addEventListener('wheel', event => this.onWheel(event), {passive: false});
  canvas.addEventListener('pointerdown', event => this.onPointerDown(event));
  canvas.addEventListener('pointermove', event => this.onPointerMove(event));
  for (const name of ['pointerup', 'pointercancel']) canvas.addEventListener(name, event => this.onPointerUp(event, name));
  canvas.addEventListener('pointerleave', () => this.hover(-1, 0, 0));
  canvas.addEventListener('dblclick', event => this.zoom(0.25, this.time(event.offsetX)));
  canvas.addEventListener('keydown', event => {
    if (this.onKey(event)) event.preventDefault();
  });
};

Timeline.prototype.hover = function (call, x, y) {
  this.listeners.hover(call, x, y);
  if (call === this.hovered) return;
  this.hovered = call;
  this.redraw();
};

Timeline.prototype.onWheel = function (event) {
  event.preventDefault();
  const lines = event.deltaMode === 1 ? 16 : 1;
  if (event.offsetX < this.labelWidth()) {
    this.scrollBy(event.deltaY * lines);
  } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
    this.pan((event.deltaX || event.deltaY) * lines / this.width());
  } else {
    this.zoom(Math.exp(event.deltaY * lines * 0.002), this.time(event.offsetX));
  }
};

Timeline.prototype.onPointerDown = function (event) {
  this.canvas.setPointerCapture(event.pointerId);
  this.pointers.set(event.pointerId, {x: event.offsetX, y: event.offsetY});
  this.moved = 0;
};

Timeline.prototype.onPointerMove = function (event) {
  const known = this.pointers.get(event.pointerId);
  if (!known) {
    this.hover(this.callAt(event.offsetX, event.offsetY), event.offsetX, event.offsetY);
    return;
  }
  const dx = event.offsetX - known.x, dy = event.offsetY - known.y;
  this.moved += Math.abs(dx) + Math.abs(dy);
  if (this.pointers.size === 1) {
    if (this.moved > 4) {
      this.pan(-dx / (this.width() - this.labelWidth()));
      this.scrollBy(-dy);
    }
  } else {
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
    const before = Math.abs(known.x - other.x), after = Math.abs(event.offsetX - other.x);
    if (before > 5 && after > 5) this.zoom(before / after, this.time((event.offsetX + other.x) / 2));
  }
  known.x = event.offsetX;
  known.y = event.offsetY;
};

Timeline.prototype.onPointerUp = function (event, name) {
  const wasClick = this.pointers.delete(event.pointerId) && this.pointers.size === 0 && this.moved <= 4;
  if (!wasClick || name !== 'pointerup' || event.offsetX < this.labelWidth()) return;
  const call = this.callAt(event.offsetX, event.offsetY);
  if (call >= 0) this.select(call);
  this.setCursor(this.time(event.offsetX));
};

Timeline.prototype.onKey = function (event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const keys = {
    ArrowLeft: () => this.pan(-0.1),
    ArrowRight: () => this.pan(0.1),
    ArrowUp: () => this.scrollBy(-40),
    ArrowDown: () => this.scrollBy(40),
    '+': () => this.zoom(0.5, this.zoomCentre()),
    '=': () => this.zoom(0.5, this.zoomCentre()),
    '-': () => this.zoom(2, this.zoomCentre()),
    Home: () => this.fit(),
    '0': () => this.fit(),
    n: () => this.step(1),
    p: () => this.step(-1),
    h: () => this.toHolder(),
    Escape: () => this.select(-1),
  };
  const action = keys[event.key];
  if (action) action();
  return Boolean(action);
};

// Keys zoom in on the cursor while it is in sight.
Timeline.prototype.zoomCentre = function () {
  return this.cursor >= this.from && this.cursor <= this.to ? this.cursor : undefined;
};

// The next call in time, or the one before.
Timeline.prototype.step = function (direction) {
  const {calls} = this.session;
  let i = this.selected < 0 ? (direction > 0 ? -1 : calls.count) : this.selected;
  do i += direction; while (i >= 0 && i < calls.count && !this.isShown(i));
  if (i < 0 || i >= calls.count) return;
  this.select(i);
  if (calls.begin[i] < this.from || this.session.endOf(i) > this.to) this.show(calls.begin[i], this.session.endOf(i));
  this.scrollTo(i);
};

// From a wait to the hold that it waited for.
Timeline.prototype.toHolder = function () {
  if (this.selected < 0) return;
  for (const {thread} of this.session.blockersOf(this.selected)) {
    const holder = this.session.holderCall(this.selected, thread);
    if (holder < 0) continue;
    this.select(holder);
    this.scrollTo(holder);
    return;
  }
};
