// One client's account with the near cache: its commands in flight that read or write keys, and the
// replies that it must not be shown yet. Owned by Desk. A command's entry is begun before it is
// sent and ended exactly once, with the reply or with a failure, whichever way the command went.
// Without a near cache only writes are entered, and these only where some listener reads from
// replicas: OwnWrites is told of their end.
//
// The one rule: a client that has seen something newer is not served anything older.
//   - A write's keys are dropped before it is sent, and blocked until its reply is there, so nobody
//     on this host reads the old value.
//   - A reply may overtake the invalidation of a change that it shows, if that comes over another
//     connection. Then an older reply of the same key may still be stored, or is just being read.
//     So the client sees the reply once a proof has come: every earlier change is known, and all
//     older replies are gone. Nobody else sees it sooner: it is stored at the same time.
//   - Older replies of the key are looked for when the reply comes, not when its read was sent: an
//     older read may have begun, and been stored, in between.
//   - A client that goes on by another way (docs/near_cache.md lists them all) is served nothing
//     there before a proof: change_way().
//
// A read that may be stored goes upstream behind a PTTL of its key. A change between the two, or
// after, is told of by Valkey, and the reply is not stored; so the deadline belongs to the reply.
#pragma once

#include "nearkey/base/ring.h"
#include "nearkey/coherence/client_state.h"
#include "nearkey/coherence/pending.h"
#include "nearkey/dispatch/plan.h"
#include "nearkey/upstream/cluster.h"
#include "nearkey/upstream/own_writes.h"

#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace nearkey {

// Shared by the ledgers of an event loop.
struct LedgerContext {
    // Of a node by its number; null: it is gone.
    NodeCoherence* coherence_of(uint16_t number) const {
        Node* const asked = cluster == nullptr ? &node : cluster->find(number);
        return asked == nullptr ? nullptr : &asked->coherence();
    }
    // True if the reply may be ahead of news of the change that it shows.
    bool may_overtake(uint16_t number, Protocol protocol) const;

    bool is_kept() const { return cache != nullptr || own_writes != nullptr; }

    Node& node;                            // in a cluster the seed
    Cluster* cluster = nullptr;            // null: the upstream is one server
    NearCache* cache = nullptr;            // null: there is none
    OwnWrites* own_writes = nullptr;       // null: no listener reads from replicas
    FillWaiterLoop* fill_loop = nullptr;   // null: the cache is this loop's alone
    uint64_t boot_ms = 0;                  // Loop::boot_ms() when the input being run had come
    std::vector<std::string_view> keys{};  // scratch: of the command being executed
    WriteScope scope = WriteScope::Keys;   // the write of those keys, or of more
    std::vector<size_t> missing{};         // scratch: which of a split read's keys are not stored
    std::string arguments{};               // scratch: the arguments of a query
    std::string pttl{};                    // scratch
};

// Events that a ledger tells its session, which must not run input in these calls.
class LedgerOwner {
public:
    // No more input is to be run until on_ledger_open().
    virtual void on_ledger_waits() = 0;
    virtual void on_ledger_open() = 0;
    // Replies that were held back may leave.
    virtual void on_replies_proven() = 0;
    virtual uint64_t now_ms() const = 0;
    // Very many keys are being written: the memory held has grown.
    virtual void on_ledger_grown() = 0;

protected:
    ~LedgerOwner() = default;
};

// The connection over which a command is sent.
struct SendWay {
    Node& node;
    Connection& connection;
    bool is_shared;  // with other clients; else it is this one's alone
};

class Ledger final : private FillWaiter, private ProofWaiter {
public:
    Ledger(LedgerContext& context, const ClientState& client, LedgerOwner& owner);

    bool is_off() const { return context_.cache == nullptr; }

    // --- reads that the near cache may answer
    // Whole: replies to this client may be stored. Any other value says why not.
    Caching caching() const;
    CacheQuery query(const CommandSpec& spec, const CommandView& command) const;
    // One key's part of a split read; it has no other arguments.
    CacheQuery query_part(const CommandSpec& spec, std::string_view key) const;
    // True if an earlier reply may show a newer state of the key than the one stored now.
    bool may_be_overtaken(std::string_view key) const;
    // Waits for another client's equal read. False: not now, or it has waited already.
    [[nodiscard]] bool await_fill(NearCache::Ticket fill);
    // The time that the command being executed has waited for another client's read.
    uint64_t awaited_ms() const { return has_awaited_ ? owner_.now_ms() - awaited_since_ms_ : 0; }
    // The next command has waited for nothing yet.
    void forget_awaited() { has_awaited_ = false; }

