// `planloop dev report`, driven in a browser as a reader would: real recordings, real clicks.
//
// Environment: PLANLOOP_BINARY the program, PLANLOOP_SOURCE the sources, CHROMIUM the browser (/usr/bin/chromium).
import assert from 'node:assert/strict';
import {execFileSync, spawnSync} from 'node:child_process';
import {mkdtempSync, rmSync, statSync, writeFileSync} from 'node:fs';
import {tmpdir} from 'node:os';
import {dirname, join} from 'node:path';
import {after, before, describe, test} from 'node:test';
import {pathToFileURL} from 'node:url';
import {chromium} from 'playwright-core';

const binary = process.env.PLANLOOP_BINARY;
const source = process.env.PLANLOOP_SOURCE;
const folder = mkdtempSync(join(tmpdir(), 'planloop-report.'));
const environment = {...process.env, PLANLOOP_HOME: join(folder, 'home')};
let browser;

function record(session, ...command) {
  const done = spawnSync(binary, ['dev', 'run', '--session', session, '--', ...command], {env: environment, cwd: folder, encoding: 'utf8'});
  assert.equal(done.status, 0, done.stderr);
}
function report(session) {
  const file = join(folder, `${session}.html`);
  execFileSync(binary, ['dev', 'report', '--session', session, '-o', file, '--force'], {env: environment});
  return file;
}
function locksJson(session) {
  return JSON.parse(execFileSync(binary, ['dev', 'locks', '--session', session, '--json'], {env: environment, maxBuffer: 1 << 30}));
}

// Opens the page as a file, without a network, and fails on anything the console says.
async function open(file, options = {}) {
  const page = await browser.newPage({viewport: {width: 1280, height: 900}, ...options});
  const complaints = [];
  page.on('console', message => complaints.push(message.text()));
  page.on('pageerror', error => complaints.push(String(error)));
  page.on('request', request => {
    if (!request.url().startsWith('file:')) complaints.push(`request for ${request.url()}`);
  });
  page.on('dialog', dialog => {
    complaints.push(`dialog ${dialog.message()}`);
    dialog.dismiss();
  });
  await page.goto(pathToFileURL(file).href);
  await page.waitForFunction(() => window.planloop, undefined, {timeout: 60000});
  await settled(page);
  return {page, complaints};
}
// The canvas has been drawn as things are now.
const settled = page => page.evaluate(() => new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve))));
// Where the middle of a call's bar is, in the window.
async function placeOf(page, call, part = 'hold') {
  await page.locator('#timeline').scrollIntoViewIfNeeded();
  return page.evaluate(([i, wanted]) => {
    const {timeline, session} = window.planloop;
    const box = timeline.canvas.getBoundingClientRect();
    const from = wanted === 'wait' ? session.calls.begin[i] : session.acquiredAt(i);
    const to = wanted === 'wait' ? session.acquiredAt(i) : session.endOf(i);
    return {x: box.x + timeline.x((from + to) / 2), y: box.y + timeline.bandY(timeline.laneOf(i), i, wanted)};
  }, [call, part]);
}
// Python: takes and releases locks as the lines of its argument say.
const busy = `
import fcntl, os, random, sys
calls, processes, locks = int(sys.argv[1]), int(sys.argv[2]), 6
for number in range(processes):
    if os.fork() == 0:
        dice = random.Random(number)
        files = [open(f'busy-{i}.lock', 'w') for i in range(locks)]
        for _ in range(calls):
            file = files[min(int(dice.expovariate(.7)), locks - 1)]
            fcntl.flock(file, fcntl.LOCK_EX if dice.random() < .6 else fcntl.LOCK_SH)
            fcntl.flock(file, fcntl.LOCK_UN)
        os._exit(0)
for _ in range(processes):
    os.wait()
`;

before(async () => {
  browser = await chromium.launch({executablePath: process.env.CHROMIUM || '/usr/bin/chromium', args: ['--no-sandbox']});
});
after(async () => {
  await browser.close();
  rmSync(folder, {recursive: true});
});

