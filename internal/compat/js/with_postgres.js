// postgres.js: every statement is prepared, with Flush between Parse and Bind, and queries are pipelined.
"use strict";

const fs = require("node:fs");
const path = require("node:path");
const { Readable } = require("node:stream");
const { pipeline: flow } = require("node:stream/promises");
const postgres = require("postgres");
const { play, at, ca, big, digest, until, manyErrors, show, settings, asleep, terminate } = require("./play.js");

const version = JSON.parse(fs.readFileSync(path.join(path.dirname(require.resolve("postgres")), "..", "..", "package.json"))).version;

// opened makes n instances of one connection each, hands them over, and ends them when the function has returned.
async function opened(n, use, more = {}) {
  const all = Array.from({ length: n }, () => postgres({ ...at, max: 1, onnotice: () => {}, fetch_types: true, ...more }));
  try {
    return await use(...all);
  } finally {
    await Promise.all(all.map((sql) => sql.end({ timeout: 5 })));
  }
}

const rows = async (sql, query, ...params) => [...await sql.unsafe(query, params)];

// prepared statements are what the driver uses on its own; unsafe texts are prepared on request.
const named = async (sql, query, ...params) => [...await sql.unsafe(query, params, { prepare: true })];

// state is the SQLSTATE of a statement.
async function state(sql, query, ...params) {
  try {
    await sql.unsafe(query, params, { prepare: params.length > 0 });
  } catch (error) {
    return error.code || String(error);
  }
  return "none";
}

async function refusal(more) {
  try {
    await opened(1, (sql) => sql`select 1`, more);
  } catch (error) {
    return error.code || String(error);
  }
  return "none";
}

async function applicationName() {
  const query = `select current_setting('application_name') as name, current_setting('work_mem') as memory, current_setting('search_path') as path`;
  const one = { connection: { application_name: "ä shop's till", work_mem: "5MB", search_path: "pg_catalog, public" } };
  return opened(1, (other) => opened(1, async (sql) => {
    const got = [];
    for (let i = 0; i < 3; i++) {
      got.push(await named(sql, query), await named(other, query));
    }
    return got;
  }, one), { connection: { application_name: "other" } });
}

async function types(sql) {
  const got = [
    await sql`select ${-7}::int2 as a, ${"-9223372036854775808"}::int8 as b, ${1 / 3}::float8 as c, ${"12345678901234567890.123456789"}::numeric as d`,
    await sql`select ${"it's \"quoted\" \\ and % $1 ?"}::text as a, ${true}::bool as b, ${Buffer.from([0, 1, 92, 39, 255])}::bytea as c`,
    await sql`select ${new Date(Date.UTC(2024, 1, 29, 23, 59, 59, 999))}::timestamptz as a, ${"00112233-4455-6677-8899-aabbccddeeff"}::uuid as b`,
    await sql`select ${sql.json({ a: [1, null, "ü"] })}::jsonb as a, ${sql.array([1, 2, 3])}::int4[] as b, ${sql.array(["a,b", 'c"d', ""])}::text[] as c`,
    await sql`select ${"happy"}::mood as a, ${"192.168.0.1/24"}::inet as b, ${"[1,10)"}::int4range as c`,
  ];
  return got.map((result) => [[...result], result.columns.map((column) => column.name)]);
}

async function prepared(sql) {
  const got = [];
  for (let i = 0; i < 25; i++) {
    got.push([...await sql`select ${i}::int * 2 as twice`]);
  }
  for (let i = 0; i < 5; i++) {
    got.push(await named(sql, `select id, a, ${i} as i from wide where id = $1`, i));
  }
  const { columns } = await sql`select * from wide where id = ${1}`.describe();
  got.push(columns.map((column) => column.name), await state(sql, "select * from nowhere where id = $1", 1), await state(sql, "select * from nowhere where id = $1", 1));
  const plain = await opened(1, async (unprepared) => {
    const all = [];
    for (let i = 0; i < 5; i++) {
      all.push([...await unprepared`select ${i}::int * 3 as thrice`]);
    }
    return all;
  }, { prepare: false });
  return [...got, plain];
}

// equalNames has clients that use named and unnamed statements, one after the other and all at the same time.
async function equalNames(...all) {
  const got = [];
  const ask = async (i, round) => [...await all[i].unsafe(`select '${i}' as name, $1::int + ${i * 100} as n`, [round], { prepare: i % 2 === 0 })];
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < all.length; i++) {
      got.push(await ask(i, round));
    }
    got.push(...await Promise.all(all.map((_, i) => ask(i, round))));
  }
  return got;
}

