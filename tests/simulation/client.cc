#include "client.h"

#include "nearkey/resp/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace nearkey::simulation {

// What the reply says of a key: its state, or only whether it is there, or nothing at all.
struct SimulatedClient::Shown {
    enum class What { Nothing, Whole, Presence };
    What what = What::Nothing;
    State state{};
    bool is_there = false;

    static Shown of_count(int64_t count, size_t keys);
    static Shown of(const Words& words, const Value& value, const std::string& name, size_t which);
};

namespace {

// States of lists have commas between elements.
State state_of(const Value& value) {
    if (value.is_null()) return State();
    if (value.type != '*') return State(value.text);
    std::string list;
    for (const Value& each : value.elements)
        list += (list.empty() ? "" : ",") + each.text;
    return list.empty() ? State() : State(list);
}

// Also in the reply to EXEC.
bool is_redirect(std::string_view reply) {
    return reply.find("-MOVED ") != std::string_view::npos ||
           reply.find("-ASK ") != std::string_view::npos;
}

// The value that a command gives to a key, and no other command does.
std::string value_of(const Words& words) {
    const bool is_writing = words[0] == "SET" || words[0] == "HSET" || words[0] == "LPUSH" ||
                            (words[0] == "EVAL" && words[1].ends_with("SET"));
    if (!is_writing) return "";
    return words[0] == "SET" ? words[2] : words.back();
}

bool contains(const Value& names, const std::string& name) {
    return std::any_of(names.elements.begin(), names.elements.end(),
                       [&](const Value& each) { return each.text == name; });
}

}  // namespace

SimulatedClient::Shown SimulatedClient::Shown::of_count(int64_t count, size_t keys) {
    if (count == 0) return {Shown::What::Presence, {}, false};
    if (count == static_cast<int64_t>(keys)) return {Shown::What::Presence, {}, true};
    return {};
}

SimulatedClient::Shown SimulatedClient::Shown::of(const Words& words, const Value& value,
                                                  const std::string& name, size_t which) {
    const std::string& command = words[0];
    if (command == "KEYS") return {Shown::What::Presence, {}, contains(value, name)};
    if (command == "SCAN") {
        if (value.elements.size() != 2) return {};
        return {Shown::What::Presence, {}, contains(value.elements[1], name)};
    }
    if (command == "EXISTS") return of_count(value.integer, words.size() - 1);
    if (command == "MGET") return {Shown::What::Whole, state_of(value.elements.at(which))};
    if (command == "GETRANGE") {
        return {Shown::What::Whole, value.text.empty() ? State() : State(value.text)};
    }
    if (command == "HSCAN" && value.elements.size() == 2)
        return of({"HGETALL"}, value.elements[1], name, which);
    if (command == "HGETALL") {
        const bool is_there = value.elements.size() == 2;
        return {Shown::What::Whole, is_there ? State(value.elements[1].text) : State()};
    }
    return {Shown::What::Whole, state_of(value)};
}

class SimulatedClient::Stream final : public ByteStream {
public:
    explicit Stream(SimulatedClient& client) : client_(client) {}
    WriteResult write(std::string_view bytes, size_t& written) override {
        written = 0;
        if (client_.is_closing_) return WriteResult::Lost;
        written = client_.random_.one_in(20) ? client_.random_.below(bytes.size()) : bytes.size();
        client_.take(bytes.substr(0, written));
        if (written == bytes.size()) return WriteResult::Ok;
        const uint64_t number = client_.number_;
        SimulatedClient& client = client_;
        client.events_.after(client.random_.below(2'000), [&client, number] {
            if (client.number_ == number && client.session_) client.session_->on_writable();
        });
        return WriteResult::WouldBlock;
    }
    void pause_reading() override { client_.is_paused_ = true; }
    void pass(UniqueFd) override {}
    bool refuse_more() override { return false; }
    int fd() const override { return -1; }
    void resume_reading() override {
        client_.is_paused_ = false;
        SimulatedClient& client = client_;
        client.events_.after(0, [&client] { client.deliver(); });
    }

private:
    SimulatedClient& client_;
};

