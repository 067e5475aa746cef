#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"

#include <string.h>
#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
constexpr size_t kCopyMin = size_t{4} << 10;
// Input of this size may be a read that came alone; more is several commands, or a large one.
constexpr size_t kLoneReadMax = 512;
// So many commands are looked ahead for keys: what is fetched of them stays in the nearest cache.
constexpr size_t kExpectedAtOnce = 32;
constexpr size_t kLookaheadMax = size_t{64} << 10;
constexpr std::string_view kOneArgument = "*2\r\n";

// Of a command with one argument, if that is all there is: most likely the key of a read.
std::string_view lone_key(std::string_view input) {
    if (!input.starts_with(kOneArgument) || !input.ends_with("\r\n")) return {};
    input.remove_suffix(2);
    const void* const line_end = memrchr(input.data(), '\n', input.size());
    if (line_end == nullptr) return {};
    return input.substr(static_cast<size_t>(static_cast<const char*>(line_end) - input.data()) + 1);
}
}  // namespace

Session::Session(SessionContext& context, const ClientTerms& terms, uint64_t id)
    : context_(context),
      terms_(terms),
      id_(id),
      resume_hook_(*this, Phase::Resume, &Session::resume),
      flush_hook_(*this, Phase::Client, &Session::flush),
      database_(terms.database),
      parser_(static_cast<int64_t>(context.limits.bulk_max)),
      cache_use_(terms.cache_use),
      ttl_receiver_(*this),
      connected_ms_(context.loop.now_ms()),
      active_ms_(connected_ms_) {
}

Session::~Session() {
    CHECK(connection_ == nullptr && lease_ == nullptr);
}

void Session::attach(std::unique_ptr<ByteStream> stream) {
    stream_ = std::move(stream);
}

void Session::drain() {
    if (ended_) return;
    // Who waits in a blocking command may leave, which must be noticed: its input stays open.
    is_draining_ = !input_over_ && !lease_blocks_ && stream_->refuse_more();
    if (is_draining_) return;  // on_end() follows.
    stop_input();
    end_if_done();
}

void Session::abort() {
    end();
}

// --- input ---

void Session::on_bytes(std::string_view bytes) {
    bytes_in_ += bytes.size();
    active_ms_ = context_.loop.now_ms();
    if (ended_ || input_over_) return;
    if (input_.empty() && paused_ == 0 && expect(bytes)) {
        input_.append(bytes);
        paused_ = kYield;
        resume_hook_.defer();
        return;
    }
    while (!input_.empty() && !bytes.empty() && !ended_ && !input_over_)
        complete_input(bytes);
    if (ended_ || input_over_) return;
    if (input_.empty()) run(bytes);
    if (ended_) return;
    input_.append(bytes);
    check_memory();
}

bool Session::may_expect() const {
    return context_.cache != nullptr && cache_use_ == CacheUse::On &&
           context_.cache->bytes() >= context_.expected_from_bytes;
}

// True: the near cache will be asked, and what it looks at first is on its way from memory. It is
// there when the others have been read of whom the loop knows in this turn; the read is run then.
bool Session::expect(std::string_view input) {
    if (!may_expect() || input.size() > kLoneReadMax) return false;
    const std::string_view key = lone_key(input);
    if (key.empty()) return false;
    context_.cache->expect(key, context_.expected);
    return true;
}

// The same of reads that came together: what the first ones look at comes while the others are
// looked for.
void Session::expect_batch(std::string_view input) {
    if (!may_expect() || input.size() <= kLoneReadMax) return;
    if (!input.starts_with(kOneArgument)) return;
    // Not into one that is large: its arguments would be kept twice.
    input = input.substr(0, kLookaheadMax);
    const NearCache::Hold hold(*context_.cache);
    CommandParser& parser = context_.lookahead;
    parser.restart();
    for (size_t i = 0; i < kExpectedAtOnce && parser.next(input) == ParseResult::Command; ++i) {
        const CommandView& command = parser.command();
        if (command.size() == 2) context_.cache->expect(command[1], context_.expected);
        input.remove_prefix(parser.consumed());
    }
}

void Session::check_memory() {
    if (input_.size() > terms_.limits.input_per_client_max) {
        ++context_.metrics.clients_closed_input_total;
        warn("client_closed", "limits.input_per_client_max");
        end();
        return;
    }
    context_.shrink_if_large();
    account();
    if (!context_.memory.is_short()) return;
    pause(kMemory, nullptr);
    context_.events.on_memory_exceeded();
}

void Session::on_end() {
    input_over_ = true;
    // As the server does: who leaves while waiting takes nothing more. If it was us who ended it,
    // the client is still there.
    if (lease_blocks_ && !is_draining_) {
        end();
        return;
    }
    // A client that only sends no more still reads. One that is gone must not stay blocked there.
    if (tunnel_ != nullptr && tunnel_->is_left_to_server() && !is_draining_) {
        lease_->finish_when_silent();
    }
    end_if_done();
}

