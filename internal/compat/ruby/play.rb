# Plays a driver in situations: calls one method for each, and prints what it returned as a line of JSON.
#
# The situations are named by the environment; the method of "copy in" is copy_in. Where the driver offers nothing of the
# kind, ABSENT has the reason. An exception that a method lets out is a fault: the test that reads the lines fails.

require "digest"
require "json"
require "timeout"

# Seconds for one situation. It is long because machines that run tests are busy; nothing waits for it in vain.
PATIENCE = 60

# Larger than every buffer on the way.
BIG = "0123456789abcde\n" * (5 * 1024 * 1024 / 16)

AT = %w[host port user password database ca].to_h { |name| [name.to_sym, ENV.fetch("COMPAT_#{name.upcase}")] }

def play(program)
  JSON.parse(ENV.fetch("COMPAT_SITUATIONS")).each do |name|
    step = { step: name }
    if program::ABSENT.key?(name)
      step[:absent] = program::ABSENT[name]
    else
      begin
        step[:got] = Timeout.timeout(PATIENCE) { program.public_send(name.tr(" ", "_")) }
      rescue Exception => e
        step[:fault] = "#{e.class}: #{e.message} #{e.backtrace.grep(/with_/).first(3)}"
      end
    end
    puts JSON.generate(step)
    $stdout.flush
  end
end

MANY_ERRORS = [
  "select 1/0", "select * from nowhere", "selec", "select nothing()", "insert into wide values (1, 'twice')",
  "insert into item (id) values (1000)", "select fail('P0001')", "select fail('40001')", "select fail('XX000')",
].freeze

# A setting of one's own is '' once it has been reset, and NULL only before anybody has set it on that server.
SHOW = "select current_setting('timezone'), current_setting('datestyle'), current_setting('search_path'),
  current_setting('application_name'), current_setting('work_mem'), nullif(current_setting('my.own', true), '')"

SETTINGS = [
  "set time zone 'Asia/Tokyo'", "set datestyle = 'ISO, DMY'", "set search_path = pg_catalog, public",
  "set application_name = 'one''s'", "select set_config('work_mem', '7MB', false)", "set my.own = 'x'",
].freeze

def executing(query)
  "from pg_stat_activity where datname = current_database() and state = 'active' and pid <> pg_backend_pid() and query like '#{query}%'"
end
