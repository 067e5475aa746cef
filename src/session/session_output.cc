#include "nearkey/session/session.h"

#include "nearkey/base/check.h"
#include "nearkey/resp/reply_writer.h"

#include <algorithm>
#include <utility>

namespace nearkey {

namespace {
// A reply longer than this starts to leave before its end is there.
constexpr size_t kStreamedReplyMin = size_t{256} << 10;
constexpr size_t kOwnReplyMax = 1024;
// What a held reply takes beside its bytes.
constexpr size_t kHeldBytes = 96;
// After a reply as large as kLarge: so many more commands go over a lease, for likely the client
// gets another such reply.
constexpr uint32_t kAloneAfterLarge = 32;
}  // namespace

void Session::on_reply_bytes(uint32_t ticket, std::string_view bytes) {
    if (ended_ || is_cut_) return;
    if (ticket != first_ticket_) {
        CHECK(preparation_ == Preparation::Pending);
        if (preparation_error_.size() + bytes.size() <= kOwnReplyMax) preparation_error_ += bytes;
        return;
    }
    if (reply_type_ == 0) reply_type_ = bytes.front();
    reply_size_ += bytes.size();
    if (output_lost_) return;
    output_.append(bytes);
    if (unsent() > terms_.limits.output_per_client_max) {
        ++context_.metrics.clients_closed_output_total;
        warn("client_closed", "limits.output_per_client_max");
        end();
        return;
    }
    if (output_.size() - committed_ >= kStreamedReplyMin) flush_hook_.defer();
}

void Session::on_reply_end(uint32_t ticket) {
    if (ended_ || is_cut_) return;
    if (ticket != first_ticket_) {
        CHECK(preparation_ == Preparation::Pending);
        on_prepared();
        return;
    }
    if (reply_size_ >= kLarge) {
        alone_ = kAloneAfterLarge;
        prefetch_lease();
    } else if (alone_ > 0) {
        --alone_;
    }
    reply_size_ = 0;
    if (!steps_.empty() && steps_.front().ticket == ticket) {
        finish_step(steps_.front().what);
        steps_.pop_front();
    }
    const bool is_whole = !output_lost_ && !partly_sent_ && reply_type_ != '-';
    tell_cache(ticket, is_whole ? output_.view().substr(committed_) : std::string_view{});
    // Whatever PING was answered with: the connection that brought it is in that database.
    if (selecting_ >= 0) {
        on_selected();
        output_.truncate(committed_);
        if (!output_lost_) output_.append("+OK\r\n");
    }
    if (lease_ != nullptr) {
        // An error may tell of the client's own words, whatever the command; of scripts and modules
        // each text may. EXEC's reply has those of all that was queued.
        lease_doubtful_ |= reply_type_ == '-' || (lease_scripted_ && lease_->has_read_text());
        if (std::exchange(lease_unproven_, false)) lease_dirty_ |= reply_type_ != '-';
    }
    ++first_ticket_;
    settle();
}

bool Session::on_reply_void(uint32_t ticket) {
    if (ended_ || is_cut_) return false;
    if (ticket == first_ticket_) void_partial_reply();
    return !ended_;
}

void Session::on_request_failed(uint32_t ticket, std::string_view error) {
    if (ended_ || is_cut_) return;
    std::string reply;
    if (preparation_ == Preparation::Pending) {
        // It was ours: the client's command has not been sent.
        const bool is_late = error.starts_with("UPSTREAMTIMEOUT");
        append_error(reply,
                     is_late ? "UPSTREAMDOWN Valkey did not answer in time; not sent" : error);
        preparation_error_ = std::move(reply);
        preparation_failed_ = true;
        on_prepared();
        return;
    }
    if (is_cut_by(error, lease_blocks_)) {
        // An empty one: the place of the cut.
    } else if (is_in_transaction()) {
        reply = fail_in_transaction(ticket, error);
    } else {
        append_error(reply, error);
    }
    if (ticket != first_ticket_) {
        hold(ticket, std::move(reply));
        return;
    }
    tell_cache_of_failure(ticket);
    if (!void_partial_reply()) return;
    if (reply.empty()) {
        cut();
        return;
    }
    if (!output_lost_) output_.append(reply);
    ++first_ticket_;
    if (selecting_ >= 0) {
        const bool is_refusal = !error.starts_with("UPSTREAM") && !is_refusal_of_connection(error);
        on_select_failed(is_refusal ? SelectFailure::Refused : SelectFailure::OnTheWay);
    }
    settle();
}

void Session::hold(uint32_t ticket, std::string reply) {
    held_bytes_ += kHeldBytes + reply.size();
    held_[ticket] = std::move(reply);
}

// A reply is whole: what was held behind it may follow, and what waited for it may go on.
void Session::settle() {
    for (auto next = held_.find(first_ticket_); next != held_.end();
         next = held_.find(++first_ticket_)) {
        tell_cache_of_failure(first_ticket_);
        if (next->second.empty()) {
            committed_ = output_.size();
            cut();
            return;
        }
        if (!output_lost_) output_.append(next->second);
        held_bytes_ -= kHeldBytes + next->second.size();
        held_.erase(next);
    }
    committed_ = output_.size();
    reply_type_ = 0;
    partly_sent_ = false;
    flush_hook_.defer();
    if (owed() == 0) {
        lease_blocks_ = false;
        if (!is_in_transaction()) end_lease();
        unpause(kUntilIdle | kInFlight);
    } else if (owed() <= terms_.limits.in_flight_per_client_max / 2) {
        unpause(kInFlight);
    }
}

// False if the client had to be closed: it has a part of a reply whose rest will not come.
bool Session::void_partial_reply() {
    reply_type_ = 0;
    if (partly_sent_) {
        end();
        return false;
    }
    output_.truncate(committed_);
    return true;
}

void Session::flush() {
    if (ended_) return;
    if (proofs_awaited_ > 0 && !is_changing_way_) {
        account();  // Replies come all the same.
        return;
    }
    const bool streams = output_.size() - committed_ >= kStreamedReplyMin || partly_sent_;
    const size_t ready =
        streams ? std::min(output_.size(), context_.loop.large_piece()) : committed_;
    if (ready > 0 && !output_blocked_ && !output_lost_) {
        size_t written = 0;
        switch (stream_->write(output_.view().substr(0, ready), written)) {
            case WriteResult::Ok:
                break;
            case WriteResult::WouldBlock:
                output_blocked_ = true;
                break;
            case WriteResult::Lost:
                output_lost_ = true;
                break;
        }
        bytes_out_ += written;
        if (written > committed_) partly_sent_ = true;
        committed_ -= std::min(written, committed_);
        output_.consume(written);
        if (!slow_.empty() && committed_ == 0) finish_slow();
    }
    if (output_lost_) {
        output_.truncate(0);
        committed_ = 0;
    }
    // The rest of a large reply follows in the next turn.
    const bool has_more = streams && !output_.empty() && !output_blocked_ && !output_lost_;
    if (has_more) flush_hook_.defer();
    if (unsent() <= terms_.limits.output_per_client_high_water / 2) unpause(kOutput);
    if (tunnel_ != nullptr) update_tunnel_reading();
    account();
    if (is_cut_ && (output_.empty() || output_lost_)) end();
    end_if_done();
}

bool Session::is_cut_by(std::string_view error, bool waits) const {
    return (terms_.when_down == WhenDown::Close || waits) && error.starts_with("UPSTREAM");
}

void Session::cut() {
    ++context_.metrics.clients_closed_down_total;
    is_cut_ = true;
    stop_input();
    flush_hook_.defer();
}

void Session::end_if_done() {
    if (tunnel_ != nullptr && output_lost_) end();
    if (ended_ || !input_over_ || paused_ != 0 || owed() > 0) return;
    if (tunnel_ != nullptr) {
        finish_tunnel();
        return;
    }
    if (output_.empty() || output_lost_) end();
}

void Session::end() {
    if (ended_) return;
    ended_ = true;
    finish_slow();
    context_.pool.stop_waiting(static_cast<LeaseWaiter&>(*this));
    if (tunnel_ != nullptr) leave_tunnel();
    end_lease();
    leave_connection();
    leave_cache();
    stream_->pause_reading();
    context_.metrics.client_memory_bytes -= held_by_.accounted;
    held_by_.accounted = 0;
    context_.metrics.client_spare_bytes -= std::exchange(held_by_.spare, 0);
    context_.events.on_session_ended(*this);
}

}  // namespace nearkey