// pipeline: the queries go out without waiting for answers.
async function pipeline(sql) {
  const answers = [];
  for (let i = 0; i < 20; i++) {
    answers.push(sql`insert into item (id, name) values (${100 + i}, ${`item ${i}`})`);
    answers.push(sql`select count(*), max(name) from item where id >= ${100}`);
  }
  const got = (await Promise.all(answers)).map((result) => [result.command, result.count, [...result]]);
  await sql.begin((tx) => [tx`select ${1}::int as one`, tx`insert into item (id, name) values (150, 'x')`, tx`select ${2}::int as two`]);
  return [...got, [...await sql`select count(*) from item where id = 150`]];
}

async function failedPipeline(sql) {
  const answers = await Promise.allSettled([sql`select ${1}::int as one`, sql`select ${1}::int / 0`, sql`selec`, sql`select ${4}::int as four`]);
  const got = answers.map((answer) => (answer.status === "fulfilled" ? [...answer.value] : answer.reason.code));
  const block = await state({ unsafe: () => sql.begin((tx) => [tx`insert into item (id, name) values (200, 'x')`, tx`select ${1}::int / 0`, tx`select 3`]) });
  return [...got, block, [...await sql`select count(*) from item where id >= ${200}`]];
}

async function transaction(sql) {
  const got = [];
  for (const [i, commit] of [true, false, true].entries()) {
    await sql.begin(async (tx) => {
      for (let j = 0; j < 3; j++) {
        await tx`insert into parent values (${10 * i + j})`;
      }
      got.push([...await tx`select count(*) from parent`]);
      if (!commit) {
        throw new Error("roll back");
      }
    }).catch((error) => got.push(error.message));
  }
  return [...got, [...await sql`select * from parent order by 1`]];
}

async function savepoints(sql) {
  const got = [];
  await sql.begin(async (tx) => {
    for (let i = 0; i < 4; i++) {
      await tx.savepoint((nested) => nested`insert into parent values (${100 + (i % 2)})`).catch((error) => got.push(error.code));
    }
  });
  return [...got, [...await sql`select * from parent where id >= 100 order by 1`]];
}

async function readOnly(one, other) {
  const write = "insert into parent values ($1)";
  const got = [];
  await one.begin("isolation level serializable read only deferrable", async (tx) => {
    got.push([...await tx`select current_setting('transaction_isolation')`]);
    await tx`insert into parent values (200)`;
  }).catch((error) => got.push(error.code));
  await one`set session characteristics as transaction read only`;
  return [...got, await state(one, write, 201), await state(other, write, 202), await state(one, write, 203)];
}

async function twoPhase(one, other) {
  await one.begin(async (tx) => {
    await tx`insert into parent values (300)`;
    await tx.prepare(at.database);
  });
  const got = [[...await other`select count(*) from parent where id = 300`]];
  await other.unsafe(`commit prepared '${at.database}'`);
  return [...got, [...await one`select count(*) from parent where id = 300`]];
}

async function errors(sql) {
  const got = [];
  for (const query of manyErrors) {
    got.push(await state(sql, query), [...await sql`select ${1}::int as one`]);
  }
  got.push(await state(sql, "select $1::text::int", "no number"), await state(sql, "select $1::int from nowhere", 1));
  try {
    await sql`select fail('22000')`;
  } catch (error) {
    got.push([error.severity, error.message, error.detail, error.hint, error.where, error.routine]);
  }
  return got;
}

async function failedTransaction(sql) {
  const got = [];
  await sql.begin(async (tx) => {
    got.push(await state(tx, "select 1/0"), await state(tx, "select $1::int", 1), await state(tx, "select 1"));
  }).catch((error) => got.push(error.code));
  return [...got, [...await sql`select ${1}::int as one`]];
}

async function deferredConstraint(sql) {
  const got = [];
  await sql.begin((tx) => tx`insert into child values (${1}, ${99})`).catch((error) => got.push(error.code));
  return [...got, [...await sql`select count(*) from child`]];
}

async function notices() {
  const heard = [];
  const got = await opened(1, async (sql) => {
    const all = [...await sql`select shout(${"hey"}) from wide`];
    await sql`drop table if exists nowhere`;
    return all;
  }, { onnotice: (notice) => heard.push([notice.severity, notice.message, notice.detail]) });
  return [got, heard];
}

async function severalResults(sql) {
  const results = await sql.unsafe("select 1 as one; insert into item (id, name) values (300, 'x'); select * from wide");
  const failed = await state(sql, "insert into item (id, name) values (301, 'x'); select 1/0; select 2");
  return [results.map((result) => [result.command, result.count, [...result]]), failed, [...await sql`select count(*) from item where id >= ${300}`]];
}

async function copyIn(sql) {
  const lines = Array.from({ length: 20000 }, (_, i) => `${10000 + i}\tcopied ${i}\n`);
  await flow(Readable.from(lines), await sql`copy item (id, name) from stdin`.writable());
  return [...await sql`select count(*), sum(id), max(name) from item where id >= 10000`];
}