void Session::on_stream_lost() {
    output_lost_ = true;
    flush_hook_.defer();
    on_end();
}

void Session::on_writable() {
    output_blocked_ = false;
    flush();
}

// Adds what is missing of the argument that is being received, and runs the command if that was
// all of it. What follows a large argument is then run where it is, without a copy. A smaller one
// is taken together with all that follows: whole transactions are found in what is there.
void Session::complete_input(std::string_view& bytes) {
    const size_t missing = parser_.missing();
    if (missing >= kLarge) prefetch_lease();
    const size_t count = missing >= kCopyMin ? std::min(missing, bytes.size()) : bytes.size();
    input_.append(bytes.substr(0, count));
    bytes.remove_prefix(count);
    run_input();
}

void Session::run_input() {
    std::string_view rest = input_.view();
    run(rest);
    if (!ended_) input_.consume(input_.size() - rest.size());
}

// Runs what waits in the input buffer.
void Session::resume() {
    if (ended_) return;
    paused_ &= static_cast<uint8_t>(~kYield);
    run_input();
    if (!ended_) check_memory();
    if (ended_) return;
    update_reading();
    end_if_done();
}

void Session::run(std::string_view& input) {
    if (context_.cache != nullptr) context_.boot_ms = Loop::boot_ms();
    if (!is_retried_) command_us_ = context_.loop.turn_us();
    for (size_t executed = 0; !input.empty() && !ended_ && may_run(executed); ++executed) {
        if (executed % kExpectedAtOnce == 0) expect_batch(input);
        switch (parser_.next(input)) {
            case ParseResult::Incomplete:
                return;
            case ParseResult::Empty:
                consumed_ = parser_.consumed();
                break;
            case ParseResult::Invalid:
                input = {};
                refuse_input();
                return;
            case ParseResult::Command:
                consumed_ = parser_.consumed();
                if (execute(parser_.command(), input) == Executed::NotYet) {
                    parser_.restart();
                    is_retried_ = true;
                    if (input_dropped_) input = {};
                    return;
                }
                if (std::exchange(is_retried_, false)) command_us_ = context_.loop.turn_us();
                break;
        }
        if (ended_) return;
        // A command that took its buffer along has left what follows it in a new one.
        if (std::exchange(input_given_, false)) {
            input = input_.view();
        } else {
            input.remove_prefix(consumed_);
        }
        // QUIT: what comes behind it is not run.
        if (input_dropped_) input = {};
    }
}

bool Session::may_run(size_t executed) {
    if (paused_ != 0) return false;
    if (owed() >= terms_.limits.in_flight_per_client_max) {
        pause(kInFlight, &context_.metrics.clients_paused_in_flight_total);
        return false;
    }
    // In a tunnel the server judges who takes nothing.
    if (unsent() >= terms_.limits.output_per_client_high_water && tunnel_ == nullptr) {
        pause(kOutput, &context_.metrics.clients_paused_output_total);
        return false;
    }
    if (context_.memory.is_short_of_buffers()) {
        pause(kMemory, nullptr);
        context_.events.on_memory_exceeded();
        return false;
    }
    if (executed >= terms_.limits.commands_per_turn_max) {
        pause(kYield, &context_.metrics.clients_yielded_total);
        resume_hook_.defer();
        return false;
    }
    return true;
}

Session::Executed Session::execute(const CommandView& command, std::string_view input) {
    const CommandSpec* spec = context_.pool.commands().find(command);
    spec_ = spec;
    if (tunnel_ != nullptr) return pass_through(spec, command);
    if (spec == nullptr) {
        context_.pool.refresh_commands();
        if (multi_owed_) {
            if (const auto executed = begin_owed(spec, command)) return *executed;
        }
        if (is_refused(spec, command)) return refuse(command);
        return forward_unproven(command);
    }
    if (is_in_transaction()) return execute_in_transaction(*spec, command);
    // The server itself says what is wrong with a call that it will not run.
    if (spec->route != Route::Close && !spec->accepts(command.size())) {
        return spec->route == Route::Shared ? forward(command, RequestKind::Read)
                                            : forward_unproven(command);
    }
    if (!terms_.access.allows(*spec, command)) return refuse(command);
    switch (spec->route) {
        case Route::Shared:
            if (spec->blocks_by_option && has_block_option(command)) {
                return forward_alone(command, RequestKind::Blocking);
            }
            if (context_.cache != nullptr && may_be_stored(command)) return read(command);
            return forward_shared(command);
        case Route::Dedicated: {
            if (spec->special == Special::Wait) return forward_wait(command);
            if (spec->special == Special::ConfigGet) return forward_config_get(command);
            const RequestKind kind = spec->is_blocking ? RequestKind::Blocking : RequestKind::Write;
            return spec->may_say_anything() ? forward_script(command, kind)
                                            : forward_alone(command, kind);
        }
        case Route::Unproven:
            return forward_unproven(command);
        case Route::Transaction:
            return execute_transaction(*spec, command, input);
        case Route::Tunnel:
            return enter_tunnel(spec, command);
        case Route::Local:
            return execute_local(*spec, command);
        case Route::Close:
            close_attacker();
            return Executed::Yes;
    }
    return Executed::Yes;
}

