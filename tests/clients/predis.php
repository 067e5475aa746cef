<?php
// Predis (pure PHP) as applications use it: predis.php SOCKET [CASE,CASE...]

require 'Predis/autoload.php';
require __DIR__ . '/cases.php';

class AddScript extends Predis\Command\ScriptCommand
{
    public function getKeysCount()
    {
        return 1;
    }

    public function getScript()
    {
        return "return redis.call('incrby', KEYS[1], ARGV[1])";
    }
}

function client(array $parameters = []): Predis\Client
{
    global $argv;
    $address = ['scheme' => 'unix', 'path' => $argv[1], 'read_write_timeout' => TIMEOUT_S];
    return new Predis\Client($parameters + $address);
}

function blocked(Predis\Client $app, int $count): void
{
    $blocked = fn() => (int) $app->info('clients')['Clients']['blocked_clients'];
    until(fn() => $blocked() === $count, "$count blocked clients");
}

function connect_case(): void
{
    $app = client();
    equal('PONG', (string) $app->ping());
    equal('OK', (string) $app->setex('connect:name', 100, 'value'));
    equal('value', $app->get('connect:name'));
    equal(null, $app->get('connect:absent'));
    check($app->ttl('connect:name') > 90, 'the time to live');
    $app->hmset('connect:hash', ['a' => '1', 'b' => 'zwei']);
    equal(['a' => '1', 'b' => 'zwei'], $app->hgetall('connect:hash'));
    equal(2, $app->zadd('connect:zset', ['m' => 1.5, 'n' => 2]));
    equal(['m' => '1.5', 'n' => '2'], $app->zrange('connect:zset', 0, -1, ['withscores' => true]));
    equal('OK', (string) $app->client('setname', 'predis'));
    equal('predis', $app->client('getname'));
    raises('not an integer', fn() => $app->incr('connect:name'));
    $text = $app->executeRaw(['NOSUCHCOMMAND', 'x'], $is_error);
    check($is_error && str_contains($text, 'unknown command'), 'the error of no command');
    $other = client(['database' => 5]);
    equal(null, $other->get('connect:name'));
    $other->set('connect:five', '5');
    equal(0, $app->exists('connect:five'));
}

/** Many processes, each with a connection that it keeps. */
function pool_case(): void
{
    $work = function (int $index) {
        $app = client(['persistent' => true]);
        for ($i = 0; $i < 100; $i++) {
            $app->set("pool:$index", $i);
            equal((string) $i, $app->get("pool:$index"));
            $app->incr('pool:all');
        }
        return true;
    };
    $jobs = array_map(fn($index) => background(fn() => $work($index)), range(1, 4));
    array_map('result', $jobs);
    equal('400', client()->get('pool:all'));
}

function texts(array $replies): array
{
    return array_map('strval', $replies);
}

function pipeline_case(): void
{
    $app = client();
    $expected = [];
    $replies = $app->pipeline(function ($pipe) use (&$expected) {
        for ($i = 0; $i < 1000; $i++) {
            $pipe->set("pipe:$i", $i);
            $pipe->get("pipe:$i");
            array_push($expected, 'OK', (string) $i);
        }
    });
    equal($expected, texts($replies));
    raises('not an integer', fn() => $app->pipeline(function ($pipe) {
        $pipe->set('pipe:text', 'x');
        $pipe->incr('pipe:text');
    }));
    $atomic = $app->pipeline(['atomic' => true], function ($pipe) {
        $pipe->set('pipe:n', 1);
        $pipe->incr('pipe:n');
    });
    equal(['OK', '2'], texts($atomic));
}

function transaction_case(): void
{
    $app = client();
    $replies = $app->transaction(function ($tx) {
        $tx->set('tx:n', 1);
        $tx->incr('tx:n');
        $tx->get('tx:n');
    });
    equal(['OK', '2', '2'], texts($replies));
    $tx = $app->transaction();
    $tx->set('tx:n', 9);
    $tx->discard();
    equal('2', $app->get('tx:n'));
}

function watch_case(): void
{
    $app = client();
    $other = client();
    $app->set('watch:n', 1);
    $attempts = 0;
    $add = function ($tx) use ($other, &$attempts) {
        $value = (int) $tx->get('watch:n');
        if (++$attempts === 1) {
            $other->set('watch:n', 10);
        }
        $tx->multi();
        $tx->set('watch:n', $value + 1);
    };
    $app->transaction(['cas' => true, 'watch' => ['watch:n'], 'retry' => 3], $add);
    equal([2, '11'], [$attempts, $app->get('watch:n')]);
    $attempts = 0;
    $once = ['cas' => true, 'watch' => ['watch:n'], 'retry' => 0];
    raises('aborted', fn() => $app->transaction($once, $add));
    equal('10', $app->get('watch:n'));
}

