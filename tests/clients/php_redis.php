<?php
// phpredis as applications use it, PHP's own sessions among it: php_redis.php PORT.
error_reporting(E_ALL);
ini_set('display_errors', 'stderr');
ob_start(); // a session must begin before any output
set_error_handler(function ($level, $text) { fwrite(STDERR, "$text\n"); exit(1); });
$port = (int)$argv[1];

function check($holds) {
    if ($holds) return;
    throw new Exception('wrong');
}

function done($what) {
    echo "ok $what\n";
}

echo 'version ', phpversion('redis'), ' with PHP ', PHP_VERSION, "\n";
$redis = new Redis();
$redis->connect('127.0.0.1', $port);
check($redis->select(5));

$page = str_repeat("\0\xff", 50000);
check($redis->set('page', $page, ['nx', 'ex' => 60]) && $redis->get('page') === $page && $redis->ttl('page') === 60);
check($redis->set('page', 'y', ['nx']) === false && $redis->setex('short', 1, 'x') && $redis->pexpire('short', 30));
usleep(50000);
check($redis->get('short') === false && $redis->exists('short') === 0);
$redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_PHP);
$redis->setOption(Redis::OPT_PREFIX, 'app:');
check($redis->set('user', ['name' => 'alice', 'tags' => [1, 2]]) && $redis->get('user')['tags'] === [1, 2]);
$redis->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_NONE);
$redis->setOption(Redis::OPT_PREFIX, '');
check($redis->exists('app:user') === 1);
done('cache, with serializer and prefix');

check([$redis->incr('n'), $redis->incrBy('n', 9), $redis->decr('n'), $redis->incrByFloat('n', 0.5)] === [1, 10, 9, 9.5]);
done('counters');

$pipe = $redis->multi(Redis::PIPELINE);
for ($i = 0; $i < 1000; $i++) $pipe->set("k$i", $i)->get("k$i");
$replies = $pipe->exec();
check(count($replies) === 2000 && $replies[1999] === '999' && $redis->mget(['k1', 'none']) === ['1', false]);
$seen = [];
$redis->setOption(Redis::OPT_SCAN, Redis::SCAN_RETRY);
for ($cursor = null; ($keys = $redis->scan($cursor, 'k99*', 100)) !== false;) array_push($seen, ...$keys);
check(count(array_unique($seen)) === 11);
done('pipeline and scan');

check($redis->multi()->set('t', 1)->incr('t')->exec() === [true, 2]);
$other = new Redis();
$other->connect('127.0.0.1', $port);
$other->select(5);
$redis->watch('t');
$other->set('t', 10);
check($redis->multi()->set('t', 3)->exec() === false && $redis->get('t') === '10');
done('transaction');

ini_set('session.save_handler', 'redis');
ini_set('session.save_path', "tcp://127.0.0.1:$port?database=5&prefix=session:");
ini_set('session.use_cookies', 0);
ini_set('session.cache_limiter', '');
ini_set('session.gc_maxlifetime', 100);
session_id('abcdef0123456789');
session_start();
$_SESSION['visits'] = 1;
session_write_close();
session_start();
$_SESSION['visits']++;
session_write_close();
$_SESSION = [];
session_start();
check($_SESSION['visits'] === 2 && $redis->ttl('session:abcdef0123456789') === 100);
session_destroy();
check($redis->exists('session:abcdef0123456789') === 0);
done('sessions');

check(is_array($redis->info()) && $redis->dbSize() > 1000 && $redis->rawCommand('DELIFEQ', 't', '10') === 1);
done('info, raw commands');
