#include "nodes.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace nearkey::simulation {

namespace {
constexpr uint64_t kNever = UINT64_MAX;
}  // namespace

World::Nodes::Nodes(World& world, const std::string& commands)
    : world_(world),
      random_(world.random_),
      events_(world.events_),
      primaries_(random_.between(2, 4)),
      move_pause_us_(random_.between(2'000, 60'000)),
      hold_us_(random_.one_in(world.is_quiet_ ? 2 : 4) ? random_.between(50'000, 500'000)
                                                       : random_.between(1'000, 20'000)),
      gossip_us_(random_.one_in(2) ? random_.between(100, 5'000)
                                   : random_.between(20'000, 200'000)) {
    // Behind the primaries those without slots, and then replicas of the first ones.
    const size_t spare = random_.below(2);
    const size_t leaders = primaries_ + spare;
    const size_t replicas = random_.one_in(3) ? random_.between(1, leaders) : leaders;
    for (size_t i = 0; i < leaders + replicas; ++i)
        names_.push_back(fmt::format("n{}", i));
    for (size_t i = 0; i < names_.size(); ++i) {
        world_.add_server(names_[i], commands);
        ModelValkey& node = *world_.valkeys_[i];
        node.join(static_cast<uint8_t>(i), names_, world_.valkeys_);
        node.reign = world_.reigns_[0].get();
        for (size_t slot = 0; slot < kSlots; ++slot)
            node.slots()->set_owner(static_cast<uint16_t>(slot),
                                    static_cast<uint8_t>(slot * primaries_ / kSlots));
        if (i >= leaders) world_.valkeys_[i - leaders]->lead(node);
    }
    for (uint64_t number = 0; number < kNames + kLists; ++number) {
        const uint16_t slot = slot_of(name_of_key(number, world_.tags_));
        owners_[slot] = former_[slot] = node(0).slots()->owner(slot);
    }
}

void World::Nodes::start() {
    for (const auto& valkey : world_.valkeys_) {
        if (valkey->is_replica()) valkey->lag_behind(random_.between(50, 5'000), 0);
    }
    move_some();
    events_.after(random_.between(100'000, 500'000), [this] { fail_over(); });
}

ModelValkey* World::Nodes::importer_of(const std::string& key) const {
    return is_moving_ && move_.slot == slot_of(key) ? move_.to : nullptr;
}

void World::Nodes::note_expiry(const KeyName& key) {
    for (const auto& valkey : world_.valkeys_)
        valkey->note_expiry(key);
}

Reign& World::Nodes::oldest_shown(
    const KeyName& key, uint64_t bound_us,
    const std::function<bool(const std::string& owner)>& knows_other) const {
    const uint16_t slot = slot_of(key.second);
    Reign* newest = world_.reigns_[0].get();
    while (newest->next != nullptr)
        newest = newest->next.get();
    for (Reign* reign = world_.reigns_[0].get(); reign->next != nullptr;
         reign = reign->next.get()) {
        if (!reign->next->slots[slot]) continue;
        if (reign->ended_us != kNever && reign->ended_us + bound_us < events_.now_us) continue;
        if (!knows_other(reign->next->former->name())) return *reign;
    }
    return *newest;
}

// --- what a node hears of the others ---

bool World::Nodes::hears(const ModelValkey& node) const {
    return !world_.network_.is_still(node.name()) && !(is_cut_ && &node == failing_);
}

void World::Nodes::when_hearing(ModelValkey& node, std::function<void()> what) {
    if (hears(node)) {
        what();
        return;
    }
    events_.after(random_.between(1, 5'000), [this, &node, what = std::move(what)]() mutable {
        when_hearing(node, std::move(what));
    });
}

// --- slots that move ---

void World::Nodes::move_some() {
    world_.is_settling_ = false;
    move_after_pause();
}

void World::Nodes::move_after_pause() {
    events_.after(random_.between(1'000, move_pause_us_), [this] {
        if (are_moves_at_rest_) return move_after_pause();
        if (world_.is_quiet_ && failing_ == nullptr && random_.one_in(2)) return move_absent();
        auto slot = owners_.begin();
        std::advance(slot, static_cast<ptrdiff_t>(random_.below(owners_.size())));
        if (!begin_move(slot->first)) move_some();
    });
}

bool World::Nodes::is_of_failover(const ModelValkey& node) const {
    return failing_ != nullptr && (&node == failing_ || &node == failing_->other());
}

// In a quiet world many slots move without a key: one that is read all the time is deleted, absent
// for all, and set at the new owner while the slot moves.
void World::Nodes::move_absent() {
    constexpr uint64_t kMomentUs = 40'000;
    const std::string name = name_of_key(random_.below(world_.hot_names_), world_.tags_);
    world_.is_settling_ = true;
    world_.execute_directly({0, name}, {"DEL", name});
    events_.after(kMomentUs, [this, name] {
        if (!begin_move(slot_of(name))) {
            world_.is_settling_ = false;
            return move_some();
        }
        move_.hold_until_us = events_.now_us + random_.between(100'000, 400'000);
        events_.after(random_.between(5'000, 40'000), [this, name] { change(name); });
    });
}

void World::Nodes::change(const std::string& name) {
    const bool is_hash = name[0] == 'h';
    const std::string value = next_value(random_, name);
    world_.execute_directly({0, name},
                            is_hash ? Words{"HSET", name, "f", value} : Words{"SET", name, value});
}

bool World::Nodes::begin_move(uint16_t of) {
    const auto slot = owners_.find(of);
    // Often where it was before.
    const bool goes_back = random_.one_in(2) && former_[slot->first] != slot->second;
    const uint64_t chosen = goes_back ? former_[slot->first] : random_.below(names_.size());
    ModelValkey& from = node(slot->second);
    ModelValkey& to = node(static_cast<uint8_t>(chosen));
    if (&from == &to || to.is_replica() || from.is_replica() || is_of_failover(from) ||
        is_of_failover(to) || !hears(from) || !hears(to))
        return false;
    is_moving_ = true;
    moved_until_us_[of] = kNever;
    const uint64_t until_us = events_.now_us + random_.below(hold_us_);
    move_ = {slot->first, &from, &to, until_us, random_.between(100, 10'000)};
    world_.note(fmt::format("slot {} moves from {} to {}", move_.slot, from.name(), to.name()));
    to.slots()->importing[move_.slot] = number_of(from);
    events_.after(random_.below(2'000), [this] { begin_export(); });
    return true;
}

void World::Nodes::begin_export() {
    if (!may_go_on()) {
        events_.after(random_.between(1'000, 5'000), [this] { begin_export(); });
        return;
    }
    move_.from->slots()->migrating[move_.slot] = number_of(*move_.to);
    note_left(move_.slot, *move_.from);
    note_back(move_.slot, *move_.to);
    move_keys();
}

bool World::Nodes::may_go_on() const {
    return hears(*move_.from) && hears(*move_.to);
}

void World::Nodes::move_keys() {
    events_.after(random_.between(1, move_.pause_us), [this] {
        if (!may_go_on()) return move_keys();
        const std::vector<std::string> names = move_.from->names_in(move_.slot);
        if (!names.empty()) {
            const std::string& name = names[random_.below(names.size())];
            world_.note(fmt::format("{} moves to {}", name, move_.to->name()));
            move_.from->hand_over(name, *move_.to);
            return move_keys();
        }
        if (events_.now_us < move_.hold_until_us) return move_keys();
        finish_move();
    });
}

// The new owner knows first, then the former one.
void World::Nodes::finish_move() {
    world_.note(fmt::format("slot {} has moved to {}", move_.slot, move_.to->name()));
    const uint16_t slot = move_.slot;
    former_[slot] = owners_[slot];
    owners_[slot] = number_of(*move_.to);
    move_.to->slots()->set_owner(slot, owners_[slot]);
    note_back(slot, *move_.to);
    events_.after(random_.below(3'000), [this, slot] {
        when_hearing(*move_.from, [this, slot] {
            move_.from->lose_slot(slot, owners_[slot]);
            is_moving_ = false;
            moved_until_us_[slot] = events_.now_us;
            move_some();
        });
    });
    for (const auto& valkey : world_.valkeys_) {
        if (valkey.get() == move_.from || valkey.get() == move_.to) continue;
        events_.after(random_.below(gossip_us_), [this, slot, &other = *valkey] {
            when_hearing(other,
                         [this, slot, &other] { other.slots()->set_owner(slot, owners_[slot]); });
        });
    }
}

void World::Nodes::note_left(uint16_t slot, ModelValkey& node) {
    left_[{slot, number_of(node)}] = events_.now_us;
}

void World::Nodes::note_back(uint16_t slot, ModelValkey& node) {
    const auto left = left_.find({slot, number_of(node)});
    if (left != left_.end()) returns_.push_back({slot, left->second, events_.now_us});
}

// A nearkey may have sent it there for some time after it had left.
bool World::Nodes::has_returned(uint16_t slot, uint64_t since_us) const {
    constexpr uint64_t kUnawareUs = 500'000;
    return std::any_of(returns_.rbegin(), returns_.rend(), [&](const Return& each) {
        return each.slot == slot && each.when_us >= since_us &&
               each.left_us + kUnawareUs >= since_us;
    });
}

bool World::Nodes::has_moved(uint16_t slot, uint64_t since_us) const {
    const auto moved = moved_until_us_.find(slot);
    return moved != moved_until_us_.end() && moved->second >= since_us;
}

// --- failovers ---

// Often one whose keys are read. Null: there is none now.
ModelValkey* World::Nodes::pick_failing() const {
    if (are_moves_at_rest_ && is_moving_) return nullptr;
    std::vector<ModelValkey*> able;
    std::vector<ModelValkey*> hot;
    for (const auto& valkey : world_.valkeys_) {
        const bool is_able = !valkey->is_replica() && valkey->other() != nullptr &&
                             hears(*valkey) && hears(*valkey->other());
        const bool is_busy = is_moving_ && (valkey.get() == move_.from || valkey.get() == move_.to);
        if (!is_able || is_busy) continue;
        able.push_back(valkey.get());
        for (uint64_t number = 0; number < world_.hot_names_; ++number) {
            if (&owner_of(name_of_key(number, world_.tags_)) == valkey.get())
                hot.push_back(valkey.get());
        }
    }
    if (!hot.empty() && (are_moves_at_rest_ || random_.one_in(2))) able = hot;
    return able.empty() ? nullptr : able[random_.below(able.size())];
}

// In a quiet world slots often rest until it is over: a nearkey that is sent on by a node asks for
// the map, and learns of everything.
void World::Nodes::fail_over() {
    are_moves_at_rest_ = world_.is_quiet_ && !random_.one_in(3);
    fail_over_any();
}

void World::Nodes::fail_over_any() {
    failing_ = pick_failing();
    if (failing_ == nullptr) {
        events_.after(random_.between(1'000, 20'000), [this] { fail_over_any(); });
        return;
    }
    if (!are_moves_at_rest_) return fail(*failing_);
    // All has been read, and is stored, when it begins.
    constexpr uint64_t kMomentUs = 40'000;
    world_.is_settling_ = true;
    for (uint64_t number = 0; number < world_.hot_names_; ++number)
        change(name_of_key(number, world_.tags_));
    events_.after(kMomentUs, [this] {
        world_.is_settling_ = false;
        fail(*failing_);
    });
}

void World::Nodes::fail(ModelValkey& primary) {
    // So that something is missing when it is promoted.
    if (random_.one_in(2)) {
        const uint64_t stall_us = random_.between(1'000, 200'000);
        primary.other()->lag_behind(random_.between(50, 100'000), events_.now_us + stall_us);
    }
    const uint64_t choice = random_.below(are_moves_at_rest_ ? 5 : 10);
    if (choice < 4) {
        cut_off(primary);
    } else if (choice < 7) {
        freeze(primary);
    } else if (choice < 9) {
        plan(primary);
    } else {
        kill(primary);
    }
}

void World::Nodes::plan(ModelValkey& primary) {
    ModelValkey& next = *primary.other();
    world_.note(fmt::format("{} takes over from {}", next.name(), primary.name()));
    next.take_over();
    primary.slots()->replace(number_of(primary), number_of(next));
    primary.lag_behind(random_.between(50, 20'000), 0);
    replace(primary, next, gossip_us_);
    end_failover();
}

void World::Nodes::freeze(ModelValkey& primary) {
    const uint64_t length_us = random_.between(100'000, 900'000);
    const uint64_t until_us = events_.now_us + length_us;
    world_.note(fmt::format("{} is frozen until {} us", primary.name(), until_us));
    world_.network_.hosts.at(primary.name()).frozen_until_us = until_us;
    primary.reign->silent_since_us = events_.now_us;
    primary.reign->silent_until_us = until_us;
    promote_at(events_.now_us + random_.between(20'000, length_us / 2), primary,
               [this, &primary, until_us] {
                   const uint64_t aware_us = until_us + random_.between(0, 300'000);
                   events_.at(aware_us, [this, &primary] { let_know(primary); });
               });
}

void World::Nodes::cut_off(ModelValkey& primary) {
    world_.note(fmt::format("{} is cut off", primary.name()));
    is_cut_ = true;
    if (world_.is_quiet_ && !is_moving_) world_.is_settling_ = true;
    primary.other()->lag_behind(0, kNever);
    const uint64_t timeout_us = random_.between(50'000, 300'000);
    events_.after(timeout_us, [this, &primary] {
        world_.note(fmt::format("{} knows that it is cut off", primary.name()));
        primary.slots()->is_down = true;
        primary.reign->ended_us = events_.now_us;
    });
    promote_at(events_.now_us + timeout_us + random_.below(100'000), primary, [this, &primary] {
        events_.after(random_.between(200'000, 1'200'000), [this, &primary] {
            is_cut_ = false;
            let_know(primary);
        });
    });
}

void World::Nodes::kill(ModelValkey& primary) {
    world_.note(fmt::format("{} is killed", primary.name()));
    Network::Host& host = world_.network_.hosts.at(primary.name());
    host.is_down = true;
    world_.network_.kill_all_of(primary.name());
    primary.reign->ended_us = events_.now_us;
    promote_at(events_.now_us + random_.between(20'000, 500'000), primary, [this, &primary, &host] {
        events_.after(random_.between(1'000, 500'000), [this, &primary, &host] {
            host.is_down = false;
            primary.forget_all();
            let_know(primary);
        });
    });
}

void World::Nodes::promote_at(uint64_t when_us, ModelValkey& primary, std::function<void()> then) {
    events_.at(when_us, [this, &primary, then = std::move(then)]() mutable {
        ModelValkey& next = *primary.other();
        when_hearing(next, [this, &primary, &next, then = std::move(then)] {
            world_.note(fmt::format("{} is promoted in place of {}", next.name(), primary.name()));
            Reign* const former = primary.reign;
            next.promote(Promotion::Unplanned);
            next.reign->former = &primary;
            for (const auto& valkey : world_.valkeys_) {
                if (valkey->reign == former && valkey.get() != &primary) valkey->reign = next.reign;
            }
            unaware_ = &primary;
            if (!is_moving_) world_.is_settling_ = false;
            replace(primary, next, 5'000);
            then();
        });
    });
}

// All but the former one, which hears of it by itself.
void World::Nodes::replace(ModelValkey& former, ModelValkey& next, uint64_t lag_us) {
    const uint8_t before = number_of(former);
    const uint8_t after = number_of(next);
    for (auto& [slot, owner] : owners_) {
        if (owner != before) continue;
        owner = after;
        note_left(slot, former);
        note_back(slot, next);
    }
    next.slots()->replace(before, after);
    // Also of moves that it had not heard of.
    for (const auto& [slot, owner] : owners_)
        next.slots()->set_owner(slot, owner);
    for (const auto& valkey : world_.valkeys_) {
        if (valkey.get() == &former || valkey.get() == &next) continue;
        events_.after(random_.below(lag_us), [this, &other = *valkey, before, after] {
            when_hearing(other, [&other, before, after] { other.slots()->replace(before, after); });
        });
    }
}

void World::Nodes::let_know(ModelValkey& former) {
    when_hearing(former, [this, &former] {
        world_.note(fmt::format("{} knows that it is no primary", former.name()));
        former.demote();
        former.slots()->is_down = false;
        unaware_ = nullptr;
        former.slots()->replace(number_of(former), number_of(*former.other()));
        for (const auto& [slot, owner] : owners_)
            former.slots()->set_owner(slot, owner);
        events_.after(random_.below(100'000), [this, &former] {
            when_hearing(former, [this, &former] {
                world_.note(fmt::format("{} follows", former.name()));
                former.lag_behind(random_.between(50, 20'000), 0);
                former.follow(Promotion::Unplanned);
                end_failover();
            });
        });
    });
}

void World::Nodes::end_failover() {
    failing_ = nullptr;
    are_moves_at_rest_ = false;
    events_.after(random_.between(100'000, 600'000), [this] { fail_over(); });
}

}  // namespace nearkey::simulation
