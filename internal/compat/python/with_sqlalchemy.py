"""SQLAlchemy on psycopg2."""

import os

import sqlalchemy as sa
from sqlalchemy.orm import Session, declarative_base
from sqlalchemy.pool import NullPool

from play import *

absent = {}
Base = declarative_base()


class Order(Base):
    __tablename__ = "orders"
    id = sa.Column(sa.Integer, primary_key=True)
    name = sa.Column(sa.Text, nullable=False, unique=True)
    price = sa.Column(sa.Numeric(12, 2))
    tags = sa.Column(sa.ARRAY(sa.Text))
    note = sa.Column(sa.JSON)


def engine(**more):
    url = sa.engine.URL.create("postgresql+psycopg2", USER, PASSWORD, HOST, PORT, DATABASE)
    return sa.create_engine(url, **{"connect_args": {"sslmode": "disable"}, "pool_pre_ping": True, **more})


def state(do):
    try:
        do()
    except sa.exc.DBAPIError as e:
        return e.orig.pgcode
    return "none"


def driver():
    return sa.__version__


def connect():
    with engine().connect() as conn:
        dialect = conn.dialect
        return [str(dialect.server_version_info), dialect.default_schema_name, conn.get_isolation_level(), conn.scalar(sa.text("select current_user"))]


def tls():
    with engine(connect_args={"sslmode": "verify-full", "sslrootcert": CA}).connect() as conn:
        return conn.scalar(sa.text("select right(repeat('x', :n), 5)"), {"n": 20000})


def migration():
    e = engine()
    Base.metadata.create_all(e)
    found = sa.inspect(e)
    return [sorted(found.get_table_names()), [str(c["type"]) for c in found.get_columns("orders")], found.get_unique_constraints("orders")]


def create():
    with Session(engine()) as session:
        session.add_all(Order(name=f"order {i}", price=i / 4, tags=["a", f"t{i}"], note={"i": i}) for i in range(300))
        session.commit()
        order = Order(name="one more", note=None)
        session.add(order)
        session.flush()
        got = [order.id]
        session.rollback()
        return got


def read():
    with Session(engine()) as session:
        got = [session.query(sa.func.count(Order.id), sa.func.sum(Order.price)).one()[:]]
        order = session.query(Order).filter(Order.name == "order 7").one()
        order.tags = order.tags + ["ünïcödé 🐘"]
        session.commit()
        return got + [order.tags, order.note, [o.name for o in session.query(Order).order_by(Order.id.desc()).limit(3)]]


def transaction():
    got = []
    with engine().connect() as conn:
        with conn.begin():
            conn.execute(sa.text("insert into parent values (1)"))
            for i in 1, 2:
                nested = conn.begin_nested()
                got.append(state(lambda: conn.execute(sa.text("insert into parent values (:i)"), {"i": i})))
                nested.rollback() if got[-1] != "none" else nested.commit()
        tx = conn.begin()
        conn.execute(sa.text("insert into parent values (3)"))
        tx.rollback()
        return got + [conn.scalar(sa.text("select sum(id) from parent"))]


def read_only():
    e = engine()
    with e.connect().execution_options(isolation_level="SERIALIZABLE", postgresql_readonly=True, postgresql_deferrable=True) as conn:
        got = [conn.scalar(sa.text("show transaction_isolation")), state(lambda: conn.execute(sa.text("insert into parent values (200)")))]
    with e.connect() as conn:
        return got + [conn.scalar(sa.text("show transaction_isolation")), state(lambda: conn.execute(sa.text("insert into parent values (201)")))]


def errors():
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        return [[state(lambda: conn.execute(sa.text(sql))), conn.scalar(sa.text("select 1"))] for sql in MANY_ERRORS]


def many_rows():
    """By a named cursor."""
    with engine().connect() as conn:
        stream = conn.execution_options(stream_results=True, max_row_buffer=100)
        rows = stream.execute(sa.text("select i from generate_series(1, 5000) i"))
        got = [rows.fetchone()[0], len(rows.fetchmany(10)), sum(row[0] for row in rows)]
        half = stream.execute(sa.text("select i from generate_series(1, 5000) i"))
        got.append(half.fetchone()[0])
        half.close()
        return got + [conn.scalar(sa.text("select 1"))]


def settings():
    one, other = engine(poolclass=NullPool, connect_args={"sslmode": "disable", "options": "-c timezone=Asia/Tokyo"}), engine(poolclass=NullPool)
    got = []
    with one.connect() as a, other.connect() as b:
        for conn in a, b, a, b:
            got.append(list(conn.execute(sa.text(SHOW)).one()))
            conn.execute(sa.text("set work_mem = '6MB'"))  # taken back at the end of the transaction
            conn.execute(sa.text("rollback"))
    return got


def pool():
    e = engine(pool_size=5, max_overflow=5, pool_timeout=50)

    def task(i):
        for j in range(5):
            with Session(e) as session, session.begin():
                session.add(Order(name=f"task {i}/{j}", price=1))

    threads(40, task)
    with e.connect() as conn:
        got = conn.scalar(sa.text("select count(*) from orders where name like 'task%'"))
    e.dispose()
    return got


if __name__ == "__main__":
    play(globals())
