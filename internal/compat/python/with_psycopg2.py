"""psycopg2: everything goes by the simple protocol."""

import datetime
import decimal
import io
import select
import threading

import psycopg2
import psycopg2.extensions
import psycopg2.extras
import psycopg2.pool

from play import *

absent = {
    "pipeline": "it waits for each answer",
    "failed pipeline": "it waits for each answer",
}


def connect(autocommit=True, **more):
    settings = dict(host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, sslmode="disable")
    conn = psycopg2.connect(**{**settings, **more})
    conn.autocommit = autocommit
    return conn


def rows(conn, sql, *params):
    with conn.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchall()


def execute(conn, sql, *params):
    with conn.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.statusmessage


def state(conn, sql, *params):
    """The SQLSTATE of a statement."""
    try:
        execute(conn, sql, *params)
    except psycopg2.Error as e:
        return e.pgcode or repr(e)
    return "none"


def driver():
    return psycopg2.__version__ + " with libpq " + str(psycopg2.extensions.libpq_version())


def connect_():
    conn = connect()
    names = ["server_version", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "is_superuser", "session_authorization"]
    got = [[conn.get_parameter_status(name) for name in names], conn.server_version, conn.encoding, rows(conn, "select current_user")]
    conn.close()
    return got


def tls():
    got = []
    for more in {"sslmode": "require"}, {"sslmode": "verify-full", "sslrootcert": CA, "channel_binding": "require"}:
        conn = connect(**more)
        got.append([conn.info.ssl_in_use, rows(conn, "select right(repeat('x', %s), 5)", 20000)])
        conn.close()
    return got


def wrong_password():
    got = []
    for more in {"password": "guess"}, {"password": "guess", "user": "nobody"}:
        try:
            connect(**more)
        except psycopg2.OperationalError as e:
            got.append("password authentication failed" in str(e))
    return got


def unknown_database():
    try:
        connect(dbname="nowhere")
    except psycopg2.OperationalError as e:
        return "does not exist" in str(e)


def application_name():
    sql = "select current_setting('application_name'), current_setting('work_mem'), current_setting('search_path')"
    one = connect(application_name="a shop's till", options="-c work_mem=5MB --search-path=pg_catalog,public")
    other = connect(application_name="other")
    return [[rows(one, sql), rows(other, sql)] for _ in range(3)]


def types():
    values = [
        -7, 2**62, 1 / 3, decimal.Decimal("12345678901234567890.123456789"), "it's \"quoted\" \\ and % $1 ?", True,
        datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, datetime.timezone.utc), datetime.date(1969, 12, 31),
        datetime.timedelta(days=3, seconds=4.5), psycopg2.extras.Json({"a": [1, None, "ü"]}), [1, 2, 3], ["a,b", 'c"d', ""],
    ]
    conn = connect()
    got = [repr(rows(conn, "select %s, pg_typeof(%s)::text", value, value)) for value in values]
    return got + [repr(bytes(rows(conn, "select %s", psycopg2.Binary(b"\x00\x01\\'\xff"))[0][0]))]


def nulls():
    conn = connect()
    got = rows(conn, "select %s::text, %s::int, coalesce(%s::text, 'was null'), ''", None, None, None)
    execute(conn, "insert into item values (1, 'nothing', %s, %s, %s)", None, None, None)
    return got + rows(conn, "select * from item where price is not distinct from %s", None)


