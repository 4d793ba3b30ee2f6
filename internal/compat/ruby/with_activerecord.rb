# ActiveRecord on ruby-pg.

require "active_record"
require_relative "play"

ActiveRecord::Migration.verbose = false

class Order < ActiveRecord::Base
  validates :name, presence: true
end

class CreateOrders < ActiveRecord::Migration[6.1]
  def change
    create_table(:orders) do |t|
      t.string :name, null: false, index: { unique: true }
      t.decimal :price, precision: 12, scale: 2
      t.text :tags, array: true, default: []
      t.jsonb :note
      t.timestamps
    end
  end
end

module WithActiveRecord
  ABSENT = {}.freeze

  module_function

  def connect_to(**more)
    ActiveRecord::Base.establish_connection(
      adapter: "postgresql", host: AT[:host], port: AT[:port], username: AT[:user], password: AT[:password], database: AT[:database],
      sslmode: "disable", pool: 10, checkout_timeout: PATIENCE, **more
    )
  end

  def db = ActiveRecord::Base.connection

  def state
    yield
    "none"
  rescue ActiveRecord::StatementInvalid => e
    e.cause.result.error_field(PG::PG_DIAG_SQLSTATE)
  end

  def driver = ActiveRecord.version.to_s

  def connect
    connect_to
    [db.adapter_name, db.database_version, db.select_value("show timezone"), db.select_value("show client_min_messages"), db.active?]
  end

  def tls
    connect_to(sslmode: "verify-full", sslrootcert: AT[:ca])
    got = db.select_value("select right(repeat('x', 20000), 5)")
    connect_to
    got
  end

  # migration holds an advisory lock while it runs.
  def migration
    context = ActiveRecord::MigrationContext.new([], ActiveRecord::SchemaMigration)
    ActiveRecord::SchemaMigration.create_table
    ActiveRecord::InternalMetadata.create_table
    ActiveRecord::Migrator.new(:up, [CreateOrders.new("CreateOrders", 1)], ActiveRecord::SchemaMigration).migrate
    [context.current_version, db.tables.sort, db.columns("orders").map(&:sql_type), db.indexes("orders").map(&:columns)]
  end

  def create
    Order.insert_all((0...300).map { |i| { name: "order #{i}", price: i / 4.0, tags: ["a", "t#{i}"], created_at: Time.at(i), updated_at: Time.at(i) } })
    order = Order.create!(name: "Ünïcödé 🐘", note: { "a" => [1, nil] }, price: "1.25")
    [order.reload.attributes.except("created_at", "updated_at", "id"), Order.count, state { Order.create!(name: "order 1") }]
  end

  def read
    [Order.where(name: "order 7").pick(:price).to_s, Order.where("price > ?", 70).order(:id).pluck(:name), Order.group(:price).count.size, Order.find_by(name: "order 9").tags]
  end

  # prepared statements are a1, a2, ... of each connection; the pool keeps only so many.
  def prepared
    connect_to(statement_limit: 3)
    got = (0..30).map { |i| Order.where(name: "order #{i}").limit(i % 7 + 1).pluck(:name) }
    connect_to(prepared_statements: false)
    got << Order.where(name: "order 1").count
    connect_to
    got
  end

  def transaction
    got = []
    Order.transaction do
      Order.create!(name: "outer")
      %w[outer inner].each do |name|
        got << state { Order.transaction(requires_new: true) { Order.create!(name: name) } }
      end
    end
    Order.transaction { Order.create!(name: "undone"); raise ActiveRecord::Rollback }
    got << Order.where(name: %w[outer inner undone]).order(:name).pluck(:name)
    Order.transaction(isolation: :serializable) { got << db.select_value("show transaction_isolation") }
    got << Order.find_by(name: "outer").with_lock { 7 }
  end

  def errors = MANY_ERRORS.map { |sql| [state { db.execute(sql) }, db.select_value("select 1")] }

  def many_rows = [Order.find_each(batch_size: 50).sum(&:id), Order.in_batches(of: 70).map(&:count)]

  def settings
    got = [db.select_rows(SHOW)]
    connect_to(variables: { timezone: "Asia/Tokyo", work_mem: "6MB" })
    got << db.select_rows(SHOW)
    connect_to
    got << db.select_rows(SHOW)
  end

  def reset
    db.execute("set work_mem = '8MB'")
    db.execute("create temp table gone (id int)")
    Order.where(name: "order 1").to_a
    db.reset! # ROLLBACK and DISCARD ALL
    got = [db.select_value("show work_mem"), state { db.execute("select * from gone") }, Order.where(name: "order 1").count]
    db.reconnect!
    got << db.get_advisory_lock(7) << db.release_advisory_lock(7)
  end

  def schema_change
    Order.where(name: "order 1").to_a
    db.add_column(:orders, :more, :integer, default: 5)
    Order.reset_column_information
    [Order.where(name: "order 1").first.more, Order.find_by(name: "order 2").more]
  end

  def pool
    tasks = Array.new(30) do |i|
      Thread.new do
        ActiveRecord::Base.connection_pool.with_connection do
          3.times { |j| Order.transaction { Order.create!(name: "task #{i}/#{j}") } }
        end
      end
    end
    tasks.each(&:join)
    Order.where("name like 'task%'").count
  end
end

play(WithActiveRecord) if $PROGRAM_NAME == __FILE__
