'use strict';
// How long waits and holds were: a bar for each of 1, 2, 5, 10 … of time.

function histogramOf(values) {
  const edges = [];
  for (let power = 1; power <= 1e13; power *= 10) edges.push(power, power * 2, power * 5);
  const counts = new Array(edges.length).fill(0);
  for (const value of values) {
    let low = 0, high = edges.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (edges[middle] <= value) low = middle; else high = middle - 1;
    }
    ++counts[low];
  }
  const first = counts.findIndex(count => count > 0);
  if (first < 0) return [];
  let last = counts.length - 1;
  while (counts[last] === 0) --last;
  return counts.slice(first, last + 1).map((count, i) => ({from: edges[first + i], to: edges[first + i + 1], count}));
}

function drawHistogram(figure, values) {
  const bars = histogramOf(values);
  const svg = figure.querySelector('svg');
  svg.replaceChildren();
  const width = 600, height = 150, base = height - 22;
  svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
  if (bars.length === 0) {
    svg.append(svgElement('text', {x: width / 2, y: height / 2, 'text-anchor': 'middle', class: 'empty'}, 'None was recorded.'));
    return;
  }
  const most = Math.max(...bars.map(bar => bar.count));
  const step = width / bars.length;
  const labelEvery = Math.ceil(56 / step);
  bars.forEach((bar, i) => {
    // A single long wait among thousands must stay visible: heights grow with the logarithm.
    const tall = bar.count === 0 ? 0 : Math.max(Math.log1p(bar.count) / Math.log1p(most) * (base - 14), 2);
    const rect = svgElement('rect', {x: i * step + 1, y: base - tall, width: Math.max(step - 2, 1), height: tall, class: figure.dataset.kind});
    rect.append(svgElement('title', {}, `${bar.count.toLocaleString('en')} from ${formatDuration(bar.from)} to ${formatDuration(bar.to)}`));
    svg.append(rect);
    if (bar.count > 0 && step > 26)
      svg.append(svgElement('text', {x: (i + 0.5) * step, y: base - tall - 3, 'text-anchor': 'middle', class: 'count'}, shortCount(bar.count)));
    if (i % labelEvery === 0)
      svg.append(svgElement('text', {x: i * step + 1, y: height - 6, class: 'tick'}, formatDuration(bar.from)));
  });
  svg.setAttribute('aria-label', bars.filter(bar => bar.count > 0).map(bar => `${bar.count} from ${formatDuration(bar.from)}`).join(', '));
}

function shortCount(count) {
  return count < 10000 ? String(count) : count < 1e6 ? `${Math.round(count / 1e3)}k` : `${(count / 1e6).toPrecision(2)}M`;
}