describe('a deadlock', () => {
  let file;
  before(() => {
    record('ring', join(source, 'cli/demo/programs'), folder);
    file = report('ring');
  });

  test('is told at the top, in words that need no script', async () => {
    const page = await browser.newPage({javaScriptEnabled: false});
    await page.goto(pathToFileURL(file).href);
    assert.match(await page.locator('#verdict').innerText(), /1 deadlock/);
    const finding = page.locator('.finding').first();
    assert.match(await finding.innerText(), /ring-0\.lock/);
    assert.equal(await finding.locator('li').count(), 3);
    await page.close();
  });

  test('is shown by a click: three red arrows at the cursor, its participants in sight', async () => {
    const {page, complaints} = await open(file);
    await page.locator('[data-goto=finding]').first().click();
    await settled(page);
    assert.equal(await page.locator('#wait-graph .edge.deadlock').count(), 3);
    assert.equal(await page.locator('#wait-graph-list li.deadlock').count(), 3);
    const seen = await page.evaluate(() => {
      const {timeline, session} = window.planloop;
      return [...session.inDeadlock].every(i => session.endOf(i) >= timeline.from && session.calls.begin[i] <= timeline.to);
    });
    assert.equal(seen, true);
    assert.match(await page.locator('#details-list').innerText(), /ring-\d\.lock/);
    assert.deepEqual(complaints, []);
    await page.close();
  });

  test('shows the exact times of the call under the pointer', async () => {
    const {page} = await open(file);
    const call = await page.evaluate(() => [...window.planloop.session.inDeadlock][0]);
    const {x, y} = await placeOf(page, call, 'wait');
    await page.mouse.move(x, y);
    const tip = page.locator('#tooltip');
    await tip.waitFor({state: 'visible'});
    const [entry, wait] = (await tip.getAttribute('data-call')).split(' ');
    const line = locksJson('ring').timeline.find(one => one.lock_entry_id === entry && one.event !== 'lock_requested');
    // Two readings of one recording may differ in what a tick is worth, by far less than a millionth.
    assert.ok(Math.abs(Number(wait) - line.wait_ns) <= line.wait_ns / 1e6, `${wait} and ${line.wait_ns}`);
    assert.match(await tip.innerText(), new RegExp(`${line.process} ${line.pid}`));
    assert.match(await tip.innerText(), /ring-\d\.lock/);
    await page.close();
  });

  test('is reached with keys alone, and said to a screen reader', async () => {
    const {page} = await open(file);
    await page.locator('#timeline').focus();
    await page.keyboard.press('n');
    const first = await page.locator('#announce').innerText();
    await page.keyboard.press('n');
    const second = await page.locator('#announce').innerText();
    assert.notEqual(first, second);
    const before = await page.evaluate(() => window.planloop.timeline.to - window.planloop.timeline.from);
    await page.keyboard.press('+');
    const zoomed = await page.evaluate(() => window.planloop.timeline.to - window.planloop.timeline.from);
    assert.ok(zoomed < before);
    const waiter = await page.evaluate(() => {
      const {session, timeline} = window.planloop;
      timeline.select([...session.inDeadlock][0]);
      return timeline.selected;
    });
    await page.keyboard.press('h');
    const holder = await page.evaluate(() => window.planloop.timeline.selected);
    assert.notEqual(holder, waiter);
    await page.close();
  });

  test('reads on a phone and in the dark', async () => {
    const {page, complaints} = await open(file, {viewport: {width: 390, height: 800}, colorScheme: 'dark', hasTouch: true});
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert.ok(wide <= 390, `the page is ${wide} pixels wide`);
    const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.ok(background.match(/\d+/g).every(part => Number(part) < 60), background);
    assert.deepEqual(complaints, []);
    await page.close();
  });
});

