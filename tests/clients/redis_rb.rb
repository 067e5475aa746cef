# redis-rb as applications use it: redis_rb.rb SOCKET [CASE,CASE...]

require 'redis'
require 'securerandom'
require 'timeout'

TIMEOUT_S = 20
BINARY = (0..255).map(&:chr).join.b

def client(**options)
  Redis.new(path: ARGV[0], timeout: TIMEOUT_S, reconnect_attempts: 0, **options)
end

def equal(expected, actual)
  raise "expected #{expected.inspect[0, 200]}, got #{actual.inspect[0, 200]}" if expected != actual
end

def raises(text)
  value = yield
rescue Redis::BaseError => error
  raise "other error: #{error.message}" unless error.message.include?(text)
else
  raise "expected an error with #{text}, got #{value.inspect}"
end

# Polls until the block is true and returns its value.
def wait_for(what)
  deadline = Process.clock_gettime(Process::CLOCK_MONOTONIC) + TIMEOUT_S
  until (value = yield)
    raise "not within #{TIMEOUT_S} s: #{what}" if
      Process.clock_gettime(Process::CLOCK_MONOTONIC) > deadline

    sleep 0.005
  end
  value
end

# Its value() is what the block returns; an exception comes with it as well.
def background(&work)
  Thread.new(&work).tap { |thread| thread.report_on_exception = false }
end

def blocked(app, count)
  wait_for("#{count} blocked clients") { app.info('clients')['blocked_clients'].to_i == count }
end

# Returns when the server has ended, has started again (empty) and answers.
def restart_server
  puts 'restart'
  equal("done\n", $stdin.gets)
end

CASES = {}

CASES['connect'] = lambda do
  app = client(id: 'redis-rb')
  equal('PONG', app.ping)
  equal('OK', app.set('connect:name', 'value', ex: 100))
  equal('value', app.get('connect:name'))
  equal(nil, app.get('connect:absent'))
  equal(true, app.ttl('connect:name') > 90)
  app.mapped_hmset('connect:hash', { 'a' => '1', 'b' => 'zwei' })
  equal({ 'a' => '1', 'b' => 'zwei' }, app.hgetall('connect:hash'))
  equal(2, app.zadd('connect:zset', [[1.5, 'm'], [2, 'n']]))
  equal([['m', 1.5], ['n', 2.0]], app.zrange('connect:zset', 0, -1, with_scores: true))
  equal('redis-rb', app.call('CLIENT', 'GETNAME'))
  equal(true, app.call('CLIENT', 'ID').positive?)
  raises('not an integer') { app.incr('connect:name') }
  raises('unknown command') { app.call('NOSUCHCOMMAND', 'x') }
  other = client(db: 5)
  equal(nil, other.get('connect:name'))
  other.set('connect:five', '5')
  equal(false, app.exists?('connect:five'))
  equal(true, app.info.key?('used_memory'))
end

# redis-rb serializes the threads of one client; an application has several clients in a queue.
CASES['pool'] = lambda do
  clients = Queue.new
  4.times { clients << client }
  work = lambda do |index|
    100.times do |i|
      app = clients.pop
      app.set("pool:#{index}", i)
      equal(i.to_s, app.get("pool:#{index}"))
      app.incr('pool:all')
      clients << app
    end
  end
  (0...8).map { |index| background { work.call(index) } }.each(&:value)
  equal('800', clients.pop.get('pool:all'))
end

CASES['pipeline'] = lambda do
  app = client
  replies = app.pipelined do |pipe|
    1000.times do |i|
      pipe.set("pipe:#{i}", i)
      pipe.get("pipe:#{i}")
    end
  end
  equal((0...1000).flat_map { |i| ['OK', i.to_s] }, replies)
  raises('not an integer') do
    app.pipelined do |pipe|
      pipe.set('pipe:text', 'x')
      pipe.incr('pipe:text')
      pipe.set('pipe:last', 'z')
    end
  end
  equal('z', app.get('pipe:last'))
end

CASES['transaction'] = lambda do
  app = client
  replies = app.multi do |tx|
    tx.set('tx:n', 1)
    tx.incr('tx:n')
    tx.get('tx:n')
  end
  equal(['OK', 2, '2'], replies)
  raises('wrong number') do
    app.multi do |tx|
      tx.set('tx:never', 1)
      tx.call('GET')
    end
  end
  equal(nil, app.get('tx:never'))
end

CASES['watch'] = lambda do
  app = client
  other = client
  app.set('watch:n', 1)
  lost = app.watch('watch:n') do
    other.set('watch:n', 10)
    app.multi { |tx| tx.set('watch:n', 2) }
  end
  equal(nil, lost)
  won = app.watch('watch:n') do
    value = app.get('watch:n').to_i
    app.multi { |tx| tx.set('watch:n', value + 1) }
  end
  equal([['OK'], '11'], [won, app.get('watch:n')])
  app.watch('watch:n')
  equal('OK', app.unwatch)
  add_one = lambda do |mine|
    done = nil
    until done
      done = mine.watch('watch:sum') do
        sum = mine.get('watch:sum').to_i
        mine.multi { |tx| tx.set('watch:sum', sum + 1) }
      end
    end
  end
  Array.new(4) { background { mine = client; 25.times { add_one.call(mine) } } }.each(&:value)
  equal('100', app.get('watch:sum'))
end

