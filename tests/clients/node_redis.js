// node-redis as applications use it, over RESP2 or RESP3:
//   node_redis.js 2|3 SOCKET [CASE,CASE...]
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const {
  BasicClientSideCache, RESP_TYPES, WatchError, createClient, createClientPool, defineScript,
} = require('redis');
const { BINARY, Inbox, restartServer, run, until } = require('./cases.js');

const [protocol, address, names] = process.argv.slice(2);
const settings = { RESP: Number(protocol), socket: { path: address } };
const AS_BUFFERS = { [RESP_TYPES.BLOB_STRING]: Buffer };
const plain = (object) => ({ ...object });

async function connectWith(open, options = {}) {
  const client = createClient({ ...settings, ...options });
  client.on('error', () => {}); // What a command gets is what counts here.
  await client.connect();
  return open(client, (it) => it.isOpen && it.destroy());
}

async function blocked(app, count) {
  await until(
    async () => (await app.info('clients')).includes(`blocked_clients:${count}\r`),
    `${count} blocked clients`,
  );
}

async function connect(open) {
  const app = await connectWith(open, { name: 'node-redis' });
  assert.equal(await app.ping(), 'PONG');
  assert.equal(await app.set('connect:name', 'value', { EX: 100 }), 'OK');
  assert.equal(await app.get('connect:name'), 'value');
  assert.equal(await app.get('connect:absent'), null);
  assert.ok((await app.ttl('connect:name')) > 90);
  await app.hSet('connect:hash', { a: '1', b: 'zwei' });
  assert.deepEqual(plain(await app.hGetAll('connect:hash')), { a: '1', b: 'zwei' });
  await app.zAdd('connect:zset', [{ value: 'm', score: 1.5 }]);
  assert.deepEqual((await app.zRangeWithScores('connect:zset', 0, -1)).map(plain), [
    { value: 'm', score: 1.5 },
  ]);
  assert.equal(await app.clientGetName(), 'node-redis');
  assert.ok((await app.clientId()) > 0);
  await assert.rejects(app.incr('connect:name'), /not an integer/);
  await assert.rejects(app.sendCommand(['NOSUCHCOMMAND', 'x']), /unknown command/);
  const other = await connectWith(open, { database: 5 });
  assert.equal(await other.get('connect:name'), null);
  await other.set('connect:five', 5);
  assert.equal(await app.exists('connect:five'), 0);
  await app.select(5);
  assert.equal(await app.get('connect:five'), '5');
  await app.close();
}

async function pool(open) {
  const clients = createClientPool(settings, { minimum: 1, maximum: 4 });
  clients.on('error', () => {});
  await clients.connect();
  open(clients, (it) => it.destroy());
  const work = async (_, index) => {
    for (let i = 0; i < 100; i++) {
      await clients.set(`pool:${index}`, i);
      assert.equal(await clients.get(`pool:${index}`), String(i));
      await clients.incr('pool:all');
    }
  };
  await Promise.all(Array.from({ length: 8 }).map(work));
  assert.equal(await clients.get('pool:all'), '800');
  const alone = await clients.execute((client) => client.multi().incr('pool:all').exec());
  assert.deepEqual(alone, [801]);
}

async function pipeline(open) {
  const app = await connectWith(open);
  const pipe = app.multi();
  for (let i = 0; i < 1000; i++) pipe.set(`pipe:${i}`, i).get(`pipe:${i}`);
  const expected = Array.from({ length: 2000 }, (_, i) => (i % 2 ? String(i >> 1) : 'OK'));
  assert.deepEqual(await pipe.execAsPipeline(), expected);
  // node-redis writes the commands of one turn together, too.
  const values = await Promise.all(Array.from({ length: 500 }, (_, i) => app.get(`pipe:${i}`)));
  assert.deepEqual(values, Array.from({ length: 500 }, (_, i) => String(i)));
  const results = await Promise.allSettled([
    app.set('pipe:text', 'x'), app.incr('pipe:text'), app.get('pipe:text'),
  ]);
  assert.deepEqual([results[0].value, results[2].value], ['OK', 'x']);
  assert.match(results[1].reason.message, /not an integer/);
}

async function transaction(open) {
  const app = await connectWith(open);
  const replies = await app.multi().set('tx:n', 1).incr('tx:n').get('tx:n').exec();
  assert.deepEqual(replies, ['OK', 2, '2']);
  await assert.rejects(app.multi().set('tx:text', 'x').incr('tx:text').exec(), (error) =>
    /not an integer/.test(error.replies[1].message),
  );
  const wrong = app.multi().set('tx:never', 1).addCommand(['GET']);
  await assert.rejects(wrong.exec(), /EXECABORT|wrong number/);
  assert.equal(await app.get('tx:never'), null);
}

