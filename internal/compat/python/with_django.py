"""Django on psycopg2."""

import warnings

import django
from django.conf import settings as configuration

from play import *

warnings.simplefilter("ignore")
configuration.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "django.contrib.sessions"],
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    SECRET_KEY="none",
    USE_TZ=True,
    TIME_ZONE="Europe/Rome",
    DATABASES={
        name: {
            "ENGINE": "django.db.backends.postgresql", "HOST": HOST, "PORT": PORT, "USER": USER, "PASSWORD": PASSWORD,
            "NAME": DATABASE, "CONN_MAX_AGE": 60, "OPTIONS": options,
        }
        for name, options in {
            "default": {"sslmode": "disable"},
            "encrypted": {"sslmode": "verify-full", "sslrootcert": CA},
            "strict": {"sslmode": "disable", "isolation_level": 3},
        }.items()
    },
)
django.setup()

from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import DatabaseError, connection, connections, transaction as tx
from django.db.models import Count, F

absent = {}


def state(do):
    try:
        do()
    except DatabaseError as e:
        return e.__cause__.pgcode
    return "none"


def value(sql, conn=connection):
    with conn.cursor() as cursor:
        cursor.execute(sql)
        return cursor.fetchone()[0]


def driver():
    return django.__version__


def connect():
    with connection.cursor() as cursor:
        return [connection.pg_version, value("show timezone"), value("select current_user"), connection.is_usable(), value("show transaction_isolation", connections["strict"])]


def tls():
    return value("select right(repeat('x', 20000), 5)", connections["encrypted"])


def migration():
    call_command("migrate", verbosity=0)
    with connection.cursor() as cursor:
        return [sorted(connection.introspection.table_names(cursor)), [str(c.name) for c in connection.introspection.get_table_description(cursor, "auth_user")]]


def create():
    User.objects.bulk_create([User(username=f"user {i}", email=f"{i}@example.com") for i in range(300)], batch_size=100)
    groups = [Group.objects.create(name=f"group {i} ünïcödé 🐘") for i in range(5)]
    for i, user in enumerate(User.objects.order_by("id")[:20]):
        user.groups.set(groups[: i % 5])
    group, made = Group.objects.get_or_create(name="group 1 ünïcödé 🐘")
    return [User.objects.count(), group.name, made]


def read():
    users = User.objects.filter(username__contains="1").annotate(n=Count("groups")).order_by("-n", "id")[:5]
    User.objects.filter(username="user 7").update(first_name=F("username"))
    return [[(u.username, u.n) for u in users], User.objects.get(username="user 7").first_name, list(Group.objects.values_list("name", flat=True).order_by("id"))]


def transaction():
    got, done = [], []
    with tx.atomic():
        tx.on_commit(lambda: done.append("committed"))
        Group.objects.create(name="outer")
        for name in "outer", "inner":
            try:
                with tx.atomic():
                    Group.objects.create(name=name)
            except DatabaseError as e:
                got.append(e.__cause__.pgcode)
        got.append(list(Group.objects.select_for_update().filter(name__in=["outer", "inner"]).order_by("name").values_list("name", flat=True)))
    try:
        with tx.atomic():
            Group.objects.create(name="undone")
            raise ValueError
    except ValueError:
        got.append(Group.objects.filter(name="undone").exists())
    return got + done


def errors():
    with connection.cursor() as cursor:
        return [[state(lambda: cursor.execute(sql)), value("select 1")] for sql in MANY_ERRORS]


def many_rows():
    """Outside of a transaction the cursor is WITH HOLD."""
    got = [sum(1 for _ in User.objects.order_by("id").iterator(chunk_size=50))]
    half = User.objects.order_by("id").iterator(chunk_size=10)
    got += [next(half).username, Group.objects.count()]
    got += [sum(1 for _ in half), value("select count(*) from pg_cursors")]
    with tx.atomic():
        got.append(sum(1 for _ in User.objects.iterator(chunk_size=70)))
    return got


def settings():
    got = [value("show timezone"), value("show timezone", connections["encrypted"])]
    with connection.cursor() as cursor:
        cursor.execute("set timezone = 'Asia/Tokyo'")
    got += [value("show timezone"), value("show timezone", connections["encrypted"])]
    connection.close()
    return got + [value("show timezone")]


def reset():
    call_command("flush", verbosity=0, interactive=False)
    return [User.objects.count(), Group.objects.count()]


def pool():
    """A connection for each thread, as a server of the web has."""
    def task(i):
        for j in range(3):
            with tx.atomic():
                Group.objects.create(name=f"task {i}/{j}")
            if Group.objects.filter(name=f"task {i}/{j}").count() != 1:
                raise AssertionError(i)
        connections.close_all()

    threads(30, task)
    return Group.objects.filter(name__startswith="task").count()


if __name__ == "__main__":
    play(globals())
