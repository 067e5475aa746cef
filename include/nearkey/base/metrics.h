// Every number that the daemon counts, one row each: name, type, help text.
// Owned by Daemon and handed to each part; each event loop writes its own. The sum of all
// (MetricsGroup) is shown: the admin server prints it from the same table, and docs/metrics.md is
// generated from it.
//
// X: a metric of its own. L: one of a family, told apart by a label whose values are these rows and
// no others; the rows of a family stand together, and the first has the help text. A label never
// shows what a client sent. A gauge goes up and down, a counter only up; GaugeMs is counted in
// milliseconds and shown in seconds. Gauges of several event loops are added up; of GaugeMs and
// GaugeMost the greatest is shown, of GaugeLeast the least.
#pragma once

#include "nearkey/base/command_counts.h"
#include "nearkey/base/count.h"
#include "nearkey/base/histogram.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

// clang-format off
#define NEARKEY_METRICS(X, L)                                                                      \
    X(ready, GaugeLeast, "1 when the last PING to Valkey was answered in time")                    \
    X(degraded, GaugeMost, "1 while some slots of a cluster are not served, or a node is away")    \
    X(clients, Gauge, "clients connected now")                                                     \
    X(clients_max, GaugeMost, "limits.clients_max")                                                \
    X(clients_accepted_total, Counter, "clients accepted")                                         \
    L(clients_refused_full_total, clients_refused_total, "reason=\"clients_max\"", Counter,        \
      "clients refused when they connected")                                                       \
    L(clients_refused_memory_total, clients_refused_total, "reason=\"memory_max\"", Counter, "")   \
    L(clients_refused_peer_total, clients_refused_total, "reason=\"user\"", Counter, "")           \
    L(clients_refused_down_total, clients_refused_total, "reason=\"when_down\"", Counter, "")      \
    L(clients_closed_output_total, clients_closed_total, "reason=\"output_max\"", Counter,         \
      "clients closed by nearkey")                                                                 \
    L(clients_closed_input_total, clients_closed_total, "reason=\"input_max\"", Counter, "")       \
    L(clients_closed_memory_total, clients_closed_total, "reason=\"memory_max\"", Counter, "")     \
    L(clients_closed_state_total, clients_closed_total,                                            \
      "reason=\"transaction_lost\"", Counter, "")                                                  \
    L(clients_closed_down_total, clients_closed_total, "reason=\"upstream_down\"", Counter, "")    \
    L(protocol_errors_total, clients_closed_total, "reason=\"malformed\"", Counter, "")            \
    L(security_closes_total, clients_closed_total, "reason=\"http\"", Counter, "")                 \
    L(clients_moved_blocked_total, clients_moved_total, "kind=\"blocked\"", Counter,               \
      "clients that a failover did not close: they went on at another primary")                    \
    L(clients_moved_subscriber_total, clients_moved_total, "kind=\"subscriber\"", Counter, "")     \
    L(clients_paused_in_flight_total, limits_reached_total,                                        \
      "limit=\"limits.in_flight_per_client_max\"", Counter,                                        \
      "times a limit made something wait or fail")                                                 \
    L(clients_paused_output_total, limits_reached_total,                                           \
      "limit=\"limits.output_per_client_high_water\"", Counter, "")                                \
    L(clients_paused_memory_total, limits_reached_total,                                           \
      "limit=\"limits.memory_max\"", Counter, "")                                                  \
    L(clients_yielded_total, limits_reached_total,                                                 \
      "limit=\"limits.commands_per_turn_max\"", Counter, "")                                       \
    L(upstream_dedicated_waits_total, limits_reached_total,                                        \
      "limit=\"upstream.dedicated_max\"", Counter, "")                                             \
    L(upstream_shared_refused_total, limits_reached_total,                                         \
      "limit=\"upstream.connections_max\"", Counter, "")                                           \
    L(queue_full_total, limits_reached_total,                                                      \
      "limit=\"upstream.queue_commands_max\"", Counter, "")                                        \
    L(cluster_scripts_bytes_max_total, limits_reached_total,                                       \
      "limit=\"cluster.scripts_bytes_max\"", Counter, "")                                          \
    L(cluster_nodes_max_total, limits_reached_total, "limit=\"cluster.nodes_max\"", Counter, "")   \
    L(near_cache_fills_full_total, limits_reached_total,                                           \
      "limit=\"near_cache.fills_max\"", Counter, "")                                               \
    X(accept_paused_total, Counter, "times accepting stopped for want of file descriptors")        \
    X(sockets_lost, Gauge, "listening sockets whose file is gone and not bound anew yet")          \
    X(sockets_rebound_total, Counter, "sockets bound anew: their file was removed or replaced")    \
    X(client_memory_bytes, Gauge, "memory of clients: buffers, names, what they have queued")      \
    X(client_spare_bytes, Gauge, "of these, room that is kept for the next commands")              \
    X(client_memory_held_bytes, Gauge, "all that clients make nearkey hold, up to the limit")      \
    X(client_memory_max_bytes, GaugeMost, "limits.memory_max")                                     \
    X(commands_refused_total, Counter, "commands refused by the rules of their listener")          \
    L(commands_forwarded_total, commands_total, "route=\"forwarded\"", Counter,                    \
      "commands received, by command and where the answer came from")                              \
    L(commands_answered_total, commands_total, "route=\"local\"", Counter, "")                     \
    X(transactions_whole_total, Counter, "transactions sent as one piece, without a lease")        \
    L(upstream_connections, upstream_connections, "state=\"ready\"", Gauge,                        \
      "connections to Valkey")                                                                     \
    L(upstream_connections_handshaking, upstream_connections, "state=\"handshaking\"", Gauge, "")  \
    L(upstream_connections_connecting, upstream_connections, "state=\"connecting\"", Gauge, "")    \
    L(upstream_connections_idle, upstream_connections, "state=\"idle\"", Gauge, "")                \
    L(upstream_connections_retired, upstream_connections, "state=\"retired\"", Gauge, "")          \
    X(upstream_dedicated_leased, Gauge, "dedicated connections leased to clients")                 \
    X(upstream_dedicated_idle, Gauge, "dedicated connections kept for the next lease")             \
    X(upstream_dedicated_max, Gauge, "upstream.dedicated_max")                                     \
    X(upstream_tunnels, Gauge, "dedicated connections that are tunnels until their client's end")  \
    X(upstream_dedicated_refused_total, Counter, "leases refused by upstream.dedicated_max")       \
    X(upstream_connects_total, Counter, "connections to Valkey that became ready")                 \
    X(upstream_dial_failures_total, Counter, "attempts to connect that failed")                    \
    L(upstream_lost_socket_total, upstream_reconnects_total, "reason=\"socket\"", Counter,         \
      "ready connections to Valkey that were lost")                                                \
    L(upstream_lost_mute_total, upstream_reconnects_total, "reason=\"no_answer\"", Counter, "")    \
    L(upstream_lost_auth_total, upstream_reconnects_total, "reason=\"auth\"", Counter, "")         \
    L(upstream_lost_malformed_total, upstream_reconnects_total,                                    \
      "reason=\"malformed\"", Counter, "")                                                         \
    L(upstream_lost_demoted_total, upstream_reconnects_total, "reason=\"demoted\"", Counter, "")   \
    L(failovers_sentinel_total, failovers_total, "cause=\"sentinel\"", Counter,                    \
      "failovers followed, by what told of them")                                                  \
    L(failovers_demoted_total, failovers_total, "cause=\"demoted\"", Counter, "")                  \
    X(sentinels_known, GaugeMost, "Sentinels that were given, or that these name")                 \
    X(sentinels_reachable, GaugeMost, "Sentinels that answer and name the primary")                \
    X(cluster_nodes, GaugeMost, "nodes of the cluster that own slots")                             \
    X(cluster_nodes_away, GaugeMost, "of these, do not serve now")                                 \
    X(cluster_slots_unserved, GaugeMost, "slots of the cluster that no node serves now")           \
    X(cluster_slots_moved_total, Counter, "slots that came to another owner")                      \
    X(cluster_maps_total, Counter, "times that the cluster said who owns which slot")              \
    X(cluster_maps_refused_total, Counter, "such answers that could not be used")                  \
    L(cluster_moved_total, cluster_redirects_total, "kind=\"moved\"", Counter,                     \
      "commands that a node of the cluster did not run, by its word")                              \
    L(cluster_asked_total, cluster_redirects_total, "kind=\"ask\"", Counter, "")                   \
    L(cluster_readonly_total, cluster_redirects_total, "kind=\"readonly\"", Counter, "")           \
    L(cluster_try_again_total, cluster_redirects_total, "kind=\"try_again\"", Counter, "")         \
    L(cluster_down_total, cluster_redirects_total, "kind=\"down\"", Counter, "")                   \
    X(cluster_delayed_total, Counter, "times that a command was tried again some time later")      \
    X(cluster_taken_along_total, Counter, "commands that waited for a node that their slot left")  \
    X(cluster_scripts_loaded_total, Counter,                                                       \
      "scripts that were loaded at a node that came later")                                        \
    X(cluster_scripts_bytes, Gauge, "scripts that are kept for such nodes")                        \
    X(cluster_gate_waits_total, Counter, "commands that waited for others, for their slot moved")  \
    X(cluster_subscriptions_moved_total, Counter,                                                  \
      "subscriptions made anew at another node, for their slot moved or their node went")          \
    X(cluster_commands_split_total, Counter, "commands that ran in parts, by slot or node")        \
    X(cluster_parts_total, Counter, "the parts of those commands")                                 \
    X(cluster_scan_retries_total, Counter, "pages of SCAN read anew, for their slots moved")       \
    X(cluster_replicas, GaugeMost, "replicas of the cluster that may be read from (read_from)")    \
    X(cluster_replicas_proven, GaugeMost, "of these, are within cluster.replica_lag_max_ms now")   \
    X(cluster_replica_reads_total, Counter, "reads sent to a replica")                             \
    L(cluster_reads_own_write_total, cluster_replica_reads_at_primary_total,                       \
      "reason=\"own_write\"", Counter, "reads sent to a primary in place of a replica")            \
    L(cluster_reads_unproven_total, cluster_replica_reads_at_primary_total,                        \
      "reason=\"unproven\"", Counter, "")                                                          \
    L(cluster_reads_away_total, cluster_replica_reads_at_primary_total,                            \
      "reason=\"away\"", Counter, "")                                                              \
    L(cluster_reads_refused_total, cluster_replica_reads_at_primary_total,                         \
      "reason=\"refused\"", Counter, "")                                                           \
    X(upstream_suspects_total, Counter, "times a server was silent for upstream.suspect_after_ms") \
    X(upstream_protocol_errors_total, Counter,                                                     \
      "connections closed for replies that are malformed, or that nobody asked for")               \
    X(upstream_challenges_total, Counter, "leases that were asked whether a reply is left over")   \
    L(tls_server_certificate_expires_seconds, tls_certificate_expires_seconds,                     \
      "certificate=\"server\"", GaugeMost,                                                         \
      "when a certificate ends, Unix time: Valkey's, our own; 0: there is none")                   \
    L(tls_client_certificate_expires_seconds, tls_certificate_expires_seconds,                     \
      "certificate=\"client\"", GaugeMost, "")                                                     \
    X(upstream_pushes_total, Counter, "push messages received outside of replies")                 \
    X(auth_failures_total, Counter, "times Valkey refused our own credentials")                    \
    X(password_command_runs_total, Counter, "runs of upstream.password_command")                   \
    X(password_command_failures_total, Counter, "runs of it that told no password")                \
    X(reauthentications_total, Counter, "times a live connection told Valkey another password")    \
    X(upstream_unsent_bytes, Gauge, "memory of commands that wait to be written to Valkey")        \
    X(upstream_retained_bytes, Gauge, "memory of requests that may be sent again, or will be")     \
    X(in_flight, Gauge, "requests sent to Valkey and not yet answered")                            \
    X(queued, Gauge, "requests waiting for a connection")                                          \
    L(upstream_down_total, requests_failed_total, "reason=\"down\"", Counter,                      \
      "requests failed: never sent (down), or outcome unknown")                                    \
    L(upstream_lost_total, requests_failed_total, "reason=\"lost\"", Counter, "")                  \
    L(upstream_timeout_total, requests_failed_total, "reason=\"timeout\"", Counter, "")            \
    X(reads_retried_total, Counter, "reads sent again: connection lost or held up")                \
    X(tombstones, Gauge, "replies that will be dropped when they come")                            \
    X(tombstone_closes_total, Counter, "connections closed by upstream.tombstone_timeout_ms")      \
    X(memory_short, Gauge, "1 near the end of the memory that nearkey may use")                    \
    X(memory_sheds_total, Counter, "times the near cache was emptied to save memory")              \
    X(memory_given_back_total, Counter, "times memory that a burst had left was given back")       \
    X(near_cache_suspended, Gauge, "1 while another nearkey has clients here, after an upgrade")   \
    X(upgrade_failures_total, Counter, "upgrades given up; the old nearkey went on")               \
    X(near_cache_tracking, GaugeLeast, "1 while Valkey tells of changes to stored replies")        \
    L(near_cache_lease_ms, near_cache_lease_seconds, "", GaugeMs,                                  \
      "age of the oldest proof that stored replies are true")                                      \
    X(near_cache_bytes, Gauge, "memory of the near cache")                                         \
    X(near_cache_max_bytes, Gauge, "near_cache.memory")                                            \
    X(near_cache_in_flight_bytes, Gauge, "memory of long keys of reads and writes in flight")      \
    X(near_cache_entries, Gauge, "replies in the near cache")                                      \
    X(near_cache_hits_total, Counter, "reads answered from the near cache")                        \
    X(near_cache_misses_total, Counter, "reads that the near cache could not answer")              \
    X(near_cache_joins_total, Counter, "reads that waited for another client's equal read")        \
    X(near_cache_proofs_total, Counter, "rounds of PINGs for replies that may be ahead of news")   \
    X(near_cache_slots_voided_total, Counter,                                                      \
      "slots of a cluster whose stored replies were dropped since they moved")                     \
    X(near_cache_proofs_late_total, Counter, "connections that such a round no longer waits for")  \
    X(near_cache_unproven_total, Counter, "stored, not served: near_cache.max_staleness_ms")       \
    X(near_cache_stored_total, Counter, "replies stored")                                          \
    L(near_cache_not_stored_total, near_cache_dropped_fills_total,                                 \
      "reason=\"size_or_ttl\"", Counter, "replies of reads that were not stored")                  \
    L(near_cache_fills_void_total, near_cache_dropped_fills_total,                                 \
      "reason=\"changed\"", Counter, "")                                                           \
    X(near_cache_evictions_total, Counter, "replies dropped by near_cache.memory")                 \
    L(near_cache_invalidations_push_total, near_cache_invalidations_total,                         \
      "reason=\"push\"", Counter, "keys invalidated")                                              \
    L(near_cache_invalidations_write_total, near_cache_invalidations_total,                        \
      "reason=\"local_write\"", Counter, "")                                                       \
    L(near_cache_clears_flush_total, near_cache_clears_total, "reason=\"flush\"", Counter,         \
      "times everything was invalidated")                                                          \
    L(near_cache_clears_barrier_total, near_cache_clears_total, "reason=\"barrier\"", Counter, "") \
    L(near_cache_clears_lost_total, near_cache_clears_total, "reason=\"link_lost\"", Counter, "")  \
    L(near_cache_clears_swapdb_total, near_cache_clears_total, "reason=\"swapdb\"", Counter, "")   \
    L(near_cache_clears_fields_total, near_cache_clears_total, "reason=\"fields\"", Counter, "")   \
    L(near_cache_clears_asked_total, near_cache_clears_total, "reason=\"asked\"", Counter, "")     \
    L(near_cache_clears_memory_total, near_cache_clears_total, "reason=\"memory\"", Counter, "")   \
    X(near_cache_families_off, Gauge, "key families not stored: invalidated more often than hit")  \
    X(near_cache_family_drops_total, Counter, "times a key family left the near cache")            \
    X(near_cache_stale, GaugeMost,                                                                 \
      "1 while stored replies are served because Valkey is away")                                  \
    X(near_cache_stale_hits_total, Counter,                                                        \
      "reads answered with replies that may be untrue by then")                                    \
    X(near_cache_touching, GaugeMost, "1 while Valkey, which evicts by use, is told of hits")      \
    X(near_cache_touched_total, Counter, "keys that Valkey was told were read here")               \
    X(near_cache_audits_total, Counter, "hits that were compared with Valkey's own reply")         \
    X(near_cache_audit_late_total, Counter, "of these, differed, and were dropped in time")        \
    X(near_cache_audit_violations_total, Counter, "of these, differed, and were served on")        \
    L(near_cache_audit_late_max_ms, near_cache_audit_late_max_seconds, "", GaugeMs,                \
      "longest from such a hit until it was seen dropped")                                         \
    X(shared_bytes, Gauge, "shared memory that readers may map: near_cache.shared_memory")         \
    X(shared_items, Gauge, "replies in it, void ones among them")                                  \
    X(shared_stored_total, Counter, "times a reply entered it")                                    \
    X(shared_evictions_total, Counter, "replies that left it for others")                          \
    X(shared_handed_out_total, Counter, "times NEARKEY SHM handed it out")                         \
    X(shared_hits_total, Counter, "hits in it that readers have told of (one in 1,024 tells)")     \
    X(slow_requests_total, Counter, "requests that took longer than slowlog.threshold_ms")         \
    X(heartbeats_total, Counter, "heartbeats answered with PONG")                                  \
    X(config_reload_success, Gauge, "1 when the last reading of the configuration was applied")    \
    X(config_reloads_total, Counter, "times that reading the configuration again was asked for")   \
    L(config_reload_success_ms, config_reload_success_timestamp_seconds, "", GaugeMs,              \
      "when it was applied last, Unix time")                                                       \
    X(managed_restarts_total, Counter, "restarts of the managed valkey-server")                    \
    X(log_repeats_total, Counter, "log lines that were only counted, and said as \"more\"")        \
    X(log_dropped_total, Counter, "log lines dropped because stderr could not take them")
