# DBD::Pg, on libpq. It names its statements dbdpg_p<pid>_<n> and removes them by SQL.
#
# Plays the driver in the situations that the environment names: calls one function for each, and prints what it returned as
# a line of JSON. An exception that a function lets out is a fault: the test that reads the lines fails.
use v5.30;
use warnings;
use utf8;

use DBI;
use DBD::Pg qw(:pg_types :async);
use Digest::MD5 qw(md5_hex);
use Encode qw(encode);
use JSON::PP;

$| = 1;
my ($host, $port, $user, $password, $database, $ca) = @ENV{map {"COMPAT_$_"} qw(HOST PORT USER PASSWORD DATABASE CA)};

# Seconds for one situation. It is long because machines that run tests are busy; nothing waits for it in vain.
my $patience = 60;

sub connection {
    my ($source, %more) = ("dbname=$database;sslmode=disable", @_);
    $source = delete $more{source} // $source;
    return DBI->connect("dbi:Pg:host=$host;port=$port;$source", $more{user} // $user, $more{password} // $password,
        {AutoCommit => 1, RaiseError => 1, PrintError => 0, PrintWarn => 0, pg_enable_utf8 => 1});
}

sub rows { my ($db, $sql, @params) = @_; return $db->selectall_arrayref($sql, undef, @params) }

# state is the SQLSTATE of a statement.
sub state_of {
    my ($db, $sql, @params) = @_;
    return eval { $db->do($sql, undef, @params); 'none' } // $db->state;
}

sub executing {
    return "from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query like '$_[0]%'";
}

my @errors = (
    'select 1/0', 'select * from nowhere', 'selec', 'select nothing()', "insert into wide values (1, 'twice')",
    'insert into item (id) values (1000)', "select fail('P0001')", "select fail('40001')", "select fail('XX000')",
);

# A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
my $show = "select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),
    current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')";

