import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.Reader;
import java.io.StringReader;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.Date;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.time.OffsetDateTime;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.TimeZone;
import java.util.UUID;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import javax.sql.XAConnection;
import javax.transaction.xa.XAResource;
import javax.transaction.xa.Xid;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.DriverInfo;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;
import org.postgresql.xa.PGXADataSource;

/**
 * pgjdbc. Plays the driver in the situations that the environment names: runs one method for each, and prints what it
 * returned as a line of JSON. An exception that a method lets out is a fault: the test that reads the lines fails.
 */
public final class Pgjdbc {
  /** Seconds for one situation. It is long because machines that run tests are busy; nothing waits for it in vain. */
  private static final int PATIENCE = 60;

  /** Larger than every buffer on the way. */
  private static final String BIG = "0123456789abcde\n".repeat(5 * 1024 * 1024 / 16);

  private static final String DATABASE = System.getenv("COMPAT_DATABASE");

  private static final String[] MANY_ERRORS = {
    "select 1/0", "select * from nowhere", "selec", "select nothing()", "insert into wide values (1, 'twice')",
    "insert into item (id) values (1000)", "select fail('P0001')", "select fail('40001')", "select fail('XX000')",
  };

  /** A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server. */
  private static final String SHOW = "select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),"
      + " current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')";

  private static final String[] SETTINGS = {
    "set time zone 'Asia/Tokyo'", "set datestyle = 'ISO, DMY'", "set search_path = pg_catalog, public", "set application_name = 'one''s'",
    "select set_config('work_mem', '7MB', false)", "set my.own = 'x'",
  };

  /** What has been opened in the situation that is being played. */
  private final List<AutoCloseable> opened = new ArrayList<>();

  public static void main(String[] args) throws Exception {
    TimeZone.setDefault(TimeZone.getTimeZone("UTC"));
    ExecutorService player = Executors.newCachedThreadPool();
    for (String name : args) {
      List<String> line = new ArrayList<>(List.of("\"step\":" + json(name)));
      Pgjdbc scene = new Pgjdbc();
      Future<Object> playing = player.submit(() -> scene.play(name));
      try {
        line.add("\"got\":" + json(playing.get(PATIENCE, TimeUnit.SECONDS)));
      } catch (Exception e) {
        Throwable cause = e.getCause() == null ? e : e.getCause();
        line.add("\"fault\":" + json(cause + " at " + Arrays.stream(cause.getStackTrace()).filter(f -> f.getClassName().startsWith("Pgjdbc")).toList()));
      }
      scene.close();
      System.out.println("{" + String.join(",", line) + "}");
    }
    System.exit(0);
  }

  private Object play(String name) throws Exception {
    switch (name) {
      case "driver": return version();
      case "connect": return connects();
      case "tls": return tls();
      case "wrong password": return List.of(refusal(DATABASE, "password", "guess"), refusal(DATABASE, "user", "nobody"));
      case "unknown database": return refusal("nowhere");
      case "application name": return applicationName();
      case "types": return types();
      case "nulls": return nulls();
      case "unicode": return unicode();
      case "big values": return bigValues();
      case "prepared": return prepared();
      case "equal names": return equalNames();
      case "pipeline": return pipeline();
      case "failed pipeline": return failedPipeline();
      case "transaction": return transaction();
      case "savepoints": return savepoints();
      case "read only": return readOnly();
      case "two phase": return twoPhase();
      case "errors": return errors();
      case "failed transaction": return failedTransaction();
      case "deferred constraint": return deferredConstraint();
      case "notices": return notices();
      case "several results": return severalResults();
      case "copy in": return copyIn();
      case "copy out": return copyOut();
      case "failed copy": return failedCopy();
      case "cursor": return cursor();
      case "many rows": return manyRows();
      case "cancel": return cancel();
      case "timeout": return timeout();
      case "notify": return notifications();
      case "settings": return settings();
      case "session state": return sessionState();
      case "reset": return reset();
      case "schema change": return schemaChange(1);
      case "schema change by another": return schemaChange(2);
      case "terminated": return terminated();
      case "pool": return pool();
      default: throw new IllegalArgumentException("no such situation");
    }
  }

  private void close() {
    for (AutoCloseable one : opened) {
      try {
        one.close();
      } catch (Exception e) {
        // The test may have closed it, or its server.
      }
    }
  }

  // Connections and queries.

