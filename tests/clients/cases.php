<?php
// What the PHP programs of this folder share: reporting cases, asking for a restart of the server,
// work in a child process. run.py says what a client program prints and reads.

const TIMEOUT_S = 20;

function binary(): string
{
    return implode('', array_map('chr', range(0, 255)));
}

function check(bool $fact, string $what): void
{
    if (!$fact) {
        throw new RuntimeException($what);
    }
}

function equal($expected, $actual): void
{
    $shown = fn($value) => substr(json_encode($value, JSON_INVALID_UTF8_SUBSTITUTE), 0, 200);
    check($expected === $actual, "expected {$shown($expected)}, got {$shown($actual)}");
}

function raises(string $text, callable $function): void
{
    try {
        $value = $function();
    } catch (Exception $error) {
        check(str_contains($error->getMessage(), $text), "other error: {$error->getMessage()}");
        return;
    }
    throw new RuntimeException("expected an error with $text, got " . json_encode($value));
}

/** Polls until the condition is true. */
function until(callable $condition, string $what): void
{
    $deadline = microtime(true) + TIMEOUT_S;
    while (!$condition()) {
        check(microtime(true) < $deadline, 'not within ' . TIMEOUT_S . " s: $what");
        usleep(5000);
    }
}

/** Runs the function in a child process; result() waits for what it returns. */
function background(callable $function): array
{
    [$ours, $its] = stream_socket_pair(STREAM_PF_UNIX, STREAM_SOCK_STREAM, 0);
    $pid = pcntl_fork();
    check($pid >= 0, 'fork');
    if ($pid > 0) {
        fclose($its);
        return [$pid, $ours];
    }
    try {
        $answer = ['value' => $function()];
    } catch (Throwable $error) {
        $answer = ['error' => $error->getMessage()];
    }
    fwrite($its, serialize($answer));
    exit(0);
}

function result(array $job)
{
    [$pid, $stream] = $job;
    $text = stream_get_contents($stream);
    pcntl_waitpid($pid, $status);
    $answer = unserialize($text);
    check(isset($answer['value']), 'in the child: ' . ($answer['error'] ?? 'it has ended'));
    return $answer['value'];
}

/** Returns when the server has ended, has started again (empty) and answers. */
function restart_server(): void
{
    fwrite(STDOUT, "restart\n");
    equal("done\n", fgets(STDIN));
}

/** Runs the cases, name => function, or those that the text a,b,c names; ends the process. */
function run(array $cases, ?string $names): void
{
    $failed = false;
    foreach ($names ? explode(',', $names) : array_keys($cases) as $name) {
        try {
            $why = $cases[$name]();
            fwrite(STDOUT, is_string($why) ? "$name: skipped ($why)\n" : "$name: ok\n");
        } catch (Throwable $error) {
            $failed = true;
            fwrite(STDERR, "$error\n");
            $text = substr(preg_replace('/\s+/', ' ', $error->getMessage()), 0, 300);
            fwrite(STDOUT, "$name: FAIL $text\n");
        }
    }
    exit($failed ? 1 : 0);
}
