// Plays a driver in situations: runs one function for each, and prints what it returned as a line of JSON.
//
// A program calls play with its functions by the name of the situation. Where the driver offers nothing of the kind, the
// reason stands instead. An error that a function lets out is a fault: the test that reads the lines fails.
"use strict";

const crypto = require("node:crypto");

const env = process.env;
const at = {
  host: env.COMPAT_HOST, port: Number(env.COMPAT_PORT), user: env.COMPAT_USER, password: env.COMPAT_PASSWORD,
  database: env.COMPAT_DATABASE,
};

// Milliseconds for one situation. It is long because machines that run tests are busy; nothing waits for it in vain.
const patience = 60000;

// Larger than every buffer on the way.
const big = "0123456789abcde\n".repeat((5 * 1024 * 1024) / 16);

async function play(program) {
  for (const name of JSON.parse(env.COMPAT_SITUATIONS)) {
    const step = { step: name };
    const what = program[name];
    if (typeof what === "string") {
      step.absent = what;
    } else {
      try {
        step.got = await bounded(what());
      } catch (error) {
        step.fault = String(error.stack || error);
      }
    }
    console.log(JSON.stringify(step, (_, value) => (typeof value === "bigint" ? String(value) : value)));
  }
  process.exit(0);
}

function bounded(promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`more than ${patience} ms`)), patience);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

const digest = (data) => crypto.createHash("md5").update(data).digest("hex");

// until waits until a condition holds.
async function until(condition) {
  while (!(await condition())) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

// SQL that both programs use.

const manyErrors = [
  "select 1/0", "select * from nowhere", "selec", "select nothing()", "insert into wide values (1, 'twice')",
  "insert into item (id) values (1000)", "select fail('P0001')", "select fail('40001')", "select fail('XX000')",
];

// A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
const show = `select current_setting('timezone') as timezone, current_setting('datestyle') as datestyle,
  current_setting('search_path') as path, current_setting('application_name') as name, current_setting('work_mem') as memory,
  nullif(current_setting('my.own', true), '') as own`;

const settings = [
  "set time zone 'Asia/Tokyo'", "set datestyle = 'ISO, DMY'", "set search_path = pg_catalog, public",
  "set application_name = 'one''s'", "select set_config('work_mem', '7MB', false)", "set my.own = 'x'",
];

const executing = (query) => `from pg_stat_activity where datname = current_database() and state = 'active'
  and pid <> pg_backend_pid() and query like '${query}%'`;

// asleep is a query that tells whether somebody else executes one that begins so.
const asleep = (query) => `select count(*) > 0 as asleep ${executing(query)}`;

// terminate is a query that ends the connection to PostgreSQL of whoever executes one that begins so.
const terminate = (query) => `select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end) ${executing(query)}`;

module.exports = { play, at, ca: env.COMPAT_CA, big, digest, until, manyErrors, show, settings, asleep, terminate };