describe('filters, zoom and tables', () => {
  let file, json;
  before(() => {
    record('busy', 'python3', '-c', busy, '300', '4');
    file = report('busy');
    json = locksJson('busy');
  });

  test('hold every lock call that dev locks counts, with the same sums', async () => {
    const {page} = await open(file);
    const drawn = await page.evaluate(() => {
      const {session} = window.planloop;
      const sums = {};
      for (let i = 0; i < session.calls.count; ++i) {
        const id = session.locks[session.calls.lock[i]].id;
        sums[id] = sums[id] || {acquisitions: 0, contended: 0, wait: 0, hold: 0};
        sums[id].acquisitions += 1;
        sums[id].contended += session.blockersOf(i).length > 0 ? 1 : 0;
        sums[id].wait += session.calls.wait[i];
        sums[id].hold += session.calls.hold[i];
      }
      return sums;
    });
    for (const lock of json.locks) {
      const {acquisitions, contended, wait, hold} = drawn[lock.id];
      assert.deepEqual([acquisitions, contended, wait], [lock.acquisitions, lock.contended, lock.wait_ns.total]);
      // Each end may be off by the nanosecond to which ticks are rounded.
      assert.ok(Math.abs(hold - lock.hold_ns.total) <= acquisitions, `${hold} and ${lock.hold_ns.total}`);
    }
    await page.close();
  });

  test('narrow the timeline to one lock, one process, one text', async () => {
    const {page} = await open(file);
    const shown = () => page.evaluate(() => {
      const {timeline, session} = window.planloop;
      let count = 0;
      for (let i = 0; i < session.calls.count; ++i) count += timeline.isShown(i) ? 1 : 0;
      return count;
    });
    const all = await shown();
    assert.equal(all, json.locks.reduce((sum, lock) => sum + lock.acquisitions + lock.failed, 0));
    const lock = json.locks[1];
    await page.locator('#filter-lock').selectOption({label: lock.path});
    assert.equal(await shown(), lock.acquisitions + lock.failed);
    await page.locator('#filter-reset').click();
    assert.equal(await shown(), all);
    await page.locator('#filter-text').fill(lock.path.split('/').pop());
    assert.equal(await shown(), lock.acquisitions + lock.failed);
    await page.locator('#filter-reset').click();
    const {trace_id: trace} = json.timeline[0];
    await page.locator('#filter-text').fill(trace);
    assert.equal(await shown(), json.timeline.filter(one => one.trace_id === trace && one.event === 'lock_requested').length);
    await page.locator('#filter-reset').click();
    await page.locator('#lanes-by').selectOption('lock');
    assert.equal(await page.evaluate(() => window.planloop.timeline.lanes.length), json.locks.length);
    await page.close();
  });

  test('zoom with the wheel around the pointer, pan by dragging, fit again', async () => {
    const {page} = await open(file);
    await page.locator('#timeline').scrollIntoViewIfNeeded();
    const box = await page.locator('#timeline').boundingBox();
    const view = () => page.evaluate(() => ({from: window.planloop.timeline.from, to: window.planloop.timeline.to}));
    const whole = await view();
    await page.mouse.move(box.x + 700, box.y + 100);
    const under = await page.evaluate(x => window.planloop.timeline.time(x), 700);
    for (let i = 0; i < 5; ++i) await page.mouse.wheel(0, -200);
    await settled(page);
    const near = await view();
    assert.ok(near.to - near.from < (whole.to - whole.from) / 4);
    const still = await page.evaluate(x => window.planloop.timeline.time(x), 700);
    assert.ok(Math.abs(still - under) < (near.to - near.from) / 50);
    await page.mouse.down();
    await page.mouse.move(box.x + 500, box.y + 100, {steps: 4});
    await page.mouse.up();
    assert.ok((await view()).from > near.from);
    await page.locator('#zoom-fit').click();
    assert.deepEqual(await view(), whole);
    await page.close();
  });

  test('pinch with two fingers: what is between them stays there, and one finger moves on', async () => {
    const {page, complaints} = await open(file, {viewport: {width: 390, height: 800}, hasTouch: true, isMobile: true});
    await page.locator('#timeline').scrollIntoViewIfNeeded();
    const box = await page.locator('#timeline').boundingBox();
    const view = () => page.evaluate(() => ({from: window.planloop.timeline.from, to: window.planloop.timeline.to}));
    const timeAt = x => page.evaluate(at => window.planloop.timeline.time(at), x);
    const fingers = await page.context().newCDPSession(page);
    const touch = (type, ...xs) => fingers.send('Input.dispatchTouchEvent', {
      type, touchPoints: xs.map((x, id) => ({x: box.x + x, y: box.y + 100, id})),
    });
    const whole = await view();
    const middle = await timeAt(240);
    await touch('touchStart', 220);
    await touch('touchStart', 220, 260);
    for (let apart = 20; apart <= 80; apart += 10) await touch('touchMove', 240 - apart, 240 + apart);
    await settled(page);
    const near = await view();
    const zoomed = (whole.to - whole.from) / (near.to - near.from);
    assert.ok(zoomed > 3 && zoomed < 5, `zoomed in ${zoomed} times by fingers that went four times as far apart`);
    assert.ok(Math.abs(await timeAt(240) - middle) < (near.to - near.from) / 20);
    await fingers.send('Input.dispatchTouchEvent', {type: 'touchEnd', touchPoints: [{x: box.x + 320, y: box.y + 100, id: 1}]});
    assert.equal(await page.evaluate(() => window.planloop.timeline.pointers.size), 1);
    await touch('touchMove', 120);
    await settled(page);
    const moved = await view();
    assert.ok(moved.from > near.from, 'the finger that is left pans');
    assert.ok(Math.abs((moved.to - moved.from) / (near.to - near.from) - 1) < 1e-6);
    await touch('touchEnd');
    assert.equal(await page.evaluate(() => window.planloop.timeline.pointers.size), 0);
    assert.deepEqual(complaints, []);
    await page.close();
  });

  test('sort by any column and search', async () => {
    const {page} = await open(file);
    const table = page.locator('#locks');
    await table.getByRole('button', {name: 'Acquired'}).click();
    const column = await table.locator('tbody td:nth-child(3)').allInnerTexts();
    assert.deepEqual(column.map(Number), column.map(Number).sort((a, b) => b - a));
    await table.locator('input[type=search]').fill(json.locks[0].path);
    assert.equal(await table.locator('tbody tr:visible').count(), 1);
    await page.close();
  });
});