function pubsub_case(): void
{
    $app = client();
    $loop = client()->pubSubLoop();
    $loop->subscribe('ps:a', 'ps:b');
    $loop->psubscribe('ps:*');
    $kinds = $got = [];
    foreach ($loop as $message) {
        $kinds[] = $message->kind;
        if (count($kinds) === 3) {
            equal(2, $app->publish('ps:a', binary()));
        } elseif (count($kinds) === 5) {
            equal(['ps:a', binary()], [$message->channel, $message->payload]);
            $loop->punsubscribe('ps:*');
        } elseif ($message->kind === 'punsubscribe') {
            array_map(fn($i) => $app->publish('ps:b', $i), range(0, 299));
        } elseif ($message->channel === 'ps:b' && $message->kind === 'message') {
            $got[] = $message->payload;
            if (count($got) === 300) {
                $loop->unsubscribe('ps:a', 'ps:b');
            }
        }
    }
    equal(
        ['subscribe', 'subscribe', 'psubscribe', 'message', 'pmessage', 'punsubscribe'],
        array_slice($kinds, 0, 6)
    );
    equal(array_map('strval', range(0, 299)), $got);
    equal(0, $app->publish('ps:a', 'nobody'));
}

function blocking_pop_case(): void
{
    $app = client();
    $jobs = [
        background(fn() => client()->blpop(['bp:a', 'bp:b'], TIMEOUT_S)),
        background(fn() => client()->brpoplpush('bp:c', 'bp:d', TIMEOUT_S)),
    ];
    blocked($app, 2);
    equal('PONG', (string) $app->ping());
    $app->rpush('bp:b', ['1', '2']);
    $app->rpush('bp:c', [binary()]);
    equal([['bp:b', '1'], binary()], array_map('result', $jobs));
    equal(null, $app->blpop(['bp:none'], 1));
    blocked($app, 0);
}

/** Predis 1 has no methods for streams: executeRaw. */
function streams_case(): void
{
    $app = client();
    $raw = fn(...$words) => $app->executeRaw(array_map('strval', $words));
    equal('OK', $raw('XGROUP', 'CREATE', 'st', 'group', 0, 'MKSTREAM'));
    $ids = array_map(fn($i) => $raw('XADD', 'st', '*', 'n', $i), range(0, 9));
    $read = ['XREADGROUP', 'GROUP', 'group', 'one'];
    [[$name, $entries]] = $raw(...$read, ...['COUNT', 4, 'STREAMS', 'st', '>']);
    equal(['st', array_slice($ids, 0, 4)], [$name, array_column($entries, 0)]);
    equal(4, $raw('XACK', 'st', 'group', ...array_slice($ids, 0, 4)));
    equal(0, $raw('XPENDING', 'st', 'group')[0]);
}

function scripts_case(): void
{
    $app = client();
    equal(['a', '1'], $app->eval('return {KEYS[1], ARGV[1]}', 1, 'a', '1'));
    $app->getProfile()->defineCommand('add', 'AddScript');
    equal(5, $app->add('sum', 5)); // NOSCRIPT: it sends the script and tries again.
    equal('OK', (string) $app->script('flush'));
    equal([12, 13], [$app->add('sum', 7), $app->add('sum', 1)]);
    raises('my own', fn() => $app->eval("return redis.error_reply('my own')", 0));
}

function scan_case(): void
{
    $app = client();
    $keys = array_map(fn($i) => "scan:$i", range(0, 999));
    sort($keys);
    $same = function (iterable $found) use ($keys) {
        $names = [];
        foreach ($found as $name) {
            $names[$name] = true;
        }
        $names = array_keys($names);
        sort($names);
        equal($keys, $names);
    };
    $app->mset(array_fill_keys($keys, '1'));
    $same(new Predis\Collection\Iterator\Keyspace($app, 'scan:*', 100));
    $app->sadd('scan-set', $keys);
    $same(new Predis\Collection\Iterator\SetKey($app, 'scan-set'));
}

function binary_case(): void
{
    $app = client();
    $value = random_bytes(1 << 20);
    foreach ([binary(), '', "\r\n$-1\r\n", 'schlüssel'] as $key) {
        equal('OK', (string) $app->set($key, $value));
        check($app->get($key) === $value, 'the value is another');
        $app->set($key, '');
        equal('', $app->get($key));
    }
}

function reconnect_case(): void
{
    $app = client();
    $app->set('rc:key', 'old');
    restart_server();
    $set = function () use ($app) {
        try {
            return (string) $app->set('rc:key', 'new') === 'OK';
        } catch (Predis\Connection\ConnectionException $error) {
            return false;
        }
    };
    until($set, 'a SET works again');
    equal('new', $app->get('rc:key'));
    $replies = $app->transaction(fn($tx) => $tx->set('rc:tx', 1) && $tx->get('rc:tx'));
    equal(['OK', '1'], texts($replies));
}

run([
    'connect' => 'connect_case',
    'pool' => 'pool_case',
    'pipeline' => 'pipeline_case',
    'transaction' => 'transaction_case',
    'watch' => 'watch_case',
    'pubsub' => 'pubsub_case',
    'blocking-pop' => 'blocking_pop_case',
    'streams' => 'streams_case',
    'scripts' => 'scripts_case',
    'scan' => 'scan_case',
    'binary' => 'binary_case',
    'reconnect' => 'reconnect_case',
], $argv[2] ?? null);
