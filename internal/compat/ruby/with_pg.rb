# ruby-pg, on libpq.

require "pg"
require_relative "play"

module WithPG
  ABSENT = {}.freeze

  module_function

  def connect_to(**more)
    PG.connect(host: AT[:host], port: AT[:port], user: AT[:user], password: AT[:password], dbname: AT[:database], sslmode: "disable", **more)
  end

  # open opens n connections and closes them when the block has returned.
  def open(n, **more)
    all = Array.new(n) { connect_to(**more) }
    yield(*all)
  ensure
    all&.each { |conn| conn.close unless conn.finished? }
  end

  def rows(conn, sql, *params)
    (params.empty? ? conn.exec(sql) : conn.exec_params(sql, params)).values
  end

  # state is the SQLSTATE of a statement.
  def state(conn, sql, *params)
    params.empty? ? conn.exec(sql) : conn.exec_params(sql, params)
    "none"
  rescue PG::Error => e
    e.result ? e.result.error_field(PG::PG_DIAG_SQLSTATE) : e.message
  end

  def driver = "#{PG::VERSION} with libpq #{PG::library_version}"

  def connect
    open(1) do |conn|
      reported = %w[server_version client_encoding DateStyle TimeZone standard_conforming_strings session_authorization].map { |name| conn.parameter_status(name) }
      [reported, conn.transaction_status, rows(conn, "select current_user")]
    end
  end

  def tls
    open(1, sslmode: "verify-full", sslrootcert: AT[:ca], channel_binding: "require") { |conn| [conn.ssl_in_use?, rows(conn, "select right(repeat('x', $1::int), 5)", 20000)] }
  end

  def wrong_password
    [{ password: "guess" }, { user: "nobody" }].map do |more|
      open(1, **more) { "none" }
    rescue PG::Error => e
      e.message.include?("password authentication failed")
    end
  end

  def types
    open(1) do |conn|
      conn.type_map_for_results = PG::BasicTypeMapForResults.new(conn)
      conn.type_map_for_queries = PG::BasicTypeMapForQueries.new(conn)
      values = ["$1::int2", -7, "$1::float8", 1.0 / 3, "$1::bool", true, "$1::text", "it's \"quoted\" \\ and %", "$1::int4[]", [1, 2, 3], "$1::date", "1969-12-31"]
      text = values.each_slice(2).map { |type, value| conn.exec_params("select #{type}", [value]).values }
      conn.type_map_for_queries = PG::TypeMapAllStrings.new
      binary = conn.exec_params("select $1::bytea, 7::int8, 'ü'::text", [{ value: "\x00\x01\\'\xFF".b, format: 1 }], 1).values
      text.inspect + binary.inspect
    end
  end

  def nulls
    open(1) { |conn| rows(conn, "select $1::text, $2::int, coalesce($3::text, 'was null'), ''", nil, nil, nil) }
  end

  def unicode
    name = "Ünïcödé 名前 🐘 \r\n\t"
    open(1) do |conn|
      conn.exec('create temp table "Tab ä" ("Spalte 名" text)')
      conn.exec_params('insert into "Tab ä" values ($1)', [name])
      rows(conn, 'select *, length("Spalte 名") from "Tab ä" where "Spalte 名" = $1', name)
    end
  end

  def big_values
    open(1) do |conn|
      [rows(conn, "select $1::text", BIG)[0][0] == BIG, rows(conn, "select length('#{BIG}')"), rows(conn, "select 1")]
    end
  end

  def prepared
    open(1) do |conn|
      conn.prepare("mine", "select id, a from wide where id = $1")
      got = (0..9).map { |i| conn.exec_prepared("mine", [i]).values }
      described = conn.describe_prepared("mine")
      got << described.nfields << described.paramtype(0)
      conn.exec('deallocate "mine"')
      begin
        conn.exec_prepared("mine", [1])
      rescue PG::Error => e
        got << e.result.error_field(PG::PG_DIAG_SQLSTATE) << e.result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY)
      end
      got
    end
  end

  def equal_names
    open(6) do |*conns|
      conns.each_with_index { |conn, i| conn.prepare("same", "select '#{i}', $1::int + #{i * 100}") }
      (0..9).flat_map { |round| conns.map { |conn| conn.exec_prepared("same", [round]).values } }
    end
  end

  # pipeline has many Syncs, one of them behind an error.
  def pipeline
    open(1) do |conn|
      conn.enter_pipeline_mode
      10.times do |i|
        conn.send_query_params("insert into item (id, name) values ($1, $2)", [100 + i, "item"])
        conn.send_query_params("select 10 / ($1::int - 5)", [i])
        conn.pipeline_sync
      end
      got = []
      synced = 0
      while synced < 10
        result = conn.get_result or next
        synced += 1 if result.result_status == PG::PGRES_PIPELINE_SYNC
        got << [result.result_status, result.values, result.error_field(PG::PG_DIAG_SQLSTATE)]
      end
      conn.exit_pipeline_mode
      got << rows(conn, "select count(*) from item where id between 100 and 109")
    end
  end

  def transaction
    open(1) do |conn|
      got = []
      conn.transaction { conn.exec("insert into parent values (1)") }
      begin
        conn.transaction { conn.exec("insert into parent values (2)"); raise ArgumentError }
      rescue ArgumentError
        got << conn.transaction_status
      end
      conn.transaction do
        [1, 3].each do |i|
          conn.exec("savepoint s")
          got << state(conn, "insert into parent values ($1)", i)
          conn.exec("rollback to savepoint s") unless got.last == "none"
        end
      end
      got << rows(conn, "select * from parent order by 1")
    end
  end

  def errors
    open(1) do |conn|
      conn.set_error_verbosity(PG::PQERRORS_VERBOSE)
      MANY_ERRORS.map { |sql| [state(conn, sql), rows(conn, "select $1::int", 1)] } << state(conn, "select $1::text::int", "no number")
    end
  end

  def deferred_constraint
    open(1) do |conn|
      conn.exec("begin")
      conn.exec("insert into child values (1, 99)")
      [state(conn, "commit"), conn.transaction_status]
    end
  end

  def notices
    open(1) do |conn|
      heard = []
      conn.set_notice_receiver { |result| heard << result.error_field(PG::PG_DIAG_MESSAGE_PRIMARY) }
      [rows(conn, "select shout($1) from wide", "hey"), heard]
    end
  end

  def several_results
    open(1) do |conn|
      conn.send_query("select 1; select * from wide; select 1/0; select 2")
      got = []
      while (result = conn.get_result)
        got << [result.result_status, result.values]
      end
      got << rows(conn, "select 1")
    end
  end

  def copy_in
    open(1) do |conn|
      conn.copy_data("copy item (id, name) from stdin") { 5000.times { |i| conn.put_copy_data("#{10000 + i}\tcopied #{i}\n") } }
      rows(conn, "select count(*), sum(id) from item where id >= 10000")
    end
  end

  def copy_out
    open(1) do |conn|
      all = +""
      conn.copy_data("copy (select i, 'row '||i from generate_series(1, 20000) i) to stdout") do
        while (row = conn.get_copy_data)
          all << row
        end
      end
      [Digest::MD5.hexdigest(all), rows(conn, "select 1")]
    end
  end

  def failed_copy
    open(1) do |conn|
      got = ["70\tx\nno number\tx\n", "71\tx\n1\ttwice\n"].map do |data|
        conn.copy_data("copy wide (id, a) from stdin") { conn.put_copy_data(data) }
      rescue PG::Error => e
        [e.result&.error_field(PG::PG_DIAG_SQLSTATE) || e.class.name, rows(conn, "select 1")]
      end
      begin
        conn.copy_data("copy wide (id, a) from stdin") { conn.put_copy_data("72\tx\n"); raise ArgumentError }
      rescue ArgumentError
        got << rows(conn, "select count(*) from wide where id >= 70")
      end
    end
  end

  # many_rows reads row by row.
  def many_rows
    open(1) do |conn|
      conn.send_query("select i, repeat('x', i % 100) from generate_series(1, 20000) i")
      conn.set_single_row_mode
      n = 0
      conn.get_result.stream_each_row { |row| n += row[1].length }
      [n, rows(conn, "select 1")]
    end
  end

  # sleep_through does something while the server executes a query, and returns the query's SQLSTATE.
  def sleep_through(conn, query)
    conn.send_query(query)
    open(1) do |watcher|
      nil until rows(watcher, "select 1 #{executing(query)}").any?
      yield watcher
    end
    conn.block
    conn.get_last_result
    "none"
  rescue PG::Error => e
    e.result ? e.result.error_field(PG::PG_DIAG_SQLSTATE) : e.class.name
  end

  def cancel
    open(1) { |conn| (0..2).map { |i| [sleep_through(conn, "select pg_sleep(60), #{i}") { conn.cancel }, rows(conn, "select $1::int", i)] } }
  end

  def notify
    open(2) do |listener, notifier|
      listener.exec("listen news")
      notifier.exec("notify news, 'one'")
      notifier.exec_params("select pg_notify('news', $1)", ["x" * 7000])
      got = []
      2.times { listener.wait_for_notify(PATIENCE) { |channel, _, payload| got << [channel, payload.length] } }
      listener.exec("unlisten *")
      got << rows(listener, "select count(*) from pg_listening_channels()") << rows(notifier, "select count(*) from pg_listening_channels()")
    end
  end

  def settings
    open(2) do |one, other|
      SETTINGS.flat_map { |sql| one.exec(sql); [rows(one, SHOW), rows(other, SHOW)] } << one.parameter_status("TimeZone") << other.parameter_status("TimeZone")
    end
  end

  def reset
    open(2) do |one, other|
      one.exec("set work_mem = '8MB'")
      one.exec("create temp table gone (id int)")
      got = [state(other, "select * from gone"), rows(one, "select * from gone")]
      one.reset # it connects anew
      got << rows(one, "show work_mem") << state(one, "select * from gone")
    end
  end

  def terminated
    conn = connect_to
    query = "select pg_sleep(61)"
    got = sleep_through(conn, query) { |watcher| watcher.exec("select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end) #{executing(query)}") }
    [got, open(1) { |again| rows(again, "select 1") }]
  end
end

play(WithPG) if $PROGRAM_NAME == __FILE__