void Session::stop_input() {
    input_over_ = true;
    input_dropped_ = true;
    input_.consume(input_.size());
    update_reading();
}

// Somebody makes a browser or another program speak HTTP to us.
void Session::close_attacker() {
    ++context_.metrics.security_closes_total;
    warn("possible_attack", "POST or Host: instead of a command; client closed");
    end();
}

void Session::warn(std::string_view event, std::string_view what) {
    context_.log.warning(event, {{"what", what},
                                 {"session", static_cast<int64_t>(id_)},
                                 {"request", int64_t{next_ticket_}},
                                 {"tag", tag()}});
}

// --- routes ---

// Over the shared connection, unless others are to be spared the command or its reply.
Session::Executed Session::forward_shared(const CommandView& command) {
    const RequestKind kind = spec_->may_repeat ? RequestKind::Read : RequestKind::Write;
    if (alone_ > 0 || command.raw().size() >= kLarge) return forward_apart(command, kind);
    return forward(command, kind);
}

Session::Executed Session::forward(const CommandView& command, RequestKind kind) {
    if (const auto executed = pin(1)) return *executed;
    send(*connection_, command, kind);
    return Executed::Yes;
}

std::optional<Session::Executed> Session::pin(size_t commands) {
    if (lease_ != nullptr) return wait_until_idle();
    if (connection_ != nullptr && connection_->is_leaving()) {
        if (owed() > 0) return wait_until_idle();
        leave_connection();
    }
    if (owed() == 0) leave_slow_connection();
    if (connection_ == nullptr && !database_unsure_) {
        connection_ = context_.pool.acquire(protocol_, database_);
    }
    if (connection_ != nullptr && !database_unsure_) return std::nullopt;
    for (size_t i = 0; i < commands; ++i)
        answer_error(database_unsure_ ? kDatabaseUnsure : kNoConnectionLeft);
    return Executed::Yes;
}

void Session::leave_slow_connection() {
    const bool waits = spec_ != nullptr && spec_->waits_in_pause && !database_unsure_;
    if (waits && context_.pool.may_hold_writes()) {
        Connection* const held_up = context_.pool.find_held_up(protocol_, database_);
        if (held_up != nullptr) {
            context_.pool.change_connection(connection_, *held_up);
            return;
        }
    }
    if (connection_ == nullptr) return;
    if (connection_->is_congested() || connection_->is_held_up()) leave_connection();
}

Session::Executed Session::wait_until_idle() {
    CHECK(owed() > 0);
    pause(kUntilIdle, nullptr);
    return Executed::NotYet;
}

// The command as every RESP parser reads it in the same way.
std::string_view Session::canonical(const CommandView& command) {
    if (command.is_canonical()) return command.raw();
    context_.encoded.clear();
    encode_command(command, context_.encoded);
    return context_.encoded;
}

void Session::send(Connection& connection, const CommandView& command, RequestKind kind) {
    ++commands_;
    ++context_.metrics.commands_forwarded_total;
    has_written_ |= kind != RequestKind::Read;
    const uint32_t ticket = next_ticket_++;
    if (context_.cache != nullptr) note(connection, command, ticket);
    connection.send(
        {canonical(command), this, ticket, kind, 1, awaited_ms(), timing(command, kind)});
}

// Who is owed reads alone need not wait behind a command that the server keeps waiting
// (CLIENT PAUSE WRITE). Each reply waits for its own proof, as with any other connection of the
// kind; nothing is stored, since how long a key lives was asked over the former one.
void Session::on_held_up() {
    if (ended_ || lease_ != nullptr || preparation_ != Preparation::None) return;
    const int database = selecting_ >= 0 ? selecting_ : database_;
    Connection* const next = context_.pool.find_ready(protocol_, database);
    if (next == nullptr) return;
    connection_->pass(*this, *next);
    connection_->forget(ttl_receiver_);
    for (size_t i = 0; i < fills_.size(); ++i)
        fills_[i].ttl_ms = PendingFill::kTtlUnknown;
    context_.pool.change_connection(connection_, *next);
}

// REQUIRES: nothing is owed by it, or the session is ending.
void Session::leave_connection() {
    if (connection_ == nullptr) return;
    if (owed() > 0) {
        connection_->forget(*this);
        connection_->forget(ttl_receiver_);
    }
    context_.pool.release(*std::exchange(connection_, nullptr));
}

}  // namespace nearkey
