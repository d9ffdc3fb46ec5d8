// Checks a speedscope export against the schema that speedscope publishes. Status 1 and what is wrong when it does not fit.
import {readFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import Ajv from 'ajv';

const require = createRequire(import.meta.url);
const schema = JSON.parse(readFileSync(require.resolve('speedscope/dist/release/file-format-schema.json')));
const validate = new Ajv.default({strict: false}).compile(schema);
const profile = JSON.parse(readFileSync(process.argv[2]));
if (!validate(profile)) {
  console.error(JSON.stringify(validate.errors, null, 1));
  process.exit(1);
}
