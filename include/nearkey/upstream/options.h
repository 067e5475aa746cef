// Options of the connections to Valkey with their defaults: the table [upstream] of the
// configuration (src/daemon/config_table.cc says what each is and what is allowed).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace nearkey {

// A program that tells the password.
struct PasswordCommandOptions {
    std::vector<std::string> argv;  // empty: there is none
    uint64_t timeout_ms = 5000;
    uint64_t lifetime_ms = 0;  // of what it tells; 0: it does not end by itself
};

// Counts, milliseconds and bytes are all uint64_t, so that one kind of row describes them.
struct UpstreamOptions {
    std::string url = "managed:";  // Valid once loaded: parse_url() gives an UpstreamUrl.
    std::string cluster = "auto";  // auto or off.
    std::string username;
    std::string password_file;
    std::string password_credential;
    PasswordCommandOptions password_command;
    uint64_t connections = 1;
    uint64_t connections_max = 64;
    uint64_t dedicated_max = 1024;
    uint64_t dedicated_idle_max = 8;
    uint64_t connect_timeout_ms = 1000;
    uint64_t request_timeout_ms = 5000;
    uint64_t tombstone_timeout_ms = 10000;
    uint64_t queue_timeout_ms = 500;
    uint64_t queue_commands_max = 10000;
    uint64_t queue_bytes_max = uint64_t{16} << 20;
    uint64_t backoff_min_ms = 50;
    uint64_t backoff_max_ms = 1000;
    uint64_t heartbeat_interval_ms = 400;
    uint64_t tcp_user_timeout_ms = 1200;
    uint64_t unready_after_ms = 2000;
    uint64_t suspect_after_ms = 1000;
    uint64_t idle_timeout_ms = 60000;
    uint64_t drain_timeout_ms = 30000;
    std::string client_name = "nearkey";
    uint64_t retry_bytes_max = uint64_t{64} << 10;
    std::string tls_ca_file;
    std::string tls_cert_file;
    std::string tls_key_file;
    std::string tls_server_name;
};

// Of a Valkey Cluster: the table [cluster].
struct ClusterOptions {
    uint64_t refresh_interval_ms = 10'000;
    uint64_t redirects_max = 5;
    uint64_t nodes_max = 1000;
    std::vector<std::string> addresses;  // See upstream/address_map.h.
    bool split_mset = true;
    uint64_t scripts_bytes_max = uint64_t{1} << 20;
    uint64_t replica_lag_max_ms = 1000;  // Of replicas that are read from.
};

// The user for the Sentinels; the user for Valkey is another one.
struct SentinelOptions {
    std::string username;
    std::string password_file;
};

}  // namespace nearkey
