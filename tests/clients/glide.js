// Valkey GLIDE as applications use it; it knows no Unix sockets: glide.js HOST:PORT [CASE,CASE...]
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const {
  Batch, ClientSideCache, Decoder, GlideClient, GlideClientConfiguration, GlideMonitorClient,
  ListDirection, Logger, ProtocolVersion, Script,
} = require('@valkey/valkey-glide');
const { BINARY, Inbox, TIMEOUT_MS, restartServer, run, until } = require('./cases.js');

Logger.init('error');
const [address, names] = process.argv.slice(2);
const [host, port] = address.split(':');
const settings = {
  addresses: [{ host, port: Number(port) }],
  requestTimeout: TIMEOUT_MS,
  connectionBackoff: { numberOfRetries: 5, factor: 10, exponentBase: 2 },
};
const BYTES = { decoder: Decoder.Bytes };
const { Exact, Pattern } = GlideClientConfiguration.PubSubChannelModes;

async function connectWith(open, options = {}) {
  const client = await GlideClient.createClient({ ...settings, ...options });
  return open(client, (it) => it.close());
}

async function blocked(app, count) {
  await until(
    async () => (await app.info(['CLIENTS'])).includes(`blocked_clients:${count}\r`),
    `${count} blocked clients`,
  );
}

async function connect(open) {
  const app = await connectWith(open, { clientName: 'glide' });
  assert.equal(await app.ping(), 'PONG');
  const expiry = { type: 'EX', count: 100 };
  assert.equal(await app.set('connect:name', 'value', { expiry }), 'OK');
  assert.equal(await app.get('connect:name'), 'value');
  assert.equal(await app.get('connect:absent'), null);
  assert.ok((await app.ttl('connect:name')) > 90);
  await app.hset('connect:hash', { a: '1', b: 'zwei' });
  const fields = (await app.hgetall('connect:hash')).map(({ field, value }) => [field, value]);
  assert.deepEqual(fields.sort(), [['a', '1'], ['b', 'zwei']]);
  assert.equal(await app.zadd('connect:zset', { m: 1.5, n: 2 }), 2);
  assert.deepEqual(await app.zrange('connect:zset', { start: 0, end: -1 }), ['m', 'n']);
  assert.equal(await app.clientGetName(), 'glide');
  assert.ok((await app.clientId()) > 0);
  await assert.rejects(app.incr('connect:name'), /not an integer/);
  await assert.rejects(app.customCommand(['NOSUCHCOMMAND', 'x']), /unknown command/);
  const other = await connectWith(open, { databaseId: 5, protocol: ProtocolVersion.RESP2 });
  assert.equal(await other.get('connect:name'), null);
  await other.set('connect:five', '5');
  assert.equal(await app.exists(['connect:five']), 0);
}

// GLIDE has no pools: one client carries what all tasks of a process ask for.
async function pool(open) {
  const clients = [await connectWith(open), await connectWith(open)];
  const work = async (_, index) => {
    const app = clients[index % 2];
    for (let i = 0; i < 100; i++) {
      await app.set(`pool:${index}`, String(i));
      assert.equal(await app.get(`pool:${index}`), String(i));
      await app.incr('pool:all');
    }
  };
  await Promise.all(Array.from({ length: 8 }).map(work));
  assert.equal(await clients[0].get('pool:all'), '800');
}

async function pipeline(open) {
  const app = await connectWith(open);
  const batch = new Batch(false);
  for (let i = 0; i < 1000; i++) batch.set(`pipe:${i}`, String(i)).get(`pipe:${i}`);
  const expected = Array.from({ length: 2000 }, (_, i) => (i % 2 ? String(i >> 1) : 'OK'));
  assert.deepEqual(await app.exec(batch, true), expected);
  const wrong = new Batch(false).set('pipe:text', 'x').incr('pipe:text').get('pipe:text');
  const [first, second, third] = await app.exec(wrong, false);
  assert.deepEqual([first, third], ['OK', 'x']);
  assert.match(second.message, /not an integer/);
}

async function transaction(open) {
  const app = await connectWith(open);
  const batch = new Batch(true).set('tx:n', '1').incr('tx:n').get('tx:n');
  assert.deepEqual(await app.exec(batch, true), ['OK', 2, '2']);
  const wrong = new Batch(true).set('tx:text', 'x').incr('tx:text').set('tx:last', '1');
  const [first, second, third] = await app.exec(wrong, false);
  assert.deepEqual([first, third], ['OK', 'OK']);
  assert.match(second.message, /not an integer/);
  const never = new Batch(true).set('tx:never', '1').customCommand(['GET']);
  await assert.rejects(app.exec(never, true));
  assert.equal(await app.get('tx:never'), null);
}

