"""asyncpg: everything but multi-statement texts goes by named prepared statements, with Flush between Parse and Bind."""

import asyncio
import contextlib
import datetime
import decimal
import io
import ssl
import uuid

import asyncpg

from play import *

absent = {
    "pipeline": "it waits for each answer",
    "failed pipeline": "it waits for each answer",
    "two phase": "by SQL only, as elsewhere",
    "several results": "it shows the last status only",
}


async def open(**more):
    settings = dict(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, ssl=False)
    return await asyncpg.connect(**{**settings, **more})


@contextlib.asynccontextmanager
async def opened(**more):
    conn = await open(**more)
    try:
        yield conn
    finally:
        await conn.close()


async def rows(conn, sql, *params):
    return [list(row.values()) for row in await conn.fetch(sql, *params)]


async def state(conn, sql, *params):
    """The SQLSTATE of a statement."""
    try:
        await conn.execute(sql, *params)
    except asyncpg.PostgresError as e:
        return e.sqlstate
    return "none"


async def driver():
    return asyncpg.__version__


async def connect():
    async with opened() as conn:
        settings = conn.get_settings()
        reported = [getattr(settings, name) for name in ("server_encoding", "client_encoding", "DateStyle", "TimeZone", "is_superuser", "session_authorization")]
        return [conn.get_server_version()[0], reported, await rows(conn, "select current_user")]


async def tls():
    verifying = ssl.create_default_context(cafile=CA)
    got = []
    for how in "require", verifying:
        async with opened(ssl=how) as conn:
            got.append(await rows(conn, "select right(repeat('x', $1), 5)", 20000))
    return got


async def wrong_password():
    got = []
    for more in {"password": "guess"}, {"password": "guess", "user": "nobody"}:
        try:
            await open(**more)
        except asyncpg.PostgresError as e:
            got.append(e.sqlstate)
    return got


async def unknown_database():
    try:
        await open(database="nowhere")
    except asyncpg.PostgresError as e:
        return e.sqlstate


async def application_name():
    sql = "select current_setting('application_name'), current_setting('work_mem'), current_setting('search_path')"
    one = {"application_name": "ä shop's till", "work_mem": "5MB", "search_path": "pg_catalog, public"}
    async with opened(server_settings=one) as one, opened(server_settings={"application_name": "other"}) as other:
        return [[await rows(conn, sql) for conn in (one, other)] for _ in range(3)]


