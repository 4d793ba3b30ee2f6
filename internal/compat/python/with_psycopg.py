"""psycopg 3."""

import datetime
import decimal
import queue
import threading
import uuid

import psycopg
from psycopg.types.json import Jsonb

from play import *

absent = {}


def connect(**more):
    settings = dict(host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, sslmode="disable", autocommit=True)
    return psycopg.connect(**{**settings, **more})


def rows(conn, sql, *params, **more):
    cursor = conn.execute(sql, params or None, **more)
    return cursor.fetchall()


def state(conn, sql, *params):
    """The SQLSTATE of a statement."""
    try:
        conn.execute(sql, params or None)
    except psycopg.Error as e:
        return e.sqlstate or repr(e)
    return "none"


def driver():
    return psycopg.__version__ + " with libpq " + str(psycopg.pq.version())


def connect_():
    with connect() as conn:
        names = ["server_version", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "is_superuser", "session_authorization"]
        return [[conn.info.parameter_status(name) for name in names], conn.info.transaction_status.name, rows(conn, "select current_user")]


def tls():
    got = []
    for more in {"sslmode": "require"}, {"sslmode": "verify-full", "sslrootcert": CA, "channel_binding": "require"}:
        with connect(**more) as conn:
            got.append([conn.pgconn.ssl_in_use, rows(conn, "select right(repeat('x', %s), 5)", 20000)])
    return got


def wrong_password():
    got = []
    for more in {"password": "guess"}, {"password": "guess", "user": "nobody"}:
        try:
            connect(**more)
        except psycopg.OperationalError as e:
            got.append("password authentication failed" in str(e))
    return got


def unknown_database():
    try:
        connect(dbname="nowhere")
    except psycopg.OperationalError as e:
        return "does not exist" in str(e)


def application_name():
    sql = "select current_setting('application_name'), current_setting('work_mem'), current_setting('search_path')"
    options = "-c work_mem=5MB --search-path=pg_catalog,public"
    with connect(application_name="a shop's till", options=options) as one, connect(application_name="other") as other:
        return [[rows(one, sql), rows(other, sql)] for _ in range(3)]


def types():
    values = [
        -7, 2**62, 1 / 3, decimal.Decimal("12345678901234567890.123456789"), "it's \"quoted\" \\ and % $1 ?", True,
        b"\x00\x01\\'\xff", datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, datetime.timezone.utc), datetime.date(1969, 12, 31),
        datetime.timedelta(days=3, seconds=4.5), uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"), Jsonb({"a": [1, None, "ü"]}),
        [1, 2, 3], ["a,b", 'c"d', ""],
    ]
    with connect() as conn:
        return [
            [repr(rows(conn, "select %s", value, binary=binary)) for value in values]
            for binary in (False, True)
        ]


def nulls():
    with connect() as conn:
        got = rows(conn, "select %s::text, %s::int, coalesce(%s::text, 'was null'), ''", None, None, None)
        conn.execute("insert into item values (1, 'nothing', %s, %s, %s)", (None, None, None))
        return got + rows(conn, "select * from item where price is not distinct from %s", None)


