<?php
/*
 * PHP: PDO, which names its statements pdo_stmt_<n> and removes them by SQL, and the functions of ext/pgsql.
 *
 * Plays them in the situations that the environment names: calls one function for each, and prints what it returned as a line
 * of JSON. An exception that a function lets out is a fault: the test that reads the lines fails.
 */
declare(strict_types=1);
error_reporting(E_ALL & ~E_WARNING);

foreach (['HOST', 'PORT', 'USER', 'PASSWORD', 'DATABASE', 'CA'] as $name) {
    define($name, getenv("COMPAT_$name"));
}

const ERRORS = [
    "select 1/0", "select * from nowhere", "selec", "select nothing()", "insert into wide values (1, 'twice')",
    "insert into item (id) values (1000)", "select fail('P0001')", "select fail('40001')", "select fail('XX000')",
];

// A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
const SHOW = "select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),
    current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')";

const SETTINGS = [
    "set time zone 'Asia/Tokyo'", "set datestyle = 'ISO, DMY'", "set search_path = pg_catalog, public", "set application_name = 'one''s'",
    "select set_config('work_mem', '7MB', false)", "set my.own = 'x'", "reset all",
];

function pdo(string $more = 'sslmode=disable', string $user = USER, string $password = PASSWORD, bool $emulate = false): PDO
{
    return new PDO('pgsql:host=' . HOST . ';port=' . PORT . ';dbname=' . DATABASE . ";$more", $user, $password, [
        PDO::ATTR_ERRMODE => PDO::ERRMODE_EXCEPTION, PDO::ATTR_EMULATE_PREPARES => $emulate,
    ]);
}

function native(): PgSql\Connection
{
    return pg_connect('host=' . HOST . ' port=' . PORT . ' dbname=' . DATABASE . ' user=' . USER . ' password=' . PASSWORD . ' sslmode=disable', PGSQL_CONNECT_FORCE_NEW);
}

function rows(PDO $db, string $sql, mixed ...$params): array
{
    $statement = $db->prepare($sql);
    $statement->execute($params);
    return $statement->fetchAll(PDO::FETCH_NUM);
}

/** The SQLSTATE of a statement. */
function state(callable $do): string
{
    try {
        $do();
    } catch (PDOException $e) {
        return $e->errorInfo[0] ?? $e->getMessage();
    }
    return 'none';
}

function executing(string $query): string
{
    return " from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query like '$query%'";
}

/** Does something while the server executes a query, and returns what the driver says of the query then. */
function sleepThrough(PgSql\Connection $db, string $query, callable $do): mixed
{
    pg_send_query($db, $query);
    $watcher = pdo();
    while (!rows($watcher, 'select 1' . executing($query))) {
    }
    $do($watcher);
    $result = pg_get_result($db);
    return $result === false ? false : pg_result_error_field($result, PGSQL_DIAG_SQLSTATE);
}

