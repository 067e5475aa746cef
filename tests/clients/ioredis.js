// ioredis and iovalkey as applications use them:
//   ioredis.js ioredis|iovalkey SOCKET [CASE,CASE...]
'use strict';

const assert = require('node:assert/strict');
const crypto = require('node:crypto');
const { BINARY, Inbox, restartServer, run, until } = require('./cases.js');

const [packageName, address, names] = process.argv.slice(2);
const { Redis } = require(packageName);

// Errors of the connection are events; what a command gets is what counts here.
function connectWith(open, options = {}) {
  const client = open(new Redis(address, options), (it) => it.disconnect());
  client.on('error', () => {});
  return client;
}

async function blocked(app, count) {
  await until(
    async () => (await app.info('clients')).includes(`blocked_clients:${count}\r`),
    `${count} blocked clients`,
  );
}

async function connect(open) {
  const app = connectWith(open, { connectionName: packageName });
  assert.equal(await app.ping(), 'PONG');
  assert.equal(await app.set('connect:name', 'value', 'EX', 100), 'OK');
  assert.equal(await app.get('connect:name'), 'value');
  assert.equal(await app.get('connect:absent'), null);
  assert.ok((await app.ttl('connect:name')) > 90);
  await app.hset('connect:hash', { a: '1', b: 'zwei' });
  assert.deepEqual(await app.hgetall('connect:hash'), { a: '1', b: 'zwei' });
  await app.zadd('connect:zset', 1.5, 'm', 2, 'n');
  assert.deepEqual(await app.zrange('connect:zset', 0, -1, 'WITHSCORES'), ['m', '1.5', 'n', '2']);
  assert.equal(await app.client('GETNAME'), packageName);
  assert.ok((await app.client('ID')) > 0);
  await assert.rejects(app.incr('connect:name'), /not an integer/);
  await assert.rejects(app.call('NOSUCHCOMMAND', 'x'), /unknown command/);
  const other = connectWith(open, { db: 5 });
  assert.equal(await other.get('connect:name'), null);
  await other.set('connect:five', 5);
  assert.equal(await app.exists('connect:five'), 0);
  assert.equal(await app.quit(), 'OK');
}

async function pool(open) {
  const clients = Array.from({ length: 8 }, () => connectWith(open));
  await Promise.all(
    clients.map(async (app, index) => {
      for (let i = 0; i < 100; i++) {
        await app.set(`pool:${index}`, i);
        assert.equal(await app.get(`pool:${index}`), String(i));
        await app.incr('pool:all');
      }
    }),
  );
  assert.equal(await clients[0].get('pool:all'), '800');
}

async function pipeline(open) {
  const app = connectWith(open);
  const pipe = app.pipeline();
  for (let i = 0; i < 1000; i++) pipe.set(`pipe:${i}`, i).get(`pipe:${i}`);
  const expected = Array.from({ length: 2000 }, (_, i) => [null, i % 2 ? String(i >> 1) : 'OK']);
  assert.deepEqual(await pipe.exec(), expected);
  const [first, second, third] = await app
    .pipeline()
    .set('pipe:text', 'x')
    .incr('pipe:text')
    .get('pipe:text')
    .exec();
  assert.deepEqual([first, third], [[null, 'OK'], [null, 'x']]);
  assert.match(second[0].message, /not an integer/);
  const auto = connectWith(open, { enableAutoPipelining: true });
  const values = await Promise.all(Array.from({ length: 500 }, (_, i) => auto.get(`pipe:${i}`)));
  assert.deepEqual(values, Array.from({ length: 500 }, (_, i) => String(i)));
}

async function transaction(open) {
  const app = connectWith(open);
  const replies = await app.multi().set('tx:n', 1).incr('tx:n').get('tx:n').exec();
  assert.deepEqual(replies, [[null, 'OK'], [null, 2], [null, '2']]);
  const [, second] = await app.multi().set('tx:text', 'x').incr('tx:text').exec();
  assert.match(second[0].message, /not an integer/);
  await assert.rejects(app.multi().set('tx:never', 1).call('GET').exec(), /EXECABORT/);
  assert.equal(await app.get('tx:never'), null);
  await app.multi({ pipeline: false });
  assert.equal(await app.set('tx:n', 9), 'QUEUED');
  assert.equal(await app.discard(), 'OK');
  assert.equal(await app.get('tx:n'), '2');
}