def unicode():
    name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t"
    with connect() as conn:
        conn.execute('create temp table "Tab ä" ("Spalte 名" text)')
        conn.execute('insert into "Tab ä" values (%s)', (name,))
        return rows(conn, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = %s', name)


def big_values():
    with connect() as conn:
        (text,), = rows(conn, "select %s::text", BIG)
        (raw,), = rows(conn, "select %s::bytea", BIG.encode(), binary=True)
        (length,), = rows(conn, f"select length('{BIG}')")
        return [text == BIG, digest(raw), length, rows(conn, "select 1")]


def prepared():
    """Statements are prepared from their sixth execution on, and the oldest forgotten when there are too many."""
    with connect() as conn:
        got = [rows(conn, "select %s::int * 2", i) for i in range(25)]
        conn.prepared_max = 3
        for round in range(3):
            got += [rows(conn, f"select %s::int + {i}", round, prepare=True) for i in range(7)]
        return got


def equal_names():
    """Each connection numbers its prepared statements from _pg3_0."""
    conns = [connect(prepare_threshold=0) for _ in range(6)]
    got = []
    for round in range(10):
        for i, conn in enumerate(conns):
            got += rows(conn, f"select '{i}', %s::int + {i * 100}", round) + rows(conn, f"select %s::text || '{i}'", str(round))
    for conn in conns:
        conn.close()
    return got


def pipeline():
    with connect() as conn:
        cursors = []
        with conn.pipeline() as p:
            for i in range(20):
                cursors.append(conn.execute("insert into item (id, name) values (%s, %s) returning id", (100 + i, f"item {i}")))
                cursors.append(conn.execute("select count(*), max(name) from item where id >= %s", (100,)))
                if i % 7 == 3:
                    p.sync()
        got = [cursor.fetchall() for cursor in cursors]
        cursor = conn.cursor()
        cursor.executemany("insert into item (id, name) values (%s, 'many') returning id", [(i,) for i in range(150, 180)], returning=True)
        while True:
            got.append(cursor.fetchall())
            if not cursor.nextset():
                return got


def failed_pipeline():
    got = []
    with connect() as conn:
        for _ in range(3):
            try:
                with conn.pipeline():
                    conn.execute("insert into item (id, name) values (200, 'first')")
                    conn.execute("select %s::int / 0", (1,))
                    conn.execute("insert into item (id, name) values (201, 'never')")
            except psycopg.Error as e:
                got.append(e.sqlstate)
            got += rows(conn, "select count(*) from item where id >= 200")
        with conn.pipeline() as p:
            bad = conn.execute("select %s::int / 0", (1,))
            try:
                p.sync()
            except psycopg.Error as e:
                got.append(e.sqlstate)
            good = conn.execute("select %s::int", (1,))
        return got + good.fetchall() + [bad.pgresult is not None]


def transaction():
    got = []
    with connect(autocommit=False) as conn:
        for i, end in enumerate([conn.commit, conn.rollback, conn.commit]):
            for j in range(3):
                conn.execute("insert into parent values (%s)", (10 * i + j,))
            got += rows(conn, "select count(*) from parent") + [conn.info.transaction_status.name]
            end()
            got.append(conn.info.transaction_status.name)
        return got + rows(conn, "select * from parent order by 1")


def savepoints():
    got = []
    with connect() as conn:
        with conn.transaction():
            for i in range(4):
                try:
                    with conn.transaction():
                        conn.execute("insert into parent values (%s)", (100 + i % 2,))
                except psycopg.Error as e:
                    got.append(e.sqlstate)
        return got + rows(conn, "select * from parent where id >= 100 order by 1")


def read_only():
    write = "insert into parent values (%s)"
    with connect() as one, connect() as other:
        one.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
        one.read_only = one.deferrable = True
        with one.transaction():
            got = rows(one, "select current_setting('transaction_isolation'), current_setting('transaction_deferrable')")
            with one.transaction():
                got.append(state(one, write, 200))
                raise psycopg.Rollback
        one.execute("set session characteristics as transaction read only")
        return got + [state(one, write, 201), state(other, write, 202), state(one, write, 203)]


def two_phase():
    with connect(autocommit=False) as one, connect(autocommit=False) as other:
        got = []
        for end in one.tpc_commit, one.tpc_rollback:
            one.tpc_begin(one.xid(1, DATABASE, end.__name__))
            one.execute("insert into parent values (%s)", (300 + len(got),))
            one.tpc_prepare()
            got += rows(other, "select count(*) from parent where id >= 300")
            other.rollback()
            end()
            got += rows(one, "select count(*) from parent where id >= 300")
            one.commit()
        return got + [[xid.gtrid for xid in one.tpc_recover() if xid.gtrid == DATABASE]]


def errors():
    with connect() as conn:
        got = [[state(conn, sql), rows(conn, "select %s::int", 1)] for sql in MANY_ERRORS]
        got += [state(conn, "select %s::text::int", "no number"), state(conn, "select %s::int from nowhere", 1)]
        try:
            conn.execute("select fail('22000')")
        except psycopg.Error as e:
            got.append([e.diag.severity, e.diag.message_primary, e.diag.message_detail, e.diag.message_hint, e.diag.context])
        return got


def failed_transaction():
    with connect(autocommit=False) as conn:
        got = [state(conn, "select 1/0"), conn.info.transaction_status.name, state(conn, "select %s::int", 1), state(conn, "select 1")]
        conn.rollback()
        return got + rows(conn, "select %s::int", 1)


def deferred_constraint():
    with connect(autocommit=False) as conn:
        conn.execute("insert into child values (%s, %s)", (1, 99))
        try:
            conn.commit()
        except psycopg.Error as e:
            got = [e.sqlstate, conn.info.transaction_status.name]
        return got + rows(conn, "select count(*) from child")


def notices():
    with connect() as conn:
        heard = []
        conn.add_notice_handler(lambda d: heard.append([d.severity, d.message_primary, d.message_detail]))
        got = rows(conn, "select shout(%s) from wide", "hey")
        conn.execute("drop table if exists nowhere")
        return [got, heard]


def several_results():
    with connect() as conn:
        cursor = conn.execute("select 1; insert into item (id, name) values (300, 'x'); select * from wide")
        got = []
        while True:
            got.append([cursor.statusmessage, cursor.fetchall() if cursor.description else None])
            if not cursor.nextset():
                break
        got.append(state(conn, "insert into item (id, name) values (301, 'x'); select 1/0; select 2"))
        return got + rows(conn, "select count(*) from item where id >= 300")


def copy_in():
    with connect() as conn:
        cursor = conn.cursor()
        with cursor.copy("copy item (id, name, price) from stdin") as copy:
            for i in range(20000):
                copy.write_row((10000 + i, f"copied\t{i}", i / 4))
        with cursor.copy("copy wide (id, a) from stdin (format binary)") as copy:
            copy.set_types(["int4", "text"])
            copy.write_row((7, "seven"))
        return rows(conn, "select count(*), sum(id), sum(price), max(name) from item where id >= 10000") + rows(conn, "select * from wide where id = 7")


def copy_out():
    with connect() as conn:
        got = []
        for format in "text", "csv", "binary":
            with conn.cursor().copy(f"copy (select i, 'row '||i from generate_series(1, 30000) i) to stdout (format {format})") as copy:
                got.append(digest(b"".join(bytes(block) for block in copy)))
        with conn.cursor().copy("copy (select i from generate_series(1, 3) i) to stdout") as copy:
            got += list(copy.rows())
        return got + rows(conn, "select 1")


def failed_copy():
    got = []
    with connect() as conn:
        for data in "70\tx\nno number\tx\n", "71\tx\n1\ttwice\n", "72\n":
            try:
                with conn.cursor().copy("copy wide (id, a) from stdin") as copy:
                    copy.write(data)
            except psycopg.Error as e:
                got.append(e.sqlstate)
            got += rows(conn, "select %s::int", 1)
        try:
            with conn.cursor().copy("copy wide (id, a) from stdin") as copy:
                copy.write("73\tx\n")
                raise ValueError("the source gives up")
        except psycopg.Error as e:
            got += [e.sqlstate, conn.info.transaction_status.name]
        try:
            with conn.cursor().copy("copy (select 1/(3-i) from generate_series(1, 5) i) to stdout") as copy:
                list(copy)
        except psycopg.Error as e:
            got.append(e.sqlstate)
        return got + rows(conn, "select count(*) from wide where id between 70 and 90")


def cursor():
    with connect(autocommit=False) as conn:
        with conn.cursor("named", scrollable=True) as named:
            named.itersize = 10
            named.execute("select i from generate_series(1, %s) i", (1000,))
            got = [named.fetchmany(3), named.fetchone()]
            named.scroll(-2)
            got += [named.fetchmany(2), sum(row[0] for row in named)]
        conn.commit()
        with conn.cursor("kept", withhold=True) as kept:
            kept.execute("select i from generate_series(1, 10) i")
            conn.commit()
            got.append(kept.fetchmany(2))
            conn.commit()
            with connect() as other:
                got += rows(other, "select count(*) from pg_cursors where name = 'kept'")
            got.append(kept.fetchmany(2))
        with conn.cursor() as plain:
            return got + [len(list(plain.stream("select i from generate_series(1, 500) i")))]


def many_rows():
    with connect() as conn:
        with conn.cursor() as cursor:
            cursor.execute("select i, repeat('x', i %% 100) from generate_series(1, %s) i", (50000,))
            return [sum(len(x) for _, x in cursor), cursor.rowcount]


def asleep_during(conn, query, do):
    """Runs a query, does something while the server executes it, and returns the query's SQLSTATE."""
    got = []
    thread = threading.Thread(target=lambda: got.append(state(conn, query)))
    thread.start()
    with connect() as watcher:
        until(lambda: rows(watcher, asleep(query))[0][0])
        do(watcher)
    thread.join()
    return got[0]


def cancel():
    got = []
    with connect() as conn:
        for i in range(3):
            got.append(asleep_during(conn, f"select pg_sleep(60), {i}", lambda _: conn.cancel()))
            got += rows(conn, "select %s::int", i)
    return got


def timeout():
    with connect() as conn:
        conn.execute("set statement_timeout = 100")
        got = [state(conn, "select pg_sleep(60)"), rows(conn, "show statement_timeout")]
        conn.execute("reset statement_timeout")
        return got + [rows(conn, "show statement_timeout"), state(conn, "select pg_sleep(0.2)")]


def notify():
    with connect() as listener, connect() as notifier:
        listener.execute("listen news")
        notifier.execute("notify news, 'one'")
        notifier.execute("select pg_notify('news', %s)", ("x" * 7000,))
        notifier.execute("notify other, 'unheard'")
        notifier.execute("notify news, 'last'")
        got = []
        for n in listener.notifies():
            got.append([n.channel, len(n.payload)])
            if n.payload == "last":
                break
        listener.execute("unlisten news")
        return got + rows(listener, "select count(*) from pg_listening_channels()") + rows(notifier, "select count(*) from pg_listening_channels()")


def settings():
    got = []
    with connect() as one, connect() as other:
        def both():
            got.extend([rows(one, SHOW), rows(other, SHOW)])

        both()
        for sql in SETTINGS:
            one.execute(sql)
            both()
        for end in "rollback", "commit":
            one.execute("begin")
            one.execute("set work_mem = '1MB'")
            one.execute("set local timezone = 'UTC'")
            got.append(rows(one, SHOW))
            one.execute(end)
            both()
        one.execute("reset all")
        both()
        return got + [one.info.parameter_status("TimeZone"), other.info.parameter_status("TimeZone")]


def session_state():
    with connect() as one, connect() as other:
        one.execute("create temp table mine (id int)")
        one.execute("insert into mine values (%s)", (1,))
        got = [state(other, "select * from mine"), rows(one, "select * from mine")]
        one.execute("drop table mine")
        one.execute("select pg_advisory_lock(7)")
        got += [rows(other, "select pg_try_advisory_lock(7)"), rows(one, "select pg_advisory_unlock(7)")]
        got += [rows(other, "select pg_try_advisory_lock(7)"), rows(other, "select pg_advisory_unlock(7)")]
        one.execute("set role pg_monitor")
        got += [rows(one, "select current_user"), rows(other, "select current_user")]
        one.execute("reset role")
        return got + rows(one, "select current_user")


def reset():
    with connect() as one, connect() as other:
        one.execute("set work_mem = '8MB'")
        one.execute("create temp table gone (id int)")
        one.execute("select pg_advisory_lock(8)")
        one.execute("discard all")
        got = [rows(one, "show work_mem"), state(one, "select * from gone")]
        return got + rows(other, "select pg_try_advisory_lock(8)") + rows(other, "select pg_advisory_unlock_all()") + rows(other, "show work_mem")


def schema_change():
    with connect(prepare_threshold=0) as conn:
        return changed(conn, conn)


def schema_change_by_another():
    with connect(prepare_threshold=0) as one, connect(prepare_threshold=0) as other:
        return changed(one, other)


def changed(one, last):
    sql = "select * from wide where id = %s"
    for _ in range(3):
        rows(one, sql, 1), rows(last, sql, 1)
    one.execute(f"alter table wide add b{one is last} int default 5")
    got = []
    for conn in one, last:
        # How long the prepared statement is refused is not compared: the proxy prepares it anew, the driver does not.
        state(conn, sql, 1)
        got += rows(conn, sql, 1, prepare=False)
    return got


def terminated():
    with connect() as conn:
        query = "select pg_sleep(61)"
        got = [asleep_during(conn, query, lambda watcher: watcher.execute(terminate(query))), conn.closed]
    with connect() as conn:
        return got + rows(conn, "select 1")


def pool():
    free = queue.Queue()
    for _ in range(10):
        free.put(connect())

    def task(i):
        for j in range(5):
            conn = free.get()
            with conn.transaction():
                key = 1000000 + 10 * i + j
                conn.execute("insert into item (id, name) values (%s, %s)", (key, f"task {key}"))
                if rows(conn, "select id from item where name = %s", f"task {key}") != [(key,)]:
                    raise AssertionError(key)
            if rows(conn, f"select %s::int + {i % 7}", j) != [(j + i % 7,)]:
                raise AssertionError(i)
            free.put(conn)

    threads(60, task)
    with connect() as conn:
        return rows(conn, "select count(*), sum(id), count(distinct name) from item where id >= 1000000")


if __name__ == "__main__":
    play({**globals(), "connect": connect_})