// copyOut takes less than a stream's buffer. The driver stops reading when that is full at the end of the copy.
async function copyOut(sql) {
  const got = [];
  for (const format of ["text", "csv", "binary"]) {
    const stream = await sql.unsafe(`copy (select i, 'row '||i from generate_series(1, 500) i) to stdout with (format ${format})`).readable();
    const blocks = [];
    for await (const block of stream) {
      blocks.push(block);
    }
    got.push(digest(Buffer.concat(blocks)));
  }
  return [...got, [...await sql`select 1 as one`]];
}

// failedCopy is given up by the client. When the server gives up, the driver's stream never ends, directly as well.
async function failedCopy(sql) {
  const stream = await sql`copy wide (id, a) from stdin`.writable();
  const closed = new Promise((resolve) => stream.on("error", () => {}).on("close", resolve));
  stream.write("70\tx\n", () => stream.destroy(new Error("the source gives up")));
  await closed;
  return [[...await sql`select ${1}::int as one`], [...await sql`select count(*) from wide where id between 70 and 90`]];
}

// cursor is by portals with row limits.
async function cursor(sql) {
  const got = [];
  await sql`select i from generate_series(1, ${1000}::int) i`.cursor(300, (batch) => {
    got.push([batch.length, batch[0].i]);
  });
  for await (const [row] of sql`select i from generate_series(1, 10) i`.cursor()) {
    if (row.i === 4) {
      break;
    }
    got.push(row.i);
  }
  return [...got, [...await sql`select 1 as one`]];
}

async function manyRows(sql) {
  let length = 0;
  const { count } = await sql`select i, repeat('x', i % 100) as x from generate_series(1, ${50000}::int) i`.forEach((row) => {
    length += row.x.length;
  });
  return [count, length];
}

// sleepThrough runs a query and, while the server executes it, does something else. It returns the query's SQLSTATE.
async function sleepThrough(query, text, act) {
  const ended = query.then(() => "none", (error) => error.code || String(error));
  await opened(1, async (watcher) => {
    await until(async () => (await watcher.unsafe(asleep(text)))[0].asleep);
    await act(watcher);
  });
  return ended;
}

async function cancel(sql) {
  const got = [];
  for (let i = 0; i < 3; i++) {
    const text = `select pg_sleep(60), ${i}`;
    const query = sql.unsafe(text);
    got.push(await sleepThrough(query, text, () => query.cancel()), [...await sql`select ${i}::int as i`]);
  }
  return got;
}

async function timeout(sql) {
  await sql`set statement_timeout = 100`;
  const got = [await state(sql, "select pg_sleep(60)"), [...await sql`show statement_timeout`]];
  await sql`reset statement_timeout`;
  return [...got, [...await sql`show statement_timeout`], await state(sql, "select pg_sleep(0.2)")];
}

async function notify(notifier) {
  return opened(1, async (sql) => {
    const heard = [];
    const { unlisten } = await sql.listen("news", (payload) => heard.push(payload.length));
    await notifier.notify("news", "one");
    await notifier.notify("news", "x".repeat(7000));
    await notifier.notify("other", "unheard");
    await until(() => heard.length >= 2);
    await unlisten();
    return [heard, [...await notifier`select count(*) from pg_listening_channels()`]];
  });
}

async function ownSettings(one, other) {
  const got = [];
  const both = async () => got.push(await named(one, show), await named(other, show));
  await both();
  for (const query of settings) {
    await one.unsafe(query);
    await both();
  }
  for (const commit of [false, true]) {
    await one.begin(async (tx) => {
      await tx.unsafe("set work_mem = '1MB'; set local timezone = 'UTC'");
      got.push(await named(tx, show));
      if (!commit) {
        throw new Error("roll back");
      }
    }).catch((error) => got.push(error.message));
    await both();
  }
  await one`reset all`;
  await both();
  return [...got, one.parameters.TimeZone, other.parameters.TimeZone];
}

async function sessionState(one, other) {
  await one`create temp table mine (id int)`;
  await one`insert into mine values (${1})`;
  const got = [await state(other, "select * from mine"), [...await one`select * from mine`]];
  await one`drop table mine`;
  await one`select pg_advisory_lock(${7})`;
  for (const [sql, name] of [[other, "pg_try_advisory_lock"], [one, "pg_advisory_unlock"], [other, "pg_try_advisory_lock"], [other, "pg_advisory_unlock"]]) {
    got.push(await named(sql, `select ${name}($1)`, 7));
  }
  await one`set role pg_monitor`;
  got.push([...await one`select current_user`], [...await other`select current_user`]);
  await one`reset role`;
  return [...got, [...await one`select current_user`]];
}

