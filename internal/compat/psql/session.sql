-- What people type into psql. It is run with --echo-all, so that each result stands below its statement.
\set ON_ERROR_STOP off
\pset null '(null)'
select current_user, null as nothing, 'ünïcödé 🐘' as text;
\d item
\dt
\df shout
\l template*
select 1 as one, 'two' as two \gset
\echo :one :two
select :'two' as two \gx
begin;
insert into parent values (1);
savepoint s;
insert into parent values (1);
select 1;
rollback to s;
insert into parent values (2);
commit;
table parent;
begin;
insert into child values (1, 99);
commit;
select 1/0;
\errverbose
selec;
select shout('hey');
select fail('P0001');
\set VERBOSITY verbose
do $$ begin raise notice 'from a block'; end $$;
\set VERBOSITY default
\copy wide from stdin with (format csv)
10,"ten"
11,"eleven, twelve"
\.
\copy (select * from wide order by id) to stdout
copy wide (id, a) from stdin;
12	ok
no number	bad
\.
select count(*) from wide;
\set FETCH_COUNT 100
select i from generate_series(1, 250) i offset 245;
\unset FETCH_COUNT
\gdesc
select 1 as a, now()::date - now()::date as b \gdesc
prepare p(int) as select $1 * 2;
execute p(21);
deallocate p;
execute p(1);
set datestyle = 'German';
show datestyle;
\encoding LATIN1
select 'ä' = chr(228);
\encoding UTF8
reset datestyle;
create temp table t as select generate_series(1, 3) as i;
select sum(i) from t;
declare c cursor with hold for select i from t order by i;
fetch 2 from c;
close c;
listen news;
notify news, 'heard';
select 1;
select 'select ' || i from t \gexec
\if :{?one}
select 'if';
\else
select 'else';
\endif
select i as "row", i % 2 as col, i from t \crosstabview
explain (costs off) select * from wide where id = 1;
vacuum wide;
create index concurrently on wide (a);
select 1 \; select 2 \; select 3;
begin \; insert into parent values (3) \; select 1/0 \; commit;
rollback;
\timing off
\c - - - -
show datestyle;
select * from t;
