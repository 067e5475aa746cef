#include "nearkey/upstream/slot_map.h"

#include "nearkey/resp/number.h"
#include "nearkey/resp/redirect.h"

#include <fmt/format.h>

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace nearkey {

namespace {
// Of a server, behind host, port and id: lists of names and values, a few of them.
constexpr int kDepthMax = 4;
// Valkey's own limit is about a thousand nodes.
constexpr size_t kServersMax = 4000;
constexpr int64_t kLengthMax = int64_t{1} << 32;
// Of the server's own words no more are shown to operators and clients.
constexpr size_t kRefusalWordsMax = 200;
}  // namespace

bool SlotMap::has_reachable_owner() const {
    return std::any_of(servers_.begin(), servers_.end(), [](const Server& server) {
        return server.slots > 0 && server.endpoint.port != 0;
    });
}

bool SlotMap::has_server_of(const SlotMap& other) const {
    std::unordered_set<std::string_view> known;
    for (const Server& server : other.servers_)
        known.insert(server.id);
    return std::any_of(servers_.begin(), servers_.end(),
                       [&known](const Server& server) { return known.contains(server.id); });
}

const SlotMap::Server& SlotMap::translate(size_t number, const AddressMap& addresses) {
    Server& server = servers_[number];
    server.endpoint = addresses.reachable(server.endpoint);
    return server;
}

SlotMapReader::SlotMapReader(std::string reply, std::string asked_host)
    : reply_(std::move(reply)), asked_host_(std::move(asked_host)), rest_(reply_) {
}

SlotMapReader::Step SlotMapReader::step(size_t ranges) {
    if (ranges_left_ < 0) {
        if (rest_.starts_with('-')) {
            return refuse(reply_.substr(1, std::min(reply_.find('\r') - 1, kRefusalWordsMax)));
        }
        if (!read_length("*", ranges_left_)) return refuse("it is no list of slots");
        if (ranges_left_ <= 0) return refuse("it knows of no server that owns a slot");
    }
    for (; ranges > 0 && ranges_left_ > 0; --ranges, --ranges_left_) {
        if (!read_range()) return refuse(refusal_.empty() ? "it is no list of slots" : refusal_);
    }
    if (ranges_left_ > 0) return Step::More;
    return rest_.empty() ? Step::Done : refuse("it has more than a list of slots");
}

SlotMapReader::Step SlotMapReader::refuse(std::string why) {
    refusal_ = std::move(why);
    return Step::Refused;
}

// First and last slot, their owner, its replicas.
bool SlotMapReader::read_range() {
    int64_t parts = 0;
    int64_t first = 0;
    int64_t last = 0;
    if (!read_length("*", parts) || parts < 3 || !read_integer(first) || !read_integer(last))
        return false;
    if (first < 0 || first > last || last >= kSlots) {
        refusal_ = fmt::format("it tells of slots {} to {}", first, last);
        return false;
    }
    size_t owner = 0;
    if (!read_server(owner, false, 0)) return false;
    for (int64_t part = 3; part < parts; ++part) {
        size_t replica = 0;
        if (!read_server(replica, true, owner)) return false;
    }
    for (auto slot = static_cast<uint16_t>(first); slot <= last; ++slot) {
        if (map_.owners_[slot] != SlotMap::kNobody) {
            refusal_ = fmt::format("it names two owners of slot {}", slot);
            return false;
        }
        map_.owners_[slot] = static_cast<uint16_t>(owner);
    }
    const auto slots = static_cast<size_t>(last - first + 1);
    map_.servers_[owner].slots += slots;
    map_.served_ += slots;
    return true;
}

bool SlotMapReader::read_server(size_t& number, bool is_replica, size_t primary) {
    int64_t parts = 0;
    std::string host;
    bool is_known = false;
    int64_t port = 0;
    if (!read_length("*", parts) || parts < 2 || !read_host(host, is_known) ||
        !read_integer(port) || port < 0 || port > UINT16_MAX)
        return false;
    std::string_view id;
    bool is_null = false;
    if (parts > 2 && (!read_text(id, is_null) || is_null)) return false;
    const std::string name = id.empty() ? fmt::format("{}:{}", host, port) : std::string(id);
    for (int64_t part = 3; part < parts; ++part) {
        if (is_known ? !skip(0) : !read_address_of_network(host, is_known)) return false;
    }
    // Nobody has told the server its own address yet.
    if (!is_known) host = asked_host_;
    number = number_of(name, {host, static_cast<uint16_t>(port)});
    if (map_.servers_.size() > kServersMax) {
        refusal_ = fmt::format("it names more than {} servers", kServersMax);
        return false;
    }
    SlotMap::Server& server = map_.servers_[number];
    server.is_replica = is_replica;
    server.primary = is_replica ? primary : number;
    return true;
}

// A host that is not told is the one that was asked; "?" says that it has no name.
bool SlotMapReader::read_host(std::string& host, bool& is_known) {
    std::string_view text;
    bool is_null = false;
    if (!read_text(text, is_null)) return false;
    if (text.size() > kHostMax) {
        refusal_ = fmt::format("it names a host of {} bytes", text.size());
        return false;
    }
    is_known = text != "?";
    host = is_null || text.empty() ? asked_host_ : std::string(text);
    return true;
}

// Names and values, an "ip" among them where that is not the host.
bool SlotMapReader::read_address_of_network(std::string& host, bool& is_known) {
    int64_t words = 0;
    if (!read_length("*%", words)) return false;
    std::string_view name;
    for (int64_t word = 0; word < words; ++word) {
        std::string_view text;
        bool is_null = false;
        if (!read_text(text, is_null)) return false;
        if (name == "ip" && !text.empty() && text.size() <= kHostMax) {
            host = text;
            is_known = true;
        }
        name = word % 2 == 0 ? text : std::string_view();
    }
    return true;
}

size_t SlotMapReader::number_of(const std::string& id, Endpoint endpoint) {
    const auto [found, is_new] = numbers_.try_emplace(id, map_.servers_.size());
    if (is_new) map_.servers_.push_back({.id = id, .endpoint = std::move(endpoint)});
    return found->second;
}

// --- RESP ---

bool SlotMapReader::read_line(char& type, std::string_view& line) {
    const size_t end = rest_.find("\r\n");
    if (end == std::string_view::npos || end == 0) return false;
    type = rest_[0];
    line = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 2);
    return true;
}