$play = [
    'driver' => fn() => PHP_VERSION . ' with libpq ' . pg_version(native())['client'],
    'connect' => function () {
        $db = pdo();
        return [$db->getAttribute(PDO::ATTR_SERVER_VERSION), rows($db, 'select current_user'), pg_parameter_status(native(), 'client_encoding')];
    },
    'tls' => fn() => rows(pdo('sslmode=verify-full;sslrootcert=' . CA), "select right(repeat('x', ?::int), 5)", 20000),
    'wrong password' => fn() => [state(fn() => pdo(password: 'guess')), state(fn() => pdo(user: 'nobody'))],
    'types' => function () {
        $db = pdo();
        $bytes = $db->prepare('select ?::bytea');
        $bytes->bindValue(1, "\x00\x01\\'\xff", PDO::PARAM_LOB);
        $bytes->execute();
        return [
            rows($db, 'select ?::int2, ?::float8, ?::numeric, ?::text', -7, 0.25, '12345678901234567890.123456789', 'it\'s "quoted" \\ and % ?'),
            bin2hex(stream_get_contents($bytes->fetchColumn())), rows($db, "select ?::bool, '{1,2}'::int[]", 't'),
        ];
    },
    'nulls' => fn() => rows(pdo(), "select ?::text, ?::int, coalesce(?::text, 'was null'), ''", null, null, null),
    'unicode' => function () {
        [$db, $name] = [pdo(), "Ünïcödé 名前 🐘 \r\n\t"];
        $db->exec('create temp table "Tab ä" ("Spalte 名" text)');
        rows($db, 'insert into "Tab ä" values (?)', $name);
        return rows($db, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = ?', $name);
    },
    'big values' => function () {
        [$db, $big] = [pdo(), str_repeat("0123456789abcde\n", intdiv(5 * 1024 * 1024, 16))];
        return [rows($db, 'select ?::text', $big)[0][0] === $big, rows($db, "select length('$big')"), rows($db, 'select 1')];
    },
    'prepared' => function () {
        $got = [];
        foreach ([false, true] as $emulate) {
            $db = pdo(emulate: $emulate);
            $statement = $db->prepare('select id, a from wide where id = ?');
            for ($i = 0; $i < 5; $i++) {
                $statement->execute([$i]);
                $got[] = $statement->fetchAll(PDO::FETCH_NUM);
                $got[] = rows($db, "select ?::int + $i", $i); // deallocated by SQL at once
            }
        }
        $db = native();
        pg_prepare($db, 'mine', 'select $1::int * 2');
        for ($i = 0; $i < 5; $i++) {
            $got[] = pg_fetch_all(pg_execute($db, 'mine', [$i]), PGSQL_NUM);
            $got[] = pg_fetch_all(pg_query_params($db, 'select $1::int * 3', [$i]), PGSQL_NUM);
        }
        return $got;
    },
    'equal names' => function () {
        $statements = array_map(fn($i) => pdo()->prepare("select '$i', ?::int + $i"), range(0, 5));
        $got = [];
        for ($round = 1; $round <= 10; $round++) {
            foreach ($statements as $statement) {
                $statement->execute([$round]);
                $got[] = $statement->fetchAll(PDO::FETCH_NUM);
            }
        }
        return $got;
    },
    'transaction' => function () {
        $db = pdo();
        $got = [];
        foreach ([true, false] as $commit) {
            $db->beginTransaction();
            rows($db, 'insert into parent values (?)', $commit ? 1 : 2);
            $got[] = $db->inTransaction();
            $commit ? $db->commit() : $db->rollBack();
        }
        $db->beginTransaction();
        foreach ([1, 3] as $i) {
            $db->exec('savepoint s');
            $got[] = state(fn() => rows($db, 'insert into parent values (?)', $i));
            end($got) === 'none' || $db->exec('rollback to savepoint s');
        }
        $db->commit();
        return [...$got, rows($db, 'select * from parent order by 1')];
    },
    'errors' => function () {
        $db = pdo();
        return array_map(fn($sql) => [state(fn() => $db->exec($sql)), state(fn() => rows($db, $sql)), rows($db, 'select ?::int', 1)], ERRORS);
    },
    'notices' => function () {
        $db = native();
        pg_query($db, "select shout('hey') from wide");
        return pg_last_notice($db, PGSQL_NOTICE_ALL);
    },
    'copy in' => function () {
        $db = pdo();
        $db->pgsqlCopyFromArray('item', array_map(fn($i) => (10000 + $i) . "\tcopied $i", range(0, 4999)), "\t", '\\\\N', 'id, name');
        pg_copy_from(native(), 'wide (id, a)', ["7\tseven\n"]);
        return [rows($db, 'select count(*), sum(id) from item where id >= 10000'), rows($db, 'select * from wide where id = 7')];
    },
    'copy out' => function () {
        $db = pdo();
        return [md5(implode($db->pgsqlCopyToArray("(select i, 'row '||i from generate_series(1, 20000) i)"))), rows($db, 'select 1')];
    },
    'failed copy' => function () {
        $db = pdo();
        return [state(fn() => $db->pgsqlCopyFromArray('wide', ['no number\tx'])), rows($db, 'select count(*) from wide where id = ?', 1)];
    },
    'cursor' => function () {
        $db = pdo();
        $db->beginTransaction();
        $scroll = $db->prepare('select i from generate_series(1, ?::int) i', [PDO::ATTR_CURSOR => PDO::CURSOR_SCROLL]);
        $scroll->execute([100]);
        $got = [$scroll->fetch(PDO::FETCH_NUM), $scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_LAST), $scroll->fetch(PDO::FETCH_NUM, PDO::FETCH_ORI_ABS, 50)];
        $scroll->closeCursor();
        $db->commit();
        return $got;
    },
    'cancel' => function () {
        $db = native();
        return array_map(fn($i) => [sleepThrough($db, "select pg_sleep(60), $i", fn() => pg_cancel_query($db)), pg_fetch_all(pg_query_params($db, 'select $1::int', [$i]))], [0, 1, 2]);
    },
    'notify' => function () {
        [$listener, $notifier, $got] = [pdo(), pdo(), []];
        $listener->exec('listen news');
        $notifier->exec("notify news, 'one'");
        rows($notifier, "select pg_notify('news', ?)", str_repeat('x', 7000));
        while (count($got) < 2) {
            $one = $listener->pgsqlGetNotify(PDO::FETCH_ASSOC, 1000);
            $one && ($got[] = [$one['message'], strlen($one['payload'])]);
        }
        $listener->exec('unlisten *');
        return [$got, rows($listener, 'select count(*) from pg_listening_channels()'), rows($notifier, 'select count(*) from pg_listening_channels()')];
    },
    'settings' => function () {
        [$one, $other] = [pdo(), pdo()];
        return array_map(function ($sql) use ($one, $other) {
            $one->exec($sql);
            return [rows($one, SHOW), rows($other, SHOW)];
        }, SETTINGS);
    },
    'reset' => function () {
        $db = native();
        pg_query($db, "set work_mem = '8MB'");
        pg_query($db, 'create temp table gone (id int)');
        pg_connection_reset($db); // it connects anew
        return [pg_fetch_all(pg_query($db, 'show work_mem')), pg_query($db, 'select * from gone') === false];
    },
    'terminated' => function () {
        [$db, $query] = [native(), 'select pg_sleep(61)'];
        return [sleepThrough($db, $query, fn($watcher) => rows($watcher, 'select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end)' . executing($query))), rows(pdo(), 'select 1')];
    },
];

foreach (json_decode(getenv('COMPAT_SITUATIONS')) as $name) {
    $step = ['step' => $name];
    try {
        $step['got'] = $play[$name]();
    } catch (Throwable $e) {
        $step['fault'] = get_class($e) . ': ' . $e->getMessage() . ' line ' . $e->getLine();
    }
    echo json_encode($step), "\n";
}
