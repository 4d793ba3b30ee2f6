"""Plays a driver in situations: runs one function for each, and prints what it returned as a line of JSON.

A program calls play(globals()). The situations are named by the environment; the function of "copy in" is copy_in. A driver
that offers nothing of the kind says why in the program's dictionary absent. An exception that a function lets out is a
fault: the test that reads the lines fails.
"""

import hashlib
import json
import os
import signal
import threading
import time
import traceback

HOST = os.environ["COMPAT_HOST"]
PORT = int(os.environ["COMPAT_PORT"])
USER = os.environ["COMPAT_USER"]
PASSWORD = os.environ["COMPAT_PASSWORD"]
DATABASE = os.environ["COMPAT_DATABASE"]
CA = os.environ["COMPAT_CA"]
SITUATIONS = json.loads(os.environ["COMPAT_SITUATIONS"])

# Seconds for one situation. It is long because machines that run tests are busy; nothing waits for it in vain.
PATIENCE = 60

# Larger than every buffer on the way.
BIG = "0123456789abcde\n" * (5 * 1024 * 1024 // 16)


def play(program, run=lambda function: function()):
    signal.signal(signal.SIGALRM, too_long)
    for name in SITUATIONS:
        step = {"step": name}
        function = program.get(name.replace(" ", "_"))
        try:
            if function is None:
                step["absent"] = program["absent"][name]
            else:
                signal.alarm(PATIENCE)
                step["got"] = run(function)
        except Exception:
            step["fault"] = traceback.format_exc(limit=-3)
        finally:
            signal.alarm(0)
        print(json.dumps(step, default=str), flush=True)


def too_long(*_):
    raise TimeoutError(f"more than {PATIENCE} s")


def digest(data):
    return hashlib.md5(data if isinstance(data, bytes) else data.encode()).hexdigest()


# SQL that several programs use.

MANY_ERRORS = [
    "select 1/0",
    "select * from nowhere",
    "selec",
    "select nothing()",
    "insert into wide values (1, 'twice')",
    "insert into item (id) values (1000)",
    "select fail('P0001')",
    "select fail('40001')",
    "select fail('XX000')",
]

# A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
SHOW = """select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),
    current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')"""

SETTINGS = [
    "set time zone 'Asia/Tokyo'",
    "set datestyle = 'ISO, DMY'",
    "set search_path = pg_catalog, public",
    "set application_name = 'one''s'",
    "select set_config('work_mem', '7MB', false)",
    "set my.own = 'x'",
]


def executing(query):
    return (
        " from pg_stat_activity where datname = current_database() and state = 'active'"
        f" and pid <> pg_backend_pid() and query like '{query}%'"
    )


def asleep(query):
    """A query that tells whether somebody else executes one that begins so."""
    return "select count(*) > 0" + executing(query)


def terminate(query):
    """A query that ends the connection to PostgreSQL of whoever executes one that begins so."""
    return "select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end)" + executing(query)


def until(condition):
    """Waits until a condition holds."""
    while not condition():
        time.sleep(0.005)


def threads(n, task):
    """Runs task(i) for i below n, each in a thread of its own, and raises what one of them has raised."""
    failures = []

    def run(i):
        try:
            task(i)
        except Exception as e:
            failures.append(e)

    all_of_them = [threading.Thread(target=run, args=(i,)) for i in range(n)]
    for one in all_of_them:
        one.start()
    for one in all_of_them:
        one.join()
    if failures:
        raise failures[0]
