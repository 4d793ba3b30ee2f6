// Sequelize on node-postgres.
"use strict";

const fs = require("node:fs");
const { Sequelize, DataTypes, Op, QueryTypes, Transaction } = require("sequelize");
const version = require("sequelize/package.json").version;
const { play, at, ca, manyErrors, show } = require("./play.js");

function engine(more = {}) {
  return new Sequelize(at.database, at.user, at.password, {
    host: at.host, port: at.port, dialect: "postgres", logging: false, pool: { max: 5, acquire: 50000 }, ...more,
  });
}

// opened hands a new engine over, and ends it when the function has returned.
async function opened(use, more) {
  const db = engine(more);
  try {
    return await use(db, db.define("order", {
      name: { type: DataTypes.TEXT, allowNull: false, unique: true },
      price: DataTypes.DECIMAL(12, 2),
      tags: DataTypes.ARRAY(DataTypes.TEXT),
      note: DataTypes.JSONB,
      mood: DataTypes.ENUM("sad", "happy"),
    }, { timestamps: false }));
  } finally {
    await db.close();
  }
}

const select = (db, sql, more = {}) => db.query(sql, { type: QueryTypes.SELECT, ...more });

// state is the SQLSTATE of what a function does.
async function state(what) {
  try {
    await what();
  } catch (error) {
    return error.original?.code || String(error);
  }
  return "none";
}

const connect = () => opened(async (db) => {
  await db.authenticate();
  return [await db.databaseVersion(), await select(db, "select current_user as who, current_setting('timezone') as zone")];
});

const tls = () => opened(
  (db) => select(db, "select right(repeat('x', :n), 5) as x", { replacements: { n: 20000 } }),
  { dialectOptions: { ssl: { ca: fs.readFileSync(ca, "utf8") } } },
);

const migration = () => opened(async (db, Order) => {
  await db.sync();
  const query = db.getQueryInterface();
  await query.addColumn("orders", "more", { type: DataTypes.INTEGER, defaultValue: 5 });
  await query.addIndex("orders", ["price", "more"], { name: "orders_price" });
  await db.sync({ alter: true }); // takes the column away again
  await Order.sync({ force: true });
  const columns = await query.describeTable("orders");
  return [
    (await query.showAllTables()).map((t) => t.tableName || t).sort(), Object.entries(columns).map(([name, c]) => [name, c.type]),
    (await query.showIndex("orders")).map((i) => i.name).sort(),
  ];
});

const create = () => opened(async (db, Order) => {
  await Order.bulkCreate(Array.from({ length: 300 }, (_, i) => ({ name: `order ${i}`, price: i / 4, tags: ["a", `t${i}`], note: { i } })));
  const order = await Order.create({ name: "Ünïcödé 🐘", note: { a: [1, null] }, mood: "happy" });
  return [(await order.reload()).get({ plain: true }), await Order.count(), await state(() => Order.create({ name: "order 1" }))];
});

const read = () => opened(async (db, Order) => {
  const order = await Order.findOne({ where: { name: "order 7" } });
  await order.update({ tags: [...order.tags, "seven"] });
  return [
    (await order.reload()).tags, await Order.sum("price"),
    (await Order.findAll({ where: { price: { [Op.gt]: 70 } }, order: [["id", "DESC"]], limit: 3 })).map((o) => o.name),
    await Order.findAndCountAll({ where: { "note.i": 9 }, raw: true }),
    await select(db, "select name from orders where id = $1 and price < $2", { bind: [3, "100"] }),
  ];
});

const transaction = () => opened(async (db, Order) => {
  const got = [];
  await db.transaction(async (outer) => {
    await Order.create({ name: "outer" }, { transaction: outer });
    for (const name of ["outer", "inner"]) {
      got.push(await state(() => db.transaction({ transaction: outer }, (inner) => Order.create({ name }, { transaction: inner }))));
    }
  });
  got.push(await state(() => db.transaction(async (t) => {
    await Order.create({ name: "undone" }, { transaction: t });
    throw new Error("changed my mind");
  })));
  await db.transaction({ isolationLevel: Transaction.ISOLATION_LEVELS.SERIALIZABLE }, async (t) => {
    got.push(await select(db, "show transaction_isolation", { transaction: t }));
    const locked = await Order.findOne({ where: { name: "outer" }, lock: t.LOCK.UPDATE, transaction: t });
    got.push(locked.name);
  });
  return [...got, (await Order.findAll({ where: { name: ["outer", "inner", "undone"] }, order: ["name"] })).map((o) => o.name)];
});

const errors = () => opened(async (db) => {
  const got = [];
  for (const sql of manyErrors) {
    got.push([await state(() => db.query(sql)), await select(db, "select 1 as one")]);
  }
  return got;
});

const manyRows = () => opened(async (db) => {
  const rows = await select(db, "select i, repeat('x', 100) as x from generate_series(1, 20000) i");
  return [rows.length, rows.reduce((sum, row) => sum + row.i, 0)];
});

// Each connection of an engine begins with a string of SETs of its own.
const settings = () => opened((one) => opened(async (other) => {
  const got = [];
  for (const db of [one, other, one, other]) {
    got.push(await select(db, show), await select(db, "show client_min_messages"));
  }
  return got;
}), { timezone: "+09:00", clientMinMessages: "notice", dialectOptions: { application_name: "one", statement_timeout: 50000 } });

const pool = () => opened(async (db, Order) => {
  await Promise.all(Array.from({ length: 30 }, async (_, i) => {
    for (let j = 0; j < 3; j++) {
      await db.transaction((t) => Order.create({ name: `task ${i}/${j}` }, { transaction: t }));
    }
  }));
  return Order.count({ where: { name: { [Op.like]: "task%" } } });
});

play({
  driver: async () => version, connect, tls, migration, create, read, transaction, errors, "many rows": manyRows, settings, pool,
});
