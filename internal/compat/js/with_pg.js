// node-postgres (pg).
"use strict";

const fs = require("node:fs");
const net = require("node:net");
const pg = require("pg");
const version = require("pg/package.json").version;
const { play, at, ca, big, digest, until, manyErrors, show, settings, asleep, terminate } = require("./play.js");

// opened connects, hands the connections over, and ends them when the function has returned.
async function opened(n, use, more = {}) {
  const clients = [];
  try {
    for (let i = 0; i < n; i++) {
      const client = new pg.Client({ ...at, ...more });
      client.on("error", () => {}); // the query that is under way says it, too
      await client.connect();
      clients.push(client);
    }
    return await use(...clients);
  } finally {
    await Promise.all(clients.map((client) => client.end()));
  }
}

const rows = async (client, query, ...params) => (await client.query(query, params)).rows;

// state is the SQLSTATE of a statement.
async function state(client, query, ...params) {
  try {
    await client.query(query, params.length > 0 ? params : undefined);
  } catch (error) {
    return error.code || String(error);
  }
  return "none";
}

async function refusal(more) {
  try {
    await opened(1, async () => {}, more);
  } catch (error) {
    return error.code || String(error);
  }
  return "none";
}

async function applicationName() {
  const query = `select current_setting('application_name') as name, current_setting('work_mem') as memory,
    current_setting('search_path') as path, current_setting('statement_timeout') as timeout, current_setting('lock_timeout') as lock`;
  const one = {
    application_name: "ä shop's till", options: "-c work_mem=5MB --search-path=pg_catalog,public", statement_timeout: 77000,
    lock_timeout: 66000, idle_in_transaction_session_timeout: 55000,
  };
  return opened(1, (other) => opened(1, async (client) => {
    const got = [];
    for (let i = 0; i < 3; i++) {
      got.push(await rows(client, query), await rows(other, query));
    }
    return got;
  }, one), { application_name: "other" });
}

async function types() {
  const values = [
    ["int2", -7], ["int8", "-9223372036854775808"], ["float8", 1 / 3], ["numeric", "12345678901234567890.123456789"],
    ["text", "it's \"quoted\" \\ and % $1 ?"], ["bool", true], ["bytea", Buffer.from([0, 1, 92, 39, 255])],
    ["timestamptz", new Date(Date.UTC(2024, 1, 29, 23, 59, 59, 999))], ["interval", "1 year 2 mons 3 days 04:05:06.789"],
    ["uuid", "00112233-4455-6677-8899-aabbccddeeff"], ["jsonb", { a: [1, null, "ü"] }], ["int4[]", [1, 2, 3]],
    ["text[]", ["a,b", 'c"d', ""]], ["inet", "192.168.0.1/24"], ["mood", "happy"],
  ];
  return opened(1, async (client) => {
    const got = [];
    for (const [type, value] of values) {
      for (const binary of [false, true]) {
        if (!binary || ["int2", "text", "bool", "bytea"].includes(type)) {
          const result = await client.query({ text: `select $1::${type} as value, pg_typeof($1::${type})::text as type`, values: [value], binary });
          got.push(result.rows, result.fields.map((field) => field.dataTypeID === result.fields[0].dataTypeID));
        }
      }
    }
    return got;
  });
}

async function prepared(client) {
  const got = [];
  for (let i = 0; i < 25; i++) {
    got.push((await client.query({ name: "twice", text: "select $1::int * 2 as twice", values: [i] })).rows);
    got.push((await client.query("select $1::int * 3 as thrice", [i])).rows);
  }
  for (let i = 0; i < 5; i++) {
    got.push((await client.query({ name: `wide ${i}`, text: `select id, a, ${i} as i from wide where id = $1`, values: [i] })).rows);
  }
  got.push(await state(client, { name: "wrong", text: "select * from nowhere where id = $1", values: [1] }));
  got.push(await state(client, { name: "wrong", text: "select * from nowhere where id = $1", values: [1] }));
  return got;
}