CASES['pubsub'] = lambda do
  app = client
  listener = client
  got = []
  listener.subscribe('ps:a', 'ps:b') do |on|
    on.subscribe do |channel, _|
      next unless channel == 'ps:b'

      equal(1, app.publish('ps:a', BINARY))
      300.times { |i| app.publish('ps:b', i) }
    end
    on.message do |_, data|
      got << data
      listener.unsubscribe if got.size == 301
    end
  end
  equal(BINARY, got.shift.b)
  equal((0...300).map(&:to_s), got)
  equal('OK', listener.set('ps:key', 'an ordinary connection again'))
  listener.psubscribe('ps:*') do |on|
    on.psubscribe { app.publish('ps:c', 'hello') }
    on.pmessage do |*message|
      equal(['ps:*', 'ps:c', 'hello'], message)
      listener.punsubscribe('ps:*')
    end
  end
  equal(0, app.publish('ps:a', 'nobody'))
end

CASES['blocking-pop'] = lambda do
  app = client
  pops = [
    background { client.blpop('bp:a', 'bp:b', timeout: TIMEOUT_S) },
    background { client.brpoplpush('bp:c', 'bp:d', timeout: TIMEOUT_S) },
    background { client.bzpopmin('bp:z', timeout: TIMEOUT_S) }
  ]
  blocked(app, 3)
  equal('PONG', app.ping)
  app.rpush('bp:b', %w[1 2])
  app.rpush('bp:c', BINARY)
  app.zadd('bp:z', 3, 'm')
  popped, moved, lowest = pops.map(&:value)
  equal([%w[bp:b 1], BINARY, ['bp:z', 'm', 3.0]], [popped, moved.b, lowest])
  equal(nil, app.blpop('bp:none', timeout: 1))
  blocked(app, 0)
end

CASES['streams'] = lambda do
  app = client
  equal('OK', app.xgroup(:create, 'st', 'group', '0', mkstream: true))
  raises('BUSYGROUP') { app.xgroup(:create, 'st', 'group', '0') }
  ids = (0...10).map { |i| app.xadd('st', { n: i }) }
  first = app.xreadgroup('group', 'one', 'st', '>', count: 4)['st']
  equal(ids[0, 4], first.map(&:first))
  equal({ 'n' => '0' }, first[0][1])
  equal(ids[4..], app.xreadgroup('group', 'two', 'st', '>')['st'].map(&:first))
  equal(3, app.xack('st', 'group', *ids[0, 3]))
  equal(7, app.xpending('st', 'group')['size'])
  equal([ids[3]], app.xclaim('st', 'group', 'two', 0, ids[3]).map(&:first))
  late = background { client.xreadgroup('group', 'one', 'st', '>', block: 15_000) }
  blocked(app, 1)
  last = app.xadd('st', { n: 'late' })
  equal({ 'st' => [[last, { 'n' => 'late' }]] }, late.value)
end

CASES['scripts'] = lambda do
  app = client
  equal(%w[a 1], app.eval('return {KEYS[1], ARGV[1]}', %w[a], %w[1]))
  sha = app.script(:load, "return redis.call('incrby', KEYS[1], ARGV[1])")
  equal(5, app.evalsha(sha, ['sum'], [5]))
  equal([true, false], app.script(:exists, [sha, '0' * 40]))
  equal('OK', app.script(:flush))
  raises('NOSCRIPT') { app.evalsha(sha, ['sum'], [7]) }
  raises('my own') { app.eval("return redis.error_reply('my own')") }
end

CASES['scan'] = lambda do
  app = client
  keys = (0...1000).map { |i| "scan:#{i}" }.sort
  app.mapped_mset(keys.to_h { |key| [key, '1'] })
  equal(keys, app.scan_each(match: 'scan:*', count: 100).to_a.uniq.sort)
  app.sadd('scan-set', keys)
  equal(keys, app.sscan_each('scan-set').to_a.uniq.sort)
  app.mapped_hmset('scan-hash', keys.to_h { |key| [key, 'v'] })
  equal(keys, app.hscan_each('scan-hash').map(&:first).uniq.sort)
end

CASES['binary'] = lambda do
  app = client
  value = SecureRandom.random_bytes(1 << 20)
  [BINARY, '', "\r\n$-1\r\n", 'schlüssel'].each do |key|
    equal('OK', app.set(key, value))
    equal(true, app.get(key).b == value)
    app.set(key, '')
    equal('', app.get(key))
  end
end

CASES['reconnect'] = lambda do
  app = client
  app.set('rc:key', 'old')
  restart_server
  wait_for('a SET works again') do
    app.set('rc:key', 'new')
  rescue Redis::BaseConnectionError
    false
  end
  equal('new', app.get('rc:key'))
  replies = app.multi do |tx|
    tx.set('rc:tx', 1)
    tx.get('rc:tx')
  end
  equal(%w[OK 1], replies)
end

$stdout.sync = true
failed = false
names = ARGV[1] ? ARGV[1].split(',') : CASES.keys
names.each do |name|
  Timeout.timeout(2 * TIMEOUT_S) { CASES.fetch(name).call }
  puts "#{name}: ok"
rescue StandardError => error
  failed = true
  warn error.full_message(highlight: false)
  puts "#{name}: FAIL #{error.class}: #{error.message.gsub(/\s+/, ' ')[0, 300]}"
end
exit(!failed)
