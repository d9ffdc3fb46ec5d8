'use strict';
// The wait-for graph at one instant: threads on a circle, an arrow from each that waits to each that it waits for. Who is
// in a deadlock is red. The same is written below it as sentences.

const MOST_NODES = 24;

function svgElement(name, attributes, text) {
  const element = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function waitEdges(session, t) {
  const {holds, waits} = session.stateAt(t);
  const edges = [];
  for (const i of waits) {
    const waiter = session.calls.thread[i];
    const named = new Set();
    // Who stood in the way at some time of the wait, and holds the lock now.
    for (const {thread} of session.blockersOf(i)) {
      const pid = session.threads[thread][0];
      const holder = holds.find(k => session.calls.lock[k] === session.calls.lock[i] && session.threads[session.calls.thread[k]][0] === pid);
      const target = holder === undefined ? thread : session.calls.thread[holder];
      if ((holder === undefined && session.blockersOf(i).length > 1) || named.has(target)) continue;
      named.add(target);
      edges.push({from: waiter, to: target, lock: session.calls.lock[i], call: i, deadlock: session.inDeadlock.has(i)});
    }
  }
  return edges;
}

function drawWaitGraph(session, t, svg, list) {
  const edges = waitEdges(session, t);
  const red = new Set(edges.filter(edge => edge.deadlock).map(edge => edge.from));
  // Those in a deadlock first, so that a crowd around them does not push them out.
  const nodes = [...new Set([...red, ...edges.flatMap(edge => [edge.from, edge.to])])];
  const shown = new Map(nodes.slice(0, MOST_NODES).map((node, i) => [node, i]));
  svg.replaceChildren();
  list.replaceChildren();
  if (edges.length === 0) {
    svg.setAttribute('viewBox', '0 0 600 40');
    svg.append(svgElement('text', {x: 300, y: 24, class: 'empty', 'text-anchor': 'middle'}, 'Nobody waits at this time.'));
    return edges.length;
  }
  const size = Math.max(240, shown.size * 34), radius = size / 2 - 40, width = size + 320;
  svg.setAttribute('viewBox', `0 0 ${width} ${size}`);
  const arrow = svgElement('marker', {id: 'arrow', viewBox: '0 0 10 10', refX: 9, refY: 5, markerWidth: 7, markerHeight: 7, orient: 'auto'});
  arrow.append(svgElement('path', {d: 'M0 0L10 5L0 10z', fill: 'context-stroke'}));
  const defs = svgElement('defs', {});
  defs.append(arrow);
  svg.append(defs);
  const at = node => {
    const angle = shown.get(node) / shown.size * 2 * Math.PI - Math.PI / 2;
    return [width / 2 + radius * Math.cos(angle), size / 2 + radius * Math.sin(angle)];
  };
  for (const edge of edges) {
    if (!shown.has(edge.from) || !shown.has(edge.to)) continue;
    const [x0, y0] = at(edge.from), [x1, y1] = at(edge.to);
    const length = Math.max(Math.hypot(x1 - x0, y1 - y0), 1);
    const inset = 12 / length;
    // Two that wait for each other need two lines apart.
    const bend = 0.12 * length, mx = (x0 + x1) / 2 - (y1 - y0) / length * bend, my = (y0 + y1) / 2 + (x1 - x0) / length * bend;
    const line = svgElement('path', {
      d: `M${x0 + (mx - x0) * inset * 2} ${y0 + (my - y0) * inset * 2}Q${mx} ${my} ${x1 + (mx - x1) * inset * 2} ${y1 + (my - y1) * inset * 2}`,
      class: edge.deadlock ? 'edge deadlock' : 'edge', 'marker-end': 'url(#arrow)'});
    line.append(svgElement('title', {}, `waits for ${session.lockName(edge.lock)}`));
    svg.append(line);
  }
  for (const node of shown.keys()) {
    const [x, y] = at(node);
    svg.append(svgElement('circle', {cx: x, cy: y, r: 9, class: red.has(node) ? 'node deadlock' : 'node'}));
    const right = x >= width / 2;
    svg.append(svgElement('text', {x: x + (right ? 14 : -14), y: y + 4, 'text-anchor': right ? 'start' : 'end'}, shorten(session.threadNames[node], 30)));
  }
  for (const edge of edges.slice(0, 50)) {
    const item = document.createElement('li');
    item.textContent = `${session.threadNames[edge.from]} waits for ${session.lockName(edge.lock)}, held by ${session.threadNames[edge.to]}`;
    if (edge.deadlock) item.className = 'deadlock';
    list.append(item);
  }
  if (edges.length > 50) {
    const item = document.createElement('li');
    item.textContent = `and ${edges.length - 50} more`;
    list.append(item);
  }
  return edges.length;
}

function shorten(text, most) {
  return text.length <= most ? text : `${text.slice(0, most / 2)}…${text.slice(text.length - most / 2)}`;
}
