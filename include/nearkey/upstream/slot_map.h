// Who owns which slot of a Valkey Cluster: a value, as one server has told it (CLUSTER SLOTS; the
// other commands that tell it cost more, or end the server that is asked).
#pragma once

#include "nearkey/resp/slot.h"
#include "nearkey/upstream/address_map.h"
#include "nearkey/upstream/url.h"

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace nearkey {

class SlotMap {
public:
    struct Server {
        std::string id;     // 40 hexadecimal digits; the name that never changes
        Endpoint endpoint;  // port 0: the server has not said where it is
        bool is_replica = false;
        size_t primary = 0;  // its number among servers(), or its primary's
        size_t slots = 0;    // how many it owns
    };

    SlotMap() { owners_.fill(kNobody); }
    const std::vector<Server>& servers() const { return servers_; }
    // Null: nobody serves it.
    const Server* owner_of(uint16_t slot) const {
        return owners_[slot] == kNobody ? nullptr : &servers_[owners_[slot]];
    }
    // Some of the owners can be dialled.
    bool has_reachable_owner() const;
    // Some server is in both, by its id.
    bool has_server_of(const SlotMap& other) const;
    // The server of this number is where `addresses` says.
    const Server& translate(size_t number, const AddressMap& addresses);
    // Its number among servers(). REQUIRES: it is one of them.
    size_t number_of(const Server& server) const {
        return static_cast<size_t>(&server - servers_.data());
    }
    // How many slots have an owner.
    size_t served() const { return served_; }

private:
    friend class SlotMapReader;
    static constexpr uint16_t kNobody = UINT16_MAX;

    std::vector<Server> servers_;
    std::array<uint16_t, kSlots> owners_;
    size_t served_ = 0;
};

inline constexpr size_t kClusterSlotsMax = size_t{16} << 20;  // bytes of the reply
inline constexpr std::string_view kClusterSlots = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";

// Reads the reply to CLUSTER SLOTS, in pieces: where slots are scattered over a thousand servers it
// has 1.6 MB.
class SlotMapReader {
public:
    enum class Step : uint8_t { More, Done, Refused };

    // `asked_host` is where the reply comes from, which is the host of servers that tell none.
    SlotMapReader(std::string reply, std::string asked_host);
    // Reads up to so many ranges of slots.
    Step step(size_t ranges);
    // REQUIRES: Done.
    SlotMap take() { return std::move(map_); }
    // The reason why the reply can't be used. REQUIRES: Refused.
    const std::string& refusal() const { return refusal_; }

private:
    Step refuse(std::string why);
    bool read_range();
    bool read_server(size_t& number, bool is_replica, size_t primary);
    bool read_host(std::string& host, bool& is_known);
    bool read_address_of_network(std::string& host, bool& is_known);
    size_t number_of(const std::string& id, Endpoint endpoint);
    // RESP; false: it is not what is looked for.
    bool read_length(std::string_view types, int64_t& length);
    bool read_integer(int64_t& value);
    bool read_text(std::string_view& text, bool& is_null);
    bool read_line(char& type, std::string_view& line);
    bool skip(int depth);

    const std::string reply_;
    const std::string asked_host_;
    std::string_view rest_;
    int64_t ranges_left_ = -1;  // -1: not begun
    std::unordered_map<std::string, size_t> numbers_;
    std::string refusal_;
    SlotMap map_;
};

}  // namespace nearkey