async function equalNames(...clients) {
  const got = [];
  for (let round = 0; round < 10; round++) {
    for (const [i, client] of clients.entries()) {
      got.push((await client.query({ name: "same", text: `select '${i}' as name, $1::int + ${i * 100} as n`, values: [round] })).rows);
    }
  }
  for (let round = 0; round < 5; round++) { // all at the same time
    got.push(...await Promise.all(clients.map(async (client, i) =>
      (await client.query({ name: "same", text: `select '${i}' as name, $1::int + ${i * 100} as n`, values: [round] })).rows)));
  }
  return got;
}

async function transaction(client) {
  const got = [];
  for (const [i, end] of ["commit", "rollback", "commit"].entries()) {
    await client.query("begin");
    for (let j = 0; j < 3; j++) {
      await client.query("insert into parent values ($1)", [10 * i + j]);
    }
    got.push(await rows(client, "select count(*) from parent"));
    got.push((await client.query(end)).command);
  }
  return [...got, await rows(client, "select * from parent order by 1")];
}

async function savepoints(client) {
  const got = [];
  await client.query("begin");
  for (let i = 0; i < 4; i++) {
    await client.query("savepoint s");
    got.push(await state(client, "insert into parent values ($1)", 100 + (i % 2)));
    await client.query(got[i] === "none" ? "release savepoint s" : "rollback to savepoint s");
  }
  await client.query("commit");
  return [...got, await rows(client, "select * from parent where id >= 100 order by 1")];
}

async function readOnly(one, other) {
  const write = "insert into parent values ($1)";
  await one.query("begin transaction isolation level serializable read only deferrable");
  const got = [await rows(one, "select current_setting('transaction_isolation')"), await state(one, write, 200)];
  await one.query("rollback");
  await one.query("set session characteristics as transaction read only");
  return [...got, await state(one, write, 201), await state(other, write, 202), await state(one, write, 203)];
}

async function twoPhase(one, other) {
  await one.query("begin");
  await one.query("insert into parent values ($1)", [300]);
  await one.query(`prepare transaction '${at.database}'`);
  const got = [await rows(other, "select count(*) from parent where id = $1", 300)];
  await other.query(`commit prepared '${at.database}'`);
  return [...got, await rows(one, "select count(*) from parent where id = $1", 300)];
}

async function errors(client) {
  const got = [];
  for (const query of manyErrors) {
    got.push(await state(client, query), await rows(client, "select $1::int as one", 1));
  }
  got.push(await state(client, "select $1::text::int", "no number"), await state(client, "select $1::int from nowhere", 1));
  try {
    await client.query("select fail('22000')");
  } catch (error) {
    got.push([error.severity, error.message, error.detail, error.hint, error.where, error.routine]);
  }
  return got;
}

async function failedTransaction(client) {
  await client.query("begin");
  const got = [await state(client, "select 1/0"), await state(client, "select $1::int", 1), await state(client, "select 1")];
  return [...got, (await client.query("commit")).command, await rows(client, "select $1::int as one", 1)];
}

async function deferredConstraint(client) {
  await client.query("begin");
  await client.query("insert into child values ($1, $2)", [1, 99]);
  return [await state(client, "commit"), await state(client, "insert into child values ($1, $2)", 1, 99), await rows(client, "select count(*) from child")];
}

async function notices(client) {
  const heard = [];
  client.on("notice", (notice) => heard.push([notice.severity, notice.message, notice.detail]));
  const got = await rows(client, "select shout($1) from wide", "hey");
  await client.query("drop table if exists nowhere");
  return [got, heard];
}

async function severalResults(client) {
  const results = await client.query("select 1 as one; insert into item (id, name) values (300, 'x'); select * from wide");
  const failed = await state(client, "insert into item (id, name) values (301, 'x'); select 1/0; select 2");
  return [results.map((result) => [result.command, result.rowCount, result.rows]), failed, await rows(client, "select count(*) from item where id >= $1", 300)];
}

// pipeline queues queries before the answers of earlier ones have come; the driver sends them one by one.
async function pipeline(client) {
  const answers = [];
  for (let i = 0; i < 20; i++) {
    answers.push(client.query("insert into item (id, name) values ($1, $2)", [100 + i, `item ${i}`]));
    answers.push(client.query("select count(*), max(name) from item where id >= $1", [100]));
  }
  return (await Promise.all(answers)).map((result) => [result.command, result.rows]);
}