async function reset(one, other) {
  await one.unsafe("set work_mem = '8MB'");
  await one.unsafe("create temp table gone (id int)");
  await one.unsafe("select pg_advisory_lock(8)");
  await one.unsafe("discard all");
  const got = [await rows(one, "show work_mem"), await state(one, "select * from gone")];
  return [...got, await rows(other, "select pg_try_advisory_lock(8)"), await rows(other, "select pg_advisory_unlock_all()"), await rows(other, "show work_mem")];
}

async function schemaChange(one, last = one) {
  const query = "select * from wide where id = $1";
  const got = [];
  for (const sql of [one, last, one, last]) {
    got.push(await named(sql, query, 1));
  }
  await one.unsafe(`alter table wide add b${one === last} int default 5`);
  for (const sql of [one, last]) {
    got.push(await named(sql, query, 1)); // the driver tries again with a new statement when the old one is refused
  }
  return got;
}

async function terminated(sql) {
  const text = "select pg_sleep(61)";
  const got = await sleepThrough(sql.unsafe(text), text, (watcher) => watcher.unsafe(terminate(text)));
  return [got, await opened(1, async (again) => [...await again`select 1 as one`])];
}

async function pool() {
  return opened(1, async (sql) => {
    const task = async (i) => {
      for (let j = 0; j < 5; j++) {
        const key = 1000000 + 10 * i + j;
        const found = await sql.begin(async (tx) => {
          await tx`insert into item (id, name) values (${key}, ${`task ${key}`})`;
          return tx`select id from item where name = ${`task ${key}`}`;
        });
        const [{ n }] = await sql.unsafe(`select $1::int + ${i % 7} as n`, [j], { prepare: true });
        if (found[0].id !== key || n !== j + (i % 7)) {
          throw new Error(`wrong answer for ${key}`);
        }
      }
    };
    await Promise.all(Array.from({ length: 60 }, (_, i) => task(i)));
    return [...await sql`select count(*), sum(id), count(distinct name) from item where id >= 1000000`];
  }, { max: 10 });
}

play({
  driver: async () => version,
  connect: () => opened(1, async (sql) => {
    const got = [...await sql`select current_user, current_setting('server_version_num')`];
    return [got, ["server_version", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings"].map((name) => sql.parameters[name])];
  }),
  tls: async () => {
    const got = [];
    for (const ssl of ["require", { ca: fs.readFileSync(ca) }]) {
      got.push(await opened(1, (sql) => named(sql, "select right(repeat('x', $1), 5)", 20000), { ssl }));
    }
    return got;
  },
  "wrong password": async () => [await refusal({ password: "guess" }), await refusal({ user: "nobody" })],
  "unknown database": () => refusal({ database: "nowhere" }),
  "application name": applicationName,
  types: () => opened(1, types),
  nulls: () => opened(1, async (sql) => {
    const got = [...await sql`select ${null}::text as a, ${null}::int as b, coalesce(${null}::text, 'was null') as c, '' as d`];
    await sql`insert into item values (1, 'nothing', ${null}, ${null}, ${null})`;
    return [...got, ...await sql`select * from item where price is not distinct from ${null}`];
  }),
  unicode: () => opened(1, async (sql) => {
    const name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t";
    await sql`create temp table "Tab ä" ("Spalte 名" text)`;
    await sql`insert into "Tab ä" values (${name})`;
    return [...await sql`select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = ${name}`];
  }),
  "big values": () => opened(1, async (sql) => {
    const [{ text }] = await sql`select ${big}::text as text`;
    const [{ raw }] = await sql`select ${Buffer.from(big)}::bytea as raw`;
    const [{ length }] = await sql.unsafe(`select length('${big}')`);
    return [text === big, digest(raw), length, [...await sql`select 1 as one`]];
  }),
  prepared: () => opened(1, prepared),
  "equal names": () => opened(6, equalNames),
  pipeline: () => opened(1, pipeline),
  "failed pipeline": () => opened(1, failedPipeline),
  transaction: () => opened(1, transaction),
  savepoints: () => opened(1, savepoints),
  "read only": () => opened(2, readOnly),
  "two phase": () => opened(2, twoPhase),
  errors: () => opened(1, errors),
  "failed transaction": () => opened(1, failedTransaction),
  "deferred constraint": () => opened(1, deferredConstraint),
  notices,
  "several results": () => opened(1, severalResults),
  "copy in": () => opened(1, copyIn),
  "copy out": () => opened(1, copyOut),
  "failed copy": () => opened(1, failedCopy),
  cursor: () => opened(1, cursor),
  "many rows": () => opened(1, manyRows),
  cancel: () => opened(1, cancel),
  timeout: () => opened(1, timeout),
  notify: () => opened(1, notify),
  settings: () => opened(2, ownSettings),
  "session state": () => opened(2, sessionState),
  reset: () => opened(2, reset),
  "schema change": () => opened(1, schemaChange),
  "schema change by another": () => opened(2, schemaChange),
  terminated: () => opened(1, terminated),
  pool,
});
