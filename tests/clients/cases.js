// What the Node.js programs of this folder share: reporting cases, asking for a restart of the
// server, waiting for a condition. run.py says what a client program prints and reads.
'use strict';

const assert = require('node:assert/strict');
const readline = require('node:readline');

const TIMEOUT_MS = 20000;
const BINARY = Buffer.from(Array.from({ length: 256 }, (_, i) => i));

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${TIMEOUT_MS} ms: ${what}`)), TIMEOUT_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// Polls until the condition, an async function, is true and returns its value.
async function until(condition, what) {
  const deadline = Date.now() + TIMEOUT_MS;
  for (;;) {
    const value = await condition();
    if (value) return value;
    assert.ok(Date.now() < deadline, `not within ${TIMEOUT_MS} ms: ${what}`);
    await sleep(5);
  }
}

// Returns when the server has ended, has started again (empty) and answers.
function restartServer() {
  return new Promise((resolve, reject) => {
    const input = readline.createInterface({ input: process.stdin });
    input.once('line', (line) => {
      input.close();
      if (line === 'done') resolve();
      else reject(new Error(`the runner answered ${line}`));
    });
    process.stdout.write('restart\n');
  });
}

// Lists what comes, for others to wait for: push(value), and `await take(count)`.
class Inbox {
  constructor() {
    this.values = [];
  }

  push(value) {
    this.values.push(value);
  }

  async take(count) {
    await until(async () => this.values.length >= count, `${count} messages`);
    return this.values.splice(0, count);
  }
}

// Runs the cases {name: async (open) => ...}; what a case gives to open(client, close) is closed
// after it. `names` is the text a,b,c of the command line, or undefined for all.
async function run(cases, names) {
  let failed = false;
  // What a failed case left under way must not end the cases after it.
  process.on('unhandledRejection', (error) => console.error('unhandled:', error));
  for (const name of names ? names.split(',') : Object.keys(cases)) {
    const closers = [];
    const open = (client, close) => {
      closers.push(() => close(client));
      return client;
    };
    try {
      await within(cases[name](open), 'the end of the case');
      console.log(`${name}: ok`);
    } catch (error) {
      failed = true;
      console.error(error);
      console.log(`${name}: FAIL ${String(error.message).replace(/\s+/g, ' ').slice(0, 300)}`);
    }
    for (const close of closers) await close();
  }
  process.exit(failed ? 1 : 0);
}

module.exports = { BINARY, Inbox, TIMEOUT_MS, restartServer, run, until, within };
