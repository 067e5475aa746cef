// A model server as a node of a cluster: what it sends on, and how slots leave it key by key.
#include "model_valkey.h"
#include "model_words.h"

#include "nearkey/base/check.h"

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

void ModelValkey::join(uint8_t number, const std::vector<std::string>& names, const Nodes& nodes) {
    slots_ = std::make_unique<ModelSlots>(number, names);
    nodes_ = &nodes;
    executions_ = nodes[0]->executions_;
}

// Of a slot that is imported. An ASK that is older than a slot's way back and forth would find no
// key here, and have the cluster keep it twice. Slots of real clusters don't move that fast.
bool ModelValkey::is_at_former_owner(uint16_t slot, const std::vector<std::string>& keys) const {
    const auto from = slots_->importing.find(slot);
    if (from == slots_->importing.end()) return false;
    const ModelValkey& owner = *(*nodes_)[from->second];
    return std::any_of(keys.begin(), keys.end(), [&](const std::string& key) {
        return owner.state_of({0, key});
    });
}

// True: it is answered.
bool ModelValkey::sends_on(Client& client, const Words& words) {
    const bool is_exec = is(words[0], "exec") && client.in_multi;
    std::vector<std::string> keys = keys_of(words);
    for (const Words& each : is_exec ? client.queued : std::vector<Words>{}) {
        const std::vector<std::string> more = keys_of(each);
        keys.insert(keys.end(), more.begin(), more.end());
    }
    if (keys.empty()) return false;
    const uint16_t slot = slot_of(keys[0]);
    size_t missing = 0;
    for (const std::string& key : keys) {
        if (slot_of(key) != slot) {
            refuse(client, "CROSSSLOT Keys in request don't hash to the same slot", is_exec);
            return true;
        }
        if (is_replica() ? !state_of({0, key}) : find(0, key) == nullptr) ++missing;
    }
    const std::string refusal =
        slots_->refusal({.slot = slot,
                         .keys = keys.size(),
                         .missing = missing,
                         .is_asking = client.is_asking && !is_at_former_owner(slot, keys),
                         .is_replica = is_replica()});
    if (refusal.empty()) return false;
    refuse(client, refusal, is_exec);
    return true;
}

// A transaction is gone with its EXEC.
void ModelValkey::refuse(Client& client, const std::string& error, bool is_exec) {
    if (is_exec) {
        client.in_multi = client.is_aborted = client.is_dirty = false;
        client.queued.clear();
        client.watched.clear();
    } else {
        client.is_aborted = client.in_multi;
    }
    client.output += "-" + error + "\r\n";
}

std::string ModelValkey::run_cluster(Client& client, const Words& words) {
    if (slots_ == nullptr) return "";
    if (is(words[0], "asking")) {
        client.is_asking = true;
        return kOk;
    }
    if (is(words[0], "cluster") && is(words[1], "slots")) return slots_->reply();
    if (is(words[0], "swapdb")) return "-ERR SWAPDB is not allowed in cluster mode\r\n";
    return "";
}

// --- keys that move (MIGRATE, RESTORE) ---

std::vector<std::string> ModelValkey::names_in(uint16_t slot) const {
    std::vector<std::string> names;
    for (const auto& [name, stored] : databases_[0]) {
        if (slot_of(name) == slot) names.push_back(name);
    }
    return names;
}

void ModelValkey::hand_over(const std::string& name, ModelValkey& to) {
    NEARKEY_CHECK(!is_replica() && !to.is_replica() && reign == to.reign);
    const Stored* const found = find(0, name);
    if (found != nullptr) {
        const KeyName key{0, name};
        const Stored moved = *found;
        const size_t step = history().current(key);
        to.databases_[0][name] = moved;
        to.note_change(key);
        to.replicate({Change::What::Keys, {{key, moved, step}}});
        to.serve_blocked();
        to.flush_outputs();
        databases_[0].erase(name);
        invalidate(name);
        note_change(key);
        replicate({Change::What::Keys, {{key, std::nullopt, step}}});
    }
    flush_outputs();
}

void ModelValkey::lose_slot(uint16_t slot, uint8_t owner) {
    slots_->set_owner(slot, owner);
    NEARKEY_CHECK(is_replica() || names_in(slot).empty());
    std::vector<uint64_t> waiting;
    for (const auto& [id, client] : clients_) {
        if (!client->blocked.empty() && slot_of(client->blocked[1]) == slot) waiting.push_back(id);
    }
    for (const uint64_t id : waiting) {
        const auto found = clients_.find(id);
        if (found == clients_.end() || found->second->blocked.empty()) continue;
        unblock(*found->second, "-" + slots_->refusal({slot, 1, 1, false, is_replica()}) + "\r\n");
    }
    flush_outputs();
}

// --- a replica in its primary's place (CLUSTER FAILOVER) ---

void ModelValkey::take_over() {
    NEARKEY_CHECK(role_ == Role::Replica);
    ModelValkey& former = *other_;
    for (const auto& [due_us, change] : stream_.coming)
        apply(change);
    stream_.coming.clear();
    ++stream_.number;
    role_ = Role::Primary;
    reign = former.reign;
    backlog_.clear();
    flush_outputs();
    former.role_ = Role::Replica;
    former.learn_steps();
    former.unblock_all();
}

}  // namespace nearkey::simulation
