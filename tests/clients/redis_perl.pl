# Perl's Redis and Redis::Fast as applications use them:
#   redis_perl.pl Redis|Redis::Fast SOCKET [CASE,CASE...]
use strict;
use warnings;
use JSON::PP;
use Time::HiRes qw(sleep time);

my ($module, $address, $names) = @ARGV;
eval "require $module; 1" or die $@;
$| = 1;

use constant TIMEOUT_S => 20;
my $BINARY = join '', map { chr } 0 .. 255;

sub client { return $module->new(sock => $address, reconnect => 10, every => 5_000, @_) }

# Comparison by way of their JSON: good for nested lists, undef and bytes alike.
sub equal {
    my $json = JSON::PP->new->allow_nonref->canonical;
    my ($expected, $actual) = map { $json->encode(text_of($_)) } @_;
    return if $expected eq $actual;
    die sprintf "expected %s, got %s\n", substr($expected, 0, 200), substr($actual, 0, 200);
}

sub text_of {
    my ($value) = @_;
    return [map { text_of($_) } @$value] if ref $value eq 'ARRAY';
    return { map { $_ => text_of($value->{$_}) } keys %$value } if ref $value eq 'HASH';
    return defined $value ? "$value" : undef;
}

sub raises {
    my ($text, $function) = @_;
    my $value = eval { $function->(); 1 };
    die "expected an error with $text\n" if $value;
    die "other error: $@" if index($@, $text) < 0;
}

sub until_true {
    my ($what, $condition) = @_;
    my $deadline = time + TIMEOUT_S;
    until ($condition->()) {
        die 'not within ' . TIMEOUT_S . " s: $what\n" if time > $deadline;
        sleep 0.005;
    }
}

# Runs the function in a child process; result() waits for the value that it returns.
sub background {
    my ($function) = @_;
    pipe(my $ours, my $its) or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if ($pid == 0) {
        my $value = eval { text_of($function->()) };
        print {$its} encode_json([$@ ? "$@" : undef, $value]);
        close $its;
        require POSIX;
        POSIX::_exit(0);
    }
    close $its;
    return [$pid, $ours];
}

sub result {
    my ($pid, $stream) = @{ $_[0] };
    my $text = do { local $/; <$stream> };
    waitpid $pid, 0;
    my ($error, $value) = @{ decode_json($text) };
    die "in the child: $error" if defined $error;
    return $value;
}

sub blocked {
    my ($app, $count) = @_;
    until_true("$count blocked clients", sub { $app->info->{blocked_clients} == $count });
}

# Returns when the server has ended, has started again (empty) and answers.
sub restart_server {
    print "restart\n";
    equal("done\n", scalar <STDIN>);
}

my %CASES;

$CASES{connect} = sub {
    my $app = client(name => 'perl');
    equal('PONG', $app->ping);
    equal('OK', $app->set('connect:name', 'value', 'EX', 100));
    equal('value', $app->get('connect:name'));
    equal(undef, scalar $app->get('connect:absent'));
    die 'the time to live' unless $app->ttl('connect:name') > 90;
    $app->hmset('connect:hash', a => 1, b => 'zwei');
    equal({ a => 1, b => 'zwei' }, { $app->hgetall('connect:hash') });
    equal(2, $app->zadd('connect:zset', 1.5, 'm', 2, 'n'));
    equal(['m', 1.5, 'n', 2], [$app->zrange('connect:zset', 0, -1, 'WITHSCORES')]);
    equal('perl', $app->client_getname);
    raises('not an integer', sub { $app->incr('connect:name') });
    raises('unknown command', sub { $app->nosuchcommand('x') });
    my $other = client();
    equal('OK', $other->select(5));
    equal(undef, scalar $other->get('connect:name'));
    $other->set('connect:five', 5);
    equal(0, $app->exists('connect:five'));
    $app->quit;
};

# Many processes, each with a connection of its own.
$CASES{pool} = sub {
    my $work = sub {
        my ($index) = @_;
        my $app = client();
        for my $i (1 .. 100) {
            $app->set("pool:$index", $i);
            equal($i, $app->get("pool:$index"));
            $app->incr('pool:all');
        }
        return 1;
    };
    my @jobs = map { my $index = $_; background(sub { $work->($index) }) } 1 .. 4;
    result($_) for @jobs;
    equal(400, client()->get('pool:all'));
};

