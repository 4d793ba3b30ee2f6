package state

import "strings"

// The questions of a Lesson. They run in a transaction of their own (that of a string of statements), in which names are
// looked up in pg_catalog alone, so that they mean the same whatever the session is set to. Everybody may read what they
// read. Objects below 16384 are PostgreSQL's own; the built-in ones that change the session are known by name.

// lessonPreamble begins each question.
const lessonPreamble = `SET LOCAL search_path TO pg_catalog, pg_temp;SET LOCAL statement_timeout TO 20000;` +
	`SET LOCAL max_parallel_workers_per_gather TO 0;SET LOCAL jit TO off;`

// maxBodies bounds the source text that is looked at, in bytes. Routines beyond it are taken for harmful.
const maxBodies = "8388608"

// harmlessExtensions are those whose routines leave nothing in the session.
const harmlessExtensions = `'{adminpack,amcheck,autoinc,bloom,btree_gin,btree_gist,citext,cube,dict_int,dict_xsyn,earthdistance,file_fdw,` +
	`fuzzystrmatch,hll,hstore,hypopg,insert_username,intarray,isn,lo,ltree,moddatetime,pageinspect,pg_buffercache,pg_cron,pg_freespacemap,` +
	`pg_logicalinspect,pg_overexplain,pg_prewarm,pg_stat_statements,pg_surgery,pg_trgm,pg_visibility,pg_walinspect,pgaudit,pgcrypto,` +
	`pgrowlocks,pgstattuple,postgres_fdw,refint,seg,sslinfo,tcn,timescaledb,tsm_system_rows,tsm_system_time,unaccent,uuid-ossp,vector}'::name[]`

// routinesSQL asks for the user's routines, with their bodies as ASCII (every other character has become an x, so that no
// client_encoding matters), and for expressions that call a built-in function which changes the session. An empty text
// stands for one that cannot be read.
//
// The expressions are found by the numbers of such functions in the trees that they are stored as, because dependencies on
// built-in functions are not recorded.
func routinesSQL() string {
	return strings.NewReplacer("%builtin%", "'{"+strings.Join(sessionBuiltins(), ",")+"}'::name[]",
		"%harmless%", harmlessExtensions, "%limit%", maxBodies).Replace(lessonPreamble + rootsSQL)
}

const rootsSQL = `
WITH builtin AS MATERIALIZED (
	SELECT oid FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND proname = ANY (%builtin%)
), tree AS MATERIALIZED (
	SELECT ':funcid (' || string_agg(oid::text, '|') || ') ' AS calls FROM builtin
), routine AS (
	SELECT p.oid, l.lanname IN ('sql', 'plpgsql') AS readable, sum(octet_length(p.prosrc)) OVER (ORDER BY p.oid) AS size,
		CASE WHEN p.prosqlbody IS NULL THEN p.prosrc ELSE pg_get_function_sqlbody(p.oid) END ||
		COALESCE(';SELECT ' || pg_get_expr(p.proargdefaults, 0), '') AS body
	FROM pg_proc AS p JOIN pg_language AS l ON l.oid = p.prolang
	LEFT JOIN (pg_depend AS d JOIN pg_extension AS x ON d.refobjid = x.oid)
		ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
	WHERE p.oid >= 16384 AND p.prokind <> 'a' AND (x.oid IS NULL OR x.extname <> ALL (%harmless%)
		AND (l.lanname <> 'c' OR p.provolatile = 'v'))
), expression AS (
	SELECT 'pg_attrdef'::regclass::oid AS class, a.oid, 'SELECT ' || pg_get_expr(a.adbin, a.adrelid) AS body
		FROM pg_attrdef AS a, tree WHERE a.oid >= 16384 AND a.adbin::text ~ tree.calls
	UNION ALL SELECT 'pg_constraint'::regclass, c.oid, 'SELECT ' || pg_get_expr(c.conbin, c.conrelid)
		FROM pg_constraint AS c, tree WHERE c.oid >= 16384 AND c.conbin::text ~ tree.calls
	UNION ALL SELECT 'pg_policy'::regclass, p.oid,
		'SELECT ' || COALESCE(pg_get_expr(p.polqual, p.polrelid), '0') || ',' || COALESCE(pg_get_expr(p.polwithcheck, p.polrelid), '0')
		FROM pg_policy AS p, tree WHERE p.polqual::text ~ tree.calls OR p.polwithcheck::text ~ tree.calls
	UNION ALL SELECT 'pg_type'::regclass, t.oid, 'SELECT ' || t.typdefault
		FROM pg_type AS t, tree WHERE t.oid >= 16384 AND t.typdefaultbin::text ~ tree.calls
	UNION ALL SELECT 'pg_rewrite'::regclass, r.oid, pg_get_ruledef(r.oid)
		FROM pg_rewrite AS r, tree WHERE r.oid >= 16384 AND (r.ev_action::text ~ tree.calls OR r.ev_qual::text ~ tree.calls)
	UNION ALL SELECT 'pg_trigger'::regclass, t.oid, ''
		FROM pg_trigger AS t, tree WHERE t.tgqual::text ~ tree.calls
	UNION ALL SELECT 'pg_operator'::regclass, o.oid, '' FROM pg_operator AS o JOIN builtin AS b ON b.oid = o.oprcode WHERE o.oid >= 16384
	UNION ALL SELECT 'pg_cast'::regclass, c.oid, '' FROM pg_cast AS c JOIN builtin AS b ON b.oid = c.castfunc WHERE c.oid >= 16384
	UNION ALL SELECT 'pg_proc'::regclass, a.aggfnoid::oid, '' FROM pg_aggregate AS a
		JOIN builtin AS b ON b.oid IN (a.aggtransfn::oid, a.aggfinalfn::oid) WHERE a.aggfnoid::oid >= 16384
), row AS (
	SELECT CASE WHEN readable AND size <= %limit% THEN 'f' ELSE 'u' END AS kind, oid::text AS id,
		CASE WHEN readable AND size <= %limit% THEN COALESCE(body, '') ELSE '' END AS body FROM routine
	UNION ALL SELECT 'o', class::text || ' ' || oid::text, COALESCE(body, '') FROM expression
)
SELECT kind, id, CASE WHEN octet_length(body) = length(body) AND getdatabaseencoding() = 'UTF8' THEN body
	ELSE regexp_replace(body, '[^ -~' || chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || ']' COLLATE "C", 'x', 'g') END
FROM row`

