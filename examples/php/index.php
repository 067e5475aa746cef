<?php
// PHP through nearkey, with phpredis: sessions, and a cache.
$url = getenv('CACHE_URL') ?: 'unix:///run/nearkey/nearkey.sock';
ini_set('session.save_handler', 'redis');
ini_set('session.save_path', "$url?timeout=1&read_timeout=1");
ini_set('redis.session.locking_enabled', '1');
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;

$cache = new Redis();
$cache->connect(substr($url, strlen('unix://')), 0, 1.0, null, 0, 1.0);
$cache->setOption(Redis::OPT_SERIALIZER, Redis::SERIALIZER_JSON);
$report = $cache->get('report');
if ($report === false) {
    $report = ['made_for_visit' => $_SESSION['visits']];
    $cache->set('report', $report, ['ex' => 10]);
}
header('Content-Type: application/json');
echo json_encode(['visits' => $_SESSION['visits'], 'report' => $report]), "\n";