$CASES{pipeline} = sub {
    my $app = client();
    my (@replies, @expected);
    for my $i (0 .. 999) {
        $app->set("pipe:$i", $i, sub { push @replies, $_[0] });
        $app->get("pipe:$i", sub { push @replies, $_[0] });
        push @expected, 'OK', $i;
    }
    $app->wait_all_responses;
    equal(\@expected, \@replies);
    my @errors;
    $app->set('pipe:text', 'x', sub { push @errors, $_[1] });
    $app->incr('pipe:text', sub { push @errors, $_[1] });
    $app->get('pipe:text', sub { push @errors, $_[1] });
    $app->wait_all_responses;
    equal([1, 0, 1], [map { defined $_ ? 0 : 1 } @errors]);
    die "other error: $errors[1]" unless $errors[1] =~ /not an integer/;
};

$CASES{transaction} = sub {
    my $app = client();
    equal('OK', $app->multi);
    equal('QUEUED', $app->set('tx:n', 1));
    $app->incr('tx:n');
    $app->get('tx:n');
    equal(['OK', 2, 2], [$app->exec]);
    $app->multi;
    $app->set('tx:n', 9);
    equal('OK', $app->discard);
    equal(2, $app->get('tx:n'));
    $app->multi;
    raises('wrong number', sub { $app->get });
    raises('EXECABORT', sub { $app->exec });
};

$CASES{watch} = sub {
    my ($app, $other) = (client(), client());
    $app->set('watch:n', 1);
    $app->watch('watch:n');
    $other->set('watch:n', 10);
    $app->multi;
    $app->set('watch:n', 2);
    equal(undef, scalar $app->exec);
    $app->watch('watch:n');
    my $value = $app->get('watch:n');
    $app->multi;
    $app->set('watch:n', $value + 1);
    equal(['OK'], [$app->exec]);
    equal(11, $app->get('watch:n'));
    $app->watch('watch:n');
    equal('OK', $app->unwatch);
};

$CASES{pubsub} = sub {
    my ($app, $listener) = (client(), client());
    my (@channels, @patterns);
    my $on_channel = sub { push @channels, [@_[0, 1]] };
    my $on_pattern = sub { push @patterns, [@_] };
    my $wait = sub {
        my ($list, $count) = @_;
        until_true("$count messages", sub {
            $listener->wait_for_messages(0.1) if @$list < $count;
            @$list >= $count;
        });
    };
    $listener->subscribe('ps:a', 'ps:b', $on_channel);
    $listener->psubscribe('ps:*', $on_pattern);
    equal(2, $app->publish('ps:a', $BINARY));
    $wait->(\@channels, 1);
    $wait->(\@patterns, 1);
    equal([$BINARY, 'ps:a'], shift @channels);
    equal([$BINARY, 'ps:a', 'ps:*'], shift @patterns);
    $listener->punsubscribe('ps:*', $on_pattern);
    $app->publish('ps:b', $_) for 0 .. 299;
    $wait->(\@channels, 300);
    equal([0 .. 299], [map { $_->[0] } @channels]);
    $listener->unsubscribe('ps:a', 'ps:b', $on_channel);
    equal(0, $app->publish('ps:a', 'nobody'));
    equal('OK', $listener->set('ps:key', 'an ordinary connection again'));
};

$CASES{'blocking-pop'} = sub {
    my $app = client();
    my @jobs = map { background($_) } (
        sub { [client()->blpop('bp:a', 'bp:b', TIMEOUT_S)] },
        sub { [unpack 'C*', client()->brpoplpush('bp:c', 'bp:d', TIMEOUT_S)] },
    );
    blocked($app, 2);
    equal('PONG', $app->ping);
    $app->rpush('bp:b', 1, 2);
    $app->rpush('bp:c', $BINARY);
    equal([['bp:b', 1], [0 .. 255]], [map { result($_) } @jobs]);
    equal(undef, scalar $app->blpop('bp:none', 1));
    blocked($app, 0);
};

