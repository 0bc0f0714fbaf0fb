// Sequelize, with models as docs/orm.md has them.
'use strict';
const fs = require('fs');
const { DataTypes, QueryTypes, Sequelize } = require('sequelize');

const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

const sequelize = new Sequelize(process.env.PGDATABASE, process.env.PGUSER, '', {
  dialect: 'postgres', host: process.env.PGHOST, port: process.env.PGPORT, logging: false });

const Event = sequelize.define('Event', {
  id: { type: DataTypes.BIGINT, primaryKey: true, autoIncrement: true },
  what: { type: DataTypes.TEXT, allowNull: false },
  at: { type: DataTypes.DATE, defaultValue: Sequelize.fn('now') },
}, { tableName: 'event', timestamps: false });
const Price = sequelize.define('Price', {
  product: { type: DataTypes.TEXT, primaryKey: true },
  price: { type: DataTypes.INTEGER, allowNull: false },
}, { tableName: 'price', timestamps: false });
const Seen = sequelize.define('Seen', {
  id: { type: DataTypes.BIGINT, primaryKey: true },
}, { tableName: 'seen', timestamps: false });

// The SQLSTATE of a transaction that has inserted a row before.
async function state(model, values) {
  try {
    await sequelize.transaction(async (transaction) => {
      await Event.create({ what: 'gone' }, { transaction });
      await model.create(values, { transaction });
    });
  } catch (error) {
    return error.parent.code;
  }
  return 'none';
}

async function main() {
  await sequelize.query(fs.readFileSync(process.argv[2], 'utf8'));
  await sequelize.sync();

  const events = [await Event.create({ what: 'one' })].concat(
    await Event.bulkCreate(numbers(1, 100).map((n) => ({ what: `batch ${n}` }))));
  await Seen.bulkCreate(events.map((event) => ({ id: event.id })));

  await Price.bulkCreate(numbers(1, 50).map((n) => ({ product: `p${n}`, price: n })));
  await Price.bulkCreate(numbers(41, 60).map((n) => ({ product: `p${n}`, price: 1 })),
    { ignoreDuplicates: true });
  await Price.bulkCreate(numbers(41, 59).map((n) => ({ product: `p${n}`, price: 1000 + n })),
    { updateOnDuplicate: ['price'] });
  await Price.upsert({ product: 'p60', price: 1060 });

  let total = 0;
  for (const n of numbers(1, 60)) {
    const [found] = await sequelize.query('SELECT price FROM price WHERE product = $1',
      { bind: [`p${n}`], type: QueryTypes.SELECT });
    total += found.price;
  }
  console.log('read:', total);

  console.log('duplicate:', await state(Price, { product: 'p1', price: 1 }));
  console.log('check:', await state(Price, { product: 'new', price: 0 }));
  console.log('given id:', await state(Event, { id: 1, what: 'mine' }));

  console.log('fetched:', (await Event.findAll()).length);
  const [changed] = await Event.update({ what: 'changed' }, { where: { what: 'batch 1' } });
  console.log('changed:', changed, await Event.destroy({ where: { what: 'batch 2' } }));
  await sequelize.close();
}

main().catch((error) => { console.error(error); process.exit(1); });