async function watch(open) {
  const app = await connectWith(open);
  const other = await connectWith(open);
  await app.set('watch:n', 1);
  await app.watch('watch:n');
  await other.set('watch:n', 10);
  await assert.rejects(app.multi().set('watch:n', 2).exec(), WatchError);
  await app.watch('watch:n');
  const value = Number(await app.get('watch:n'));
  assert.deepEqual(await app.multi().set('watch:n', value + 1).exec(), ['OK']);
  await app.watch('watch:n');
  assert.equal(await app.unwatch(), 'OK');
  await app.set('watch:sum', 0);
  const addOne = async (client) => {
    for (;;) {
      await client.watch('watch:sum');
      const sum = Number(await client.get('watch:sum'));
      try {
        return await client.multi().set('watch:sum', sum + 1).exec();
      } catch (error) {
        assert.ok(error instanceof WatchError, error);
      }
    }
  };
  const work = async (client) => {
    for (let i = 0; i < 25; i++) await addOne(client);
  };
  await Promise.all([app, other, await connectWith(open), await connectWith(open)].map(work));
  assert.equal(await app.get('watch:sum'), '100');
}

async function pubsub(open) {
  const app = await connectWith(open);
  const subscriber = await connectWith(open);
  const inbox = new Inbox();
  const take = (prefix) => (data, channel) => inbox.push([prefix + channel, data]);
  await subscriber.subscribe('ps:a', take(''), true);
  await subscriber.pSubscribe('ps:*', take('p '), true);
  assert.equal(await app.publish('ps:a', BINARY), 2);
  assert.deepEqual(
    (await inbox.take(2)).map(([channel, data]) => [String(channel), data]),
    [['ps:a', BINARY], ['p ps:a', BINARY]],
  );
  assert.ok(await subscriber.ping());
  await subscriber.pUnsubscribe('ps:*');
  const sent = Array.from({ length: 300 }, (_, i) => app.publish('ps:a', String(i)));
  await Promise.all(sent);
  const numbers = (await inbox.take(300)).map(([, data]) => Number(data));
  assert.deepEqual(numbers, Array.from({ length: 300 }, (_, i) => i));
  await subscriber.unsubscribe();
  assert.equal(await app.publish('ps:a', 'nobody'), 0);
  // Over RESP2, node-redis answers with a buffer here.
  assert.equal(String(await subscriber.set('ps:key', 'an ordinary connection again')), 'OK');
  await subscriber.sSubscribe('ps:shard', (data, channel) => inbox.push([channel, data]));
  assert.equal(await app.sPublish('ps:shard', 'hello'), 1);
  assert.deepEqual(await inbox.take(1), [['ps:shard', 'hello']]);
}

async function blockingPop(open) {
  const app = await connectWith(open);
  const waiting = async () => (await connectWith(open)).withTypeMapping(AS_BUFFERS);
  const pops = [
    (await connectWith(open)).blPop(['bp:a', 'bp:b'], 20),
    (await waiting()).blMove('bp:c', 'bp:d', 'LEFT', 'RIGHT', 20),
    (await connectWith(open)).bzPopMin('bp:z', 20),
  ];
  await blocked(app, 3);
  assert.equal(await app.ping(), 'PONG');
  await app.rPush('bp:b', ['1', '2']);
  await app.rPush('bp:c', BINARY);
  await app.zAdd('bp:z', [{ value: 'm', score: 3 }]);
  const [popped, moved, lowest] = await Promise.all(pops);
  assert.deepEqual(plain(popped), { key: 'bp:b', element: '1' });
  assert.deepEqual(moved, BINARY);
  assert.deepEqual(plain(lowest), { key: 'bp:z', value: 'm', score: 3 });
  assert.equal(await app.blPop('bp:none', 1), null);
  const given = await connectWith(open);
  given.blPop('bp:a', 20).catch(() => {});
  await blocked(app, 1);
  given.destroy();
  await blocked(app, 0);
}

async function streams(open) {
  const app = await connectWith(open);
  assert.equal(await app.xGroupCreate('st', 'group', '0', { MKSTREAM: true }), 'OK');
  await assert.rejects(app.xGroupCreate('st', 'group', '0'), /BUSYGROUP/);
  const ids = [];
  for (let i = 0; i < 10; i++) ids.push(await app.xAdd('st', '*', { n: String(i) }));
  const read = (client, consumer, options) =>
    client.xReadGroup('group', consumer, { key: 'st', id: '>' }, options);
  // Over RESP3, node-redis leaves these replies as they come: { st: [[id, fields]] }.
  const idsOf = (reply) =>
    protocol === '3' ? reply.st.map(([id]) => id) : reply[0].messages.map(({ id }) => id);
  assert.deepEqual(idsOf(await read(app, 'one', { COUNT: 4 })), ids.slice(0, 4));
  assert.deepEqual(idsOf(await read(app, 'two')), ids.slice(4));
  assert.equal(await app.xAck('st', 'group', ids.slice(0, 3)), 3);
  assert.equal((await app.xPending('st', 'group')).pending, 7);
  const claimed = await app.xAutoClaim('st', 'group', 'two', 0, ids[3], { COUNT: 1 });
  assert.equal(claimed.messages[0].id, ids[3]);
  const waiting = read(await connectWith(open), 'one', { BLOCK: 20000 });
  await blocked(app, 1);
  const last = await app.xAdd('st', '*', { n: 'late' });
  assert.deepEqual(idsOf(await waiting), [last]);
}