$CASES{streams} = sub {
    my $app = client();
    equal('OK', $app->xgroup('CREATE', 'st', 'group', 0, 'MKSTREAM'));
    raises('BUSYGROUP', sub { $app->xgroup('CREATE', 'st', 'group', 0) });
    my @ids = map { $app->xadd('st', '*', 'n', $_) } 0 .. 9;
    my @read = ('GROUP', 'group', 'one');
    my ($first) = $app->xreadgroup(@read, 'COUNT', 4, 'STREAMS', 'st', '>');
    equal(['st', [map { [$ids[$_], ['n', $_]] } 0 .. 3]], $first);
    equal(4, $app->xack('st', 'group', @ids[0 .. 3]));
    my ($second) = $app->xreadgroup('GROUP', 'group', 'two', 'STREAMS', 'st', '>');
    equal([@ids[4 .. 9]], [map { $_->[0] } @{ $second->[1] }]);
    my ($pending) = $app->xpending('st', 'group');
    equal(6, $pending);
    my @wait = (@read, 'BLOCK', 20_000, 'STREAMS', 'st', '>');
    my $job = background(sub { [client()->xreadgroup(@wait)] });
    blocked($app, 1);
    my $last = $app->xadd('st', '*', 'n', 'late');
    equal([['st', [[$last, ['n', 'late']]]]], result($job));
};

$CASES{scripts} = sub {
    my $app = client();
    equal(['a', 1], [$app->eval('return {KEYS[1], ARGV[1]}', 1, 'a', 1)]);
    my $sha = $app->script_load("return redis.call('incrby', KEYS[1], ARGV[1])");
    equal(5, $app->evalsha($sha, 1, 'sum', 5));
    equal([1], [$app->script_exists($sha)]);
    equal('OK', $app->script_flush);
    raises('NOSCRIPT', sub { $app->evalsha($sha, 1, 'sum', 5) });
    raises('my own', sub { $app->eval("return redis.error_reply('my own')", 0) });
};

$CASES{scan} = sub {
    my $app = client();
    my @keys = sort map { "scan:$_" } 0 .. 999;
    $app->mset(map { $_ => 1 } @keys);
    my (%found, $part);
    my $cursor = 0;
    do {
        ($cursor, $part) = $app->scan($cursor, 'MATCH', 'scan:*', 'COUNT', 100);
        $found{$_} = 1 for @$part;
    } while ($cursor);
    equal(\@keys, [sort keys %found]);
    %found = ();
    $app->sadd('scan-set', @keys);
    do {
        ($cursor, $part) = $app->sscan('scan-set', $cursor);
        $found{$_} = 1 for @$part;
    } while ($cursor);
    equal(\@keys, [sort keys %found]);
};

$CASES{binary} = sub {
    my $app = client();
    my $value = join '', map { chr int rand 256 } 1 .. 1 << 18;
    for my $key ($BINARY, '', "\r\n\$-1\r\n", "schl\xc3\xbcssel") {
        equal('OK', $app->set($key, $value));
        die 'the value is another' unless $app->get($key) eq $value;
        $app->set($key, '');
        equal('', $app->get($key));
    }
};

$CASES{reconnect} = sub {
    my $app = client();
    $app->set('rc:key', 'old');
    restart_server();
    until_true('a SET works again', sub { eval { $app->set('rc:key', 'new') } });
    equal('new', $app->get('rc:key'));
    $app->multi;
    $app->set('rc:tx', 1);
    equal(['OK'], [$app->exec]);
};

my @order = qw(connect pool pipeline transaction watch pubsub blocking-pop streams scripts scan
    binary reconnect);
my $failed = 0;
for my $name (defined $names ? split(/,/, $names) : @order) {
    local $SIG{ALRM} = sub { die "no end\n" };
    alarm 2 * TIMEOUT_S;
    if (eval { $CASES{$name}->(); 1 }) {
        print "$name: ok\n";
    } else {
        $failed = 1;
        my $why = substr $@, 0, 300;
        $why =~ s/\s+/ /g;
        print "$name: FAIL $why\n";
    }
    alarm 0;
}
exit $failed;