// reachSQL asks what leads to the given routines and objects without naming them: whatever depends on them, and what that
// belongs to. The third column of a step tells that it only counts when rows are written. The answer is names: of
// functions, types and relations (a), of relations that only count when they are written (w), of operators (q); or that
// all DDL (d), or everything (*) leads there. Names that are not plain ASCII stand for all that are not (see identifiers).
const reachSQL = lessonPreamble + `
WITH RECURSIVE root(c, o) AS (
	SELECT 'pg_proc'::regclass::oid, unnest('{%routines%}'::oid[])
	UNION ALL SELECT * FROM unnest('{%classes%}'::oid[], '{%objects%}'::oid[])
), reach(c, o, w) AS (
	SELECT r.c, r.o, CASE r.c
		WHEN 'pg_trigger'::regclass THEN true
		WHEN 'pg_constraint'::regclass THEN true
		WHEN 'pg_attrdef'::regclass THEN NOT EXISTS (SELECT FROM pg_attrdef AS d JOIN pg_attribute AS a
			ON a.attrelid = d.adrelid AND a.attnum = d.adnum WHERE d.oid = r.o AND a.attgenerated = 'v')
		WHEN 'pg_rewrite'::regclass THEN EXISTS (SELECT FROM pg_rewrite AS q WHERE q.oid = r.o AND q.ev_type <> '1')
		ELSE false END FROM root AS r
	UNION
	SELECT n.c, n.o, n.w FROM reach AS r CROSS JOIN LATERAL (
		SELECT d.classid, d.objid, CASE d.classid
			WHEN 'pg_trigger'::regclass THEN true
			WHEN 'pg_constraint'::regclass THEN true
			WHEN 'pg_attrdef'::regclass THEN NOT EXISTS (SELECT FROM pg_attrdef AS x JOIN pg_attribute AS a
				ON a.attrelid = x.adrelid AND a.attnum = x.adnum WHERE x.oid = d.objid AND a.attgenerated = 'v')
			WHEN 'pg_rewrite'::regclass THEN r.w OR EXISTS (SELECT FROM pg_rewrite AS q WHERE q.oid = d.objid AND q.ev_type <> '1')
			WHEN 'pg_class'::regclass THEN r.w OR r.c <> 'pg_type'::regclass
			WHEN 'pg_policy'::regclass THEN r.w
			WHEN 'pg_type'::regclass THEN r.w
			ELSE false END
		FROM pg_depend AS d WHERE d.refclassid = r.c AND d.refobjid = r.o AND d.objid >= 16384 AND d.deptype IN ('n', 'a', 'i')
			AND (r.c <> 'pg_class'::regclass OR d.classid IN ('pg_rewrite'::regclass, 'pg_proc'::regclass, 'pg_policy'::regclass))
		UNION ALL SELECT 'pg_class'::regclass, tgrelid, r.w FROM pg_trigger WHERE r.c = 'pg_trigger'::regclass AND oid = r.o
		UNION ALL SELECT 'pg_class'::regclass, adrelid, r.w FROM pg_attrdef WHERE r.c = 'pg_attrdef'::regclass AND oid = r.o
		UNION ALL SELECT 'pg_class'::regclass, ev_class, r.w FROM pg_rewrite WHERE r.c = 'pg_rewrite'::regclass AND oid = r.o
		UNION ALL SELECT 'pg_class'::regclass, polrelid, r.w FROM pg_policy WHERE r.c = 'pg_policy'::regclass AND oid = r.o
		UNION ALL SELECT 'pg_class'::regclass, unnest(ARRAY[conrelid, confrelid]), true FROM pg_constraint
			WHERE r.c = 'pg_constraint'::regclass AND oid = r.o AND conrelid <> 0
		UNION ALL SELECT 'pg_type'::regclass, contypid, true FROM pg_constraint
			WHERE r.c = 'pg_constraint'::regclass AND oid = r.o AND contypid <> 0
		UNION ALL SELECT 'pg_class'::regclass, indrelid, r.w FROM pg_index WHERE r.c = 'pg_class'::regclass AND indexrelid = r.o
		UNION ALL SELECT 'pg_class'::regclass, inhparent, r.w FROM pg_inherits WHERE r.c = 'pg_class'::regclass AND inhrelid = r.o
		UNION ALL SELECT 'pg_class'::regclass, confrelid, true FROM pg_constraint
			WHERE r.c = 'pg_class'::regclass AND conrelid = r.o AND contype = 'f' AND (confdeltype IN ('c', 'n', 'd') OR
				confupdtype IN ('c', 'n', 'd') OR EXISTS (SELECT FROM pg_trigger WHERE tgrelid = r.o AND tgtype & 32 <> 0))
		UNION ALL SELECT 'pg_type'::regclass, t.oid, r.w FROM pg_type AS t JOIN pg_class AS k ON k.oid = t.typrelid
			WHERE r.c = 'pg_class'::regclass AND t.typrelid = r.o AND k.relkind = 'c'
		UNION ALL SELECT 'pg_class'::regclass, typrelid, r.w FROM pg_type WHERE r.c = 'pg_type'::regclass AND oid = r.o AND typrelid <> 0
		UNION ALL SELECT 'pg_type'::regclass, unnest(ARRAY[castsource, casttarget]), false FROM pg_cast
			WHERE r.c = 'pg_cast'::regclass AND oid = r.o
		UNION ALL SELECT 'pg_type'::regclass, unnest(ARRAY[oprleft, oprright]), false FROM pg_operator
			WHERE r.c = 'pg_operator'::regclass AND oid = r.o
			AND EXISTS (SELECT FROM pg_operator AS own WHERE own.oprname = pg_operator.oprname AND own.oid < 16384)
		UNION ALL SELECT 'pg_type'::regclass, unnest(ARRAY[amoplefttype, amoprighttype]), false FROM pg_amop
			WHERE r.c = 'pg_amop'::regclass AND oid = r.o
		UNION ALL SELECT 'pg_type'::regclass, unnest(ARRAY[amproclefttype, amprocrighttype]), false FROM pg_amproc
			WHERE r.c = 'pg_amproc'::regclass AND oid = r.o
	) AS n(c, o, w) WHERE n.o >= 16384
), row(kind, name) AS (
	SELECT 'a', p.proname FROM reach AS r JOIN pg_proc AS p ON r.c = 'pg_proc'::regclass AND p.oid = r.o
	UNION SELECT 'a', t.typname FROM reach AS r JOIN pg_type AS t ON r.c = 'pg_type'::regclass AND t.oid = r.o WHERE t.typrelid = 0
	UNION SELECT CASE WHEN r.w THEN 'w' ELSE 'a' END, k.relname FROM reach AS r JOIN pg_class AS k ON r.c = 'pg_class'::regclass AND k.oid = r.o
		WHERE k.relkind NOT IN ('i', 'I')
	UNION SELECT CASE WHEN EXISTS (SELECT FROM pg_operator AS own WHERE own.oprname = p.oprname AND own.oid < 16384)
		THEN CASE WHEN p.oprleft < 16384 AND p.oprright < 16384 THEN '*' ELSE '-' END ELSE 'q' END, p.oprname
		FROM reach AS r JOIN pg_operator AS p ON r.c = 'pg_operator'::regclass AND p.oid = r.o
	UNION SELECT '*', 'cast' FROM reach AS r JOIN pg_cast AS p ON r.c = 'pg_cast'::regclass AND p.oid = r.o
		WHERE p.castsource < 16384 AND p.casttarget < 16384
	UNION SELECT '*', 'operator class' FROM reach AS r JOIN pg_amproc AS p ON r.c = 'pg_amproc'::regclass AND p.oid = r.o
		WHERE p.amproclefttype < 16384 AND p.amprocrighttype < 16384
	UNION SELECT '*', 'operator class' FROM reach AS r JOIN pg_amop AS p ON r.c = 'pg_amop'::regclass AND p.oid = r.o
		WHERE p.amoplefttype < 16384 AND p.amoprighttype < 16384
	UNION SELECT 'd', 'event trigger' FROM reach WHERE c = 'pg_event_trigger'::regclass
)
SELECT kind, regexp_replace(name::text, '[^ -~]' COLLATE "C", 'x', 'g'), '' FROM row`
