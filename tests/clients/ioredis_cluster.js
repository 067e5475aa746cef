// ioredis' Cluster as applications use it:
//   ioredis_cluster.js HOST:PORT [CASE,CASE...]
'use strict';

const assert = require('node:assert/strict');
const { Cluster } = require('ioredis');
const { Inbox, run, until } = require('./cases.js');

const [address, names] = process.argv.slice(2);
const port = Number(address.split(':').pop());
const host = address.slice(0, address.lastIndexOf(':'));
const keys = Array.from({ length: 100 }, (_, i) => `key:${i}`);

function connectWith(open) {
  const client = open(new Cluster([{ host, port }]), (it) => it.disconnect());
  client.on('error', () => {});
  return client;
}

async function connect(open) {
  const app = connectWith(open);
  for (const key of keys) {
    assert.equal(await app.set(key, key, 'EX', 100), 'OK');
    assert.equal(await app.get(key), key);
  }
  assert.deepEqual(
    app.nodes('master').map((node) => [node.options.host, node.options.port]),
    [[host, port]],
  );
  assert.equal(await app.get('absent'), null);
  await app.hset('hash', { a: '1', b: 'zwei' });
  assert.deepEqual(await app.hgetall('hash'), { a: '1', b: 'zwei' });
  await assert.rejects(app.incr('key:1'), /not an integer/);
  assert.equal(await app.quit(), 'OK');
}

// It lets no pipeline go over slots of several nodes: here is one.
async function pipeline(open) {
  const pipe = connectWith(open).pipeline();
  for (const key of keys) pipe.set(key, key).get(key);
  const expected = keys.flatMap((key) => [[null, 'OK'], [null, key]]);
  assert.deepEqual(await pipe.exec(), expected);
}

async function transaction(open) {
  const app = connectWith(open);
  const replies = await app.multi().set('{tx}n', 1).incr('{tx}n').get('{tx}n').exec();
  assert.deepEqual(replies, [[null, 'OK'], [null, 2], [null, '2']]);
}

async function pubsub(open) {
  const app = connectWith(open);
  const subscriber = connectWith(open);
  const inbox = new Inbox();
  subscriber.on('message', (_, data) => inbox.push(data));
  assert.equal(await subscriber.subscribe('news'), 1);
  for (let i = 0; i < 100; i++) assert.ok((await app.publish('news', i)) >= 1);
  assert.deepEqual(await inbox.take(100), Array.from({ length: 100 }, (_, i) => String(i)));
}

async function blockingPop(open) {
  const app = connectWith(open);
  const popped = connectWith(open).blpop('list', 20);
  await until(async () => (await app.rpush('list', 'x')) > 0, 'pushed');
  assert.deepEqual(await popped, ['list', 'x']);
}

async function scripts(open) {
  const app = connectWith(open);
  app.defineCommand('add', {
    numberOfKeys: 1,
    lua: "return redis.call('INCRBY', KEYS[1], ARGV[1])",
  });
  for (const [i, key] of keys.entries()) assert.equal(await app.add(`sum:${key}`, i), i);
}

async function severalKeys(open) {
  const app = connectWith(open);
  assert.equal(await app.mset('{t}a', 1, '{t}b', 2), 'OK');
  assert.deepEqual(await app.mget('{t}a', '{t}b'), ['1', '2']);
  assert.equal(await app.del('{t}a', '{t}b'), 2);
}

run(
  {
    connect,
    pipeline,
    transaction,
    pubsub,
    'blocking-pop': blockingPop,
    scripts,
    'several-keys': severalKeys,
  },
  names,
);
