// A client of one nearkey: sends what its seed says, and has every answer judged.
// Owned by the world. Its stream takes what the session writes; what it sends next it decides
// later (client_plan.cc).
#pragma once

#include "../unit/cache/segment_rig.h"
#include "kinds.h"
#include "model_valkey.h"
#include "nearkey/session/session.h"

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace nearkey::simulation {

class Judge {
public:
    // `told`: the steps of what it is about.
    virtual void on_violation(const std::string& what, const std::string& told) = 0;
    virtual void on_answer(const std::string& line) = 0;
    virtual uint64_t next_session() = 0;

protected:
    ~Judge() = default;
};

// What is known of a cluster, and what one nearkey knows of it.
class ClusterOracle {
public:
    virtual void note_expiry(const KeyName& key) = 0;
    // The first reign of which a read of the key that begins now may show it.
    virtual Reign& oldest_shown(const KeyName& key) = 0;
    // Whether the slot came back to a node since then.
    virtual bool has_returned(uint16_t slot, uint64_t since_us) const = 0;
    // Whether its keys, which move one by one, were at two nodes since then.
    virtual bool has_moved(uint16_t slot, uint64_t since_us) const = 0;
    // Each event loop of a nearkey learns of another owner by itself.
    virtual bool has_one_loop() const = 0;

protected:
    ~ClusterOracle() = default;
};

// Which server a nearkey's answers come from.
struct Upstream {
    ModelValkey* valkey;
    Reign* reign;        // since it turned to that one
    uint64_t turns = 0;  // from one to another that has nothing to do with it
    // Whether nothing has come for so long that nothing is to be believed before the oracle has
    // spoken.
    std::function<bool()> is_silent{};
    ClusterOracle* cluster = nullptr;  // null: it is one server
};

// The first ones are strings and, the odd ones, hashes; the last ones of these are changed only
// directly, and each is read by clients of one protocol and database: of what one connection was
// not told, none was. Then come lists.
constexpr uint64_t kNames = 12;
constexpr uint64_t kNamesWritten = 8;
constexpr uint64_t kLists = 2;
constexpr int kNobody = 99;  // the channel of who writes past every nearkey
// With one of so many hash tags; 0: none.
std::string name_of_key(uint64_t number, uint64_t tags);
std::string next_value(Random& random, const std::string& key);

struct ClientPlan {
    int channel;
    const Upstream& upstream;
    const Kinds& kinds;
    int protocol;
    int database;
    uint64_t pause_max_us;
    uint64_t bound_us;  // how old what it is shown may be
    uint64_t writes_one_in;
    uint64_t ways_one_in;  // changes of how its commands travel
    uint64_t owed_max;     // it sends no more while it is owed so many
    bool likes_mget;       // instead of GET
    uint64_t hot_names;    // so many keys take half of all commands
    uint64_t swaps_one_in;
    uint64_t expiring_one_in;   // of writes: those of keys that expire
    bool is_quiet;              // it only reads, the same few keys in the same way
    uint64_t tags;              // of keys: KeyNames
    uint64_t odd_reads_one_in;  // of a quiet one: in another way
    const SegmentRig* segment;  // null: there is no shared memory
};

class SimulatedClient {
public:
    SimulatedClient(EventQueue& events, Random& random, Judge& judge, const ClientPlan& plan);
    ~SimulatedClient();

    void start(SessionContext& context);
    bool is_of(const Session& session) const { return session_.get() == &session; }
    int channel() const { return plan_.channel; }
    int database() const { return database_; }
    // What it waits for longest, in words. Empty: nothing.
    std::string awaited() const;
    void on_ended();
    // What its session has on a connection of its own stays with the former server.
    void on_turned();
    void abort();
    // It reads the key so much later: as it mostly does, or in one of the ways in which it may see
    // what is newer than what is stored.
    void look_again(const KeyName& key, uint64_t delay_us);
    void peek(const KeyName& key, uint64_t delay_us);
    // When this turn is over it reads a key in shared memory, as its library does: while nothing is
    // owed to it, and never again once it has changed its way. Within a turn nearkey may know what
    // nobody was shown.
    void read_segment(const std::string& name);
    std::string name_of(uint64_t number) const { return name_of_key(number, plan_.tags); }

    uint64_t operations = 0;
    uint64_t segment_hits = 0;

private:
    class Stream;
    struct Shown;
    struct SegmentHook final : Deferred {
        SegmentHook(Loop& loop, SimulatedClient& owner)
            : Deferred(loop, Phase::Reap), client(owner) {}
        void before_sleep() override {
            for (const std::string& name : std::exchange(names, {}))
                client.read_segment_now(name);
        }
        SimulatedClient& client;
        std::vector<std::string> names{};
    };
    struct Ask {
        KeyName key;
        std::vector<History::Floor> floors{};  // of the reigns from `reign` on, as of then
        Reign* reign = nullptr;
    };
    // A command, what its reply shows, and what was executed if it is no error.
    struct Asked {
        Words words;
        std::vector<Ask> asks;
        std::vector<std::string> writes;
    };
    struct Owed {
        Asked asked;
        uint64_t start_us;
        uint64_t flight_us;  // since when it has been owed something all the time
        uint64_t turns;      // of the upstream
        Reign* reign;        // the same
        bool is_doubted;     // Upstream::is_silent()
        int database;
        bool is_judged;
        bool is_queued;             // unless MULTI was refused
        bool is_through;            // over a tunnel
        std::vector<Asked> queued;  // what an EXEC executes
    };

    // What is sent (client_plan.cc)
    void act();
    void send_batch();
    // False: what follows must wait for its reply.
    bool plan_operation(std::string& bytes);
    void plan_read(std::string& bytes);
    void plan_write(std::string& bytes);
    void plan_whole(std::string& bytes);
    bool plan_way(std::string& bytes);
    bool is_away() const { return database_ != plan_.database || protocol_ != plan_.protocol; }
    void plan_reset(std::string& bytes);
    void begin_steps(std::string& bytes);
    void plan_step(std::string& bytes);
    void plan_exec(std::string& bytes);
    Asked random_read();
    Asked random_read_of(uint64_t number);
    Asked plain_read_of(uint64_t number);
    Asked asked_for_two(const std::string& name);
    bool is_in(const KeyName& key) const;
    void peek_now(uint64_t number);
    void peek_by_steps(uint64_t number);
    void look_again_after(const Asked& asked);
    void look_into_segment_after(const Asked& asked);
    void read_segment_now(const std::string& name);
    Asked random_read_of_all();
    uint64_t random_written();
    Words random_list();
    Words random_write();
    Words plain_write(uint64_t number);
    Asked asked(const Words& words, const std::vector<std::string>& names) const;
    Asked written(const Words& words) const;
    void ask(Asked& asked) const;
    Owed& add(std::string& bytes, Asked asked);
    Owed& add_plain(std::string& bytes, Words words);
    void open();
    void deliver();
    void take(std::string_view bytes);
    void judge_reply(std::string_view reply);
    void judge(const Owed& owed, const Asked& asked, const Value& value);
    void judge_ask(const Owed& owed, const Asked& asked, size_t which, const Value& value);
    History::Verdict judge_shown(const Owed& owed, const Ask& ask, const Shown& shown);
    bool is_over(const Reign& reign, const Owed& owed) const;
    History::Verdict judge_in_cluster(const Owed& owed, const Ask& ask, const Shown& shown);
    void acknowledge(const Owed& owed, const Asked& asked);
    void judge_order(const Owed& owed, const Asked& asked, const ModelValkey::Executed* executed);
    void note_expiry(const Reign& reign, const KeyName& key) const;

    EventQueue& events_;
    Random& random_;
    Judge& judge_;
    const ClientPlan plan_;
    SessionContext* context_ = nullptr;
    std::unique_ptr<SegmentHook> segment_hook_;  // null until start()
    const ClientTerms terms_;
    std::unique_ptr<Session> session_;
    uint64_t number_ = 0;  // of the session, in the whole world
    bool is_closing_ = false;
    bool has_ended_ = false;
    bool is_ready_ = false;    // in its database
    bool must_close_ = false;  // nobody knows in which it is, or where
    bool is_paused_ = false;
    bool has_changed_way_ = false;
    std::string unread_;  // by the session
    std::string reply_;
    ReplyScanner scanner_;
    std::deque<Owed> owed_;
    // As of what was sent.
    int protocol_ = 2;
    int database_ = 0;
    bool in_multi_ = false;
    bool is_through_ = false;
    std::vector<Asked> queued_;
    uint64_t writes_of_steps_ = 3;  // one in so many
    // What it has been answered of writes whose words nothing else has, and of reads.
    struct Last {
        std::map<std::string, uint64_t> of_key;  // Executed::number
        uint64_t of_all = 0;
    };
    std::map<uint16_t, Last> last_of_slot_;
    std::set<std::string> shown_values_;
};

}  // namespace nearkey::simulation