async function watch(open) {
  const app = connectWith(open);
  const other = connectWith(open);
  await app.set('watch:n', 1);
  await app.watch('watch:n');
  await other.set('watch:n', 10);
  assert.equal(await app.multi().set('watch:n', 2).exec(), null);
  await app.watch('watch:n');
  const value = Number(await app.get('watch:n'));
  assert.deepEqual(await app.multi().set('watch:n', value + 1).exec(), [[null, 'OK']]);
  await app.watch('watch:n');
  assert.equal(await app.unwatch(), 'OK');
  await app.set('watch:sum', 0);
  const addOne = async (client) => {
    for (;;) {
      await client.watch('watch:sum');
      const sum = Number(await client.get('watch:sum'));
      if (await client.multi().set('watch:sum', sum + 1).exec()) return;
    }
  };
  const work = async (client) => {
    for (let i = 0; i < 25; i++) await addOne(client);
  };
  await Promise.all([app, other, connectWith(open), connectWith(open)].map(work));
  assert.equal(await app.get('watch:sum'), '100');
}

async function pubsub(open) {
  const app = connectWith(open);
  const subscriber = connectWith(open);
  const inbox = new Inbox();
  subscriber.on('messageBuffer', (channel, data) => inbox.push([String(channel), data]));
  subscriber.on('pmessageBuffer', (_, channel, data) => inbox.push([`p ${channel}`, data]));
  assert.equal(await subscriber.subscribe('ps:a', 'ps:b'), 2);
  assert.equal(await subscriber.psubscribe('ps:*'), 3);
  assert.equal(await app.publish('ps:a', BINARY), 2);
  assert.deepEqual(await inbox.take(2), [['ps:a', BINARY], ['p ps:a', BINARY]]);
  await subscriber.punsubscribe('ps:*');
  const sent = Array.from({ length: 300 }, (_, i) => app.publish('ps:b', i));
  await Promise.all(sent);
  const numbers = (await inbox.take(300)).map(([, data]) => Number(data));
  assert.deepEqual(numbers, Array.from({ length: 300 }, (_, i) => i));
  await subscriber.unsubscribe();
  assert.equal(await app.publish('ps:a', 'nobody'), 0);
  assert.equal(await subscriber.set('ps:key', 'an ordinary connection again'), 'OK');
  subscriber.on('smessage', (channel, data) => inbox.push([channel, data]));
  await subscriber.ssubscribe('ps:shard');
  assert.equal(await app.spublish('ps:shard', 'hello'), 1);
  assert.deepEqual(await inbox.take(1), [['ps:shard', 'hello']]);
}

async function blockingPop(open) {
  const app = connectWith(open);
  const pops = [
    connectWith(open).blpop('bp:a', 'bp:b', 20),
    connectWith(open).brpoplpushBuffer('bp:c', 'bp:d', 20),
    connectWith(open).bzpopmin('bp:z', 20),
  ];
  await blocked(app, 3);
  assert.equal(await app.ping(), 'PONG');
  await app.rpush('bp:b', '1', '2');
  await app.rpush('bp:c', BINARY);
  await app.zadd('bp:z', 3, 'm');
  assert.deepEqual(await Promise.all(pops), [['bp:b', '1'], BINARY, ['bp:z', 'm', '3']]);
  assert.equal(await app.blpop('bp:none', 1), null);
  const given = connectWith(open);
  given.blpop('bp:a', 20).catch(() => {});
  await blocked(app, 1);
  given.disconnect();
  await blocked(app, 0);
}

async function streams(open) {
  const app = connectWith(open);
  assert.equal(await app.xgroup('CREATE', 'st', 'group', '0', 'MKSTREAM'), 'OK');
  await assert.rejects(app.xgroup('CREATE', 'st', 'group', '0'), /BUSYGROUP/);
  const ids = [];
  for (let i = 0; i < 10; i++) ids.push(await app.xadd('st', '*', 'n', i));
  const read = (consumer, ...more) =>
    app.xreadgroup('GROUP', 'group', consumer, ...more, 'STREAMS', 'st', '>');
  const [[name, first]] = await read('one', 'COUNT', 4);
  assert.deepEqual([name, first.map(([id]) => id)], ['st', ids.slice(0, 4)]);
  const [[, second]] = await read('two');
  assert.deepEqual(second.map(([id]) => id), ids.slice(4));
  assert.equal(await app.xack('st', 'group', ...ids.slice(0, 3)), 3);
  assert.equal((await app.xpending('st', 'group'))[0], 7);
  const claimed = await app.xautoclaim('st', 'group', 'two', 0, ids[3], 'COUNT', 1);
  assert.equal(claimed[1][0][0], ids[3]);
  const waiting = connectWith(open).xreadgroup(
    ...['GROUP', 'group', 'one', 'BLOCK', 20000, 'STREAMS', 'st', '>'],
  );
  await blocked(app, 1);
  const last = await app.xadd('st', '*', 'n', 'late');
  assert.deepEqual(await waiting, [['st', [[last, ['n', 'late']]]]]);
}

