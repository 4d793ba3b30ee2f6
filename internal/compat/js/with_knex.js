// Knex on node-postgres.
"use strict";

const fs = require("node:fs");
const knex = require("knex");
const version = require("knex/package.json").version;
const { play, at, ca, manyErrors, show } = require("./play.js");

// Migrations come from here and not from files.
const migrationSource = {
  getMigrations: async () => ["1_orders", "2_more"],
  getMigrationName: (name) => name,
  getMigration: async (name) => ({
    "1_orders": {
      up: (db) => db.schema.createTable("orders", (t) => {
        t.increments();
        t.text("name").notNullable().unique();
        t.decimal("price", 12, 2);
        t.specificType("tags", "text[]");
        t.jsonb("note");
      }),
      down: (db) => db.schema.dropTable("orders"),
    },
    "2_more": {
      up: (db) => db.schema.alterTable("orders", (t) => { t.integer("more").defaultTo(5).index(); }),
      down: (db) => db.schema.alterTable("orders", (t) => { t.dropColumn("more"); }),
      config: { transaction: false },
    },
  })[name],
};

// opened hands a new engine over, and ends it when the function has returned.
async function opened(use, more = {}, options = {}) {
  const db = knex({
    client: "pg", connection: { ...at, ...more }, pool: { min: 0, max: 5 }, acquireConnectionTimeout: 50000,
    migrations: { migrationSource }, ...options,
  });
  try {
    return await use(db);
  } finally {
    await db.destroy();
  }
}

// state is the SQLSTATE of what a function does.
async function state(what) {
  try {
    await what();
  } catch (error) {
    return error.code || String(error);
  }
  return "none";
}

const rows = async (db, sql, ...more) => (await db.raw(sql, ...more)).rows;

const connect = () => opened((db) => rows(db, "select current_user as who, current_setting('timezone') as zone"));

const tls = () => opened(
  (db) => rows(db, "select right(repeat('x', ?), 5) as x", [20000]), { ssl: { ca: fs.readFileSync(ca, "utf8") } },
);

// The migrations hold a row of a table of their own as their lock.
const migration = () => opened(async (db) => {
  const got = [await db.migrate.latest(), await db.migrate.currentVersion(), await db("orders").columnInfo()];
  got.push(await db.migrate.rollback(), await db.migrate.list(), await db.migrate.latest(), await db.migrate.latest());
  return [...got, await db.schema.hasTable("orders"), await db.schema.hasColumn("orders", "more")];
});

const create = () => opened(async (db) => {
  await db.batchInsert("orders", Array.from({ length: 300 }, (_, i) => ({ name: `order ${i}`, price: i / 4, tags: ["a", `t${i}`] })), 70);
  const made = await db("orders").insert({ name: "Ünïcödé 🐘", note: { a: [1, null] } }).returning("*");
  const again = await db("orders").insert({ name: "order 1", price: 7 }).onConflict("name").merge().returning(["id", "price"]);
  return [made, again, await db("orders").count(), await state(() => db("orders").insert({ name: "order 1" }))];
});

const read = () => opened(async (db) => [
  await db("orders").where({ name: "order 7" }).first(), await db("orders").where("price", ">", 70).orderBy("id").limit(3).pluck("name"),
  await db("orders").sum("price").first(), await db.with("cheap", db("orders").where("price", "<", 2)).from("cheap").count(),
  await db("orders").update({ more: 6 }).whereIn("id", [1, 2, 3]).returning("id"), await db("orders").where({ more: 6 }).del(),
]);

const transaction = () => opened(async (db) => {
  const got = [];
  await db.transaction(async (outer) => {
    await outer("orders").insert({ name: "outer" });
    for (const name of ["outer", "inner"]) {
      got.push(await state(() => outer.transaction((inner) => inner("orders").insert({ name }))));
    }
  });
  got.push(await state(() => db.transaction(async (t) => {
    await t("orders").insert({ name: "undone" });
    throw new Error("changed my mind");
  })));
  const open = await db.transaction({ isolationLevel: "serializable", readOnly: true });
  got.push(await rows(open, "show transaction_isolation"), await state(() => open("orders").insert({ name: "read only" })));
  await open.rollback();
  await db.transaction(async (t) => { got.push(await t("orders").where({ name: "outer" }).forUpdate().skipLocked().pluck("name")); });
  return [...got, await db("orders").whereIn("name", ["outer", "inner", "undone"]).orderBy("name").pluck("name")];
});

const errors = () => opened(async (db) => {
  const got = [];
  for (const sql of manyErrors) {
    got.push([await state(() => db.raw(sql)), await rows(db, "select 1 as one")]);
  }
  return got;
});

const manyRows = () => opened(async (db) => {
  const all = await db.select("*").from(db.raw("generate_series(1, 20000) as i"));
  return [all.length, all.reduce((sum, row) => sum + row.i, 0)];
});

// searchPath makes Knex send SET search_path on each connection; afterCreate is where applications send their own.
const settings = () => opened((one) => opened(async (other) => {
  const got = [];
  for (const db of [one, other, one, other]) {
    got.push(await rows(db, show));
  }
  return got;
}), {}, {
  searchPath: ["public", "pg_catalog"],
  pool: {
    min: 1, max: 2,
    afterCreate: (conn, done) => conn.query("set time zone 'Asia/Tokyo'; set my.own = 'x'", (error) => done(error, conn)),
  },
});

const pool = () => opened(async (db) => {
  await Promise.all(Array.from({ length: 30 }, async (_, i) => {
    for (let j = 0; j < 3; j++) {
      await db.transaction((t) => t("orders").insert({ name: `task ${i}/${j}` }));
    }
  }));
  return db("orders").where("name", "like", "task%").count();
});

play({
  driver: async () => version, connect, tls, migration, create, read, transaction, errors, "many rows": manyRows, settings, pool,
});
