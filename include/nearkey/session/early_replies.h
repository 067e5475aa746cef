// Replies that are known before their turn, by ticket. Owned by ReplyQueue.
// Short ones share one buffer, since behind several connections most replies of a pipeline come
// early; one that comes in several pieces, with others between them, has a buffer of its own. Both
// are given back once nothing is kept.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nearkey {

// The known part of a reply before its turn.
struct EarlyReply {
    enum class What : uint8_t {
        Answer,  // all of it, as the client gets it
        Cut,     // the client's connection ends in its place
        Part,    // the bytes from upstream so far
        Whole,   // the same, and its end
    };
    What what;
    std::string_view bytes;
};

class EarlyReplies {
public:
    using What = EarlyReply::What;

    bool empty() const { return count_ == 0; }
    // Memory of what is kept; 0 once nothing is. The buffers are at most twice as large and 16 KiB.
    size_t bytes() const { return bytes_; }

    // Adds `bytes` to what is known of the reply. REQUIRES: 0 <= ticket - first; every ticket that
    // is kept is `first` or behind it.
    void add(uint32_t first, uint32_t ticket, What what, std::string_view bytes);
    // Its bytes are valid until the next add() or drop().
    std::optional<EarlyReply> find(uint32_t ticket) const;
    void drop(uint32_t ticket);

    // For tests: of the shared buffer, also what is nobody's any more.
    size_t shared_bytes() const { return shared_.size(); }

private:
    // Memory of an entry beside its bytes.
    static constexpr size_t kEntryBytes = 64;

    struct Entry {
        uint32_t ticket = 0;
        bool is_kept = false;
        What what = What::Part;
        size_t offset = 0;  // in shared_
        size_t size = 0;
        std::unique_ptr<std::string> own;  // null: the bytes are in shared_
    };

    Entry& place(uint32_t ticket) { return ring_[ticket & (ring_.size() - 1)]; }
    // Null: nothing of it is kept.
    const Entry* kept(uint32_t ticket) const;
    Entry* kept(uint32_t ticket) { return const_cast<Entry*>(std::as_const(*this).kept(ticket)); }
    std::string_view bytes_of(const Entry& entry) const;
    void make_room(size_t distance);
    void append(Entry& entry, std::string_view bytes);
    void compact();

    size_t count_ = 0;
    size_t bytes_ = 0;
    size_t dead_ = 0;          // bytes of shared_ that are nobody's
    std::vector<Entry> ring_;  // a ticket's entry: its low bits
    std::string shared_;
};

}  // namespace nearkey