  private static final String URL = "jdbc:postgresql://" + System.getenv("COMPAT_HOST") + ":" + System.getenv("COMPAT_PORT") + "/";

  private static Properties properties(String... more) {
    Properties properties = new Properties();
    properties.setProperty("user", System.getenv("COMPAT_USER"));
    properties.setProperty("password", System.getenv("COMPAT_PASSWORD"));
    properties.setProperty("sslmode", "disable");
    for (int i = 0; i < more.length; i += 2) {
      properties.setProperty(more[i], more[i + 1]);
    }
    return properties;
  }

  private synchronized Connection connect(String... more) throws SQLException {
    Connection connection = DriverManager.getConnection(URL + DATABASE, properties(more));
    opened.add(connection);
    return connection;
  }

  private String refusal(String database, String... more) {
    try {
      DriverManager.getConnection(URL + database, properties(more)).close();
    } catch (SQLException e) {
      return e.getSQLState();
    }
    return "none";
  }

  private static List<Object> rows(ResultSet set) throws SQLException {
    List<Object> all = new ArrayList<>();
    while (set.next()) {
      List<Object> row = new ArrayList<>();
      for (int i = 1; i <= set.getMetaData().getColumnCount(); i++) {
        row.add(set.getString(i));
      }
      all.add(row);
    }
    return all;
  }

  private static PreparedStatement bound(Connection on, String sql, Object... params) throws SQLException {
    PreparedStatement statement = on.prepareStatement(sql);
    for (int i = 0; i < params.length; i++) {
      statement.setObject(i + 1, params[i]);
    }
    return statement;
  }

  private static List<Object> rows(Connection on, String sql, Object... params) throws SQLException {
    try (PreparedStatement statement = bound(on, sql, params); ResultSet set = statement.executeQuery()) {
      return rows(set);
    }
  }

  private static int execute(Connection on, String sql, Object... params) throws SQLException {
    try (PreparedStatement statement = bound(on, sql, params)) {
      statement.execute();
      return statement.getUpdateCount();
    }
  }

  /** The SQLSTATE of a statement. */
  private static String state(Connection on, String sql, Object... params) {
    try {
      execute(on, sql, params);
    } catch (SQLException e) {
      return e.getSQLState();
    }
    return "none";
  }

  // The situations.

  private static Object version() {
    return DriverInfo.DRIVER_VERSION + " on Java " + System.getProperty("java.version");
  }

  private Object connects() throws SQLException {
    Connection connection = connect();
    PGConnection own = connection.unwrap(PGConnection.class);
    List<Object> got = new ArrayList<>(rows(connection, "select current_user, current_setting('extra_float_digits'), current_setting('client_encoding')"));
    for (String name : new String[] {"server_version", "client_encoding", "DateStyle", "TimeZone", "standard_conforming_strings", "application_name"}) {
      got.add(own.getParameterStatus(name));
    }
    got.add(connection.isValid(5));
    got.add(connection.getMetaData().getDatabaseProductVersion());
    try (ResultSet columns = connection.getMetaData().getColumns(null, "public", "item", null)) {
      while (columns.next()) {
        got.add(columns.getString("COLUMN_NAME") + " " + columns.getString("TYPE_NAME"));
      }
    }
    return got;
  }

  private Object tls() throws SQLException {
    List<Object> got = new ArrayList<>();
    for (String mode : new String[] {"require", "verify-full"}) {
      got.add(rows(connect("sslmode", mode, "sslrootcert", System.getenv("COMPAT_CA")), "select right(repeat('x', ?), 5)", 20000));
    }
    return got;
  }

