// TypeORM on node-postgres.
"use strict";

const fs = require("node:fs");
const { DataSource, EntitySchema, MoreThan, Like, In } = require("typeorm");
const version = JSON.parse(fs.readFileSync(require.resolve("typeorm").replace(/typeorm\/.*/, "typeorm/package.json"))).version;
const { play, at, ca, manyErrors, show } = require("./play.js");

const Order = new EntitySchema({
  name: "Order", tableName: "orders",
  columns: {
    id: { type: Number, primary: true, generated: true },
    name: { type: "text", unique: true },
    price: { type: "numeric", precision: 12, scale: 2, nullable: true },
    tags: { type: "text", array: true, nullable: true },
    note: { type: "jsonb", nullable: true },
    mood: { type: "enum", enum: ["sad", "happy"], enumName: "order_mood", nullable: true },
  },
});

class More1700000000001 {
  name = "More1700000000001";
  async up(runner) {
    await runner.query(`alter table "orders" add "more" integer default 5`);
    await runner.query(`create index "orders_more" on "orders" ("more")`);
  }
  async down(runner) {
    await runner.query(`alter table "orders" drop column "more"`);
  }
}

// opened hands a new data source over, and ends it when the function has returned.
async function opened(use, more = {}) {
  const { user: username, ...rest } = at;
  const source = new DataSource({
    type: "postgres", ...rest, username, entities: [Order], migrations: [More1700000000001], logging: false, poolSize: 5,
    installExtensions: false, ...more,
  });
  await source.initialize();
  try {
    return await use(source, source.getRepository("Order"));
  } finally {
    await source.destroy();
  }
}

// state is the SQLSTATE of what a function does.
async function state(what) {
  try {
    await what();
  } catch (error) {
    return error.driverError?.code || error.code || String(error);
  }
  return "none";
}

const connect = () => opened((source) => source.query("select current_user as who, current_setting('timezone') as zone"));

const tls = () => opened(
  (source) => source.query("select right(repeat('x', $1), 5) as x", [20000]), { ssl: { ca: fs.readFileSync(ca, "utf8") } },
);

const migration = async () => {
  const made = await opened((source) => source.driver.createSchemaBuilder().log(), { synchronize: true });
  return opened(async (source) => {
    const got = [made.upQueries.length, await source.showMigrations()];
    got.push((await source.runMigrations({ transaction: "each" })).map((m) => m.name), await source.showMigrations());
    await source.undoLastMigration();
    const runner = source.createQueryRunner();
    const table = await runner.getTable("orders");
    await runner.release();
    return [...got, table.columns.map((c) => [c.name, c.type]), table.uniques.map((u) => u.columnNames)];
  });
};

const create = () => opened(async (source, repository) => {
  await repository.insert(Array.from({ length: 300 }, (_, i) => ({ name: `order ${i}`, price: i / 4, tags: ["a", `t${i}`], note: { i } })));
  const order = await repository.save({ name: "Ünïcödé 🐘", note: { a: [1, null] }, mood: "happy" });
  await repository.upsert([{ name: "order 1", price: 7 }], ["name"]);
  return [await repository.findOneBy({ id: order.id }), await repository.count(), await state(() => repository.insert({ name: "order 1" }))];
});

const read = () => opened(async (source, repository) => {
  await repository.update({ name: "order 7" }, { tags: ["seven"] });
  return [
    (await repository.findOneByOrFail({ name: "order 7" })).tags, await repository.sum("price"),
    (await repository.find({ where: { price: MoreThan(70) }, order: { id: "DESC" }, take: 3 })).map((o) => o.name),
    await repository.createQueryBuilder("o").select("count(*)", "n").where("o.price < :price", { price: 10 }).getRawOne(),
    (await repository.findAndCount({ where: { name: Like("order 1%") }, skip: 5, take: 2, order: { name: "ASC" } }))[1],
  ];
});

const transaction = () => opened(async (source, repository) => {
  const got = [];
  await source.transaction(async (outer) => {
    await outer.insert(Order, { name: "outer" });
    for (const name of ["outer", "inner"]) {
      got.push(await state(() => outer.transaction((inner) => inner.insert(Order, { name }))));
    }
  });
  got.push(await state(() => source.transaction(async (t) => {
    await t.insert(Order, { name: "undone" });
    throw new Error("changed my mind");
  })));
  await source.transaction("SERIALIZABLE", async (t) => {
    got.push(await t.query("show transaction_isolation"));
    got.push((await t.findOne(Order, { where: { name: "outer" }, lock: { mode: "pessimistic_write" } })).name);
  });
  return [...got, (await repository.find({ where: { name: In(["outer", "inner", "undone"]) }, order: { name: "ASC" } })).map((o) => o.name)];
});

const errors = () => opened(async (source) => {
  const got = [];
  for (const sql of manyErrors) {
    got.push([await state(() => source.query(sql)), await source.query("select 1 as one")]);
  }
  return got;
});

const manyRows = () => opened(async (source) => {
  const rows = await source.query("select i from generate_series(1, 20000) i");
  return [rows.length, rows.reduce((sum, row) => sum + row.i, 0)];
});

const settings = () => opened((one) => opened(async (other) => {
  const got = [];
  for (const source of [one, other, one, other]) {
    got.push(await source.query(show));
  }
  return got;
}), { applicationName: "one", extra: { options: "-c timezone=Asia/Tokyo", statement_timeout: 50000 } });

const pool = () => opened(async (source, repository) => {
  await Promise.all(Array.from({ length: 30 }, async (_, i) => {
    for (let j = 0; j < 3; j++) {
      await source.transaction((t) => t.insert(Order, { name: `task ${i}/${j}` }));
    }
  }));
  return repository.countBy({ name: Like("task%") });
});

play({
  driver: async () => version, connect, tls, migration, create, read, transaction, errors, "many rows": manyRows, settings, pool,
});
