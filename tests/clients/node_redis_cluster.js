// node-redis' createCluster as applications use it:
//   node_redis_cluster.js HOST:PORT [CASE,CASE...]
'use strict';

const assert = require('node:assert/strict');
const { createCluster } = require('redis');
const { Inbox, run, until } = require('./cases.js');

const [address, names] = process.argv.slice(2);
const keys = Array.from({ length: 100 }, (_, i) => `key:${i}`);

async function connectWith(open) {
  const client = createCluster({ rootNodes: [{ url: `redis://${address}` }] });
  client.on('error', () => {});
  open(client, (it) => it.destroy());
  await client.connect();
  return client;
}

async function connect(open) {
  const app = await connectWith(open);
  for (const key of keys) {
    assert.equal(await app.set(key, key, { EX: 100 }), 'OK');
    assert.equal(await app.get(key), key);
  }
  assert.deepEqual(
    app.masters.map((node) => node.address),
    [address],
  );
  assert.equal(await app.get('absent'), null);
  await app.hSet('hash', { a: '1', b: 'zwei' });
  assert.deepEqual({ ...(await app.hGetAll('hash')) }, { a: '1', b: 'zwei' });
  await assert.rejects(app.incr('key:1'), /not an integer/);
}

async function pipeline(open) {
  const app = await connectWith(open);
  const replies = await Promise.all(keys.flatMap((key) => [app.set(key, key), app.get(key)]));
  assert.deepEqual(replies, keys.flatMap((key) => ['OK', key]));
}

async function transaction(open) {
  const app = await connectWith(open);
  const replies = await app.multi().set('{tx}n', 1).incr('{tx}n').get('{tx}n').exec();
  assert.deepEqual(replies, ['OK', 2, '2']);
}

async function pubsub(open) {
  const app = await connectWith(open);
  const inbox = new Inbox();
  await app.subscribe('news', (data) => inbox.push(data));
  for (let i = 0; i < 100; i++) assert.ok((await app.publish('news', String(i))) >= 1);
  assert.deepEqual(await inbox.take(100), Array.from({ length: 100 }, (_, i) => String(i)));
  await app.unsubscribe('news');
}

async function blockingPop(open) {
  const app = await connectWith(open);
  const other = await connectWith(open);
  const popped = other.blPop('list', 20);
  await until(async () => (await app.rPush('list', 'x')) > 0, 'pushed');
  assert.deepEqual({ ...(await popped) }, { key: 'list', element: 'x' });
}

async function scripts(open) {
  const app = await connectWith(open);
  const script = "return redis.call('INCRBY', KEYS[1], ARGV[1])";
  for (const [i, key] of keys.entries()) {
    const sum = await app.eval(script, { keys: [`sum:${key}`], arguments: [String(i)] });
    assert.equal(sum, i);
  }
}

async function severalKeys(open) {
  const app = await connectWith(open);
  assert.equal(await app.mSet({ '{t}a': '1', '{t}b': '2' }), 'OK');
  assert.deepEqual(await app.mGet(['{t}a', '{t}b']), ['1', '2']);
  assert.equal(await app.del(['{t}a', '{t}b']), 2);
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
