// Loads a csv or jsonl export as a user of DuckDB would, with no schema given, and prints what DuckDB made of it:
//   {"types":{column:type},"rows":n,"locks":[{"lock","rows","wait_ns","hold_ns"}],"all":[...]}
import {DuckDBInstance} from '@duckdb/node-api';

const file = process.argv[2];
const connection = await (await DuckDBInstance.create(':memory:')).connect();
const select = async sql => (await connection.runAndReadAll(sql)).getRowObjectsJson();
const source = `'${file.replaceAll("'", "''")}'`;
await connection.run(`create table calls as select * from ${file.endsWith('.csv') ? 'read_csv' : 'read_json'}(${source})`);
const types = Object.fromEntries((await select('describe calls')).map(row => [row.column_name, row.column_type]));
const rows = Number((await select('select count(*) as n from calls'))[0].n);
const locks = rows === 0 ? [] : await select('select lock, count(*) as rows, sum(wait_ns) as wait_ns, sum(hold_ns) as hold_ns from calls group by lock order by lock');
const all = rows === 0 ? [] : await select('select lock_entry_id, path, process, command_line, contended, acquired_unix_ns from calls order by acquired_unix_ns');
console.log(JSON.stringify({types, rows, locks, all}));
