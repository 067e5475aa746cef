// ioredis through nearkey.
'use strict';

const { Redis } = require('ioredis');

const url = process.env.CACHE_URL || 'unix:///run/nearkey/nearkey.sock';
// A command fails after a second, or at once while nearkey is away, instead of waiting for it.
const cache = new Redis(url.replace('unix://', ''), {
  commandTimeout: 1000,
  maxRetriesPerRequest: 0,
});
cache.on('error', (error) => console.error(`cache: ${error.message}`));

async function main() {
  console.log('set:', await cache.set('greeting', 'hello', 'EX', 60));
  console.log('get:', await cache.get('greeting'));
  const replies = await cache.multi().incr('visits').expire('visits', 60).exec();
  console.log('multi:', replies.map(([error]) => error ?? 'ok'));
  console.log('del:', await cache.del('greeting', 'visits'));
  await cache.quit();
}

main();
