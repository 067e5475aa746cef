// node-redis through nearkey.
'use strict';

const { createClient } = require('redis');

const url = process.env.CACHE_URL || 'unix:///run/nearkey/nearkey.sock';
// While nearkey is away a command fails at once, instead of waiting for it.
const cache = createClient({
  socket: { path: url.replace('unix://', ''), connectTimeout: 1000 },
  disableOfflineQueue: true,
});
cache.on('error', (error) => console.error(`cache: ${error.message}`));

async function main() {
  await cache.connect();
  console.log('set:', await cache.set('greeting', 'hello', { EX: 60 }));
  console.log('get:', await cache.get('greeting'));
  console.log('multi:', await cache.multi().set('visits', 1).incr('visits').exec());
  console.log('del:', await cache.del(['greeting', 'visits']));
  await cache.quit();
}

main();
