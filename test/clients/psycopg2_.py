"""psycopg 2, with COPY and a server-side cursor."""
import io
import sys

import psycopg2
from psycopg2.extras import execute_batch, execute_values


def state(command, *values):
    """The SQLSTATE of a transaction that has inserted a row before."""
    try:
        with connection:
            cursor.execute("INSERT INTO event (what) VALUES ('gone')")
            cursor.execute(command, values)
    except psycopg2.Error as error:
        return error.pgcode
    return "none"


connection = psycopg2.connect("")
cursor = connection.cursor()
with connection, open(sys.argv[1], encoding="utf-8") as tables:
    cursor.execute(tables.read())

with connection:
    cursor.execute("INSERT INTO event (what) VALUES (%s) RETURNING id", ["one"])
    ids = cursor.fetchall()
    ids += execute_values(cursor, "INSERT INTO event (what) VALUES %s RETURNING id",
                          [[f"batch {n}"] for n in range(1, 101)], page_size=30, fetch=True)
    execute_batch(cursor, "INSERT INTO seen VALUES (%s)", ids)
    cursor.copy_expert("COPY event (what) FROM STDIN",
                       io.StringIO("".join(f"copy {n}\n" for n in range(1, 1001))))

upsert = ("INSERT INTO price VALUES %s"
          " ON CONFLICT (product) DO UPDATE SET price = excluded.price")
with connection:
    execute_values(cursor, upsert, [[f"p{n}", n] for n in range(1, 51)])
    execute_values(cursor, upsert, [[f"p{n}", 1000 + n] for n in range(41, 61)])

total = 0
with connection:
    cursor.execute("PREPARE by_key (text) AS SELECT price FROM price WHERE product = $1")
    for n in range(1, 61):
        cursor.execute("EXECUTE by_key (%s)", [f"p{n}"])
        total += cursor.fetchone()[0]
print("read:", total)

print("duplicate:", state("INSERT INTO price VALUES ('p1', 1)"))
print("check:", state("INSERT INTO price VALUES (%s, %s)", "new", 0))
print("given id:", state("INSERT INTO event (id, what) VALUES (%s, %s)", 1, "mine"))

with connection, connection.cursor("all_events") as reader:
    reader.itersize = 50
    reader.execute("SELECT * FROM event")
    print("fetched:", sum(1 for row in reader))

with connection:
    cursor.execute("UPDATE event SET what = 'changed' WHERE what = %s", ["batch 1"])
    changed = cursor.rowcount
    cursor.execute("DELETE FROM event WHERE what = %s RETURNING what", ["batch 2"])
    print("changed:", changed, len(cursor.fetchall()))