async def types():
    values = [
        ("int2", -7), ("int8", -(2**63)), ("float8", 1 / 3), ("numeric", decimal.Decimal("12345678901234567890.123456789")),
        ("text", "it's \"quoted\" \\ and % $1 ?"), ("bool", True), ("bytea", b"\x00\x01\\'\xff"),
        ("timestamptz", datetime.datetime(2024, 2, 29, 23, 59, 59, 999999, datetime.timezone.utc)), ("date", datetime.date(1969, 12, 31)),
        ("interval", datetime.timedelta(days=3, seconds=4.5)), ("uuid", uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")),
        ("jsonb", '{"a": [1, null, "ü"]}'), ("int4[]", [1, 2, 3]), ("text[]", ["a,b", 'c"d', ""]), ("inet", "192.168.0.1"),
        ("int4range", asyncpg.Range(1, 10)), ("mood", "happy"), ("mood[]", ["sad", "ok"]),  # found out by introspection
    ]
    async with opened() as conn:
        return [repr(await rows(conn, f"select $1::{name}, pg_typeof($1)::text", value)) for name, value in values]


async def nulls():
    async with opened() as conn:
        got = await rows(conn, "select $1::text, $2::int, coalesce($3::text, 'was null'), ''", None, None, None)
        await conn.execute("insert into item values (1, 'nothing', $1, $2, $3)", None, None, None)
        return got + await rows(conn, "select * from item where price is not distinct from $1", None)


async def unicode():
    name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t"
    async with opened() as conn:
        await conn.execute('create temp table "Tab ä" ("Spalte 名" text)')
        await conn.execute('insert into "Tab ä" values ($1)', name)
        return await rows(conn, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = $1', name)


async def big_values():
    async with opened() as conn:
        text = await conn.fetchval("select $1::text", BIG)
        raw = await conn.fetchval("select $1::bytea", BIG.encode())
        length = await conn.fetchval(f"select length('{BIG}')")
        return [text == BIG, digest(raw), length, await rows(conn, "select 1")]


async def prepared():
    got = []
    async with opened(statement_cache_size=3) as conn:
        got += [await rows(conn, "select $1::int * 2", i) for i in range(25)]
        for round in range(3):
            got += [await rows(conn, f"select $1::int + {i}", round) for i in range(7)]  # more than the cache holds
        statement = await conn.prepare("select id, a from wide where id = $1")
        got += [[list(row.values()) for row in await statement.fetch(i)] for i in range(3)]
        got.append([str(p.name) for p in statement.get_parameters()])
        await conn.executemany("insert into item (id, name) values ($1, $2)", [(20 + i, str(i)) for i in range(50)])
        got += await rows(conn, "select count(*) from item where id between 20 and 69")
    async with opened(statement_cache_size=0) as conn:  # unnamed ones
        got += [await rows(conn, "select $1::int * 2", i) for i in range(5)]
    return got


async def equal_names():
    """Two kinds of connections in turn, so that named and unnamed statements of several clients meet."""
    conns = [await open(statement_cache_size=100 * (i % 2)) for i in range(6)]
    got = []
    for round in range(10):
        for i, conn in enumerate(conns):
            got += await rows(conn, f"select '{i}', $1::int + {i * 100}", round)
    for conn in conns:
        await conn.close()
    return got


async def transaction():
    got = []
    async with opened() as conn:
        for i, commit in enumerate([True, False, True]):
            tx = conn.transaction()
            await tx.start()
            for j in range(3):
                await conn.execute("insert into parent values ($1)", 10 * i + j)
            got += await rows(conn, "select count(*) from parent") + [conn.is_in_transaction()]
            await (tx.commit() if commit else tx.rollback())
            got.append(conn.is_in_transaction())
        return got + await rows(conn, "select * from parent order by 1")


async def savepoints():
    got = []
    async with opened() as conn:
        async with conn.transaction():
            for i in range(4):
                try:
                    async with conn.transaction():
                        await conn.execute("insert into parent values ($1)", 100 + i % 2)
                except asyncpg.PostgresError as e:
                    got.append(e.sqlstate)
        return got + await rows(conn, "select * from parent where id >= 100 order by 1")


async def read_only():
    write = "insert into parent values ($1)"
    async with opened() as one, opened() as other:
        tx = one.transaction(isolation="serializable", readonly=True, deferrable=True)
        await tx.start()
        got = await rows(one, "select current_setting('transaction_isolation'), current_setting('transaction_deferrable')")
        got.append(await state(one, write, 200))
        await tx.rollback()
        await one.execute("set session characteristics as transaction read only")
        return got + [await state(conn, write, 201 + i) for i, conn in enumerate([one, other, one])]


async def errors():
    async with opened() as conn:
        got = [[await state(conn, sql), await rows(conn, "select $1::int", 1)] for sql in MANY_ERRORS]
        got += [await state(conn, "select $1::text::int", "no number"), await state(conn, "select $1::int from nowhere", 1)]
        try:
            await conn.execute("select fail('22000')")
        except asyncpg.PostgresError as e:
            got.append([e.severity, e.message, e.detail, e.hint, e.context])
        return got


async def failed_transaction():
    async with opened() as conn:
        tx = conn.transaction()
        await tx.start()
        got = [await state(conn, "select 1/0"), await state(conn, "select $1::int", 1), await state(conn, "select 1")]
        await tx.rollback()
        return got + await rows(conn, "select $1::int", 1)


async def deferred_constraint():
    async with opened() as conn:
        try:
            async with conn.transaction():
                await conn.execute("insert into child values ($1, $2)", 1, 99)
        except asyncpg.PostgresError as e:
            got = [e.sqlstate, conn.is_in_transaction()]
        return got + await rows(conn, "select count(*) from child")


async def notices():
    heard = []
    async with opened() as conn:
        conn.add_log_listener(lambda _, m: heard.append([m.severity, m.message, m.detail]))
        got = await rows(conn, "select shout($1) from wide", "hey")
        await conn.execute("drop table if exists nowhere")
        return [got, heard]


async def copy_in():
    async with opened() as conn:
        got = [await conn.copy_records_to_table("item", columns=["id", "name"], records=[(10000 + i, f"copied\t{i}") for i in range(20000)])]
        got.append(await conn.copy_to_table("wide", source=io.BytesIO(b'7,"se,ven"\n'), columns=["id", "a"], format="csv"))
        return got + await rows(conn, "select count(*), sum(id), max(name) from item where id >= 10000")


async def copy_out():
    async with opened() as conn:
        got = []
        for format in "text", "csv", "binary":
            out = io.BytesIO()
            got.append(await conn.copy_from_query("select i, 'row '||i from generate_series(1, $1::int) i", 30000, output=out, format=format))
            got.append(digest(out.getvalue()))
        return got + await rows(conn, "select 1")


async def failed_copy():
    got = []
    async with opened() as conn:
        for data in b"70\tx\nno number\tx\n", b"71\tx\n1\ttwice\n", b"72\n":
            try:
                await conn.copy_to_table("wide", source=io.BytesIO(data), columns=["id", "a"])
            except asyncpg.PostgresError as e:
                got.append(e.sqlstate)
            got += await rows(conn, "select $1::int", 1)

        def records():
            yield (80, "x")
            raise ValueError("the source gives up")

        try:
            await conn.copy_records_to_table("wide", columns=["id", "a"], records=records())
        except ValueError as e:
            got.append(str(e))
        try:
            await conn.copy_from_query("select 1/(3-i) from generate_series(1, 5) i", output=io.BytesIO())
        except asyncpg.PostgresError as e:
            got.append(e.sqlstate)
        return got + await rows(conn, "select count(*) from wide where id between 70 and 90")


async def cursor():
    """By portals with row limits."""
    async with opened() as conn:
        async with conn.transaction():
            c = await conn.cursor("select i from generate_series(1, $1::int) i", 1000)
            got = [[list(row.values()) for row in await c.fetch(3)], await c.forward(10), list((await c.fetchrow()).values())]
            total = 0
            async for row in conn.cursor("select i from generate_series(1, 100) i", prefetch=7):
                total += row[0]
        return got + [total] + await rows(conn, "select 1")


async def many_rows():
    async with opened() as conn:
        got = await conn.fetch("select i, repeat('x', i % 100) from generate_series(1, $1::int) i", 50000)
        return [len(got), sum(len(row[1]) for row in got)]


async def asleep_during(task, query, do):
    """Does something while the server executes a task's query."""
    async with opened() as watcher:
        while not await watcher.fetchval(asleep(query)):
            pass
        result = do(watcher)
        if asyncio.iscoroutine(result):
            await result
    try:
        return await task
    except BaseException as e:
        return type(e).__name__


async def cancel():
    """By a cancelled task, and by the driver's own timeout."""
    got = []
    async with opened() as conn:
        for i in range(3):
            query = f"select pg_sleep(60), {i}"
            task = asyncio.ensure_future(conn.fetch(query))
            got.append(await asleep_during(task, query, lambda _: task.cancel() and None))
            got += await rows(conn, "select $1::int", i)
        try:
            await conn.fetch("select pg_sleep(60)", timeout=0.2)
        except asyncio.TimeoutError:
            got.append("timeout")
        return got + await rows(conn, "select 1")


async def timeout():
    async with opened() as conn:
        await conn.execute("set statement_timeout = 100")
        got = [await state(conn, "select pg_sleep(60)"), await rows(conn, "show statement_timeout")]
        await conn.execute("reset statement_timeout")
        return got + [await rows(conn, "show statement_timeout"), await state(conn, "select pg_sleep(0.2)")]


async def notify():
    heard = asyncio.Queue()
    async with opened() as listener, opened() as notifier:
        await listener.add_listener("news", lambda conn, pid, channel, payload: heard.put_nowait([channel, len(payload)]))
        await notifier.execute("notify news, 'one'")
        await notifier.execute("select pg_notify('news', $1)", "x" * 7000)
        await notifier.execute("notify other, 'unheard'")
        got = [await heard.get(), await heard.get()]
        await listener.reset()  # UNLISTEN * among others
        return got + await rows(listener, "select count(*) from pg_listening_channels()") + await rows(notifier, "select count(*) from pg_listening_channels()")


async def settings():
    got = []
    async with opened() as one, opened() as other:
        async def both():
            got.extend([await rows(one, SHOW), await rows(other, SHOW)])

        await both()
        for sql in SETTINGS:
            await one.execute(sql)
            await both()
        for end in "rollback", "commit":
            await one.execute("begin")
            await one.execute("set work_mem = '1MB'")
            await one.execute("set local timezone = 'UTC'")
            got.append(await rows(one, SHOW))
            await one.execute(end)
            await both()
        await one.execute("reset all")
        await both()
        return got + [one.get_settings().TimeZone, other.get_settings().TimeZone]


async def session_state():
    async with opened() as one, opened() as other:
        await one.execute("create temp table mine (id int)")
        await one.execute("insert into mine values ($1)", 1)
        got = [await state(other, "select * from mine"), await rows(one, "select * from mine")]
        await one.execute("drop table mine")
        await one.execute("select pg_advisory_lock($1)", 7)
        for conn, function in (other, "pg_try_advisory_lock"), (one, "pg_advisory_unlock"), (other, "pg_try_advisory_lock"), (other, "pg_advisory_unlock"):
            got += await rows(conn, f"select {function}($1)", 7)
        await one.execute("set role pg_monitor")
        got += await rows(one, "select current_user") + await rows(other, "select current_user")
        await one.execute("reset role")
        return got + await rows(one, "select current_user")


async def reset():
    """By the driver's own reset, which its pool does at every release."""
    async with opened() as one, opened() as other:
        await one.execute("set work_mem = '8MB'")
        await one.execute("select pg_advisory_lock(8)")
        await one.execute("declare kept cursor with hold for select 1")
        await one.reset()
        got = await rows(one, "show work_mem") + await rows(other, "select pg_try_advisory_lock(8)") + await rows(other, "select pg_advisory_unlock_all()")
        got.append(await state(one, "fetch from kept"))
        await one.execute("create temp table gone (id int)")
        await one.execute("discard all")
        await one.reload_schema_state()
        return got + [await state(other, "select * from gone")] + await rows(other, "show work_mem")


async def schema_change():
    async with opened() as conn:
        return await changed(conn, conn)


async def schema_change_by_another():
    async with opened() as one, opened() as other:
        return await changed(one, other)


async def changed(one, last):
    sql = "select * from wide where id = $1"
    for _ in range(3):
        await rows(one, sql, 1), await rows(last, sql, 1)
    await one.execute(f"alter table wide add b{one is last} int default 5")
    got = []
    for conn in one, last:
        await state(conn, sql, 1)  # the driver prepares anew after the error
        got += await rows(conn, sql, 1)
    return got


async def terminated():
    query = "select pg_sleep(61)"
    conn = await open()
    task = asyncio.ensure_future(state(conn, query))
    got = [await asleep_during(task, query, lambda watcher: watcher.execute(terminate(query))), conn.is_closed()]
    async with opened() as again:
        return got + await rows(again, "select 1")


async def pool():
    settings = dict(host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, ssl=False)
    async with asyncpg.create_pool(min_size=2, max_size=10, **settings) as pool:
        async def task(i):
            for j in range(5):
                async with pool.acquire() as conn:
                    key = 1000000 + 10 * i + j
                    async with conn.transaction():
                        await conn.execute("insert into item (id, name) values ($1, $2)", key, f"task {key}")
                        if await conn.fetchval("select id from item where name = $1", f"task {key}") != key:
                            raise AssertionError(key)
                    if await conn.fetchval(f"select $1::int + {i % 7}", j) != j + i % 7:
                        raise AssertionError(i)

        await asyncio.gather(*(task(i) for i in range(60)))
    async with opened() as conn:
        return await rows(conn, "select count(*), sum(id), count(distinct name) from item where id >= 1000000")


if __name__ == "__main__":
    play(globals(), lambda function: asyncio.run(function()))
