// Every number that the daemon counts, one row each: name, type, help text.
// Owned by Daemon and handed to each part; the event loop is the only writer.
// A gauge goes up and down, a counter only up. The admin server prints them from the same table.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

// clang-format off
#define NEARKEY_METRICS(X)                                                                         \
    X(ready, Gauge, "1 when the last PING to Valkey was answered in time")                         \
    X(clients, Gauge, "clients connected now")                                                     \
    X(clients_accepted_total, Counter, "clients accepted")                                         \
    X(clients_refused_total, Counter, "clients refused by limits.clients_max or memory_max")       \
    X(clients_paused_in_flight_total, Counter, "pauses by limits.in_flight_per_client_max")        \
    X(clients_paused_output_total, Counter, "pauses by limits.output_per_client_high_water")       \
    X(clients_paused_memory_total, Counter, "pauses by limits.memory_max")                         \
    X(clients_yielded_total, Counter, "turns ended by limits.commands_per_turn_max")               \
    X(clients_closed_output_total, Counter, "clients closed by limits.output_per_client_max")      \
    X(clients_closed_input_total, Counter, "clients closed by limits.input_per_client_max")        \
    X(clients_closed_memory_total, Counter, "clients closed because memory_max stayed exceeded")   \
    X(accept_paused_total, Counter, "times accepting stopped for want of file descriptors")        \
    X(client_memory_bytes, Gauge, "memory in client buffers")                                      \
    X(commands_total, Counter, "commands received")                                                \
    X(commands_forwarded_total, Counter, "commands sent to Valkey")                                \
    X(commands_answered_total, Counter, "commands answered by nearkey itself")                     \
    X(transactions_whole_total, Counter, "transactions sent as one piece, without a lease")        \
    X(clients_closed_state_total, Counter, "clients closed: their transaction was lost")           \
    X(protocol_errors_total, Counter, "clients closed for malformed input")                        \
    X(security_closes_total, Counter, "clients closed for speaking HTTP (POST, Host:)")            \
    X(upstream_connections, Gauge, "connections to Valkey that are ready")                         \
    X(upstream_dedicated_leased, Gauge, "dedicated connections leased to clients")                 \
    X(upstream_tunnels, Gauge, "dedicated connections that are tunnels until their client's end")  \
    X(upstream_dedicated_waits_total, Counter, "leases that waited for upstream.dedicated_max")    \
    X(upstream_dedicated_refused_total, Counter, "leases refused by upstream.dedicated_max")       \
    X(upstream_shared_refused_total, Counter, "databases refused by upstream.connections_max")     \
    X(upstream_connects_total, Counter, "connections to Valkey that became ready")                 \
    X(upstream_dial_failures_total, Counter, "attempts to connect that failed")                    \
    X(upstream_reconnects_total, Counter, "ready connections to Valkey that were lost")            \
    X(upstream_protocol_errors_total, Counter, "connections closed for malformed replies")         \
    X(upstream_pushes_total, Counter, "push messages received outside of replies")                 \
    X(auth_failures_total, Counter, "times Valkey refused our own credentials")                    \
    X(upstream_unsent_bytes, Gauge, "bytes of commands that wait to be written to Valkey")         \
    X(in_flight, Gauge, "requests sent to Valkey and not yet answered")                            \
    X(queued, Gauge, "requests waiting for a connection")                                          \
    X(queue_full_total, Counter, "requests failed by upstream.queue_commands_max or _bytes_max")   \
    X(upstream_down_total, Counter, "requests failed with UPSTREAMDOWN (never sent)")              \
    X(upstream_lost_total, Counter, "requests failed with UPSTREAMLOST (outcome unknown)")         \
    X(upstream_timeout_total, Counter, "requests failed with UPSTREAMTIMEOUT (outcome unknown)")   \
    X(reads_retried_total, Counter, "reads sent again after their connection was lost")            \
    X(tombstones, Gauge, "replies that will be dropped when they come")                            \
    X(tombstone_closes_total, Counter, "connections closed by upstream.tombstone_timeout_ms")      \
    X(near_cache_tracking, Gauge, "1 when Valkey tells of changes to what is stored")              \
    X(near_cache_bytes, Gauge, "memory of the near cache")                                         \
    X(near_cache_entries, Gauge, "replies in the near cache")                                      \
    X(near_cache_hits_total, Counter, "reads answered from the near cache")                        \
    X(near_cache_misses_total, Counter, "reads that the near cache could not answer")              \
    X(near_cache_joins_total, Counter, "reads that waited for another client's equal read")        \
    X(near_cache_proofs_total, Counter, "rounds of PINGs for replies that may be ahead of news")   \
    X(near_cache_unproven_total, Counter, "stored, not served: near_cache.max_staleness_ms")       \
    X(near_cache_stored_total, Counter, "replies stored")                                          \
    X(near_cache_not_stored_total, Counter, "replies larger than near_cache.value_max, or dying")  \
    X(near_cache_fills_void_total, Counter, "replies not stored: their key changed meanwhile")     \
    X(near_cache_fills_full_total, Counter, "reads not stored by the limit of reads in flight")    \
    X(near_cache_evictions_total, Counter, "replies dropped by near_cache.memory")                 \
    X(near_cache_invalidations_total, Counter, "keys invalidated, by Valkey or by writes here")    \
    X(near_cache_clears_total, Counter, "times everything was invalidated")                        \
    X(near_cache_families_off, Gauge, "key families not stored: invalidated more often than hit")  \
    X(near_cache_families_off_total, Counter, "times a key family left the near cache")            \
    X(near_cache_stale, Gauge, "1 while near_cache.stale_if_unavailable_ms is made use of")        \
    X(near_cache_stale_hits_total, Counter, "reads answered with what may be untrue by then")      \
    X(near_cache_touching, Gauge, "1 while Valkey, which evicts by use, is told of hits")          \
    X(near_cache_touched_total, Counter, "keys that Valkey was told were read here")               \
    X(near_cache_audits_total, Counter, "hits that were compared with Valkey's own reply")         \
    X(near_cache_audit_late_total, Counter, "of these, differed, and were dropped in time")        \
    X(near_cache_audit_violations_total, Counter, "of these, differed, and were served on")        \
    X(near_cache_audit_late_ms_max, Gauge, "longest from such a hit until it was seen dropped")    \
    X(slow_requests_total, Counter, "requests that took longer than slowlog.threshold_ms")         \
    X(heartbeats_total, Counter, "heartbeats answered with PONG")                                  \
    X(managed_restarts_total, Counter, "restarts of the managed valkey-server")                    \
    X(log_repeats_total, Counter, "log lines that were only counted, and said as \"more\"")        \
    X(log_dropped_total, Counter, "log lines dropped because stderr could not take them")
// clang-format on

namespace nearkey {

enum class MetricType { Counter, Gauge };

struct Metrics {
#define NEARKEY_METRIC_FIELD(name, type, help) uint64_t name = 0;
    NEARKEY_METRICS(NEARKEY_METRIC_FIELD)
#undef NEARKEY_METRIC_FIELD
};

struct MetricRow {
    std::string_view name;  // "nearkey_clients"
    MetricType type;
    std::string_view help;
    uint64_t Metrics::*field;
};

std::span<const MetricRow> metric_rows();

}  // namespace nearkey
