// TypeORM, with entities as docs/orm.md has them.
'use strict';
require('reflect-metadata');
const fs = require('fs');
const { DataSource, EntitySchema } = require('typeorm');

const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

const Event = new EntitySchema({
  name: 'event', synchronize: false,
  columns: {
    id: { type: 'bigint', primary: true, generated: true },
    what: { type: 'text' },
    at: { type: 'timestamptz', default: () => 'now()' },
  },
});
const Price = new EntitySchema({
  name: 'price', synchronize: false,
  columns: { product: { type: 'text', primary: true }, price: { type: 'int' } },
});
const Seen = new EntitySchema({
  name: 'seen', synchronize: false,
  columns: { id: { type: 'bigint', primary: true } },
});

const source = new DataSource({
  type: 'postgres', host: process.env.PGHOST, port: Number(process.env.PGPORT),
  username: process.env.PGUSER, database: process.env.PGDATABASE,
  entities: [Event, Price, Seen], synchronize: false });

// The SQLSTATE of a transaction that has inserted a row before.
async function state(work) {
  try {
    await source.transaction(async (manager) => {
      await manager.insert(Event, { what: 'gone' });
      await work(manager);
    });
  } catch (error) {
    return error.driverError.code;
  }
  return 'none';
}

async function main() {
  await source.initialize();
  const manager = source.manager;
  await source.query(fs.readFileSync(process.argv[2], 'utf8'));
  await source.synchronize();

  const one = await manager.save(Event, { what: 'one' });
  const many = await manager.insert(Event, numbers(1, 100).map((n) => ({ what: `batch ${n}` })));
  await manager.insert(Seen, [one].concat(many.identifiers).map(({ id }) => ({ id })));

  await manager.insert(Price, numbers(1, 50).map((n) => ({ product: `p${n}`, price: n })));
  await manager.upsert(Price, numbers(41, 60).map((n) => ({ product: `p${n}`, price: 1000 + n })),
    ['product']);

  let total = 0;
  for (const n of numbers(1, 60)) total += (await manager.findOneBy(Price, { product: `p${n}` })).price;
  console.log('read:', total);

  console.log('duplicate:', await state((m) => m.insert(Price, { product: 'p1', price: 1 })));
  console.log('check:', await state((m) => m.insert(Price, { product: 'new', price: 0 })));
  // By itself it never sends a value for an id that is generated.
  console.log('given id:',
    await state((m) => m.query('INSERT INTO event (id, what) VALUES ($1, $2)', [1, 'mine'])));

  console.log('fetched:', (await manager.find(Event)).length);
  const changed = await manager.update(Event, { what: 'batch 1' }, { what: 'changed' });
  const deleted = await manager.delete(Event, { what: 'batch 2' });
  console.log('changed:', changed.affected, deleted.affected);
  await source.destroy();
}

main().catch((error) => { console.error(error); process.exit(1); });