my %play = (
    driver => sub { $DBD::Pg::VERSION . ' with libpq ' . connection()->{pg_lib_version} },
    connect => sub {
        my $db = connection();
        return [$db->{pg_server_version}, $db->ping, rows($db, 'select current_user'), [sort map { s/.*\.//r } $db->tables(undef, 'public', undef, 'TABLE')]];
    },
    tls => sub { rows(connection(source => "dbname=$database;sslmode=verify-full;sslrootcert=$ca"), "select right(repeat('x', ?), 5)", 20000) },
    'wrong password' => sub { [map { my %more = @$_; eval { connection(%more); 1 } ? 'none' : $DBI::errstr =~ /password authentication failed/ ? 'refused' : $DBI::errstr } ([password => 'guess'], [user => 'nobody'])] },
    types => sub {
        my $db = connection();
        my $bytes = $db->prepare('select ?::bytea');
        $bytes->bind_param(1, "\x00\x01\\'\xff", {pg_type => PG_BYTEA});
        $bytes->execute;
        return [
            rows($db, 'select ?::int2, ?::float8, ?::bool, ?::numeric', -7, 1 / 4, 't', '12345678901234567890.123456789'),
            rows($db, 'select ?::int[], ?::text[], ?::text', [1, 2], ['a,b', 'c"d'], q{it's "quoted" \\ and %}),
            unpack('H*', $bytes->fetchrow_arrayref->[0]),
        ];
    },
    nulls => sub { rows(connection(), "select ?::text, ?::int, coalesce(?::text, 'was null'), ''", undef, undef, undef) },
    unicode => sub {
        my ($db, $name) = (connection(), "Ünïcödé 名前 🐘 \r\n\t");
        $db->do('create temp table "Tab ä" ("Spalte 名" text)');
        $db->do('insert into "Tab ä" values (?)', undef, $name);
        return rows($db, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = ?', $name);
    },
    'big values' => sub {
        my ($db, $big) = (connection(), "0123456789abcde\n" x (5 * 1024 * 1024 / 16));
        return [rows($db, 'select ?::text', $big)->[0][0] eq $big ? 1 : 0, rows($db, "select length('$big')"), rows($db, 'select 1')];
    },
    prepared => sub {
        my $db = connection();
        $db->{pg_switch_prepared} = 2;
        my ($one, $other) = map { $db->prepare("select id, a, $_ from wide where id = ?") } 1, 2;
        my @got = map { my $i = $_; map { $db->selectall_arrayref($_, undef, $i) } $one, $other } 0 .. 9;
        undef $one; # deallocated by SQL
        push @got, $db->selectall_arrayref($other, undef, 1);
        for my $now (0, 1) {
            my $statement = $db->prepare('select ?::int * 2', {pg_prepare_now => $now, pg_server_prepare => $now});
            push @got, map { $db->selectall_arrayref($statement, undef, $_) } 1 .. 4;
        }
        return \@got;
    },
    'equal names' => sub { # one process, so that all connections number alike
        my @statements = map { connection()->prepare("select '$_', ?::int + $_", {pg_prepare_now => 1}) } 0 .. 5;
        return [map { my $round = $_; map { $_->execute($round); $_->fetchall_arrayref } @statements } 1 .. 10];
    },
    transaction => sub {
        my ($db, @got) = connection();
        for my $commit (1, 0) {
            $db->begin_work;
            $db->do('insert into parent values (?)', undef, 10 + $commit);
            push @got, $db->{pg_socket} > 0 ? 1 : 0, $db->ping;
            $commit ? $db->commit : $db->rollback;
        }
        $db->begin_work;
        for my $i (11, 12) {
            $db->pg_savepoint('s');
            push @got, state_of($db, 'insert into parent values (?)', $i);
            $got[-1] eq 'none' ? $db->pg_release('s') : $db->pg_rollback_to('s');
        }
        $db->commit;
        return [@got, rows($db, 'select * from parent order by 1')];
    },
    errors => sub { my $db = connection(); [map { [state_of($db, $_), rows($db, 'select ?::int', 1)] } @errors] },
    notices => sub {
        my ($db, @heard) = connection();
        local $SIG{__WARN__} = sub { push @heard, @_ };
        $db->{PrintWarn} = 1;
        return [rows($db, 'select shout(?) from wide', 'hey'), \@heard];
    },
    'copy in' => sub {
        my $db = connection();
        $db->do('copy item (id, name) from stdin');
        $db->pg_putcopydata((10000 + $_) . "\tcopied $_\n") for 0 .. 4999;
        $db->pg_putcopyend;
        return rows($db, 'select count(*), sum(id) from item where id >= 10000');
    },
    'copy out' => sub {
        my ($db, $all, $line) = (connection(), '');
        $db->do("copy (select i, 'row '||i from generate_series(1, 20000) i) to stdout");
        $all .= $line while $db->pg_getcopydata($line) >= 0;
        return [md5_hex($all), rows($db, 'select 1')];
    },
    'failed copy' => sub {
        my ($db, @got) = connection();
        for my $data ("70\tx\nno number\tx\n", "71\tx\n1\ttwice\n") {
            $db->do('copy wide (id, a) from stdin');
            $db->pg_putcopydata($data);
            push @got, eval { $db->pg_putcopyend; 'none' } // $db->state, rows($db, 'select 1');
        }
        return [@got, rows($db, 'select count(*) from wide where id >= 70')];
    },
    cancel => sub {
        my ($db, @got) = connection();
        for my $i (0 .. 2) {
            my ($query, $watcher) = ("select pg_sleep(60), $i", connection());
            my $statement = $db->prepare($query, {pg_async => PG_ASYNC, pg_server_prepare => 0});
            $statement->execute;
            1 until @{rows($watcher, 'select 1 ' . executing($query))};
            push @got, $db->pg_cancel ? 1 : 0, rows($db, 'select ?::int', $i);
        }
        return \@got;
    },
    notify => sub {
        my ($listener, $notifier, @got) = (connection(), connection());
        $listener->do('listen news');
        $notifier->do("notify news, 'one'");
        $notifier->do("select pg_notify('news', ?)", undef, 'x' x 7000);
        while (@got < 2) {
            my $one = $listener->pg_notifies or next;
            push @got, [$one->[0], length $one->[2]];
        }
        $listener->do('unlisten *');
        return [@got, rows($listener, 'select count(*) from pg_listening_channels()'), rows($notifier, 'select count(*) from pg_listening_channels()')];
    },
    settings => sub {
        my ($one, $other) = (connection(), connection());
        return [map { $one->do($_); (rows($one, $show), rows($other, $show)) }
            "set time zone 'Asia/Tokyo'", "set datestyle = 'ISO, DMY'", 'set search_path = pg_catalog, public', "set application_name = 'one''s'",
            "select set_config('work_mem', '7MB', false)", "set my.own = 'x'", 'reset all'];
    },
    reset => sub {
        my ($one, $other) = (connection(), connection());
        $one->do("set work_mem = '8MB'");
        $one->do('create temp table gone (id int)');
        my @got = (state_of($other, 'select * from gone'), rows($one, 'select count(*) from gone'));
        $one->do('discard all');
        return [@got, rows($one, 'show work_mem'), state_of($one, 'select * from gone')];
    },
    terminated => sub {
        my ($db, $watcher, $query) = (connection(), connection(), 'select pg_sleep(61)');
        my $statement = $db->prepare($query, {pg_async => PG_ASYNC, pg_server_prepare => 0});
        $statement->execute;
        1 until @{rows($watcher, 'select 1 ' . executing($query))};
        $watcher->do('select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end) ' . executing($query));
        my $got = eval { $db->pg_result; 'none' } // $db->state;
        return [$got, rows(connection(), 'select 1')];
    },
);

my $json = JSON::PP->new->ascii->canonical->allow_nonref;
for my $name (@{decode_json($ENV{COMPAT_SITUATIONS})}) {
    local $SIG{ALRM} = sub { die "more than $patience s\n" };
    alarm $patience;
    my %step = (step => $name);
    eval { $step{got} = $play{$name}->(); 1 } or $step{fault} = "$@";
    alarm 0;
    say $json->encode(\%step);
}
