"""SQLAlchemy: its core and its ORM, with models as docs/orm.md has them."""
import sys

from sqlalchemy import (BigInteger, Column, DateTime, Integer, Text, bindparam, create_engine,
                        delete, func, select, text, update)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session, declarative_base

Base = declarative_base()


class Event(Base):
    __tablename__ = "event"
    id = Column(BigInteger, primary_key=True, autoincrement=True)
    what = Column(Text, nullable=False)
    at = Column(DateTime(timezone=True), nullable=False, server_default=func.now())


class Price(Base):
    __tablename__ = "price"
    product = Column(Text, primary_key=True)
    price = Column(Integer, nullable=False)


class Seen(Base):
    __tablename__ = "seen"
    id = Column(BigInteger, primary_key=True, autoincrement=False)


engine = create_engine("postgresql+psycopg2://", future=True)


def state(statement):
    """The SQLSTATE of a transaction that has inserted a row before."""
    try:
        with Session(engine) as failing, failing.begin():
            failing.add(Event(what="gone"))
            failing.flush()
            failing.execute(statement)
    except DBAPIError as error:
        return error.orig.pgcode
    return "none"


def upsert(first, last, more):
    """Prices of products, whether they are there or not."""
    statement = insert(Price).values(
        [{"product": f"p{n}", "price": more + n} for n in range(first, last + 1)])
    return statement.on_conflict_do_update(
        index_elements=[Price.product], set_={"price": statement.excluded.price})


with engine.begin() as connection, open(sys.argv[1], encoding="utf-8") as tables:
    connection.exec_driver_sql(tables.read())

# All tables are there: nothing is created.
Base.metadata.create_all(engine)

with Session(engine) as session:
    with session.begin():
        events = [Event(what="one")] + [Event(what=f"batch {n}") for n in range(1, 101)]
        session.add_all(events)
        session.flush()
        session.add_all([Seen(id=event.id) for event in events])
    with session.begin():
        session.execute(upsert(1, 50, 0))
        session.execute(upsert(41, 60, 1000))
    with session.begin():
        by_key = select(Price.price).where(Price.product == bindparam("key"))
        print("read:", sum(session.execute(by_key, {"key": f"p{n}"}).scalar_one()
                           for n in range(1, 61)))
        assert session.get(Price, "p41").price == 1041

print("duplicate:", state(insert(Price).values(product="p1", price=1)))
print("check:", state(insert(Price).values(product="new", price=0)))
print("given id:", state(insert(Event).values(id=1, what="mine")))

with Session(engine) as session, session.begin():
    rows = session.execute(select(Event.id, Event.what).execution_options(stream_results=True, yield_per=50))
    print("fetched:", sum(len(part) for part in rows.partitions()))
    changed = session.execute(update(Event).where(Event.what == "batch 1").values(what="changed"))
    deleted = session.execute(delete(Event).where(Event.what == "batch 2"))
    print("changed:", changed.rowcount, deleted.rowcount)