async function scripts(open) {
  const app = connectWith(open);
  assert.deepEqual(await app.eval('return {KEYS[1], ARGV[1]}', 1, 'a', '1'), ['a', '1']);
  app.defineCommand('add', {
    numberOfKeys: 1,
    lua: "return redis.call('incrby', KEYS[1], ARGV[1])",
  });
  assert.equal(await app.add('sum', 5), 5);
  assert.equal(await app.script('FLUSH'), 'OK');
  assert.equal(await app.add('sum', 7), 12); // NOSCRIPT: it sends the script and tries again.
  const replies = await app.pipeline().add('sum', 1).get('sum').exec();
  assert.deepEqual(replies, [[null, 13], [null, '13']]);
  await assert.rejects(app.eval("return redis.error_reply('my own')", 0), /my own/);
}

async function collect(stream) {
  const found = [];
  for await (const part of stream) found.push(...part);
  return found;
}

async function scan(open) {
  const app = connectWith(open);
  const keys = Array.from({ length: 1000 }, (_, i) => `scan:${i}`).sort();
  await app.mset(keys.flatMap((key) => [key, 1]));
  const found = await collect(app.scanStream({ match: 'scan:*', count: 100 }));
  assert.deepEqual([...new Set(found)].sort(), keys);
  await app.sadd('scan-set', keys);
  assert.deepEqual([...new Set(await collect(app.sscanStream('scan-set')))].sort(), keys);
  await app.hset('scan-hash', Object.fromEntries(keys.map((key) => [key, key])));
  assert.deepEqual([...new Set(await collect(app.hscanStream('scan-hash')))].sort(), keys);
}

async function binary(open) {
  const app = connectWith(open);
  const value = crypto.randomBytes(1 << 20);
  for (const key of [BINARY, Buffer.alloc(0), Buffer.from('\r\n$-1\r\n'), 'schl\u00fcssel']) {
    assert.equal(await app.set(key, value), 'OK');
    assert.ok(value.equals(await app.getBuffer(key)));
    await app.set(key, '');
    assert.equal(await app.get(key), '');
  }
}

async function monitor(open) {
  const app = connectWith(open);
  const watching = open(await app.monitor(), (it) => it.disconnect());
  const seen = new Inbox();
  watching.on('monitor', (_, command) => {
    if (command[1] === 'monitored') seen.push(command);
  });
  await app.set('monitored', 1);
  await app.get('monitored');
  const expected = [['set', 'monitored', '1'], ['get', 'monitored']];
  assert.deepEqual(await seen.take(2), expected);
}

async function reconnect(open) {
  const app = connectWith(open);
  await app.set('rc:key', 'old');
  const subscriber = connectWith(open);
  const inbox = new Inbox();
  subscriber.on('message', (_, data) => inbox.push(data));
  await subscriber.subscribe('rc:news');
  app.defineCommand('count', { numberOfKeys: 1, lua: "return redis.call('incr', KEYS[1])" });
  assert.equal(await app.count('rc:sum'), 1);
  await restartServer();
  await until(() => app.set('rc:key', 'new').catch(() => false), 'a SET works again');
  assert.equal(await app.get('rc:key'), 'new');
  assert.equal(await app.count('rc:sum'), 1);
  await until(async () => (await app.publish('rc:news', 'hello')) > 0, 'it is subscribed again');
  assert.deepEqual(await inbox.take(1), ['hello']);
  const replies = await app.multi().set('rc:tx', 1).get('rc:tx').exec();
  assert.deepEqual(replies, [[null, 'OK'], [null, '1']]);
}

run(
  {
    connect, pool, pipeline, transaction, watch, pubsub, 'blocking-pop': blockingPop, streams,
    scripts, scan, binary, monitor, reconnect,
  },
  names,
);
