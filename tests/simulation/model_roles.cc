// A pair of model servers: replication, promotion, and what a replica refuses.
//
// A change is on its way for as long as the stream says, in order, and is lost with the stream when
// the replica is promoted. Who follows another one anew gets all that it has (full) or, if it has
// all that there was at the promotion, what came since (partial), as in replication.c.
#include "model_valkey.h"
#include "model_words.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <array>
#include <utility>

namespace nearkey::simulation {

namespace {
constexpr const char* kReadonly = "READONLY You can't write against a read only replica.";

template <size_t Count>
bool contains(const std::array<std::string_view, Count>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

// As their flags say; a script's does not.
bool is_write(const std::string& name) {
    static constexpr std::array<std::string_view, 10> kWrites{
        "SET", "HSET", "DEL", "PEXPIRE", "RENAME", "COPY", "FLUSHALL", "SWAPDB", "LPUSH", "BLPOP"};
    return contains(kWrites, name);
}

bool is_read(const std::string& name) {
    static constexpr std::array<std::string_view, 15> kReads{
        "GET",  "HGET",   "GETRANGE", "MGET", "HGETALL", "HSCAN",  "EXISTS", "TOUCH",
        "PTTL", "LRANGE", "LLEN",     "KEYS", "SCAN",    "DBSIZE", "EVAL_RO"};
    return contains(kReads, name);
}
}  // namespace

// --- what a replica answers (processCommand in server.c) ---

// True: it is answered.
bool ModelValkey::refuses(Client& client, const Words& words) {
    return slots_ != nullptr ? sends_on(client, words) : refuses_as_replica(client, words);
}

bool ModelValkey::refuses_as_replica(Client& client, const Words& words) {
    if (!is_replica()) return false;
    const std::string name = upper(words[0]);
    const bool is_exec = name == "EXEC" && client.in_multi;
    bool writes = is_write(name);
    bool reads = is_read(name);
    for (const Words& each : is_exec ? client.queued : std::vector<Words>{}) {
        writes = writes || is_write(upper(each[0]));
        reads = reads || is_read(upper(each[0]));
    }
    const bool is_redirected = client.is_redirected && (writes || reads);
    if (!writes && !is_redirected) return false;
    const std::string error = is_redirected ? "REDIRECT " + other_->name_ + ":6379" : kReadonly;
    if (is_exec) {
        client.in_multi = client.is_aborted = client.is_dirty = false;
        client.queued.clear();
        client.watched.clear();
        client.output += (is_redirected ? "-" : "-EXECABORT Transaction discarded because of: ");
    } else {
        client.is_aborted = client.in_multi;
        client.output += '-';
    }
    client.output += error + "\r\n";
    return true;
}

std::string ModelValkey::role() const {
    std::string reply;
    if (!is_replica()) {
        append_array_header(reply, 3);
        append_bulk(reply, "master");
        append_integer(reply, 0);
        append_array_header(reply, 0);
        return reply;
    }
    append_array_header(reply, 5);
    append_bulk(reply, "slave");
    append_bulk(reply, other_->name_);
    append_integer(reply, 6379);
    append_bulk(reply, role_ == Role::Replica ? "connected" : "connect");
    append_integer(reply, 0);
    return reply;
}

// --- replication ---

void ModelValkey::lead(ModelValkey& replica) {
    other_ = &replica;
    replica.other_ = this;
    replica.role_ = Role::Replica;
}

void ModelValkey::replicate(Change change) {
    if (other_ == nullptr) return;
    if (other_->role_ == Role::Replica) other_->hear(change);
    backlog_.push_back(std::move(change));
}

void ModelValkey::lag_behind(uint64_t delay_us, uint64_t until_us) {
    stream_.delay_us = delay_us;
    stream_.stalled_until_us = until_us;
}

void ModelValkey::hear(const Change& change) {
    uint64_t due_us = std::max(events_.now_us + stream_.delay_us, stream_.stalled_until_us);
    if (!stream_.coming.empty()) due_us = std::max(due_us, stream_.coming.back().first);
    stream_.coming.emplace_back(due_us, change);
    events_.at(due_us, [this, number = stream_.number] { take_changes(number); });
}

void ModelValkey::take_changes(uint64_t stream) {
    if (stream != stream_.number) return;
    const uint64_t frozen_until_us = network_.hosts.at(name_).frozen_until_us;
    if (frozen_until_us > events_.now_us) {
        events_.at(frozen_until_us, [this, stream] { take_changes(stream); });
        return;
    }
    while (!stream_.coming.empty() && stream_.coming.front().first <= events_.now_us) {
        apply(stream_.coming.front().second);
        stream_.coming.pop_front();
    }
    flush_outputs();
}

void ModelValkey::apply(const Change& change) {
    if (change.what == Change::What::Swap) {
        count("swapdb", 1);
        std::swap(databases_[0], databases_[1]);
        for (Database& database : databases_) {
            for (auto& [name, stored] : database)
                stored.since_us = events_.now_us;
        }
    }
    if (change.what == Change::What::Flush) {
        for (Database& database : databases_)
            database.clear();
        tell_all_of_everything();
    }
    for (const Change::Part& part : change.parts) {
        stream_.steps[part.key] = part.step;
        note_change(part.key);
        if (change.what != Change::What::Keys) continue;
        Database& database = databases_[static_cast<size_t>(part.key.first)];
        if (part.stored) {
            database[part.key.second] = *part.stored;
        } else {
            database.erase(part.key.second);
        }
        invalidate(part.key.second);
    }
}

// --- changes of role ---

void ModelValkey::promote(Promotion promotion) {
    NEARKEY_CHECK(role_ == Role::Replica);
    ModelValkey& former = *other_;
    if (promotion == Promotion::Planned) {
        for (const auto& [due_us, change] : stream_.coming)
            apply(change);
        flush_outputs();
    }
    stream_.coming.clear();
    ++stream_.number;
    Reign& ended = *former.reign;
    std::map<KeyName, size_t> kept;
    for (const KeyName& key : ended.history.names()) {
        former.note_expiry(key);
        kept[key] = kept_of(former, key);
    }
    ended.next.reset(new Reign{.primary = this, .history = {}, .since_us = events_.now_us});
    reign = ended.next.get();
    ended.history.go_on_in(reign->history, kept);
    role_ = Role::Primary;
    backlog_.clear();
    for (const KeyName& key : reign->history.names())
        note_expiry(key);
    if (slots_ == nullptr) return;
    for (uint16_t slot = 0; slot < kSlots; ++slot)
        reign->slots[slot] = former.slots_->owner(slot) == former.slots_->self();
    for (const KeyName& key : reign->history.names()) {
        if (!reign->slots[slot_of(key.second)]) continue;
        // A key that had come to the former from another node, and had not come here.
        reign->history.observe(key, state_of(key), events_.now_us, false);
    }
}

// The newest step of the key that is here as well; of what another node has, all.
size_t ModelValkey::kept_of(const ModelValkey& former, const KeyName& key) {
    const size_t current = former.reign->history.current(key);
    const bool is_of_other =
        slots_ != nullptr && former.slots_->owner(slot_of(key.second)) != former.slots_->self();
    if (is_of_other || state_of(key) == former.state_of(key)) return current;
    return stream_.steps[key];
}

// replicationSetPrimary in replication.c.
void ModelValkey::demote() {
    NEARKEY_CHECK(role_ == Role::Primary);
    role_ = Role::Alone;
    reign->ended_us = std::min(reign->ended_us, events_.now_us);
    unblock_all();
}

void ModelValkey::unblock_all() {
    for (const auto& [id, client] : clients_) {
        if (client->blocked.empty()) continue;
        client->blocked.clear();
        client->output +=
            "-UNBLOCKED force unblock from blocking operation, instance state changed "
            "(master -> replica?)\r\n";
        client->is_leaving = true;
    }
    flush_outputs();
}

void ModelValkey::follow(Promotion promotion) {
    NEARKEY_CHECK(role_ == Role::Alone && other_->role_ == Role::Primary);
    role_ = Role::Replica;
    stream_.steps.clear();
    if (promotion == Promotion::Planned) {
        stream_.steps = reign->history.kept();
        for (const Change& change : other_->backlog_)
            hear(change);
        return;
    }
    databases_ = other_->databases_;
    learn_steps();
    tell_all_of_everything();
    for (const auto& [id, client] : clients_)
        client->is_dirty = client->is_dirty || !client->watched.empty();
    flush_outputs();
}

// It has all that the other one has.
void ModelValkey::learn_steps() {
    stream_.steps.clear();
    for (const KeyName& key : other_->history().names())
        stream_.steps[key] = other_->history().current(key);
}

std::optional<ModelValkey::Stored> ModelValkey::stored_as(const KeyName& key) const {
    const Database& database = databases_[static_cast<size_t>(key.first)];
    const auto found = database.find(key.second);
    return found == database.end() ? std::nullopt : std::optional<Stored>(found->second);
}

State ModelValkey::state_of(const KeyName& key) const {
    const std::optional<Stored> stored = stored_as(key);
    return stored && !is_expired(*stored) ? State(stored->value) : State();
}

}  // namespace nearkey::simulation