describe('culprits and operations', () => {
  let file, json;
  const log = () => JSON.parse(execFileSync(binary, ['dev', 'trace', errorId(), '--session', 'work', '--json'], {env: environment}));
  const errorId = () => JSON.parse(execFileSync(binary, ['dev', 'errors', 'list', '--session', 'work', '--json'], {env: environment}))[0].trace_id;
  before(() => {
    const program = `
planloop sessions create --id work
flock held sleep 0.2 & flock held sleep 0.2 & flock held true &
for i in 1 2 3; do printf '{"session":"work","add_tasks":[{"title":"%s"}]}' $i | planloop update --session work & done
printf '{"session":"work","tasks":[{"id":99,"status":"DONE"}]}' | planloop update --session work
wait
`;
    environment.PATH = `${dirname(binary)}:${process.env.PATH}`;
    record('work', 'sh', '-c', program);
    file = report('work');
    json = locksJson('work');
  });

  test('have tables with what dev locks says', async () => {
    const {page, complaints} = await open(file);
    assert.ok(json.blame.processes.length >= 2);
    for (const [id, culprits, name] of [
      ['culprit-processes', json.blame.processes, one => `${one.process} ${one.pid}`],
      ['culprit-operations', json.blame.operations, one => one.operation],
    ]) {
      const rows = await page.locator(`#${id} tbody tr`).evaluateAll(all => all.map(row => [...row.cells].map(cell => cell.dataset.value ?? cell.textContent)));
      assert.deepEqual(rows.map(([who, caused, , waits]) => [who, Number(caused), Number(waits)]),
        culprits.map(one => [name(one), one.caused_ns, one.waits]));
      const shares = rows.map(([, , share]) => Number(share));
      assert.ok(shares.every((share, i) => Math.abs(share - 100 * culprits[i].caused_ns / json.blame.waited_ns) < 0.01));
    }
    await page.locator('#culprit-processes').getByRole('button', {name: 'Process'}).click();
    const names = await page.locator('#culprit-processes tbody td:first-child').allInnerTexts();
    assert.deepEqual(names, [...names].sort().reverse());
    assert.deepEqual(complaints, []);
    await page.close();
  });

  test('show spans above the lock calls that they made, and lead from an error to them', async () => {
    const {page, complaints} = await open(file);
    const {trace} = log();
    const drawn = await page.evaluate(() => {
      const {session} = window.planloop;
      return Array.from({length: session.calls.count}, (_, i) => [session.texts[session.calls.trace[i]], session.spansAround(i).map(({name}) => name)]);
    });
    assert.equal(drawn.filter(([, around]) => around.includes('update')).length, 4);
    assert.match(await page.locator('#errors').innerText(), /there is no task 99/);
    await page.locator('#errors [data-goto=trace]').click();
    assert.equal(await page.locator('#filter-text').inputValue(), trace.trace_id);
    assert.match(await page.locator('#filter-count').innerText(), /^1 of /);
    const row = page.locator('#operations tbody tr', {hasText: trace.trace_id});
    assert.match(await row.innerText(), new RegExp(`error[\\s\\S]*${trace.spans.length}[\\s\\S]*planloop update`));
    await page.locator('#timeline').focus();
    await page.keyboard.press('n');
    assert.match(await page.locator('#details-list').innerText(), /inside\s+update/);
    assert.deepEqual(complaints, []);
    await page.close();
  });
});