bool SlotMapReader::read_length(std::string_view types, int64_t& length) {
    char type = 0;
    std::string_view line;
    if (!read_line(type, line) || types.find(type) == std::string_view::npos) return false;
    const auto value = parse_integer(line);
    if (!value || *value < 0 || *value > kLengthMax) return false;
    length = type == '%' ? *value * 2 : *value;
    return true;
}

bool SlotMapReader::read_integer(int64_t& value) {
    char type = 0;
    std::string_view line;
    if (!read_line(type, line) || type != ':') return false;
    const auto number = parse_integer(line);
    value = number.value_or(0);
    return number.has_value();
}

bool SlotMapReader::read_text(std::string_view& text, bool& is_null) {
    char type = 0;
    std::string_view line;
    if (!read_line(type, line)) return false;
    is_null = type == '_' || (type == '$' && line == "-1");
    text = {};
    if (is_null) return true;
    if (type == '+') {
        text = line;
        return true;
    }
    const auto length = parse_integer(line);
    if (type != '$' || !length || *length < 0) return false;
    const auto size = static_cast<size_t>(*length);
    if (size + 2 > rest_.size() || rest_.substr(size, 2) != "\r\n") return false;
    text = rest_.substr(0, size);
    rest_.remove_prefix(size + 2);
    return true;
}

bool SlotMapReader::skip(int depth) {
    const bool is_aggregate = rest_.starts_with('*') || rest_.starts_with('%');
    std::string_view text;
    bool is_null = false;
    int64_t number = 0;
    if (rest_.starts_with(':')) return read_integer(number);
    if (!is_aggregate) return read_text(text, is_null);
    if (depth >= kDepthMax || !read_length("*%", number)) return false;
    for (int64_t i = 0; i < number; ++i)
        if (!skip(depth + 1)) return false;
    return true;
}

}  // namespace nearkey
