-- redis-lua as applications use it: redis_lua.lua SOCKET [CASE,CASE...]
--   redis_lua.lua SOCKET --send COMMAND WORD...: another process, which prints the reply's parts
local redis = require 'redis'
local socket = require 'socket'

local TIMEOUT_S = 20
local address = arg[1]
local this_program = { arg[-1], arg[0], address } -- In a vararg function, arg is another thing.
local bytes = {}
for i = 0, 255 do bytes[#bytes + 1] = string.char(i) end
local BINARY = table.concat(bytes)

-- redis-lua is from before these; this is its way to add commands.
for _, name in ipairs { 'bzpopmin', 'xadd', 'xack', 'xgroup', 'xpending', 'xreadgroup' } do
  redis.commands[name] = redis.command(name:upper())
end
redis.commands.client = redis.command('CLIENT')

local function connect()
  return redis.connect { scheme = 'unix', path = address, timeout = TIMEOUT_S }
end

-- Lists as one text, for comparisons.
local function text(value)
  if type(value) ~= 'table' then return tostring(value) end
  local parts = {}
  for i, part in ipairs(value) do parts[i] = text(part) end
  return '[' .. table.concat(parts, ' ') .. ']'
end

local function equal(expected, actual)
  expected, actual = text(expected), text(actual)
  if expected ~= actual then
    error(('expected %q, got %q'):format(expected:sub(1, 200), actual:sub(1, 200)), 2)
  end
end

local function raises(words, work)
  local ok, why = pcall(work)
  if ok then error('expected an error with ' .. words, 2) end
  if not tostring(why):find(words, 1, true) then error('other error: ' .. tostring(why), 2) end
end

local function wait_for(what, condition)
  local deadline = socket.gettime() + TIMEOUT_S
  while not condition() do
    if socket.gettime() > deadline then error(('not within %d s: %s'):format(TIMEOUT_S, what)) end
    socket.sleep(0.005)
  end
end

local function quoted(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Sends a command in another process; the function that it returns waits for the reply.
local function background(...)
  local words = {}
  for _, word in ipairs(this_program) do words[#words + 1] = quoted(word) end
  for _, word in ipairs { '--send', ... } do words[#words + 1] = quoted(tostring(word)) end
  local stream = assert(io.popen(table.concat(words, ' ')))
  return function()
    local reply = stream:read('*a')
    stream:close()
    return (reply:gsub('\n$', ''))
  end
end

local function blocked(app, count)
  wait_for(count .. ' blocked clients', function()
    return tonumber(app:info('clients').clients.blocked_clients) == count
  end)
end

-- Returns when the server has ended, has started again (empty) and answers.
local function restart_server()
  print('restart')
  equal('done', io.read('*l'))
end

local cases, order = {}, {}
local function case(name, work)
  cases[name] = work
  order[#order + 1] = name
end

case('connect', function()
  local app = connect()
  equal(true, app:ping())
  equal(true, app:setex('connect:name', 100, 'value'))
  equal('value', app:get('connect:name'))
  equal(nil, app:get('connect:absent'))
  assert(app:ttl('connect:name') > 90)
  app:hmset('connect:hash', { a = '1', b = 'zwei' })
  local hash = app:hgetall('connect:hash')
  equal({ '1', 'zwei' }, { hash.a, hash.b })
  equal(2, app:zadd('connect:zset', 1.5, 'm', 2, 'n'))
  equal({ { 'm', 1.5 }, { 'n', 2 } }, app:zrange('connect:zset', 0, -1, { withscores = true }))
  app:client('SETNAME', 'redis-lua')
  equal('redis-lua', app:client('GETNAME'))
  raises('not an integer', function() app:incr('connect:name') end)
  raises('unknown subcommand', function() app:client('NOSUCHCOMMAND') end)
  local other = connect()
  equal(true, other:select(5))
  equal(nil, other:get('connect:name'))
  other:set('connect:five', '5')
  equal(false, app:exists('connect:five'))
  app:quit()
end)

-- redis-lua has no pool; an application has several clients.
case('pool', function()
  local clients = {}
  for index = 1, 8 do clients[index] = connect() end
  for i = 1, 50 do
    for index, app in ipairs(clients) do
      app:set('pool:' .. index, i)
      app:incr('pool:all')
    end
    for index, app in ipairs(clients) do equal(i, app:get('pool:' .. index)) end
  end
  equal(400, clients[1]:get('pool:all'))
end)

case('pipeline', function()
  local app = connect()
  local expected = {}
  local replies = app:pipeline(function(pipe)
    for i = 0, 999 do
      pipe:set('pipe:' .. i, i)
      pipe:get('pipe:' .. i)
      expected[#expected + 1] = true
      expected[#expected + 1] = i
    end
  end)
  equal(expected, replies)
end)

case('transaction', function()
  local app = connect()
  local replies = app:transaction(function(tx)
    tx:set('tx:n', 1)
    tx:incr('tx:n')
    tx:get('tx:n')
  end)
  equal({ true, 2, 2 }, replies)
  raises('stop here', function()
    app:transaction(function(tx)
      tx:set('tx:n', 9)
      error('stop here') -- redis-lua sends DISCARD.
    end)
  end)
  equal(2, app:get('tx:n'))
end)

case('watch', function()
  local app, other = connect(), connect()
  app:set('watch:n', 1)
  local attempts = 0
  local replies = app:transaction({ watch = 'watch:n', cas = true, retry = 3 }, function(tx)
    attempts = attempts + 1
    local value = tonumber(tx:get('watch:n'))
    if attempts == 1 then other:set('watch:n', 10) end
    tx:multi()
    tx:set('watch:n', value + 1)
  end)
  equal({ true }, replies)
  equal({ 2, 11 }, { attempts, app:get('watch:n') })
  raises('aborted', function()
    app:transaction({ watch = 'watch:n', retry = 0, cas = true }, function(tx)
      other:incr('watch:n')
      tx:multi()
      tx:set('watch:n', 1)
    end)
  end)
  equal(12, app:get('watch:n'))
end)

case('pubsub', function()
  local app, listener = connect(), connect()
  local kinds, got = {}, {}
  local wanted = { subscribe = { 'ps:a', 'ps:b' }, psubscribe = { 'ps:*' } }
  for message, abort in listener:pubsub(wanted) do
    kinds[#kinds + 1] = message.kind
    if #kinds == 3 then
      equal(2, app:publish('ps:a', BINARY))
      for i = 0, 299 do app:publish('ps:b', i) end
    elseif message.kind == 'message' or message.kind == 'pmessage' then
      got[#got + 1] = message.payload
      if #got == 602 then abort() end
    end
  end
  equal({ 'subscribe', 'subscribe', 'psubscribe', 'message', 'pmessage' },
    { kinds[1], kinds[2], kinds[3], kinds[4], kinds[5] })
  equal({ BINARY, BINARY }, { got[1], got[2] })
  for i = 0, 299 do equal({ i, i }, { got[2 * i + 3], got[2 * i + 4] }) end
  equal(0, app:publish('ps:a', 'nobody'))
  equal(true, listener:set('ps:key', 'an ordinary connection again'))
end)

case('blocking-pop', function()
  local app = connect()
  local first = background('blpop', 'bp:a', 'bp:b', TIMEOUT_S)
  local second = background('bzpopmin', 'bp:z', TIMEOUT_S)
  blocked(app, 2)
  equal(true, app:ping())
  app:rpush('bp:b', '1', '2')
  app:zadd('bp:z', 3, 'm')
  equal({ '[bp:b 1]', '[bp:z m 3]' }, { first(), second() })
  equal(nil, app:blpop('bp:none', 1))
  blocked(app, 0)
end)

case('streams', function()
  local app = connect()
  app:xgroup('CREATE', 'st', 'group', 0, 'MKSTREAM')
  raises('BUSYGROUP', function() app:xgroup('CREATE', 'st', 'group', 0) end)
  local ids = {}
  for i = 0, 9 do ids[#ids + 1] = app:xadd('st', '*', 'n', i) end
  local reply = app:xreadgroup('GROUP', 'group', 'one', 'COUNT', 4, 'STREAMS', 'st', '>')
  equal({ 'st', 4, ids[1], 'n', 0 },
    { reply[1][1], #reply[1][2], reply[1][2][1][1], reply[1][2][1][2][1], reply[1][2][1][2][2] })
  equal(4, app:xack('st', 'group', ids[1], ids[2], ids[3], ids[4]))
  reply = app:xreadgroup('GROUP', 'group', 'two', 'STREAMS', 'st', '>')
  equal({ 6, ids[5] }, { #reply[1][2], reply[1][2][1][1] })
  equal(6, app:xpending('st', 'group')[1])
  local read = { 'GROUP', 'group', 'one', 'BLOCK', 20000, 'STREAMS', 'st', '>' }
  local late = background('xreadgroup', unpack(read))
  blocked(app, 1)
  local last = app:xadd('st', '*', 'n', 'late')
  equal('[[st [[' .. last .. ' [n late]]]]]', late())
end)

case('scripts', function()
  local app = connect()
  equal({ 'a', '1' }, app:eval('return {KEYS[1], ARGV[1]}', 1, 'a', '1'))
  local sha = app:script('load', "return redis.call('incrby', KEYS[1], ARGV[1])")
  equal(5, app:evalsha(sha, 1, 'sum', 5))
  app:script('flush')
  raises('NOSCRIPT', function() app:evalsha(sha, 1, 'sum', 5) end)
  raises('my own', function() app:eval("return redis.error_reply('my own')", 0) end)
end)

case('scan', function()
  local app = connect()
  local pairs_of_all = {}
  for i = 0, 999 do pairs_of_all['scan:' .. i] = '1' end
  app:mset(pairs_of_all)
  local found, count, cursor = {}, 0, 0
  repeat
    local reply = app:scan(cursor, { match = 'scan:*', count = 100 })
    cursor = reply[1]
    for _, key in ipairs(reply[2]) do
      if not found[key] then count = count + 1 end
      found[key] = true
    end
  until tonumber(cursor) == 0
  equal(1000, count)
  for key in pairs(pairs_of_all) do assert(found[key], key) end
end)

case('binary', function()
  local app = connect()
  local value = BINARY:rep(4096)
  for _, key in ipairs { BINARY, '', '\r\n$-1\r\n', 'schl\195\188ssel' } do
    equal(true, app:set(key, value))
    assert(app:get(key) == value, 'the value is another')
    app:set(key, '')
    equal('', app:get(key))
  end
end)

-- redis-lua does not reconnect; an application connects anew after an error.
case('reconnect', function()
  local app = connect()
  app:set('rc:key', 'old')
  restart_server()
  wait_for('a SET works again', function()
    local ok = pcall(app.set, app, 'rc:key', 'new')
    if not ok then app = connect() end
    return ok
  end)
  equal('new', app:get('rc:key'))
  equal({ true, '1' }, app:transaction(function(tx)
    tx:set('rc:tx', 1)
    tx:get('rc:tx')
  end))
end)

if arg[2] == '--send' then
  local app = connect()
  print(text(app[arg[3]](app, unpack(arg, 4))))
  return
end

io.stdout:setvbuf('no')
if arg[2] then
  order = {}
  for name in arg[2]:gmatch('[^,]+') do order[#order + 1] = name end
end
local failed = false
for _, name in ipairs(order) do
  local ok, why = xpcall(cases[name], debug.traceback)
  if not ok then
    failed = true
    io.stderr:write(tostring(why), '\n')
    why = tostring(why):gsub('stack traceback.*', ''):gsub('%s+', ' '):sub(1, 300)
  end
  print(name .. ': ' .. (ok and 'ok' or 'FAIL ' .. why))
end
os.exit(failed and 1 or 0)