namespace {
ClientTerms terms_of(const ClientPlan& plan) {
    ClientTerms terms;
    terms.shared_memory = plan.segment != nullptr;
    return terms;
}
}  // namespace

SimulatedClient::SimulatedClient(EventQueue& events, Random& random, Judge& judge,
                                 const ClientPlan& plan)
    : events_(events), random_(random), judge_(judge), plan_(plan), terms_(terms_of(plan)) {
}

SimulatedClient::~SimulatedClient() {
    abort();
}

void SimulatedClient::start(SessionContext& context) {
    context_ = &context;
    segment_hook_ = std::make_unique<SegmentHook>(context.loop, *this);
    act();
}

void SimulatedClient::abort() {
    if (session_ && !has_ended_) session_->abort();
}

void SimulatedClient::open() {
    number_ = judge_.next_session();
    is_closing_ = is_paused_ = has_ended_ = is_ready_ = false;
    must_close_ = in_multi_ = is_through_ = false;
    queued_.clear();
    last_of_slot_.clear();
    shown_values_.clear();
    protocol_ = plan_.protocol;
    database_ = plan_.database;
    unread_.clear();
    reply_.clear();
    scanner_ = {};
    session_ = std::make_unique<Session>(*context_, terms_, number_);
    session_->attach(std::make_unique<Stream>(*this));
    add_plain(unread_, {"HELLO", std::to_string(plan_.protocol)});
    add_plain(unread_, {"SELECT", std::to_string(plan_.database)});
    has_changed_way_ = false;
    deliver();
}

std::string SimulatedClient::awaited() const {
    if (owed_.empty()) return "";
    const Owed& owed = owed_.front();
    return fmt::format("{}/{} [{} us] {}", plan_.channel, number_, owed.start_us,
                       joined(owed.database, owed.asked.words));
}