    // --- an entry: begun before the command is sent, ended in the order of tickets.
    void begin(const Plan& plan, const CommandView& command, uint32_t ticket, const SendWay& way) {
        if (context_.is_kept()) note(plan, command, ticket, way);
    }
    // A transaction that travels whole writes context.keys and scope.
    void begin_whole(uint32_t ticket, Node& node, bool reads);
    // An empty reply is one that may not be stored.
    void end(uint32_t ticket, std::string_view reply) {
        if (context_.is_kept() && !is_empty()) end_records(ticket, reply);
    }
    void fail(uint32_t ticket);
    // Replies over this connection are void; those that come again over another are not stored.
    void forget(Connection& connection);
    // Books a command that goes through a tunnel, whose replies are not read.
    void note_through(const Plan& plan, const CommandView& command);
    // The commands queued for EXEC are gone.
    void forget_queued();
    // The client has been shown, or will be, a reply that may be newer than those stored.
    void note_shown() { has_shown_ = true; }
    // The client goes on by another way. Replies owed, and the answer to the change itself, leave
    // at once; its next command runs after a proof.
    void change_way();
    // The same when it goes on in another database or protocol.
    void leave_database_or_protocol();
    // What the client is shown from here on is held back until every change from before now is
    // known.
    void await_proof();
    // The client is owed the reply to a write. REQUIRES: some listener reads from replicas.
    bool is_writing() const { return !writes_.empty(); }
    // Replies are held back until a proof.
    bool holds_replies() const { return proofs_awaited_ > 0 && !is_changing_way_; }
    // The client is gone.
    void close();

    // --- memory, in bytes
    // Bytes of replies and keys.
    size_t bytes() const { return late_bytes_ + queued_bytes_; }
    // Bytes of the records.
    size_t capacity() const {
        return fills_.capacity() + writes_.capacity() + unstored_reads_.capacity();
    }
    // Gives back much room that is not used; returns the bytes left.
    size_t record_bytes();
    bool is_empty() const { return fills_.empty() && writes_.empty() && unstored_reads_.empty(); }
    // Bytes kept for writes in flight beside their records.
    size_t write_bytes() const;
    void shrink();

private:
    // Gets the replies to the PTTLs that go before reads whose reply may be stored; a ticket is the
    // fill's number.
    class TtlReceiver final : public ReplyReceiver {
    public:
        explicit TtlReceiver(Ledger& ledger) : ledger_(ledger) {}
        void on_reply_bytes(uint32_t ticket, std::string_view bytes) override;
        void on_reply_end(uint32_t ticket) override;
        bool on_reply_void(uint32_t ticket) override;
        bool follows_redirects() const override { return false; }
        void on_request_failed(uint32_t ticket, std::string_view error) override;

    private:
        static constexpr size_t kReplyMax = 48;
        Ledger& ledger_;
        char reply_[kReplyMax];
        size_t size_ = 0;
    };

    // Reads
    void note(const Plan& plan, const CommandView& command, uint32_t ticket, const SendWay& way);
    void note_read(const Plan& plan, const CommandView& command, uint32_t ticket,
                   const SendWay& way);
    bool note_split(const CommandSpec& spec, const CommandView& command, uint32_t ticket,
                    const SendWay& way);
    bool begin_fill(const SendWay& way, const CacheQuery& query, PendingFill fill);
    void mark_unstored(uint32_t ticket, const SendWay& way);
    void end_records(uint32_t ticket, std::string_view reply);
    [[nodiscard]] bool end_fills(uint32_t ticket, std::string_view reply);
    void end_fill(const PendingFill& pending, std::string_view reply);
    void store(const PendingFill& pending, std::string_view reply, uint64_t deadline_ms);
    [[nodiscard]] bool end_unstored(uint32_t ticket, std::string_view reply);
    void on_fill_closed() override;
    // Writes
    void begin_writes(const Plan& plan, const CommandView& command, uint32_t ticket);
    void queue_writes();
    void write_keys(uint32_t ticket);
    [[nodiscard]] bool end_writes(uint32_t ticket);
    // Proofs
    void on_proven() override;

    LedgerContext& context_;
    const ClientState& client_;
    LedgerOwner& owner_;

    Ring<PendingFill> fills_;            // in flight, in order
    uint32_t first_fill_ = 0;            // the number of the first of them
    Ring<PendingWrite> writes_;          // in flight, in order
    uint32_t told_writes_ = 0;           // of them
    Ring<UnstoredRead> unstored_reads_;  // in flight, in order
    TtlReceiver ttl_receiver_;

    uint32_t proofs_awaited_ = 0;  // nothing leaves, and nothing is run, until then
    uint32_t proofs_had_ = 0;
    bool is_changing_way_ = false;      // the proof awaited holds back only what is run next
    bool has_shown_ = false;            // since the last change of way
    std::vector<LateFill> late_fills_;  // in the order of their proofs
    size_t late_bytes_ = 0;             // of their replies

    // Commands queued for EXEC.
    bool queued_reads_ = false;
    bool queued_watches_ = false;
    WriteScope queued_scope_ = WriteScope::Keys;
    std::vector<std::string> queued_keys_;  // keys that EXEC writes, unless it writes all
    size_t queued_bytes_ = 0;               // of those

    NearCache::Ticket awaited_fill_ = 0;  // another client's
    uint64_t awaited_since_ms_ = 0;
    bool has_awaited_ = false;  // one is enough for a command
};

inline Caching Ledger::caching() const {
    if (is_off()) return Caching::Off;
    if (context_.node.catalog().is_cluster() && context_.cluster == nullptr) {
        return Caching::Cluster;
    }
    if (client_.cache_use == CacheUse::Off) return Caching::OffForClient;
    if (context_.cache->has_monitors()) return Caching::Monitored;
    const bool is_known =
        !client_.is_database_unsure && client_.database <= std::numeric_limits<uint16_t>::max();
    return is_known ? Caching::Whole : Caching::Database;
}

}  // namespace nearkey
