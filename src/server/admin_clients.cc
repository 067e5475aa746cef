#include "nearkey/server/admin_page_functions.h"

#include "nearkey/loop/loop.h"
#include "nearkey/loop/peer.h"
#include "nearkey/loop/socket_name.h"
#include "nearkey/server/process_facts.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <unordered_map>

namespace nearkey {

namespace {

using Json = nlohmann::ordered_json;

// A client costs some ten system calls, of which three are for its process.
constexpr uint64_t kLimit = 100;
constexpr uint64_t kClientsMax = 200;
constexpr uint64_t kClientsLimit = 1000;

double seconds_between(uint64_t then_ms, uint64_t now_ms) {
    return now_ms > then_ms ? static_cast<double>(now_ms - then_ms) / 1000 : 0;
}

// Many clients are of one process, which is looked at once for an answer.
class Processes {
public:
    const ProcessFacts& find(pid_t pid) {
        const auto [found, is_new] = facts_.try_emplace(pid);
        if (is_new) found->second = process_facts(pid);
        return found->second;
    }

private:
    std::unordered_map<pid_t, ProcessFacts> facts_;
};

// Adds the peer: the process of a Unix socket as the kernel knows it, or an address.
void describe_peer(int fd, Processes& processes, Json& client) {
    const std::optional<Peer> peer = peer_of(fd);
    if (peer) {
        const ProcessFacts& process = processes.find(peer->pid);
        client["pid"] = peer->pid;
        client["uid"] = peer->user;
        client["gid"] = peer->group;
        client["command"] = process.command;
        client["executable"] = process.executable;
        client["cgroup"] = process.cgroup;
        client["unit"] = process.unit;
    } else {
        for (const char* const unknown : {"pid", "uid", "gid"})
            client[unknown] = nullptr;
        for (const char* const unknown : {"command", "executable", "cgroup", "unit"})
            client[unknown] = "";
    }
    client["address"] = peer_name(fd);
    client["listener"] = local_name(fd);
}

Json client_json(const ClientFacts& facts, Processes& processes, uint64_t now_ms) {
    Json client = {{"session", facts.session}};
    describe_peer(facts.fd, processes, client);
    client["name"] = facts.identity.name;
    client["library"] = facts.identity.library;
    client["library_version"] = facts.identity.library_version;
    client["database"] = facts.database;
    client["protocol"] = number_of(facts.protocol);
    client["route"] = facts.route;
    client["commands"] = facts.commands;
    client["shared_hits"] = facts.shared_hits;
    client["bytes_in"] = facts.bytes_in;
    client["bytes_out"] = facts.bytes_out;
    client["buffered_bytes"] = facts.buffered_bytes;
    client["in_flight"] = facts.in_flight;
    client["age_seconds"] = seconds_between(facts.connected_ms, now_ms);
    client["idle_seconds"] = seconds_between(facts.active_ms, now_ms);
    return client;
}

Json connection_json(const ConnectionFacts& facts, uint64_t now_ms, uint64_t boot_ms) {
    Json connection = {{"kind", facts.kind},
                       {"state", facts.state},
                       {"protocol", number_of(facts.protocol)},
                       {"database", facts.database},
                       {"address", facts.address},
                       {"server_id", facts.server_id},
                       {"ready_seconds", nullptr},
                       {"proven_seconds", nullptr},
                       {"tracked", facts.is_tracked},
                       {"sessions", facts.sessions},
                       {"in_flight", facts.in_flight},
                       {"tombstones", facts.tombstones},
                       {"waiting", facts.waiting},
                       {"bytes_sent", facts.bytes_sent},
                       {"bytes_received", facts.bytes_received}};
    if (facts.ready_ms != 0) {
        connection["ready_seconds"] = seconds_between(facts.ready_ms, now_ms);
    }
    if (facts.proven_ms != 0) {
        connection["proven_seconds"] = seconds_between(facts.proven_ms, boot_ms);
    }
    return connection;
}

}  // namespace

AdminAnswer clients_page(AdminSource& source, const AdminRequest& request) {
    uint64_t limit = kLimit;
    uint64_t after = 0;
    if (!request.read_number("limit", kClientsMax, limit) || limit == 0) {
        return admin_error(400, "limit is a number from 1 to 200");
    }
    if (!request.read_number("after", UINT64_MAX, after)) {
        return admin_error(400, "after is the number of a session");
    }
    // The peers are found by descriptors, which must stay open.
    const std::shared_ptr<void> still = source.hold_still();
    const ClientList list = source.clients(after, limit);
    Processes processes;
    Json clients = Json::array();
    for (const ClientFacts& facts : list.clients)
        clients.push_back(client_json(facts, processes, source.now_ms()));
    Json answer = {{"total", list.total}, {"next", nullptr}, {"clients", std::move(clients)}};
    if (list.next != 0) answer["next"] = list.next;
    return json_answer(200, answer);
}

AdminAnswer connections_page(AdminSource& source, const AdminRequest& request) {
    uint64_t limit = kLimit;
    if (!request.read_number("limit", kClientsLimit, limit) || limit == 0) {
        return admin_error(400, "limit is a number from 1 to 1000");
    }
    const ConnectionList list = source.connections(limit);
    Json connections = Json::array();
    for (const ConnectionFacts& facts : list.connections)
        connections.push_back(connection_json(facts, source.now_ms(), Loop::boot_ms()));
    return json_answer(200, {{"total", list.total}, {"connections", std::move(connections)}});
}

AdminAnswer nodes_page(AdminSource& source, const AdminRequest& request) {
    uint64_t limit = kLimit;
    if (!request.read_number("limit", kClientsLimit, limit) || limit == 0) {
        return admin_error(400, "limit is a number from 1 to 1000");
    }
    std::vector<NodeFacts> all = source.nodes();
    // Of very many those are shown that need somebody.
    std::stable_partition(all.begin(), all.end(),
                          [](const NodeFacts& node) { return !node.is_ready(); });
    Json nodes = Json::array();
    for (const NodeFacts& facts : all) {
        if (nodes.size() == limit) break;
        nodes.push_back({{"id", facts.id},
                         {"address", facts.address},
                         {"role", facts.is_replica ? "replica" : "primary"},
                         {"state", facts.state},
                         {"since_seconds", facts.since_seconds},
                         {"slots", facts.slots},
                         {"connections", facts.connections},
                         {"in_flight", facts.in_flight},
                         {"waiting", facts.waiting}});
        if (facts.lag_seconds) nodes.back()["lag_seconds"] = *facts.lag_seconds;
    }
    return json_answer(200, {{"total", all.size()}, {"nodes", std::move(nodes)}});
}

}  // namespace nearkey
