// Decodes an otlp export with OpenTelemetry's own generated code, to protobuf and back, and prints the spans. Status 1
// when a line is no ExportTraceServiceRequest or when anything of it is lost on the way.
import {readFileSync} from 'node:fs';
import {isDeepStrictEqual} from 'node:util';
import root from '@opentelemetry/otlp-transformer/build/src/generated/root.js';

const Request = root.opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest;
// OTLP/JSON has ids in hex, where protobuf's JSON mapping has base64.
const toBase64 = id => Buffer.from(id, 'hex').toString('base64');
const recode = (value, change) => {
  if (Array.isArray(value)) return value.map(one => recode(one, change));
  if (value === null || typeof value !== 'object') return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, one]) => [key, ['traceId', 'spanId', 'parentSpanId'].includes(key) ? change(one) : recode(one, change)]));
};

const spans = [];
for (const [number, line] of readFileSync(process.argv[2], 'utf8').split('\n').entries()) {
  if (line === '') continue;
  const written = recode(JSON.parse(line), toBase64);
  const wrong = Request.verify(Request.fromObject(written));
  const decoded = Request.toObject(Request.decode(Request.encode(Request.fromObject(written)).finish()), {longs: String, enums: Number, bytes: String});
  if (wrong || !isDeepStrictEqual(decoded, written)) {
    console.error(`line ${number + 1} is not what was read from it: ${wrong ?? ''}`);
    console.error(JSON.stringify(written).slice(0, 2000));
    console.error(JSON.stringify(decoded).slice(0, 2000));
    process.exit(1);
  }
  for (const {resource, scopeSpans} of recode(decoded, id => Buffer.from(id, 'base64').toString('hex')).resourceSpans)
    for (const {spans: some} of scopeSpans) spans.push(...some.map(span => ({...span, resource})));
}
console.log(JSON.stringify(spans));