async function watch(open) {
  const app = await connectWith(open);
  const other = await connectWith(open);
  await app.set('watch:n', '1');
  await app.watch(['watch:n']);
  await other.set('watch:n', '10');
  assert.equal(await app.exec(new Batch(true).set('watch:n', '2'), true), null);
  await app.watch(['watch:n']);
  const value = Number(await app.get('watch:n'));
  const batch = new Batch(true).set('watch:n', String(value + 1));
  assert.deepEqual(await app.exec(batch, true), ['OK']);
  await app.watch(['watch:n']);
  assert.equal(await app.unwatch(), 'OK');
  await app.set('watch:sum', '0');
  const addOne = async (client) => {
    for (;;) {
      await client.watch(['watch:sum']);
      const sum = Number(await client.get('watch:sum'));
      if (await client.exec(new Batch(true).set('watch:sum', String(sum + 1)), true)) return;
    }
  };
  const work = async (client) => {
    for (let i = 0; i < 25; i++) await addOne(client);
  };
  await Promise.all([app, other].map(work));
  assert.equal(await app.get('watch:sum'), '50');
}

// A client that hears the channels and patterns, and the inbox where its messages come to.
async function subscribed(open, channelsAndPatterns, options = {}) {
  const inbox = new Inbox();
  const callback = (message) => inbox.push(message);
  const pubsubSubscriptions = { channelsAndPatterns, callback };
  return [await connectWith(open, { ...options, pubsubSubscriptions }), inbox];
}

async function pubsub(open) {
  const app = await connectWith(open);
  const both = { [Exact]: new Set(['ps:a']), [Pattern]: new Set(['ps:*']) };
  const options = { defaultDecoder: Decoder.Bytes };
  const [subscriber, inbox] = await subscribed(open, both, options);
  await until(
    async () => (await app.pubsubNumPat()) + (await app.pubsubChannels()).length === 2,
    'two subscriptions',
  );
  assert.equal(await app.publish(BINARY, 'ps:a'), 2);
  const got = (await inbox.take(2)).map(({ message, pattern }) => [message, !!pattern]);
  assert.deepEqual(got.sort((a, b) => a[1] - b[1]), [[BINARY, false], [BINARY, true]]);
  await subscriber.unsubscribe(['ps:a'], TIMEOUT_MS);
  await subscriber.subscribe(['ps:b'], TIMEOUT_MS);
  await subscriber.punsubscribe(['ps:*'], TIMEOUT_MS);
  assert.equal(await app.publish('nobody', 'ps:a'), 0);
  // Each of these is a task of its own in GLIDE, and they overtake each other.
  const sent = Array.from({ length: 300 }, (_, i) => app.publish(String(i), 'ps:b'));
  await Promise.all(sent);
  const numbers = (await inbox.take(300)).map(({ message }) => Number(message));
  numbers.sort((a, b) => a - b);
  assert.deepEqual(numbers, Array.from({ length: 300 }, (_, i) => i));
  assert.equal(await subscriber.set('ps:key', 'RESP3: it goes on as usual'), 'OK');
}

async function blockingPop(open) {
  const app = await connectWith(open);
  const pops = [
    (await connectWith(open)).blpop(['bp:a', 'bp:b'], 20),
    (await connectWith(open)).blmove(
      ...['bp:c', 'bp:d', ListDirection.LEFT, ListDirection.RIGHT, 20, BYTES],
    ),
    (await connectWith(open)).bzpopmin(['bp:z'], 20),
  ];
  await blocked(app, 3);
  assert.equal(await app.ping(), 'PONG');
  await app.rpush('bp:b', ['1', '2']);
  await app.rpush('bp:c', [BINARY]);
  await app.zadd('bp:z', { m: 3 });
  assert.deepEqual(await Promise.all(pops), [['bp:b', '1'], BINARY, ['bp:z', 'm', 3]]);
  assert.equal(await app.blpop(['bp:none'], 1), null);
  await blocked(app, 0);
}

async function streams(open) {
  const app = await connectWith(open);
  assert.equal(await app.xgroupCreate('st', 'group', '0', { mkStream: true }), 'OK');
  await assert.rejects(app.xgroupCreate('st', 'group', '0'), /BUSYGROUP/);
  const ids = [];
  for (let i = 0; i < 10; i++) ids.push(await app.xadd('st', [['n', String(i)]]));
  const read = async (client, consumer, options) => {
    const [{ value }] = await client.xreadgroup('group', consumer, { st: '>' }, options);
    return Object.keys(value).sort();
  };
  assert.deepEqual(await read(app, 'one', { count: 4 }), ids.slice(0, 4).sort());
  assert.deepEqual(await read(app, 'two'), ids.slice(4).sort());
  assert.equal(await app.xack('st', 'group', ids.slice(0, 3)), 3);
  assert.equal((await app.xpending('st', 'group'))[0], 7);
  const claimed = await app.xautoclaim('st', 'group', 'two', 0, ids[3], { count: 1 });
  assert.deepEqual(Object.keys(claimed[1]), [ids[3]]);
  const waiting = read(await connectWith(open), 'one', { block: 20000 });
  await blocked(app, 1);
  const last = await app.xadd('st', [['n', 'late']]);
  assert.deepEqual(await waiting, [last]);
}

