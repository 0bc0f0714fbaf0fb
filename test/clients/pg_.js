// node-postgres ("pg").
'use strict';
const fs = require('fs');
const { Client, Pool } = require('pg');

const numbers = (first, last) => Array.from({ length: last - first + 1 }, (_, n) => first + n);

// The SQLSTATE of a transaction that has inserted a row before.
async function state(client, command, values) {
  try {
    await client.query('BEGIN');
    await client.query("INSERT INTO event (what) VALUES ('gone')");
    await client.query(command, values);
    await client.query('COMMIT');
  } catch (error) {
    await client.query('ROLLBACK');
    return error.code;
  }
  return 'none';
}

async function main() {
  const client = new Client();
  await client.connect();
  await client.query(fs.readFileSync(process.argv[2], 'utf8'));

  const one = await client.query('INSERT INTO event (what) VALUES ($1) RETURNING id', ['one']);
  const batch = numbers(1, 100).map((n) => `batch ${n}`);
  const many = await client.query(
    `INSERT INTO event (what) VALUES ${batch.map((_, n) => `($${n + 1})`).join(', ')} RETURNING id`, batch);
  await client.query('INSERT INTO seen SELECT unnest($1::bigint[])',
    [one.rows.concat(many.rows).map((row) => row.id)]);

  // Several connections at a time.
  const pool = new Pool({ max: 4 });
  const upsert = (n, price) => pool.query(
    `INSERT INTO price VALUES ($1, $2)
       ON CONFLICT (product) DO UPDATE SET price = excluded.price`, [`p${n}`, price]);
  await Promise.all(numbers(1, 50).map((n) => upsert(n, n)));
  await Promise.all(numbers(41, 60).map((n) => upsert(n, 1000 + n)));
  await pool.end();

  let total = 0;
  for (const n of numbers(1, 60)) {
    const found = await client.query({
      name: 'by_key', text: 'SELECT price FROM price WHERE product = $1', values: [`p${n}`] });
    total += found.rows[0].price;
  }
  console.log('read:', total);

  console.log('duplicate:', await state(client, "INSERT INTO price VALUES ('p1', 1)"));
  console.log('check:', await state(client, 'INSERT INTO price VALUES ($1, $2)', ['new', 0]));
  console.log('given id:',
    await state(client, 'INSERT INTO event (id, what) VALUES ($1, $2)', [1, 'mine']));

  let fetched = 0;
  await client.query('BEGIN');
  await client.query('DECLARE all_events CURSOR FOR SELECT * FROM event');
  for (;;) {
    const { rowCount } = await client.query('FETCH 50 FROM all_events');
    if (rowCount === 0) break;
    fetched += rowCount;
  }
  await client.query('COMMIT');
  console.log('fetched:', fetched);

  const changed = await client.query("UPDATE event SET what = 'changed' WHERE what = $1", ['batch 1']);
  const deleted = await client.query('DELETE FROM event WHERE what = $1 RETURNING what', ['batch 2']);
  console.log('changed:', changed.rowCount, deleted.rows.length);
  await client.end();
}

main().catch((error) => { console.error(error); process.exit(1); });