  private Object applicationName() throws SQLException {
    String sql = "select current_setting('application_name'), current_setting('work_mem'), current_setting('search_path')";
    Connection one = connect("ApplicationName", "a shop's till", "currentSchema", "pg_catalog,public", "options", "-c work_mem=5MB");
    Connection other = connect("ApplicationName", "other", "assumeMinServerVersion", "9.0");
    List<Object> got = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      got.addAll(rows(one, sql));
      got.addAll(rows(other, sql));
    }
    one.setClientInfo("ApplicationName", "renamed");
    one.setSchema("public");
    got.addAll(rows(other, sql));
    got.addAll(rows(one, sql));
    return got;
  }

  /** Values go as text at first, and in binary form once their statement is prepared on the server. */
  private Object types() throws SQLException {
    Connection connection = connect();
    PGobject json = new PGobject();
    json.setType("jsonb");
    json.setValue("{\"a\": [1, null, \"ü\"]}");
    PGobject mood = new PGobject();
    mood.setType("mood");
    mood.setValue("happy");
    Object[] values = {
      (short) -7, 1 << 30, Long.MIN_VALUE, 1.0 / 3, 1.5f, new BigDecimal("12345678901234567890.123456789"), "it's \"quoted\" \\ and % $1 ?", true,
      new byte[] {0, 1, '\\', '\'', -1}, Timestamp.valueOf("2024-02-29 23:59:59.999999"), Date.valueOf("1969-12-31"),
      OffsetDateTime.parse("2024-02-29T23:59:59Z"), UUID.fromString("00112233-4455-6677-8899-aabbccddeeff"), json, mood,
      connection.createArrayOf("int4", new Object[] {1, 2, 3}), connection.createArrayOf("text", new Object[] {"a,b", "c\"d", ""}),
    };
    List<Object> got = new ArrayList<>();
    for (Object value : values) {
      try (PreparedStatement statement = connection.prepareStatement("select ?")) {
        statement.setObject(1, value);
        for (int i = 0; i < 7; i++) {
          ResultSet set = statement.executeQuery();
          set.next();
          got.add(value instanceof byte[] ? Arrays.toString(set.getBytes(1)) : set.getString(1));
        }
      }
    }
    return got;
  }

  private Object nulls() throws SQLException {
    Connection connection = connect();
    List<Object> got = new ArrayList<>(rows(connection, "select ?::text, ?::int, coalesce(?::text, 'was null'), ''", null, null, null));
    try (PreparedStatement statement = connection.prepareStatement("insert into item values (1, 'nothing', ?, ?, ?)")) {
      statement.setNull(1, Types.NUMERIC);
      statement.setNull(2, Types.ARRAY);
      statement.setNull(3, Types.OTHER);
      got.add(statement.executeUpdate());
    }
    got.addAll(rows(connection, "select * from item where price is not distinct from ?::numeric", new Object[] {null}));
    return got;
  }

  private Object unicode() throws SQLException {
    String name = "Ünïcödé 名前 🐘\u200d🚀 \r\n\t";
    Connection connection = connect();
    execute(connection, "create temp table \"Tab ä\" (\"Spalte 名\" text)");
    execute(connection, "insert into \"Tab ä\" values (?)", name);
    return rows(connection, "select *, length(\"Spalte 名\") from \"Tab ä\" where \"Spalte 名\" = ?", name);
  }

  private Object bigValues() throws Exception {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    try (PreparedStatement statement = bound(connection, "select ?::text, ?::bytea", BIG, BIG.getBytes(StandardCharsets.UTF_8)); ResultSet set = statement.executeQuery()) {
      set.next();
      got.add(set.getString(1).equals(BIG));
      got.add(digest(set.getBytes(2)));
    }
    got.addAll(rows(connection, "select length('" + BIG + "')"));
    got.addAll(rows(connection, "select 1"));
    return got;
  }

  /** From its fifth execution on a statement is prepared on the server, unless the threshold says otherwise. */
  private Object prepared() throws SQLException {
    List<Object> got = new ArrayList<>();
    for (String threshold : new String[] {"5", "1", "0", "-1"}) {
      Connection connection = connect("prepareThreshold", threshold, "preparedStatementCacheQueries", "3");
      try (PreparedStatement statement = connection.prepareStatement("select ?::int * 2")) {
        for (int i = 0; i < 12; i++) {
          statement.setInt(1, i);
          got.addAll(rows(statement.executeQuery()));
        }
      }
      for (int round = 0; round < 8; round++) {
        for (int i = 0; i < 5; i++) { // more than the cache holds
          got.addAll(rows(connection, "select ?::int + " + i, round));
        }
      }
    }
    for (String mode : new String[] {"simple", "extended", "extendedForPrepared", "extendedCacheEverything"}) {
      Connection connection = connect("preferQueryMode", mode);
      for (int i = 0; i < 8; i++) {
        got.addAll(rows(connection, "select ?::int * 3", i));
        try (Statement statement = connection.createStatement()) {
          got.addAll(rows(statement.executeQuery("select 'plain'")));
        }
      }
    }
    return got;
  }

  /** Each connection numbers its prepared statements from S_1. */
  private Object equalNames() throws SQLException {
    List<PreparedStatement> statements = new ArrayList<>();
    for (int i = 0; i < 6; i++) {
      statements.add(connect("prepareThreshold", "1").prepareStatement("select '" + i + "', ?::int + " + i * 100));
    }
    List<Object> got = new ArrayList<>();
    for (int round = 0; round < 10; round++) {
      for (PreparedStatement statement : statements) {
        statement.setInt(1, round);
        got.addAll(rows(statement.executeQuery()));
      }
    }
    return got;
  }

  private static void fill(PreparedStatement statement, int from, int to) throws SQLException {
    for (int i = from; i < to; i++) {
      statement.setInt(1, i);
      statement.setString(2, "item " + i);
      statement.addBatch();
    }
  }

  private Object pipeline() throws SQLException {
    List<Object> got = new ArrayList<>();
    int from = -9000;
    for (String rewrite : new String[] {"false", "true"}) {
      Connection connection = connect("reWriteBatchedInserts", rewrite);
      try (PreparedStatement statement = connection.prepareStatement("insert into item (id, name) values (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
        for (int i = 0; i < 3; i++, from += 300) {
          fill(statement, from, from + 300);
          got.add(Arrays.toString(statement.executeBatch()).hashCode());
          ResultSet keys = statement.getGeneratedKeys();
          got.add(keys.next() ? keys.getInt(1) : 0);
        }
      }
      try (Statement statement = connection.createStatement()) {
        statement.addBatch("update item set price = 1 where id = -9000");
        statement.addBatch("delete from item where id = -8999");
        got.add(Arrays.toString(statement.executeBatch()));
      }
    }
    got.addAll(rows(connect(), "select count(*), sum(id), max(name) from item where id < ?", 0));
    return got;
  }

  private Object failedPipeline() throws SQLException {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    for (boolean auto : new boolean[] {true, false}) {
      connection.setAutoCommit(auto);
      try (PreparedStatement statement = connection.prepareStatement("insert into item (id, name) values (?, ?)")) {
        fill(statement, 5000, 5010);
        fill(statement, 5005, 5020); // five of them for the second time
        statement.executeBatch();
      } catch (BatchUpdateException e) {
        got.add(e.getSQLState() + " " + Arrays.toString(e.getUpdateCounts()));
      }
      if (!auto) {
        connection.rollback();
      }
      got.addAll(rows(connection, "select count(*) from item where id between ? and ?", 5000, 5020));
    }
    return got;
  }

  private Object transaction() throws SQLException {
    Connection connection = connect();
    connection.setAutoCommit(false);
    List<Object> got = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      for (int j = 0; j < 3; j++) {
        execute(connection, "insert into parent values (?)", 10 * i + j);
      }
      got.addAll(rows(connection, "select count(*) from parent"));
      if (i == 1) {
        connection.rollback();
      } else {
        connection.commit();
      }
    }
    connection.setAutoCommit(true);
    got.addAll(rows(connection, "select * from parent order by 1"));
    return got;
  }

  private Object savepoints() throws SQLException {
    List<Object> got = new ArrayList<>();
    for (String mode : new String[] {"never", "always", "conservative"}) {
      Connection connection = connect("autosave", mode, "prepareThreshold", "2");
      connection.setAutoCommit(false);
      for (int i = 0; i < 4; i++) {
        Savepoint savepoint = connection.setSavepoint();
        got.add(state(connection, "insert into parent values (?)", 100 + i % 2));
        if (got.get(got.size() - 1).equals("none")) {
          connection.releaseSavepoint(savepoint);
        } else {
          connection.rollback(savepoint);
        }
      }
      got.addAll(rows(connection, "select * from parent where id >= ? order by 1", 100));
      got.add(state(connection, "select 1/0"));
      got.add(state(connection, "select ?::int", 1)); // works where the driver sets savepoints on its own
      connection.rollback();
    }
    return got;
  }

  private Object readOnly() throws SQLException {
    Connection one = connect();
    Connection other = connect();
    String write = "insert into parent values (?)";
    one.setReadOnly(true);
    one.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
    one.setAutoCommit(false);
    List<Object> got = new ArrayList<>(rows(one, "select current_setting('transaction_isolation')"));
    got.add(state(one, write, 200));
    one.rollback();
    one.setAutoCommit(true);
    got.add(state(one, write, 201));
    got.add(state(other, write, 202));
    one.setReadOnly(false);
    got.add(state(one, write, 203));
    got.add(one.getTransactionIsolation());
    got.add(other.getTransactionIsolation());
    return got;
  }

  /** A transaction id whose global part is the database's name, as such ids are the cluster's. */
  private static final class DatabaseXid implements Xid {
    private final int branch;

    DatabaseXid(int branch) {
      this.branch = branch;
    }

    @Override public int getFormatId() {
      return 1;
    }

    @Override public byte[] getGlobalTransactionId() {
      return DATABASE.getBytes(StandardCharsets.UTF_8);
    }

    @Override public byte[] getBranchQualifier() {
      return new byte[] {(byte) branch};
    }
  }

  private Object twoPhase() throws Exception {
    PGXADataSource source = new PGXADataSource();
    source.setServerNames(new String[] {System.getenv("COMPAT_HOST")});
    source.setPortNumbers(new int[] {Integer.parseInt(System.getenv("COMPAT_PORT"))});
    source.setDatabaseName(DATABASE);
    source.setUser(System.getenv("COMPAT_USER"));
    source.setPassword(System.getenv("COMPAT_PASSWORD"));
    source.setSslMode("disable");
    XAConnection connection = source.getXAConnection();
    opened.add(connection::close);
    XAResource resource = connection.getXAResource();
    List<Object> got = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      Xid xid = new DatabaseXid(i);
      resource.start(xid, XAResource.TMNOFLAGS);
      execute(connection.getConnection(), "insert into parent values (?)", 300 + i);
      resource.end(xid, XAResource.TMSUCCESS);
      got.add(resource.prepare(xid));
      got.addAll(rows(connect(), "select count(*) from parent where id >= ?", 300));
      if (i == 1) {
        resource.rollback(xid);
      } else {
        resource.commit(xid, false);
      }
      got.addAll(rows(connect(), "select count(*) from parent where id >= ?", 300));
    }
    return got;
  }

  private Object errors() throws SQLException {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    for (String sql : MANY_ERRORS) {
      got.add(state(connection, sql));
      got.addAll(rows(connection, "select ?::int", 1));
    }
    got.add(state(connection, "select ?::text::int", "no number"));
    got.add(state(connection, "select ?::int from nowhere", 1));
    try {
      execute(connection, "select fail('22000')");
    } catch (PSQLException e) {
      var told = e.getServerErrorMessage();
      got.addAll(Arrays.asList(told.getSeverity(), told.getMessage(), told.getDetail(), told.getHint(), told.getWhere(), told.getRoutine()));
    }
    return got;
  }

  private Object failedTransaction() throws SQLException {
    Connection connection = connect();
    connection.setAutoCommit(false);
    List<Object> got = new ArrayList<>(List.of(state(connection, "select 1/0"), state(connection, "select ?::int", 1), state(connection, "select 1")));
    try {
      connection.commit();
    } catch (SQLException e) {
      got.add(e.getSQLState());
    }
    got.addAll(rows(connection, "select ?::int", 1));
    return got;
  }

  private Object deferredConstraint() throws SQLException {
    Connection connection = connect();
    connection.setAutoCommit(false);
    List<Object> got = new ArrayList<>();
    got.add(execute(connection, "insert into child values (?, ?)", 1, 99));
    try {
      connection.commit();
    } catch (SQLException e) {
      got.add(e.getSQLState());
    }
    connection.setAutoCommit(true);
    got.add(state(connection, "insert into child values (?, ?)", 1, 99));
    got.addAll(rows(connection, "select count(*) from child"));
    return got;
  }

  private Object notices() throws SQLException {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    try (PreparedStatement statement = bound(connection, "select shout(?) from wide", "hey")) {
      got.addAll(rows(statement.executeQuery()));
      for (SQLWarning heard = statement.getWarnings(); heard != null; heard = heard.getNextWarning()) {
        got.add(heard.getSQLState() + " " + heard.getMessage());
      }
    }
    return got;
  }

  private Object severalResults() throws SQLException {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    for (String sql : new String[] {
      "select 1; insert into item (id, name) values (300, 'x'); select * from wide",
      "insert into item (id, name) values (301, 'x'); select 1/0; select 2",
    }) {
      try (Statement statement = connection.createStatement()) {
        boolean set = statement.execute(sql);
        while (set || statement.getUpdateCount() >= 0) {
          got.add(set ? rows(statement.getResultSet()) : statement.getUpdateCount());
          set = statement.getMoreResults();
        }
      } catch (SQLException e) {
        got.add(e.getSQLState());
      }
    }
    got.addAll(rows(connection, "select count(*) from item where id >= ?", 300));
    return got;
  }

  private CopyManager copier(Connection connection) throws SQLException {
    return connection.unwrap(PGConnection.class).getCopyAPI();
  }

  private Object copyIn() throws Exception {
    Connection connection = connect();
    StringBuilder lines = new StringBuilder();
    for (int i = 0; i < 20000; i++) {
      lines.append(10000 + i).append("\tcopied ").append(i).append('\n');
    }
    List<Object> got = new ArrayList<>();
    got.add(copier(connection).copyIn("copy item (id, name) from stdin", new StringReader(lines.toString())));
    got.add(copier(connection).copyIn("copy wide (id, a) from stdin with (format csv)", new StringReader("7,\"se,ven\"\n")));
    got.addAll(rows(connection, "select count(*), sum(id), max(name) from item where id >= ?", 10000));
    return got;
  }

  private Object copyOut() throws Exception {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    for (String format : new String[] {"text", "csv", "binary"}) {
      ByteArrayOutputStream out = new ByteArrayOutputStream();
      got.add(copier(connection).copyOut("copy (select i, 'row '||i from generate_series(1, 30000) i) to stdout with (format " + format + ")", out));
      got.add(digest(out.toByteArray()));
    }
    got.addAll(rows(connection, "select 1"));
    return got;
  }

  private Object failedCopy() throws Exception {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    Reader broken = new Reader() {
      @Override public int read(char[] to, int from, int length) throws IOException {
        throw new IOException("the source gives up");
      }

      @Override public void close() {}
    };
    for (Reader source : new Reader[] {new StringReader("70\tx\nno number\tx\n"), new StringReader("71\tx\n1\ttwice\n"), new StringReader("72\n"), broken}) {
      try {
        copier(connection).copyIn("copy wide (id, a) from stdin", source);
      } catch (SQLException e) {
        got.add(e.getSQLState());
      } catch (IOException e) {
        got.add(e.getMessage());
      }
      got.addAll(rows(connection, "select ?::int", 1));
    }
    try {
      copier(connection).copyOut("copy (select 1/(3-i) from generate_series(1, 5) i) to stdout", new ByteArrayOutputStream());
    } catch (SQLException e) {
      got.add(e.getSQLState());
    }
    got.addAll(rows(connection, "select count(*) from wide where id between ? and ?", 70, 90));
    return got;
  }

  /** With a fetch size, results come through portals with row limits, many Syncs long. */
  private Object cursor() throws SQLException {
    Connection connection = connect();
    connection.setAutoCommit(false);
    List<Object> got = new ArrayList<>();
    for (int size : new int[] {3, 100, 0}) {
      try (PreparedStatement statement = connection.prepareStatement("select i, repeat('x', i % 10) from generate_series(1, ?) i")) {
        statement.setFetchSize(size);
        statement.setInt(1, 250);
        for (int i = 0; i < 3; i++) {
          ResultSet set = statement.executeQuery();
          int sum = 0;
          while (set.next()) {
            sum += set.getInt(1);
            if (i == 1 && sum > 50) {
              break; // the portal is closed before its end
            }
            if (i == 2 && set.getInt(1) % 100 == 0) {
              got.addAll(rows(connection, "select ?::int", sum)); // while the portal is open
            }
          }
          got.add(sum);
        }
      }
      connection.commit();
    }
    try (Statement statement = connection.createStatement()) {
      statement.setMaxRows(5);
      got.add(rows(statement.executeQuery("select i from generate_series(1, 100) i")));
    }
    connection.commit();
    return got;
  }

  private Object manyRows() throws SQLException {
    Connection connection = connect();
    try (PreparedStatement statement = bound(connection, "select i, repeat('x', i % 100) from generate_series(1, ?) i", 50000); ResultSet set = statement.executeQuery()) {
      int n = 0;
      int length = 0;
      while (set.next()) {
        n++;
        length += set.getString(2).length();
      }
      return List.of(n, length);
    }
  }

  private static String executing(String query) {
    return " from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query like '" + query + "%'";
  }

  /** What is done while a query is executed. */
  private interface Act {
    void perform() throws Exception;
  }

  /** Runs a query and, while the server executes it, does something else. Returns the query's SQLSTATE. */
  private String sleepThrough(Statement statement, String query, Act act) throws Exception {
    ExecutorService aside = Executors.newSingleThreadExecutor();
    Future<String> ended = aside.submit(() -> {
      try {
        statement.execute(query);
      } catch (SQLException e) {
        return e.getSQLState();
      }
      return "none";
    });
    aside.shutdown();
    Connection watcher = connect();
    while (rows(watcher, "select 1" + executing(query)).isEmpty()) {
      Thread.onSpinWait();
    }
    watcher.close();
    act.perform();
    return ended.get();
  }

  private Object cancel() throws Exception {
    Connection connection = connect();
    List<Object> got = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      Statement statement = connection.createStatement();
      got.add(sleepThrough(statement, "select pg_sleep(60), " + i, statement::cancel));
      got.addAll(rows(connection, "select ?::int", i));
    }
    try (Statement statement = connection.createStatement()) {
      statement.setQueryTimeout(1); // its timer sends a cancel request
      statement.execute("select pg_sleep(60)");
    } catch (SQLException e) {
      got.add(e.getSQLState());
    }
    got.addAll(rows(connection, "select ?::int", 7));
    return got;
  }

  private Object timeout() throws SQLException {
    Connection connection = connect();
    execute(connection, "set statement_timeout = 100");
    List<Object> got = new ArrayList<>(List.of(state(connection, "select pg_sleep(60)"), rows(connection, "show statement_timeout")));
    execute(connection, "reset statement_timeout");
    got.addAll(List.of(rows(connection, "show statement_timeout"), state(connection, "select pg_sleep(0.2)")));
    return got;
  }

  private Object notifications() throws SQLException {
    Connection listener = connect();
    Connection notifier = connect();
    execute(listener, "listen news");
    execute(notifier, "notify news, 'one'");
    execute(notifier, "select pg_notify('news', ?)", "x".repeat(7000));
    execute(notifier, "notify other, 'unheard'");
    List<Object> got = new ArrayList<>();
    while (got.size() < 2) {
      PGNotification[] heard = listener.unwrap(PGConnection.class).getNotifications(1000);
      for (PGNotification one : heard == null ? new PGNotification[0] : heard) {
        got.add(one.getName() + " " + one.getParameter().length());
      }
    }
    execute(listener, "unlisten *");
    got.addAll(rows(listener, "select count(*) from pg_listening_channels()"));
    got.addAll(rows(notifier, "select count(*) from pg_listening_channels()"));
    return got;
  }

  private Object settings() throws SQLException {
    Connection one = connect();
    Connection other = connect();
    List<Object> got = new ArrayList<>();
    for (String sql : SETTINGS) {
      got.addAll(rows(one, SHOW));
      got.addAll(rows(other, SHOW));
      execute(one, sql);
    }
    for (boolean commit : new boolean[] {false, true}) {
      one.setAutoCommit(false);
      execute(one, "set work_mem = '1MB'");
      execute(one, "set local timezone = 'UTC'");
      got.addAll(rows(one, SHOW));
      if (commit) {
        one.commit();
      } else {
        one.rollback();
      }
      one.setAutoCommit(true);
      got.addAll(rows(one, SHOW));
      got.addAll(rows(other, SHOW));
    }
    execute(one, "reset all");
    got.addAll(rows(one, SHOW));
    got.addAll(rows(other, SHOW));
    return got;
  }

  private Object sessionState() throws SQLException {
    Connection one = connect();
    Connection other = connect();
    execute(one, "create temp table mine (id int)");
    execute(one, "insert into mine values (?)", 1);
    List<Object> got = new ArrayList<>(List.of(state(other, "select * from mine"), rows(one, "select * from mine")));
    execute(one, "drop table mine");
    execute(one, "select pg_advisory_lock(?)", 7);
    got.addAll(rows(other, "select pg_try_advisory_lock(?)", 7));
    got.addAll(rows(one, "select pg_advisory_unlock(?)", 7));
    got.addAll(rows(other, "select pg_try_advisory_lock(?)", 7));
    got.addAll(rows(other, "select pg_advisory_unlock(?)", 7));
    execute(one, "set role pg_monitor");
    got.addAll(rows(one, "select current_user"));
    got.addAll(rows(other, "select current_user"));
    execute(one, "reset role");
    got.addAll(rows(one, "select current_user"));
    return got;
  }

  private Object reset() throws SQLException {
    Connection one = connect();
    Connection other = connect();
    execute(one, "set work_mem = '8MB'");
    execute(one, "create temp table gone (id int)");
    execute(one, "select pg_advisory_lock(8)");
    try (Statement statement = one.createStatement()) {
      statement.execute("discard all"); // the driver notices, and forgets its statements
    }
    List<Object> got = new ArrayList<>(List.of(rows(one, "show work_mem"), state(one, "select * from gone")));
    got.addAll(rows(other, "select pg_try_advisory_lock(8)"));
    got.addAll(rows(other, "select pg_advisory_unlock_all()"));
    got.addAll(rows(other, "show work_mem"));
    return got;
  }

  private Object schemaChange(int clients) throws SQLException {
    Connection one = connect("prepareThreshold", "1");
    Connection last = clients == 1 ? one : connect("prepareThreshold", "1");
    String sql = "select * from wide where id = ?";
    List<Object> got = new ArrayList<>();
    for (int i = 0; i < 3; i++) {
      got.addAll(rows(one, sql, 1));
      got.addAll(rows(last, sql, 1));
    }
    execute(one, "alter table wide add b" + clients + " int default 5");
    for (Connection connection : new Connection[] {one, last}) {
      got.addAll(rows(connection, sql, 1)); // the driver prepares anew when the old statement is refused
      got.addAll(rows(connection, sql, 2));
    }
    return got;
  }

  private Object terminated() throws Exception {
    Connection connection = connect();
    String query = "select pg_sleep(61)";
    String got = sleepThrough(connection.createStatement(), query, () -> rows(connect(), "select pg_terminate_backend(case when pg_sleep(1.5) is not null then pid end)" + executing(query)));
    return List.of(got, connection.isClosed(), rows(connect(), "select 1"));
  }

  private Object pool() throws Exception {
    BlockingQueue<Connection> free = new ArrayBlockingQueue<>(10);
    for (int i = 0; i < 10; i++) {
      free.add(connect("prepareThreshold", "2"));
    }
    ExecutorService workers = Executors.newFixedThreadPool(20);
    List<Future<Object>> tasks = new ArrayList<>();
    for (int i = 0; i < 60; i++) {
      int number = i;
      tasks.add(workers.submit((Callable<Object>) () -> task(free, number)));
    }
    for (Future<Object> one : tasks) {
      one.get();
    }
    workers.shutdown();
    return rows(connect(), "select count(*), sum(id), count(distinct name) from item where id >= ?", 1000000);
  }

  private static Object task(BlockingQueue<Connection> free, int i) throws Exception {
    for (int j = 0; j < 5; j++) {
      Connection connection = free.take();
      int key = 1000000 + 10 * i + j;
      connection.setAutoCommit(false);
      execute(connection, "insert into item (id, name) values (?, ?)", key, "task " + key);
      List<Object> found = rows(connection, "select id from item where name = ?", "task " + key);
      connection.commit();
      connection.setAutoCommit(true);
      List<Object> sum = rows(connection, "select ?::int + " + i % 7, j);
      free.add(connection);
      if (!found.equals(List.of(List.of("" + key))) || !sum.equals(List.of(List.of("" + (j + i % 7))))) {
        throw new AssertionError("wrong answer for " + key);
      }
    }
    return null;
  }

  // JSON.

  private static String digest(byte[] data) throws Exception {
    StringBuilder hex = new StringBuilder();
    for (byte b : MessageDigest.getInstance("MD5").digest(data)) {
      hex.append(String.format("%02x", b));
    }
    return hex.toString();
  }

  private static String json(Object value) {
    if (value == null || value instanceof Number || value instanceof Boolean) {
      return String.valueOf(value);
    }
    if (value instanceof List<?> list) {
      return "[" + String.join(",", list.stream().map(Pgjdbc::json).toList()) + "]";
    }
    StringBuilder text = new StringBuilder("\"");
    for (char c : value.toString().toCharArray()) {
      text.append(c == '"' || c == '\\' ? "\\" + c : c < ' ' || c > '~' ? String.format("\\u%04x", (int) c) : "" + c);
    }
    return text.append('"').toString();
  }
}
