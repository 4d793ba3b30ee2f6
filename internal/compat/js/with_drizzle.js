// Drizzle ORM on node-postgres and on postgres.js.
"use strict";

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const pg = require("pg");
const postgres = require("postgres");
const { and, count, desc, eq, gt, like, sql, sum } = require("drizzle-orm");
const table = require("drizzle-orm/pg-core");
const onPg = { ...require("drizzle-orm/node-postgres"), ...require("drizzle-orm/node-postgres/migrator") };
const onPostgres = { ...require("drizzle-orm/postgres-js"), ...require("drizzle-orm/postgres-js/migrator") };
const { play, at, ca, manyErrors, show } = require("./play.js");

const version = path.join(path.dirname(require.resolve("drizzle-orm")), "package.json");

const orders = table.pgTable("orders", {
  id: table.serial().primaryKey(),
  name: table.text().notNull().unique(),
  price: table.numeric({ precision: 12, scale: 2 }),
  tags: table.text().array(),
  note: table.jsonb(),
});

// opened hands an engine on either driver over, one after the other, and ends it when the function has returned.
async function opened(use, ofPg = {}, ofPostgres = ofPg) {
  const pool = new pg.Pool({ ...at, max: 5, ...ofPg });
  const client = postgres({ ...at, max: 5, onnotice: () => {}, ...ofPostgres });
  try {
    return [await use(onPg.drizzle(pool), onPg.migrate), await use(onPostgres.drizzle(client), onPostgres.migrate)];
  } finally {
    await Promise.all([pool.end(), client.end()]);
  }
}

// state is the SQLSTATE of what a function does.
async function state(what) {
  try {
    await what();
  } catch (error) {
    return (error.cause || error).code || String(error);
  }
  return "none";
}

const rows = async (db, query) => Array.from((await db.execute(query)).rows || (await db.execute(query)), (row) => ({ ...row }));

const connect = () => opened((db) => rows(db, sql`select current_user as who, current_setting('timezone') as zone`));

const tls = () => opened(
  (db) => rows(db, sql`select right(repeat('x', ${20000}::int), 5) as x`), { ssl: { ca: fs.readFileSync(ca, "utf8") } },
);

// written writes a migration as drizzle-kit does.
function written() {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "drizzle-"));
  fs.mkdirSync(path.join(folder, "meta"));
  const tags = ["0000_orders", "0001_index"];
  const entries = tags.map((tag, idx) => ({ idx, version: "7", when: 1700000000000 + idx, tag, breakpoints: true }));
  fs.writeFileSync(path.join(folder, "meta/_journal.json"), JSON.stringify({ version: "7", dialect: "postgresql", entries }));
  fs.writeFileSync(path.join(folder, "0000_orders.sql"), `create table "orders" ("id" serial primary key, "name" text not null,
    "price" numeric(12, 2), "tags" text[], "note" jsonb);
    --> statement-breakpoint
    alter table "orders" add constraint "orders_name_unique" unique ("name");`);
  fs.writeFileSync(path.join(folder, "0001_index.sql"), `create index on "orders" ("price");`);
  return folder;
}

async function migration() {
  const folder = written();
  try {
    return await opened(async (db, migrate) => {
      await migrate(db, { migrationsFolder: folder });
      return [
        await rows(db, sql`select id, created_at from drizzle.__drizzle_migrations order by 1`),
        await rows(db, sql`select column_name, data_type from information_schema.columns where table_name = 'orders' order by ordinal_position`),
      ];
    });
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

const create = () => opened(async (db) => {
  await db.delete(orders);
  await db.insert(orders).values(Array.from({ length: 300 }, (_, i) => ({ name: `order ${i}`, price: String(i / 4), tags: ["a", `t${i}`] })));
  const [made] = await db.insert(orders).values({ name: "Ünïcödé 🐘", note: { a: [1, null] } }).returning();
  const again = await db.insert(orders).values({ name: "order 1" }).onConflictDoUpdate({ target: orders.name, set: { price: "7" } })
    .returning({ price: orders.price });
  return [made.name, made.note, again, await db.select({ n: count() }).from(orders), await state(() => db.insert(orders).values({ name: "order 1" }))];
});

const read = () => opened(async (db) => {
  // A prepared statement of the driver's, under this name.
  const named = db.select({ name: orders.name, price: orders.price }).from(orders).where(eq(orders.name, sql.placeholder("name"))).prepare("by_name");
  const got = [];
  for (let i = 0; i < 10; i++) {
    got.push(await named.execute({ name: `order ${i}` }));
  }
  return [
    ...got, await db.select({ total: sum(orders.price) }).from(orders),
    await db.select({ name: orders.name, tags: orders.tags }).from(orders).where(and(gt(orders.price, "70"), like(orders.name, "order%")))
      .orderBy(desc(orders.price)).limit(3),
    await db.update(orders).set({ tags: ["seven"] }).where(eq(orders.name, "order 7")).returning({ tags: orders.tags }),
  ];
});

const transaction = () => opened(async (db) => {
  const got = [];
  await db.transaction(async (outer) => {
    await outer.insert(orders).values({ name: "outer" });
    for (const name of ["outer", "inner"]) {
      got.push(await state(() => outer.transaction((inner) => inner.insert(orders).values({ name }))));
    }
  });
  got.push(await state(() => db.transaction(async (t) => {
    await t.insert(orders).values({ name: "undone" });
    t.rollback();
  })));
  await db.transaction(async (t) => {
    got.push(await rows(t, sql`show transaction_isolation`), await state(() => t.insert(orders).values({ name: "read only" })));
    t.rollback();
  }, { isolationLevel: "serializable", accessMode: "read only", deferrable: true }).catch(() => {});
  got.push(await db.select({ name: orders.name }).from(orders).where(sql`name in ('outer', 'inner', 'undone')`).orderBy(orders.name));
  await db.delete(orders).where(sql`name in ('outer', 'inner')`);
  return got;
});

const errors = () => opened(async (db) => {
  const got = [];
  for (const text of manyErrors) {
    got.push([await state(() => db.execute(sql.raw(text))), await rows(db, sql`select 1 as one`)]);
  }
  return got;
});

const manyRows = () => opened(async (db) => {
  const all = await rows(db, sql`select i from generate_series(1, 20000) i`);
  return [all.length, all.reduce((total, row) => total + row.i, 0)];
});

const settings = () => opened((one) => opened(async (other) => {
  const got = [];
  for (const db of [one, other, one, other]) {
    got.push(await rows(db, sql.raw(show)));
  }
  return got;
}), { options: "-c timezone=Asia/Tokyo -c work_mem=6MB" }, { connection: { timezone: "Asia/Tokyo", work_mem: "6MB" } });

const pool = () => opened(async (db) => {
  await Promise.all(Array.from({ length: 30 }, async (_, i) => {
    for (let j = 0; j < 3; j++) {
      await db.transaction((t) => t.insert(orders).values({ name: `task ${i}/${j}` }));
    }
  }));
  return db.delete(orders).where(like(orders.name, "task%")).returning({ one: sql`1` }).then((gone) => gone.length);
});

play({
  driver: async () => JSON.parse(fs.readFileSync(version)).version, connect, tls, migration, create, read, transaction, errors,
  "many rows": manyRows, settings, pool,
});