async function failedPipeline(client) {
  const answers = await Promise.allSettled([
    client.query("select $1::int as one", [1]), client.query("select $1::int / 0", [1]), client.query("selec"), client.query("select $1::int as four", [4]),
  ]);
  return answers.map((answer) => (answer.status === "fulfilled" ? answer.value.rows : answer.reason.code));
}

// sleepThrough runs a query and, while the server executes it, does something else. It returns the query's SQLSTATE.
async function sleepThrough(client, query, act) {
  const ended = state(client, query);
  await opened(1, async (watcher) => {
    await until(async () => (await rows(watcher, asleep(query)))[0].asleep);
    await act(watcher);
  });
  return ended;
}

// requestCancel sends a cancel request for a client, as the driver has no public function for it.
function requestCancel(client) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(at.port, at.host, () => {
      const packet = Buffer.alloc(16);
      packet.writeInt32BE(16, 0);
      packet.writeInt32BE(80877102, 4);
      packet.writeInt32BE(client.processID, 8);
      packet.writeInt32BE(client.secretKey, 12);
      socket.write(packet);
    });
    socket.on("close", resolve).on("error", reject).resume();
  });
}

async function cancel(client) {
  const got = [];
  for (let i = 0; i < 3; i++) {
    got.push(await sleepThrough(client, `select pg_sleep(60), ${i}`, () => requestCancel(client)));
    got.push(await rows(client, "select $1::int as i", i));
  }
  return got;
}

async function timeout(client) {
  await client.query("set statement_timeout = 100");
  const got = [await state(client, "select pg_sleep(60)"), await rows(client, "show statement_timeout")];
  await client.query("reset statement_timeout");
  return [...got, await rows(client, "show statement_timeout"), await state(client, "select pg_sleep(0.2)")];
}

async function notify(listener, notifier) {
  const heard = [];
  listener.on("notification", (n) => heard.push([n.channel, n.payload.length]));
  await listener.query("listen news");
  await notifier.query("notify news, 'one'");
  await notifier.query("select pg_notify('news', $1)", ["x".repeat(7000)]);
  await notifier.query("notify other, 'unheard'");
  await until(() => heard.length >= 2);
  await listener.query("unlisten *");
  return [heard, await rows(listener, "select count(*) from pg_listening_channels()"), await rows(notifier, "select count(*) from pg_listening_channels()")];
}

async function ownSettings(one, other) {
  const got = [];
  const both = async () => got.push(await rows(one, show), await rows(other, show));
  await both();
  for (const query of settings) {
    await one.query(query);
    await both();
  }
  for (const end of ["rollback", "commit"]) {
    await one.query("begin; set work_mem = '1MB'; set local timezone = 'UTC'");
    got.push(await rows(one, show));
    await one.query(end);
    await both();
  }
  await one.query("reset all");
  await both();
  return got;
}

async function sessionState(one, other) {
  await one.query("create temp table mine (id int)");
  await one.query("insert into mine values ($1)", [1]);
  const got = [await state(other, "select * from mine"), await rows(one, "select * from mine")];
  await one.query("drop table mine");
  await one.query("select pg_advisory_lock($1)", [7]);
  for (const [client, name] of [[other, "pg_try_advisory_lock"], [one, "pg_advisory_unlock"], [other, "pg_try_advisory_lock"], [other, "pg_advisory_unlock"]]) {
    got.push(await rows(client, `select ${name}($1)`, 7));
  }
  await one.query("set role pg_monitor");
  got.push(await rows(one, "select current_user"), await rows(other, "select current_user"));
  await one.query("reset role");
  return [...got, await rows(one, "select current_user")];
}

async function reset(one, other) {
  await one.query("set work_mem = '8MB'");
  await one.query("create temp table gone (id int)");
  await one.query("select pg_advisory_lock(8)");
  await one.query("discard all");
  const got = [await rows(one, "show work_mem"), await state(one, "select * from gone")];
  return [...got, await rows(other, "select pg_try_advisory_lock(8)"), await rows(other, "select pg_advisory_unlock_all()"), await rows(other, "show work_mem")];
}