def unicode():
    name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t"
    conn = connect()
    execute(conn, 'create temp table "Tab ä" ("Spalte 名" text)')
    execute(conn, 'insert into "Tab ä" values (%s)', name)
    got = rows(conn, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = %s', name)
    conn.set_client_encoding("LATIN1")
    got += rows(conn, "select %s, octet_length(%s)", "ä", "ä") + [conn.encoding]
    conn.close()
    return got


def big_values():
    conn = connect()
    (text,), = rows(conn, "select %s::text", BIG)
    (raw,), = rows(conn, "select %s::bytea", psycopg2.Binary(BIG.encode()))
    return [text == BIG, digest(bytes(raw)), rows(conn, "select 1")]


def prepared():
    """By SQL, as the driver has none of its own."""
    conn = connect()
    execute(conn, "prepare mine(int) as select id, a from wide where id = $1")
    got = [rows(conn, "execute mine(%s)", i) for i in range(25)]
    execute(conn, "deallocate mine")
    return got + [state(conn, "execute mine(1)")]


def equal_names():
    conns = [connect() for _ in range(3)]
    for i, conn in enumerate(conns):
        execute(conn, f"prepare same(int) as select '{i}', $1 + {i * 100}")
    return [rows(conn, "execute same(%s)", round) for round in range(10) for conn in conns]


def transaction():
    got = []
    conn = connect(autocommit=False)
    for i, end in enumerate([conn.commit, conn.rollback, conn.commit]):
        for j in range(3):
            execute(conn, "insert into parent values (%s)", 10 * i + j)
        got += rows(conn, "select count(*) from parent") + [conn.info.transaction_status]
        end()
        got.append(conn.info.transaction_status)
    return got + rows(conn, "select * from parent order by 1")


def savepoints():
    got = []
    conn = connect(autocommit=False)
    for i in range(4):
        execute(conn, "savepoint s")
        got.append(state(conn, "insert into parent values (%s)", 100 + i % 2))
        execute(conn, "release savepoint s" if got[-1] == "none" else "rollback to savepoint s")
    conn.commit()
    return got + rows(conn, "select * from parent where id >= 100 order by 1")


def read_only():
    write = "insert into parent values (%s)"
    one, other = connect(autocommit=False), connect()
    one.set_session(isolation_level="SERIALIZABLE", readonly=True, deferrable=True)
    got = rows(one, "select current_setting('transaction_isolation'), current_setting('transaction_deferrable')")
    got.append(state(one, write, 200))
    one.rollback()
    one.set_session(isolation_level="DEFAULT", readonly=False, deferrable="DEFAULT", autocommit=True)
    execute(one, "set session characteristics as transaction read only")
    return got + [state(one, write, 201), state(other, write, 202), state(one, write, 203)]


def two_phase():
    one, other = connect(autocommit=False), connect()
    got = []
    for end in one.tpc_commit, one.tpc_rollback:
        one.tpc_begin(one.xid(1, DATABASE, end.__name__))
        execute(one, "insert into parent values (%s)", 300 + len(got))
        one.tpc_prepare()
        got += rows(other, "select count(*) from parent where id >= 300")
        end()
        got += rows(one, "select count(*) from parent where id >= 300")
        one.commit()
    return got + [[xid.gtrid for xid in one.tpc_recover() if xid.gtrid == DATABASE]]


def errors():
    conn = connect()
    got = [[state(conn, sql), rows(conn, "select %s::int", 1)] for sql in MANY_ERRORS]
    try:
        execute(conn, "select fail('22000')")
    except psycopg2.Error as e:
        got.append([e.diag.severity, e.diag.message_primary, e.diag.message_detail, e.diag.message_hint, e.diag.context])
    return got


def failed_transaction():
    conn = connect(autocommit=False)
    got = [state(conn, "select 1/0"), conn.info.transaction_status, state(conn, "select 1")]
    conn.rollback()
    return got + rows(conn, "select %s::int", 1)


def deferred_constraint():
    conn = connect(autocommit=False)
    execute(conn, "insert into child values (%s, %s)", 1, 99)
    try:
        conn.commit()
    except psycopg2.Error as e:
        got = [e.pgcode, conn.info.transaction_status]
    return got + rows(conn, "select count(*) from child")


def notices():
    conn = connect()
    got = rows(conn, "select shout(%s) from wide", "hey")
    execute(conn, "drop table if exists nowhere")
    return [got, conn.notices]


def several_results():
    """The driver shows the last one only."""
    conn = connect()
    got = rows(conn, "select 1; insert into item (id, name) values (300, 'x'); select * from wide")
    got.append(state(conn, "insert into item (id, name) values (301, 'x'); select 1/0; select 2"))
    return got + rows(conn, "select count(*) from item where id >= 300")


def copy_in():
    conn = connect()
    with conn.cursor() as cursor:
        cursor.copy_from(io.StringIO("".join(f"{10000 + i}\tcopied {i}\n" for i in range(20000))), "item", columns=("id", "name"), size=10000)
        cursor.copy_expert("copy wide (id, a) from stdin with (format csv)", io.StringIO('7,"se,ven"\n'))
        got = [cursor.rowcount]
    return got + rows(conn, "select count(*), sum(id), max(name) from item where id >= 10000") + rows(conn, "select * from wide where id = 7")


def copy_out():
    conn = connect()
    got = []
    for format in "text", "csv", "binary":
        out = io.BytesIO()
        with conn.cursor() as cursor:
            cursor.copy_expert(f"copy (select i, 'row '||i from generate_series(1, 30000) i) to stdout (format {format})", out)
        got.append(digest(out.getvalue()))
    return got + rows(conn, "select 1")


def failed_copy():
    conn = connect()
    got = []

    def copy(sql, file):
        try:
            with conn.cursor() as cursor:
                cursor.copy_expert(sql, file)
        except psycopg2.Error as e:
            got.extend([e.pgcode, rows(conn, "select %s::int", 1)])

    for data in "70\tx\nno number\tx\n", "71\tx\n1\ttwice\n", "72\n":
        copy("copy wide (id, a) from stdin", io.StringIO(data))
    copy("copy (select 1/(3-i) from generate_series(1, 5) i) to stdout", io.StringIO())
    return got + rows(conn, "select count(*) from wide where id between 70 and 90")


def cursor():
    conn = connect(autocommit=False)
    named = conn.cursor("named", scrollable=True)
    named.itersize = 10
    named.execute("select i from generate_series(1, %s) i", (1000,))
    got = [named.fetchmany(3), named.fetchone()]
    named.scroll(-2)
    got += [named.fetchmany(2), sum(row[0] for row in named)]
    conn.commit()
    kept = conn.cursor("kept", withhold=True)
    kept.execute("select i from generate_series(1, 10) i")
    conn.commit()
    got.append(kept.fetchmany(2))
    conn.commit()
    got += rows(connect(), "select count(*) from pg_cursors where name = 'kept'")
    got.append(kept.fetchmany(2))
    kept.close()
    conn.commit()
    return got + rows(conn, "select count(*) from pg_cursors")


def many_rows():
    conn = connect()
    with conn.cursor() as cursor:
        cursor.execute("select i, repeat('x', i %% 100) from generate_series(1, %s) i", (50000,))
        return [sum(len(x) for _, x in cursor), cursor.rowcount]


def asleep_during(conn, query, do):
    """Runs a query, does something while the server executes it, and returns the query's SQLSTATE."""
    got = []
    thread = threading.Thread(target=lambda: got.append(state(conn, query)))
    thread.start()
    watcher = connect()
    until(lambda: rows(watcher, asleep(query))[0][0])
    do(watcher)
    thread.join()
    watcher.close()
    return got[0]


def cancel():
    got = []
    conn = connect()
    for i in range(3):
        got.append(asleep_during(conn, f"select pg_sleep(60), {i}", lambda _: conn.cancel()))
        got += rows(conn, "select %s::int", i)
    return got


def timeout():
    conn = connect()
    execute(conn, "set statement_timeout = 100")
    got = [state(conn, "select pg_sleep(60)"), rows(conn, "show statement_timeout")]
    execute(conn, "reset statement_timeout")
    return got + [rows(conn, "show statement_timeout"), state(conn, "select pg_sleep(0.2)")]


def notify():
    listener, notifier = connect(), connect()
    execute(listener, "listen news")
    execute(notifier, "notify news, 'one'")
    execute(notifier, "select pg_notify('news', %s)", "x" * 7000)
    execute(notifier, "notify other, 'unheard'")
    while len(listener.notifies) < 2:
        select.select([listener], [], [])
        listener.poll()
    got = [[n.channel, len(n.payload)] for n in listener.notifies]
    execute(listener, "unlisten *")
    got += rows(listener, "select count(*) from pg_listening_channels()") + rows(notifier, "select count(*) from pg_listening_channels()")
    listener.close()
    return got


def settings():
    got = []
    one, other = connect(), connect()

    def both():
        got.extend([rows(one, SHOW), rows(other, SHOW)])

    both()
    for sql in SETTINGS:
        execute(one, sql)
        both()
    for end in "rollback", "commit":
        execute(one, "begin")
        execute(one, "set work_mem = '1MB'")
        execute(one, "set local timezone = 'UTC'")
        got.append(rows(one, SHOW))
        execute(one, end)
        both()
    one.reset()
    both()
    return got + [one.get_parameter_status("TimeZone"), other.get_parameter_status("TimeZone")]


def session_state():
    one, other = connect(), connect()
    execute(one, "create temp table mine (id int)")
    execute(one, "insert into mine values (%s)", 1)
    got = [state(other, "select * from mine"), rows(one, "select * from mine")]
    execute(one, "drop table mine")
    execute(one, "select pg_advisory_lock(7)")
    got += [rows(other, "select pg_try_advisory_lock(7)"), rows(one, "select pg_advisory_unlock(7)")]
    got += [rows(other, "select pg_try_advisory_lock(7)"), rows(other, "select pg_advisory_unlock(7)")]
    execute(one, "set role pg_monitor")
    got += [rows(one, "select current_user"), rows(other, "select current_user")]
    execute(one, "reset role")
    return got + rows(one, "select current_user")


def reset():
    one, other = connect(), connect()
    execute(one, "set work_mem = '8MB'")
    execute(one, "create temp table gone (id int)")
    execute(one, "set session authorization pg_monitor")
    one.reset()  # DISCARD ALL, and then it takes itself for new
    one.autocommit = True
    got = [rows(one, "show work_mem"), state(one, "select * from gone"), rows(one, "select current_user")]
    execute(one, "create temp table gone (id int)")
    execute(one, "select pg_advisory_lock(8)")
    execute(one, "discard all")
    got.append(state(one, "select * from gone"))
    return got + rows(other, "select pg_try_advisory_lock(8)") + rows(other, "select pg_advisory_unlock_all()") + rows(other, "show work_mem")


def schema_change():
    conn = connect()
    return changed(conn, conn)


def schema_change_by_another():
    return changed(connect(), connect())


def changed(one, last):
    got = [rows(conn, "select * from wide where id = 1") for conn in (one, last)]
    execute(one, f"alter table wide add b{one is last} int default 5")
    return got + [rows(conn, "select * from wide where id = 1") for conn in (one, last)]


def terminated():
    conn = connect()
    query = "select pg_sleep(61)"
    got = [asleep_during(conn, query, lambda watcher: execute(watcher, terminate(query))), conn.closed]
    return got + rows(connect(), "select 1")


def pool():
    all_of_them = psycopg2.pool.ThreadedConnectionPool(2, 10, host=HOST, port=PORT, user=USER, password=PASSWORD, dbname=DATABASE, sslmode="disable")
    free = threading.Semaphore(10)  # the pool fails when it is empty

    def task(i):
        for j in range(5):
            with free:
                conn = all_of_them.getconn()
                with conn:
                    key = 1000000 + 10 * i + j
                    execute(conn, "insert into item (id, name) values (%s, %s)", key, f"task {key}")
                    if rows(conn, "select id from item where name = %s", f"task {key}") != [(key,)]:
                        raise AssertionError(key)
                all_of_them.putconn(conn)

    threads(60, task)
    all_of_them.closeall()
    return rows(connect(), "select count(*), sum(id), count(distinct name) from item where id >= 1000000")


if __name__ == "__main__":
    play({**globals(), "connect": connect_})