void SimulatedClient::on_ended() {
    is_closing_ = has_ended_ = true;
    owed_.clear();
    events_.after(random_.below(2'000), [this] { session_.reset(); });
}

void SimulatedClient::on_turned() {
    const bool is_ending = std::any_of(owed_.begin(), owed_.end(), [](const Owed& owed) {
        static constexpr std::array<std::string_view, 5> kOfLeases{"WATCH", "MULTI", "EXEC",
                                                                   "DISCARD", "RESET"};
        const std::string& name = owed.asked.words[0];
        return std::find(kOfLeases.begin(), kOfLeases.end(), name) != kOfLeases.end();
    });
    if (in_multi_ || is_through_ || is_ending) must_close_ = true;
}

void SimulatedClient::deliver() {
    while (session_ && !is_closing_ && !is_paused_ && !unread_.empty()) {
        const size_t size =
            random_.one_in(8) ? size_t{1} + random_.below(unread_.size()) : unread_.size();
        const std::string bytes = unread_.substr(0, size);
        unread_.erase(0, size);
        session_->on_bytes(bytes);
    }
}

// --- what is answered ---

void SimulatedClient::take(std::string_view bytes) {
    while (!bytes.empty()) {
        size_t taken = 0;
        const ScanResult result = scanner_.scan(bytes, taken);
        if (result == ScanResult::Malformed) {
            judge_.on_violation("MALFORMED", "");
            return;
        }
        reply_ += bytes.substr(0, taken);
        bytes.remove_prefix(taken);
        if (result == ScanResult::Incomplete) return;
        judge_reply(std::exchange(reply_, {}));
    }
}

void SimulatedClient::judge_reply(std::string_view reply) {
    if (reply.starts_with('>')) return;
    if (owed_.empty()) {
        judge_.on_violation("UNASKED " + std::string(reply), "");
        return;
    }
    const Owed owed = std::move(owed_.front());
    owed_.pop_front();
    judge_.on_answer(fmt::format("{} us {}/{} [{} us] {} -> {}", events_.now_us, plan_.channel,
                                 number_, owed.start_us, joined(owed.database, owed.asked.words),
                                 reply.substr(0, reply.size() - 2)));
    const auto value = parse_value(reply);
    if (is_redirect(reply)) judge_.on_violation("REDIRECT " + std::string(reply), "");
    // What follows would be of another database.
    if (owed.asked.words[0] == "SELECT")
        (value && value->text == "OK" ? is_ready_ : must_close_) = true;
    if (!value || value->is_error()) return;
    // Nobody knows of which server it tells.
    if (!owed.is_judged || owed.turns != plan_.upstream.turns) return;
    if (owed.asked.words[0] != "EXEC") {
        if (!owed.is_queued || value->text != "QUEUED") judge(owed, owed.asked, *value);
        return;
    }
    if (value->is_null()) return;
    if (value->elements.size() != owed.queued.size()) {
        judge_.on_violation("SHAPE of the reply to EXEC", "");
        return;
    }
    for (size_t i = 0; i < owed.queued.size(); ++i)
        judge(owed, owed.queued[i], value->elements[i]);
}

void SimulatedClient::read_segment(const std::string& name) {
    segment_hook_->names.push_back(name);
    segment_hook_->defer();
}

void SimulatedClient::read_segment_now(const std::string& name) {
    const bool is_asked = session_ && is_ready_ && !is_closing_ && !must_close_ &&
                          !has_changed_way_ && owed_.empty() && unread_.empty();
    if (!is_asked) return;
    const auto database = static_cast<uint16_t>(database_);
    const bool is_of_get = events_.now_us % 2 == 0;
    const std::string shown =
        is_of_get ? plan_.segment->get(name, database) : plan_.segment->mget(name, database);
    if (shown.starts_with('(') && shown != "(nil)") return;
    ++segment_hits;
    const Asked asked = this->asked({"GET", name}, {name});
    const Owed owed{.asked = asked,
                    .start_us = events_.now_us,
                    .flight_us = events_.now_us,
                    .turns = plan_.upstream.turns,
                    .reign = plan_.upstream.reign,
                    .is_doubted = plan_.upstream.is_silent(),
                    .database = database_,
                    .is_judged = true,
                    .is_queued = false,
                    .is_through = false,
                    .queued = {}};
    judge_.on_answer(fmt::format("{} us {}/{} in the segment: {} {} -> {}", events_.now_us,
                                 plan_.channel, number_, database_, name, shown));
    const std::string reply =
        shown == "(nil)" ? "$-1\r\n" : fmt::format("${}\r\n{}\r\n", shown.size(), shown);
    judge_ask(owed, asked, 0, *parse_value(reply));
}

// What it was shown just now may be newer than what is there.
void SimulatedClient::look_into_segment_after(const Asked& asked) {
    if (plan_.segment == nullptr) return;
    for (const Ask& each : asked.asks) {
        const std::string& name = each.key.second;
        if (name[0] != 's') continue;
        for (const uint64_t delay_us : {1, 500, 3'000}) {
            events_.after(delay_us, [this, name, session = number_] {
                if (session == number_) read_segment(name);
            });
        }
    }
}

void SimulatedClient::judge(const Owed& owed, const Asked& asked, const Value& value) {
    if (value.is_error()) return;
    look_into_segment_after(asked);
    const std::string& name = asked.words[0];
    // There was nothing to be copied, to expire, or to be popped.
    const bool is_idle = ((name == "COPY" || name == "PEXPIRE") && value.integer == 0) ||
                         (name == "BLPOP" && value.is_null());
    if (!is_idle) acknowledge(owed, asked);
    if (name == "MGET" && value.elements.size() != asked.asks.size()) {
        judge_.on_violation("SHAPE of the reply to " + joined(owed.database, asked.words), "");
        return;
    }
    for (size_t i = 0; i < asked.asks.size(); ++i)
        judge_ask(owed, asked, i, value);
    look_again_after(asked);
}

// What went through a tunnel is as a change from elsewhere, but for who sent it. What was executed
// before a turn nobody knows of is executed anew, or lost.
void SimulatedClient::acknowledge(const Owed& owed, const Asked& asked) {
    const bool is_cluster = plan_.upstream.cluster != nullptr;
    if (owed.reign != plan_.upstream.reign && !is_cluster) return;
    ModelValkey& valkey = *plan_.upstream.valkey;
    const int channel = owed.is_through ? kNobody : plan_.channel;
    for (const std::string& write : asked.writes) {
        const ModelValkey::Executed* executed = valkey.first_execution(write, owed.start_us);
        if (is_cluster) judge_order(owed, asked, executed);
        if (executed == nullptr) continue;
        for (const auto& [key, step] : executed->steps) {
            note_expiry(*executed->reign, key);
            executed->reign->history.acknowledge(channel, key, step, events_.now_us);
            executed->reign->history.did(number_, key, step);
        }
    }
}

void SimulatedClient::note_expiry(const Reign& reign, const KeyName& key) const {
    if (plan_.upstream.cluster != nullptr) {
        plan_.upstream.cluster->note_expiry(key);
    } else if (reign.primary->reign == &reign) {
        reign.primary->note_expiry(key);
    }
}

// Its commands for one slot ran in the order in which it sent them, each that was answered once.
void SimulatedClient::judge_order(const Owed& owed, const Asked& asked,
                                  const ModelValkey::Executed* executed) {
    const std::string value = value_of(asked.words);
    if (value.empty()) return;
    const std::string what = fmt::format("{}/{} [{} us] {}", plan_.channel, number_, owed.start_us,
                                         joined(owed.database, asked.words));
    if (executed == nullptr) {
        judge_.on_violation("NOT RUN " + what, "");
        return;
    }
    const ClusterOracle& cluster = *plan_.upstream.cluster;
    const std::string key = keys_of(asked.words)[0];
    const uint16_t slot = slot_of(key);
    Last& last = last_of_slot_[slot];
    const bool has_moved = cluster.has_moved(slot, owed.flight_us);
    const uint64_t before = has_moved ? last.of_key[key] : last.of_all;
    for (uint64_t* const newest : {&last.of_key[key], &last.of_all})
        *newest = std::max(*newest, executed->number);
    if (cluster.has_returned(slot, owed.flight_us)) return;
    if (shown_values_.contains(value)) {
        judge_.on_violation("ORDER a read before it shows it: " + what, "");
    } else if (executed->number < before) {
        judge_.on_violation("ORDER it ran before one that was sent before it: " + what, "");
    }
}

void SimulatedClient::judge_ask(const Owed& owed, const Asked& asked, size_t which,
                                const Value& value) {
    const Ask& each = asked.asks[which];
    const Shown what = Shown::of(asked.words, value, each.key.second, which);
    if (what.what == Shown::What::Nothing) return;
    const bool is_cluster = plan_.upstream.cluster != nullptr;
    const History::Verdict verdict =
        is_cluster ? judge_in_cluster(owed, each, what) : judge_shown(owed, each, what);
    if (is_cluster && what.state) shown_values_.insert(*what.state);
    if (verdict == History::Verdict::Fine) return;
    const bool is_state = what.what == Shown::What::Whole;
    const std::string answer = is_state        ? text_of(what.state)
                               : what.is_there ? "(there)"
                                               : "(absent)";
    std::string told;
    for (const Reign* reign = each.reign; reign != nullptr; reign = reign->next.get())
        told += "    of " + reign->primary->name() + ":\n" + reign->history.told(each.key);
    judge_.on_violation(
        fmt::format("{} {}/{}: {}/{} by {}{}, asked at {} us, answered at {} us: {} (own step {}, "
                    "elsewhere step {})",
                    nearkey::simulation::name_of(verdict), each.key.first, each.key.second,
                    plan_.channel, number_, owed.asked.words[0] == "EXEC" ? "EXEC of " : "",
                    asked.words[0], owed.start_us, events_.now_us, answer, each.floors.back().own,
                    each.floors.back().elsewhere),
        told);
}

// By the rules of reign.h: the first reign that allows it.
History::Verdict SimulatedClient::judge_shown(const Owed& owed, const Ask& ask,
                                              const Shown& shown) {
    const Upstream& upstream = plan_.upstream;
    const bool is_replica = upstream.valkey->is_replica();
    History::Verdict worst = History::Verdict::Unknown;
    History::Floor floor;
    size_t number = 0;
    for (Reign* reign = ask.reign; reign != nullptr; reign = reign->next.get(), ++number) {
        History& history = reign->history;
        note_expiry(*reign, ask.key);
        if (number < ask.floors.size()) floor = ask.floors[number];
        const History::Floor before = floor;
        floor = history.floor_in_next(ask.key, floor);
        if (is_over(*reign, owed)) continue;
        const bool is_back = history.has_left(number_, ask.key);
        History::Verdict verdict =
            shown.what == Shown::What::Whole
                ? history.judge(number_, ask.key, before, shown.state)
                : history.judge_presence(number_, ask.key, before, shown.is_there);
        if (verdict == History::Verdict::Fine && is_back) verdict = History::Verdict::Back;
        if (verdict == History::Verdict::Fine) return verdict;
        if (verdict != History::Verdict::Unknown) worst = verdict;
        // A replica shows what its primary was.
        if (reign == upstream.valkey->reign && !is_replica) break;
    }
    const bool is_lagging = is_replica && !is_over(*upstream.reign, owed);
    return is_lagging && worst != History::Verdict::Unknown ? History::Verdict::Fine : worst;
}

// The same of a cluster: where it begins depends on what the nearkey knew then.
History::Verdict SimulatedClient::judge_in_cluster(const Owed& owed, const Ask& ask,
                                                   const Shown& shown) {
    ClusterOracle& cluster = *plan_.upstream.cluster;
    cluster.note_expiry(ask.key);
    History::Verdict worst = History::Verdict::Unknown;
    History::Floor floor;
    size_t number = 0;
    for (Reign* reign = ask.reign; reign != nullptr; reign = reign->next.get(), ++number) {
        History& history = reign->history;
        if (number < ask.floors.size()) floor = ask.floors[number];
        const History::Floor before = floor;
        floor = history.floor_in_next(ask.key, floor);
        const bool is_over = reign->next != nullptr && reign->silent_since_us < owed.start_us &&
                             reign->silent_since_us + plan_.bound_us < owed.start_us &&
                             events_.now_us < reign->silent_until_us;
        if (is_over) continue;
        const bool is_back = cluster.has_one_loop() && history.has_left(number_, ask.key);
        History::Verdict verdict =
            shown.what == Shown::What::Whole
                ? history.judge(number_, ask.key, before, shown.state)
                : history.judge_presence(number_, ask.key, before, shown.is_there);
        if (verdict == History::Verdict::Fine && is_back) verdict = History::Verdict::Back;
        if (verdict == History::Verdict::Fine) return verdict;
        if (verdict != History::Verdict::Unknown) worst = verdict;
    }
    // What it has sent at once may change places where a slot leaves and comes back meanwhile.
    const bool is_excused = worst == History::Verdict::Back &&
                            cluster.has_returned(slot_of(ask.key.second), owed.flight_us);
    return is_excused ? History::Verdict::Fine : worst;
}

// What a client has on a connection of its own stays where it is while that is there.
bool SimulatedClient::is_over(const Reign& reign, const Owed& owed) const {
    if (reign.next == nullptr || owed.is_through) return false;
    const std::string& name = owed.asked.words[0];
    const bool is_leased = name == "EXEC" || name == "EVAL";
    const bool is_known = reign.ended_us != UINT64_MAX &&
                          reign.ended_us + plan_.bound_us < owed.start_us && !is_leased;
    return is_known || (owed.is_doubted && reign.next->since_us < owed.start_us);
}

}  // namespace nearkey::simulation
