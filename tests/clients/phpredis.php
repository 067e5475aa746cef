<?php
// phpredis (the extension) as applications use it: phpredis.php SOCKET [CASE,CASE...]

require __DIR__ . '/cases.php';

function client(bool $persistent = false): Redis
{
    global $argv;
    $client = new Redis();
    $persistent ? $client->pconnect($argv[1]) : $client->connect($argv[1]);
    $client->setOption(Redis::OPT_READ_TIMEOUT, TIMEOUT_S);
    return $client;
}

function blocked(Redis $app, int $count): void
{
    until(
        fn() => (int) $app->info('clients')['blocked_clients'] === $count,
        "$count blocked clients"
    );
}

function connect_case(): void
{
    $app = client();
    equal(true, $app->ping());
    equal(true, $app->setex('connect:name', 100, 'value'));
    equal('value', $app->get('connect:name'));
    equal(false, $app->get('connect:absent'));
    check($app->ttl('connect:name') > 90, 'the time to live');
    $app->hMSet('connect:hash', ['a' => '1', 'b' => 'zwei']);
    equal(['a' => '1', 'b' => 'zwei'], $app->hGetAll('connect:hash'));
    equal(2, $app->zAdd('connect:zset', 1.5, 'm', 2, 'n'));
    equal(['m' => 1.5, 'n' => 2.0], $app->zRange('connect:zset', 0, -1, true));
    equal(true, $app->client('setname', 'phpredis'));
    equal('phpredis', $app->client('getname'));
    equal(false, $app->incr('connect:name'));
    check(str_contains($app->getLastError(), 'not an integer'), 'the error of INCR');
    equal(false, $app->rawCommand('NOSUCHCOMMAND', 'x'));
    check(str_contains($app->getLastError(), 'unknown command'), 'the error of no command');
    $other = client();
    equal(true, $other->select(5));
    equal(false, $other->get('connect:name'));
    $other->set('connect:five', '5');
    equal(0, $app->exists('connect:five'));
}