async function scripts(open) {
  const add = defineScript({
    SCRIPT: "return redis.call('incrby', KEYS[1], ARGV[1])",
    NUMBER_OF_KEYS: 1,
    parseCommand(parser, key, by) {
      parser.pushKey(key);
      parser.push(String(by));
    },
    transformReply: (reply) => reply,
  });
  const app = await connectWith(open, { scripts: { add } });
  const sent = { keys: ['a'], arguments: ['1'] };
  assert.deepEqual(await app.eval('return {KEYS[1], ARGV[1]}', sent), ['a', '1']);
  assert.equal(await app.add('sum', 5), 5);
  assert.equal(await app.scriptFlush(), 'OK');
  assert.equal(await app.add('sum', 7), 12); // NOSCRIPT: it sends the script and tries again.
  await assert.rejects(app.eval("return redis.error_reply('my own')"), /my own/);
  const code = "#!lua name=mine\nredis.register_function('f', function(k, a) return a[1] end)";
  assert.equal(await app.functionLoad(code, { REPLACE: true }), 'mine');
  assert.equal(await app.fCall('f', { arguments: ['hello'] }), 'hello');
}

async function collect(iterator, pick) {
  const found = new Set();
  for await (const part of iterator) for (const value of part) found.add(pick(value));
  return [...found].sort();
}

async function scan(open) {
  const app = await connectWith(open);
  const keys = Array.from({ length: 1000 }, (_, i) => `scan:${i}`).sort();
  const same = (value) => value;
  await app.mSet(keys.map((key) => [key, '1']));
  const found = await collect(app.scanIterator({ MATCH: 'scan:*', COUNT: 100 }), same);
  assert.deepEqual(found, keys);
  await app.sAdd('scan-set', keys);
  assert.deepEqual(await collect(app.sScanIterator('scan-set'), same), keys);
  await app.hSet('scan-hash', Object.fromEntries(keys.map((key) => [key, 'v'])));
  assert.deepEqual(await collect(app.hScanIterator('scan-hash'), ({ field }) => field), keys);
}

async function binary(open) {
  const app = (await connectWith(open)).withTypeMapping(AS_BUFFERS);
  const value = crypto.randomBytes(1 << 20);
  for (const key of [BINARY, Buffer.alloc(0), Buffer.from('\r\n$-1\r\n'), 'schl\u00fcssel']) {
    await app.set(key, value);
    assert.ok(value.equals(await app.get(key)));
    await app.set(key, '');
    assert.equal((await app.get(key)).length, 0);
  }
}

async function clientCache(open) {
  const other = await connectWith(open);
  await other.set('cc:key', 'one');
  const cache = new BasicClientSideCache({ ttl: 0, maxEntries: 100 });
  const app = await connectWith(open, { clientSideCache: cache });
  assert.equal(await app.get('cc:key'), 'one');
  assert.equal(await app.get('cc:key'), 'one');
  assert.equal(cache.stats().hitCount, 1);
  await other.set('cc:key', 'two');
  await until(async () => (await app.get('cc:key')) === 'two', 'the cached value is invalidated');
}

async function reconnect(open) {
  const app = await connectWith(open);
  await app.set('rc:key', 'old');
  const subscriber = await connectWith(open);
  const inbox = new Inbox();
  await subscriber.subscribe('rc:news', (data) => inbox.push(data));
  await restartServer();
  await until(() => app.set('rc:key', 'new').catch(() => false), 'a SET works again');
  assert.equal(await app.get('rc:key'), 'new');
  await until(async () => (await app.publish('rc:news', 'hello')) > 0, 'it is subscribed again');
  assert.deepEqual(await inbox.take(1), ['hello']);
  assert.deepEqual(await app.multi().set('rc:tx', 1).get('rc:tx').exec(), ['OK', '1']);
}

const cases = {
  connect, pool, pipeline, transaction, watch, pubsub, 'blocking-pop': blockingPop, streams,
  scripts, scan, binary, reconnect,
};
if (protocol === '3') cases['client-cache'] = clientCache;
run(cases, names);
