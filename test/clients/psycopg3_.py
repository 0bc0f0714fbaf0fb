"""psycopg 3, with COPY, a pipeline and a server-side cursor."""
import sys

import psycopg


def state(command, *values):
    """The SQLSTATE of a transaction that has inserted a row before."""
    try:
        with connection.transaction():
            connection.execute("INSERT INTO event (what) VALUES ('gone')")
            connection.execute(command, values)
    except psycopg.Error as error:
        return error.sqlstate
    return "none"


connection = psycopg.connect(autocommit=True)
cursor = connection.cursor()
with open(sys.argv[1], encoding="utf-8") as tables:
    cursor.execute(tables.read())

cursor.execute("INSERT INTO event (what) VALUES (%s) RETURNING id", ["one"])
ids = cursor.fetchall()
cursor.executemany("INSERT INTO event (what) VALUES (%s) RETURNING id",
                   [[f"batch {n}"] for n in range(1, 101)], returning=True)
while True:
    ids += cursor.fetchall()
    if not cursor.nextset():
        break
with connection.pipeline():
    cursor.executemany("INSERT INTO seen VALUES (%s)", ids)

with cursor.copy("COPY event (what) FROM STDIN") as copy:
    for n in range(1, 1001):
        copy.write_row([f"copy {n}"])

upsert = ("INSERT INTO price VALUES (%s, %s)"
          " ON CONFLICT (product) DO UPDATE SET price = excluded.price")
with connection.pipeline():
    cursor.executemany(upsert, [[f"p{n}", n] for n in range(1, 51)])
    cursor.executemany(upsert, [[f"p{n}", 1000 + n] for n in range(41, 61)])

total = 0
for n in range(1, 61):
    cursor.execute("SELECT price FROM price WHERE product = %s", [f"p{n}"], prepare=True)
    total += cursor.fetchone()[0]
print("read:", total)

print("duplicate:", state("INSERT INTO price VALUES ('p1', 1)"))
print("check:", state("INSERT INTO price VALUES (%s, %s)", "new", 0))
print("given id:", state("INSERT INTO event (id, what) VALUES (%s, %s)", 1, "mine"))

with connection.transaction(), connection.cursor("all_events") as reader:
    reader.itersize = 50
    reader.execute("SELECT * FROM event")
    print("fetched:", sum(1 for row in reader))

cursor.execute("UPDATE event SET what = 'changed' WHERE what = %s", ["batch 1"])
changed = cursor.rowcount
cursor.execute("DELETE FROM event WHERE what = %s RETURNING what", ["batch 2"])
print("changed:", changed, len(cursor.fetchall()))