async function schemaChange(one, last = one) {
  const query = "select * from wide where id = $1";
  const got = [];
  for (const client of [one, last, one, last]) {
    got.push(await rows(client, query, 1), (await client.query({ name: "named", text: query, values: [2] })).rows);
  }
  await one.query(`alter table wide add b${one === last} int default 5`);
  return [...got, await rows(one, query, 1), await rows(last, query, 2)];
}

async function terminated(client) {
  const query = "select pg_sleep(61)";
  const got = await sleepThrough(client, query, (watcher) => watcher.query(terminate(query)));
  return [got, await opened(1, (again) => rows(again, "select 1 as one"))];
}

async function pool() {
  const all = new pg.Pool({ ...at, max: 10 });
  const task = async (i) => {
    for (let j = 0; j < 5; j++) {
      const key = 1000000 + 10 * i + j;
      const client = await all.connect();
      await client.query("begin");
      await client.query("insert into item (id, name) values ($1, $2)", [key, `task ${key}`]);
      const found = await client.query({ name: "by name", text: "select id from item where name = $1", values: [`task ${key}`] });
      await client.query("commit");
      client.release();
      const { rows: [{ n }] } = await all.query(`select $1::int + ${i % 7} as n`, [j]);
      if (found.rows[0].id !== key || n !== j + (i % 7)) {
        throw new Error(`wrong answer for ${key}`);
      }
    }
  };
  await Promise.all(Array.from({ length: 60 }, (_, i) => task(i)));
  const { rows } = await all.query("select count(*), sum(id), count(distinct name) from item where id >= 1000000");
  await all.end();
  return rows;
}

play({
  driver: async () => version,
  connect: () => opened(1, async (client) => [await rows(client, "select current_user, current_setting('server_version_num')"), client.processID > 0]),
  tls: async () => {
    const got = [];
    for (const ssl of [{ rejectUnauthorized: false }, { ca: fs.readFileSync(ca) }]) {
      got.push(await opened(1, (client) => rows(client, "select right(repeat('x', $1), 5)", 20000), { ssl, enableChannelBinding: true }));
    }
    return got;
  },
  "wrong password": async () => [await refusal({ password: "guess" }), await refusal({ user: "nobody" })],
  "unknown database": () => refusal({ database: "nowhere" }),
  "application name": applicationName,
  types,
  nulls: () => opened(1, async (client) => {
    const got = await rows(client, "select $1::text as a, $2::int as b, coalesce($3::text, 'was null') as c, '' as d", null, null, undefined);
    await client.query("insert into item values (1, 'nothing', $1, $2, $3)", [null, null, null]);
    return [...got, ...await rows(client, "select * from item where price is not distinct from $1", null)];
  }),
  unicode: () => opened(1, async (client) => {
    const name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t";
    await client.query('create temp table "Tab ä" ("Spalte 名" text)');
    await client.query('insert into "Tab ä" values ($1)', [name]);
    return rows(client, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = $1', name);
  }),
  "big values": () => opened(1, async (client) => {
    const [{ text }] = await rows(client, "select $1::text as text", big);
    const [{ raw }] = await rows(client, "select $1::bytea as raw", Buffer.from(big));
    const [{ length }] = await rows(client, `select length('${big}')`);
    return [text === big, digest(raw), length, await rows(client, "select 1 as one")];
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
  notices: () => opened(1, notices),
  "several results": () => opened(1, severalResults),
  "copy in": "needs pg-copy-streams",
  "copy out": "needs pg-copy-streams",
  "failed copy": () => opened(1, async (client) => [await state(client, "copy wide from stdin"), await rows(client, "select 1 as one")]),
  cursor: "needs pg-cursor",
  "many rows": () => opened(1, async (client) => {
    const got = await rows(client, "select i, repeat('x', i % 100) as x from generate_series(1, $1::int) i", 50000);
    return [got.length, got.reduce((sum, row) => sum + row.x.length, 0)];
  }),
  cancel: () => opened(1, cancel),
  timeout: () => opened(1, timeout),
  notify: () => opened(2, notify),
  settings: () => opened(2, ownSettings),
  "session state": () => opened(2, sessionState),
  reset: () => opened(2, reset),
  "schema change": () => opened(1, schemaChange),
  "schema change by another": () => opened(2, schemaChange),
  terminated: () => opened(1, terminated),
  pool,
});