async function scripts(open) {
  const app = await connectWith(open);
  const add = open(
    new Script("return redis.call('incrby', KEYS[1], ARGV[1])"),
    (it) => it.release(),
  );
  assert.equal(await app.invokeScript(add, { keys: ['sum'], args: ['5'] }), 5);
  assert.deepEqual(await app.scriptExists([add.getHash()]), [true]);
  assert.equal(await app.scriptFlush(), 'OK');
  assert.equal(await app.invokeScript(add, { keys: ['sum'], args: ['7'] }), 12);
  const wrong = open(new Script("return redis.error_reply('my own')"), (it) => it.release());
  await assert.rejects(app.invokeScript(wrong), /my: own/);
  const code = "#!lua name=mine\nredis.register_function('f', function(k, a) return a[1] end)";
  assert.equal(await app.functionLoad(code, { replace: true }), 'mine');
  assert.equal(await app.fcall('f', [], ['hello']), 'hello');
}

async function scanAll(next) {
  const found = new Set();
  let cursor = '0';
  do {
    const [following, part] = await next(cursor);
    part.forEach((value) => found.add(value));
    cursor = following;
  } while (cursor !== '0');
  return [...found].sort();
}

async function scan(open) {
  const app = await connectWith(open);
  const keys = Array.from({ length: 1000 }, (_, i) => `scan:${i}`).sort();
  await app.mset(Object.fromEntries(keys.map((key) => [key, '1'])));
  const options = { match: 'scan:*', count: 100 };
  assert.deepEqual(await scanAll((cursor) => app.scan(cursor, options)), keys);
  await app.sadd('scan-set', keys);
  assert.deepEqual(await scanAll((cursor) => app.sscan('scan-set', cursor)), keys);
  await app.hset('scan-hash', Object.fromEntries(keys.map((key) => [key, key])));
  assert.deepEqual(await scanAll((cursor) => app.hscan('scan-hash', cursor)), keys);
}

async function binary(open) {
  const app = await connectWith(open);
  const value = crypto.randomBytes(1 << 20);
  for (const key of [BINARY, Buffer.from('\r\n$-1\r\n'), 'schl\u00fcssel']) {
    assert.equal(await app.set(key, value), 'OK');
    assert.ok(value.equals(await app.get(key, BYTES)));
    await app.set(key, '');
    assert.equal(await app.get(key), '');
  }
}

async function monitor(open) {
  const app = await connectWith(open);
  const seen = new Inbox();
  const watching = await GlideMonitorClient.create(settings, (line) => {
    if (line.args[0] === 'monitored') seen.push([line.command.toLowerCase(), ...line.args]);
  });
  open(watching, (it) => it.close());
  await app.set('monitored', '1');
  await app.get('monitored');
  assert.deepEqual(await seen.take(2), [['set', 'monitored', '1'], ['get', 'monitored']]);
}

async function clientCache(open) {
  const other = await connectWith(open);
  await other.set('cc:key', 'one');
  const cache = ClientSideCache.create(100, 0, { serverAssisted: true, enableMetrics: true });
  const app = await connectWith(open, { clientSideCache: cache });
  assert.equal(await app.get('cc:key'), 'one');
  assert.equal(await app.get('cc:key'), 'one');
  assert.equal(await app.getCacheHitRate(), 0.5);
  await other.set('cc:key', 'two');
  await until(async () => (await app.get('cc:key')) === 'two', 'the cached value is invalidated');
}

async function reconnect(open) {
  const app = await connectWith(open);
  await app.set('rc:key', 'old');
  const [, inbox] = await subscribed(open, { [Exact]: new Set(['rc:news']) });
  const count = open(new Script("return redis.call('incr', KEYS[1])"), (it) => it.release());
  assert.equal(await app.invokeScript(count, { keys: ['rc:sum'] }), 1);
  await restartServer();
  await until(() => app.set('rc:key', 'new').catch(() => false), 'a SET works again');
  assert.equal(await app.get('rc:key'), 'new');
  assert.equal(await app.invokeScript(count, { keys: ['rc:sum'] }), 1);
  await until(async () => (await app.publish('hello', 'rc:news')) > 0, 'it is subscribed again');
  assert.equal((await inbox.take(1))[0].message, 'hello');
  const batch = new Batch(true).set('rc:tx', '1').get('rc:tx');
  assert.deepEqual(await app.exec(batch, true), ['OK', '1']);
}

run(
  {
    connect, pool, pipeline, transaction, watch, pubsub, 'blocking-pop': blockingPop, streams,
    scripts, scan, binary, monitor, 'client-cache': clientCache, reconnect,
  },
  names,
);
