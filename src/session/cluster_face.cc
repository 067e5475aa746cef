#include "nearkey/session/cluster_face.h"

#include "nearkey/resp/number.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/slot.h"

#include <fmt/format.h>

#include <cstdint>

namespace nearkey {

namespace {
constexpr std::string_view kCluster = "cluster|";
constexpr int kBusOffset = 10'000;  // as Valkey's own default

// The listener's name of 40 hexadecimal digits: the same after each start.
std::string id_of(const Endpoint& node) {
    uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
    const auto add = [&hash](std::string_view text) {
        for (const char byte : text)
            hash = (hash ^ static_cast<uint8_t>(byte)) * 0x100000001b3;
    };
    add(to_text(node));
    const uint64_t first = hash;
    add("nearkey");
    const uint64_t second = hash;
    add("face");
    return fmt::format("{:016x}{:016x}{:08x}", first, second, hash >> 32);
}

void append_verbatim(std::string& out, std::string_view text, Protocol protocol) {
    if (protocol == Protocol::Resp2) {
        append_bulk(out, text);
    } else {
        out += fmt::format("={}\r\ntxt:{}\r\n", text.size() + 4, text);
    }
}

// First and last slot, the owner: host, port, id, and nothing more to say of the address.
std::string slots(const Endpoint& node, Protocol protocol) {
    std::string out;
    append_array_header(out, 1);
    append_array_header(out, 3);
    append_integer(out, 0);
    append_integer(out, kSlots - 1);
    append_array_header(out, 4);
    append_bulk(out, node.host);
    append_integer(out, node.port);
    append_bulk(out, id_of(node));
    append_map_header(out, 0, protocol);
    return out;
}

std::string shards(const Endpoint& node, Protocol protocol) {
    std::string out;
    append_array_header(out, 1);
    append_map_header(out, 2, protocol);
    append_bulk(out, "slots");
    append_array_header(out, 2);
    append_integer(out, 0);
    append_integer(out, kSlots - 1);
    append_bulk(out, "nodes");
    append_array_header(out, 1);
    append_map_header(out, 7, protocol);
    const auto text = [&out](std::string_view name, std::string_view value) {
        append_bulk(out, name);
        append_bulk(out, value);
    };
    const auto number = [&out](std::string_view name, int64_t value) {
        append_bulk(out, name);
        append_integer(out, value);
    };
    text("id", id_of(node));
    number("port", node.port);
    text("ip", node.host);
    text("endpoint", node.host);
    text("role", "master");
    number("replication-offset", 0);
    text("health", "online");
    return out;
}

// IPv6 addresses stand without brackets there.
std::string nodes(const Endpoint& node) {
    const int bus = node.port + kBusOffset;
    return fmt::format("{} {}:{}@{} myself,master - 0 0 1 connected 0-{}\n", id_of(node), node.host,
                       node.port, bus > UINT16_MAX ? 0 : bus, kSlots - 1);
}

std::string info() {
    return fmt::format(
        "cluster_state:ok\r\ncluster_slots_assigned:{0}\r\ncluster_slots_ok:{0}\r\n"
        "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\ncluster_known_nodes:1\r\n"
        "cluster_size:1\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n"
        "cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\n"
        "total_cluster_links_buffer_limit_exceeded:0\r\n",
        kSlots);
}
}  // namespace

bool is_about_face(const Call& call) {
    if (!call.is_sound()) return false;
    const std::string_view name = call.spec()->name;
    return name.starts_with(kCluster) || name == "readonly" || name == "readwrite" ||
           name == "asking";
}

Placement place_in_face(const Call& call) {
    using Where = Placement::Where;
    const std::string_view name = call.spec()->name;
    if (name == "cluster|help") return {Where::Anywhere};
    if (name != "cluster|countkeysinslot" && name != "cluster|getkeysinslot") {
        return {Where::Nowhere};
    }
    const auto slot = parse_integer(call.command[2]);
    const bool is_slot = slot && *slot >= 0 && *slot < kSlots;
    return is_slot ? Placement{Where::Slot, static_cast<uint16_t>(*slot)}
                   : Placement{Where::Anywhere};
}

bool is_answered_by_face(const Call& call) {
    return !call.plan.is_refused() && is_about_face(call) &&
           place_in_face(call).where == Placement::Where::Nowhere;
}

std::string answer_of_face(const Call& call, const Endpoint& node, Protocol protocol) {
    std::string_view name = call.spec()->name;
    if (!name.starts_with(kCluster)) return "+OK\r\n";
    name.remove_prefix(kCluster.size());
    std::string out;
    if (name == "slots") return slots(node, protocol);
    if (name == "shards") return shards(node, protocol);
    if (name == "nodes") {
        append_verbatim(out, nodes(node), protocol);
    } else if (name == "info") {
        append_verbatim(out, info(), protocol);
    } else if (name == "myid" || name == "myshardid") {
        append_bulk(out, id_of(node));
    } else if (name == "keyslot") {
        append_integer(out, slot_of(call.command[2]));
    } else if (name == "links") {
        append_array_header(out, 0);
    } else if (name == "replicas" || name == "slaves" || name == "count-failure-reports") {
        const std::string_view asked = call.command[2];
        if (asked != id_of(node)) {
            append_error(out,
                         fmt::format("ERR Unknown node {}", asked.substr(0, asked.find('\0'))));
        } else if (name == "count-failure-reports") {
            append_integer(out, 0);
        } else {
            append_array_header(out, 0);
        }
    } else {
        append_error(out, fmt::format("ERR CLUSTER {} is about the servers behind nearkey, which "
                                      "shows itself as one node; ask one of them",
                                      name));
    }
    return out;
}

}  // namespace nearkey