// clang-format on

namespace nearkey {

enum class MetricType { Counter, Gauge, GaugeMs, GaugeMost, GaugeLeast };

struct Metrics {
#define NEARKEY_METRIC_FIELD(name, type, help) Count name;
#define NEARKEY_LABELLED_FIELD(name, family, label, type, help) Count name;
    NEARKEY_METRICS(NEARKEY_METRIC_FIELD, NEARKEY_LABELLED_FIELD)
#undef NEARKEY_METRIC_FIELD
#undef NEARKEY_LABELLED_FIELD
    Histograms histograms;
    CommandCounts commands;  // commands_forwarded_total and commands_answered_total are their sums
};

// The metrics of all event loops. All outlive it; any thread may ask.
class MetricsGroup {
public:
    void add(const Metrics& metrics) { members_.push_back(&metrics); }
    // The metrics of all loops together.
    Metrics total() const;
    uint64_t total(Count Metrics::*field) const;

private:
    std::vector<const Metrics*> members_;
};

struct MetricRow {
    std::string_view name;  // of the row, as NEARKEY STATS has it: "nearkey_protocol_errors_total"
    std::string_view family;  // as Prometheus has it: "nearkey_clients_closed_total"
    std::string_view label;   // `reason="malformed"`, or empty
    MetricType type;
    std::string_view help;  // empty: it stands in the family's first row
    Count Metrics::*field;
};

std::span<const MetricRow> metric_rows();
// The row is the sum of these fields, and shown by command. Null: it is a number of its own.
Count CommandCount::*field_by_command(const MetricRow& row);

struct CommandErrorsRow {
    std::string_view name = "nearkey_command_errors_total";
    std::string_view labels = "command, code";
    std::string_view help = "replies that were errors, by the error's first word";
};
// Each count that is not 0, and one of unknown commands, with its labels.
void for_each_command_error(const Metrics& metrics,
                            const std::function<void(const std::string&, uint64_t)>& visit);

enum class HistogramKind { Request, Upstream, Own, Queue, Turn };

struct HistogramRow {
    HistogramKind kind;
    std::string_view name;    // "nearkey_request_duration_seconds"
    std::string_view labels;  // their names: "family, outcome"
    std::string_view help;
};

std::span<const HistogramRow> histogram_rows();
// Each histogram of the row with its labels, as `family="string"`; those with labels only once
// they have counted something.
void for_each_histogram(const Metrics& metrics, const HistogramRow& row,
                        const std::function<void(std::string_view, const Histogram&)>& visit);

// Microseconds as seconds: 250000 is "0.25".
std::string seconds_text(uint64_t us);
// The number, in seconds where it is a duration: "17", "0.25".
std::string printed(const MetricRow& row, const Metrics& metrics);

// Everything as one flat list: each row by its name, the sum of each family of counters by the
// family's, of each kind of histogram the count and the sum of all, and of commands each series as
// Prometheus has it.
void for_each_stat(const Metrics& metrics,
                   const std::function<void(std::string_view, std::string_view)>& visit);

}  // namespace nearkey