/** Many processes, each with a persistent connection: what php-fpm does. */
function pool_case(): void
{
    $work = function (int $index) {
        for ($i = 0; $i < 100; $i++) {
            $app = client(true);
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

function pipeline_case(): void
{
    $app = client();
    $pipe = $app->pipeline();
    $expected = [];
    for ($i = 0; $i < 1000; $i++) {
        $pipe->set("pipe:$i", $i)->get("pipe:$i");
        array_push($expected, true, (string) $i);
    }
    equal($expected, $pipe->exec());
    $replies = $app->pipeline()->set('pipe:text', 'x')->incr('pipe:text')->get('pipe:text')->exec();
    equal([true, false, 'x'], $replies);
}

function transaction_case(): void
{
    $app = client();
    equal([true, 2, '2'], $app->multi()->set('tx:n', 1)->incr('tx:n')->get('tx:n')->exec());
    equal([true, false], $app->multi()->set('tx:text', 'x')->incr('tx:text')->exec());
    $app->multi()->set('tx:n', 9)->discard();
    equal('2', $app->get('tx:n'));
    $piped = $app->pipeline()->multi()->incr('tx:n')->incr('tx:n')->exec()->get('tx:n')->exec();
    equal('4', end($piped));
}

function watch_case(): void
{
    $app = client();
    $other = client();
    $app->set('watch:n', 1);
    $app->watch('watch:n');
    $other->set('watch:n', 10);
    equal(false, $app->multi()->set('watch:n', 2)->exec());
    $app->watch('watch:n');
    $value = (int) $app->get('watch:n');
    equal([true], $app->multi()->set('watch:n', $value + 1)->exec());
    equal('11', $app->get('watch:n'));
    $app->watch('watch:n');
    equal(true, $app->unwatch());
    $work = function () {
        $app = client();
        for ($i = 0; $i < 25; $i++) {
            do {
                $app->watch('watch:sum');
                $sum = (int) $app->get('watch:sum');
            } while (!$app->multi()->set('watch:sum', $sum + 1)->exec());
        }
        return true;
    };
    array_map('result', [background($work), background($work), background($work)]);
    equal('75', $app->get('watch:sum'));
}

/** Subscribes and hears that many messages; close() is the way out of the loop of phpredis 5. */
function hear(int $count, string $method, array $channels): array
{
    $app = client();
    $got = [];
    try {
        $app->$method($channels, function ($redis, ...$message) use (&$got, $count) {
            $got[] = $message;
            if (count($got) === $count) {
                $redis->close();
            }
        });
    } catch (RedisException $closed) {
        check(count($got) === $count, $closed->getMessage());
    }
    return $got;
}

function pubsub_case(): void
{
    $publish = function () {
        $app = client();
        until(fn() => $app->publish('ps:a', binary()) > 0, 'a subscriber');
        for ($i = 0; $i < 300; $i++) {
            $app->publish('ps:b', $i);
        }
        return true;
    };
    $job = background($publish);
    $got = hear(301, 'subscribe', ['ps:a', 'ps:b']);
    result($job);
    equal(['ps:a', binary()], $got[0]);
    equal(array_map('strval', range(0, 299)), array_column(array_slice($got, 1), 1));
    $job = background($publish);
    $got = hear(301, 'psubscribe', ['ps:*']);
    result($job);
    equal(['ps:*', 'ps:a', binary()], $got[0]);
    $app = client();
    until(fn() => $app->publish('ps:a', 'nobody') === 0, 'the subscription is gone');
}

function blocking_pop_case(): void
{
    $app = client();
    $jobs = [
        background(fn() => client()->blPop(['bp:a', 'bp:b'], TIMEOUT_S)),
        background(fn() => client()->bRPopLPush('bp:c', 'bp:d', TIMEOUT_S)),
        background(fn() => client()->bzPopMin(['bp:z'], TIMEOUT_S)),
    ];
    blocked($app, 3);
    equal(true, $app->ping());
    $app->rPush('bp:b', '1', '2');
    $app->rPush('bp:c', binary());
    $app->zAdd('bp:z', 3, 'm');
    equal([['bp:b', '1'], binary(), ['bp:z', 'm', '3']], array_map('result', $jobs));
    equal([], $app->blPop(['bp:none'], 1));
    blocked($app, 0);
}

function streams_case(): void
{
    $app = client();
    equal(true, $app->xGroup('CREATE', 'st', 'group', '0', true));
    $ids = [];
    for ($i = 0; $i < 10; $i++) {
        $ids[] = $app->xAdd('st', '*', ['n' => (string) $i, 'raw' => binary()]);
    }
    $first = $app->xReadGroup('group', 'one', ['st' => '>'], 4)['st'];
    equal(array_slice($ids, 0, 4), array_keys($first));
    equal(binary(), $first[$ids[0]]['raw']);
    $second = $app->xReadGroup('group', 'two', ['st' => '>'])['st'];
    equal(array_slice($ids, 4), array_keys($second));
    equal(3, $app->xAck('st', 'group', array_slice($ids, 0, 3)));
    equal(7, $app->xPending('st', 'group')[0]);
    $claimed = $app->xClaim('st', 'group', 'two', 0, [$ids[3]], []);
    equal([$ids[3]], array_keys($claimed));
    $read = fn() => client()->xReadGroup('group', 'one', ['st' => '>'], 1, 20000);
    $job = background($read);
    blocked($app, 1);
    $last = $app->xAdd('st', '*', ['n' => 'late']);
    equal(['st' => [$last => ['n' => 'late']]], result($job));
}

function scripts_case(): void
{
    $app = client();
    equal(['a', '1'], $app->eval('return {KEYS[1], ARGV[1]}', ['a', '1'], 1));
    $code = "return redis.call('incrby', KEYS[1], ARGV[1])";
    $sha = $app->script('load', $code);
    equal(sha1($code), $sha);
    equal(5, $app->evalSha($sha, ['sum', 5], 1));
    equal(true, $app->script('flush'));
    equal(false, $app->evalSha($sha, ['sum', 5], 1));
    check(str_starts_with($app->getLastError(), 'NOSCRIPT'), 'NOSCRIPT');
    equal(12, $app->eval($code, ['sum', 7], 1));
    equal(13, $app->evalSha($sha, ['sum', 1], 1));
    $app->clearLastError();
    equal(false, $app->eval("return redis.error_reply('ERR my own')"));
    check(str_contains($app->getLastError(), 'my own'), 'the error of the script');
}

function scan_case(): void
{
    $app = client();
    $app->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
    $keys = array_map(fn($i) => "scan:$i", range(0, 999));
    sort($keys);
    $collect = function (callable $next) use ($keys) {
        $found = [];
        $cursor = null;
        while (($part = $next($cursor)) !== false) {
            array_push($found, ...$part);
        }
        $found = array_unique($found);
        sort($found);
        equal($keys, $found);
    };
    $app->mSet(array_fill_keys($keys, '1'));
    $collect(function (&$cursor) use ($app) {
        return $app->scan($cursor, 'scan:*', 100);
    });
    $app->sAdd('scan-set', ...$keys);
    $collect(function (&$cursor) use ($app) {
        return $app->sScan('scan-set', $cursor);
    });
}

function binary_case(): void
{
    $app = client();
    $value = random_bytes(1 << 20);
    foreach ([binary(), '', "\r\n$-1\r\n", 'schlüssel'] as $key) {
        equal(true, $app->set($key, $value));
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
            return $app->set('rc:key', 'new');
        } catch (RedisException $error) {
            return false;
        }
    };
    until($set, 'a SET works again');
    equal('new', $app->get('rc:key'));
    equal([true, '1'], $app->multi()->set('rc:tx', 1)->get('rc:tx')->exec());
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