describe('what programs call themselves', () => {
  const names = ['"><script>document.title="broken"</script>', "'-alert(1)-'", '</script><img src=x onerror=alert(1)>', '<!--', 'line\nbreak\ttab',
    '${alert(1)}', '\u202Eevil', 'x'.repeat(250)];

  test('stays text, whatever it is', async () => {
    const program = `
import fcntl, os, sys
deep = '/'.join(['d' * 200] * 18)
os.makedirs(deep)
os.chdir(deep)
for name in [os.fsencode(n) for n in sys.argv[1:]] + [b'bytes-\\xff\\xfe']:
    with open(name.replace(b'/', b'|'), 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
`;
    const script = join(folder, 'hostile.py');
    writeFileSync(script, program);
    record('hostile', 'python3', script, ...names);
    const file = report('hostile');
    const {page, complaints} = await open(file);
    assert.deepEqual(complaints, []);
    assert.equal(await page.title(), 'Locks of session hostile');
    assert.equal(await page.locator('img, iframe, object').count(), 0);
    assert.equal(await page.locator('script').count(), 2);
    assert.equal(await page.locator('#locks tbody tr').count(), names.length + 1);
    const text = await page.locator('#locks').innerText();
    assert.ok(text.includes('"><script>document.title="broken"<|script>'));
    assert.ok(text.includes('bytes-\\xff\\xfe'));
    assert.ok(text.includes('line\\nbreak\\ttab'));
    assert.ok(!text.includes('\u202E'));
    for (let i = 0; i < names.length + 1; ++i) await page.locator('#locks tbody button').nth(i).click();
    assert.deepEqual(complaints, []);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 1280);
    await page.close();
  });
});

describe('size', () => {
  test('nothing recorded is a friendly page', async () => {
    record('nothing', 'true');
    const {page, complaints} = await open(report('nothing'));
    assert.match(await page.locator('header').innerText(), /no lock call was recorded/);
    assert.match(await page.locator('#wait-graph').innerHTML(), /Nobody waits/);
    assert.deepEqual(complaints, []);
    await page.close();
  });

  test('ten events', async () => {
    record('ten', 'sh', '-c', 'flock a true; flock b true; flock a true');
    const {page, complaints} = await open(report('ten'));
    assert.equal(await page.evaluate(() => window.planloop.session.calls.count), 3);
    assert.deepEqual(complaints, []);
    await page.close();
  });

  test('a million events fit 30 MB and stay usable', async () => {
    record('million', 'python3', '-c', busy, '42000', '8');
    const file = report('million');
    assert.ok(statSync(file).size <= 30e6, `${statSync(file).size} bytes`);
    const {page, complaints} = await open(file);
    assert.equal(await page.evaluate(() => window.planloop.session.calls.count), 336000);
    // What a frame costs is bounded by pixels, not by calls: no bar is thinner than a pixel of its band.
    const bars = await page.evaluate(() => {
      window.planloop.timeline.draw();
      const {timeline} = window.planloop;
      return timeline.bars / timeline.lanes.reduce((sum, lane) => sum + lane.bands.length, 0) / timeline.width();
    });
    assert.ok(bars <= 3, `${bars} bars for each pixel of a band`);
    const frame = await page.evaluate(() => window.planloop.timeline.lastFrameMs);
    console.log(`# a frame of a million events took ${frame.toFixed(1)} ms, the file is ${(statSync(file).size / 1e6).toFixed(1)} MB`);
    await page.locator('#timeline').focus();
    for (let i = 0; i < 12; ++i) await page.keyboard.press('+');
    await settled(page);
    await page.locator('#filter-text').fill('busy-5');
    await settled(page);
    assert.deepEqual(complaints, []);
    await page.close();
  });
});
