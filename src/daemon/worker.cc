#include "nearkey/daemon/worker.h"

#include "nearkey/base/random.h"

#include <span>
#include <utility>

namespace nearkey {

namespace {
// A pipeline of large values is parsed where it was read; of replies, which are copied on, no more
// than the processor's nearest caches hold.
constexpr size_t kScratchSize = size_t{160} << 10;
constexpr size_t kReplyScratchSize = size_t{64} << 10;
}  // namespace

Worker::Worker(const Parts& parts, std::unique_ptr<UpstreamTarget> target)
    : number_(parts.number),
      mailbox_(parts.mailbox),
      main_mailbox_(parts.main_mailbox),
      cache_(parts.shared.cache),
      events_(parts.events),
      hot_keys_(parts.shared.config.hot_keys, parts.shared.key_hash),
      scratch_(kScratchSize) {
    const WorkerShared& shared = parts.shared;
    pool_ = std::make_unique<ConnectionPool>(
        ConnectionPool::Parts{parts.loop, parts.metrics, shared.log,
                              std::span(scratch_).first(kReplyScratchSize), *this, cache_,
                              random_word(), number_ == 0},
        shared.config.upstream, std::move(target));
    if (cache_ != nullptr) pool_->bound_staleness(shared.config.near_cache.max_staleness_ms);
    const bool is_alone = parts.count == 1;
    if (!is_alone && cache_ != nullptr) {
        proofs_ = std::make_unique<SharedProofs>(mailbox_, pool_->own_proofs());
        pool_->share_cache(*proofs_);
    }
    clients_ =
        std::make_unique<ClientServer>(ClientServer::Parts{.loop = parts.loop,
                                                           .metrics = parts.metrics,
                                                           .log = shared.log,
                                                           .pool = *pool_,
                                                           .scratch = scratch_,
                                                           .hot_keys = hot_keys_,
                                                           .slow_log = shared.slow_log,
                                                           .all = shared.all,
                                                           .loops = parts.count,
                                                           .exchange = is_alone ? nullptr : this,
                                                           .fill_loop = is_alone ? nullptr : this},
                                       shared.config.limits);
}

Worker::~Worker() {
    clients_.reset();
    proofs_.reset();
    pool_.reset();
}

void Worker::share_cache_with(Worker& other) {
    if (proofs_ != nullptr) proofs_->add_other(*other.proofs_);
}

void Worker::try_target(std::unique_ptr<UpstreamTarget> target, uint64_t trial) {
    trial_ = trial;
    pool_->try_target(std::move(target), *this);
}

void Worker::seek_primary(uint64_t trial) {
    trial_ = trial;
    pool_->seek_primary(*this);
}

void Worker::tell(std::function<void()> what) {
    if (number_ == 0) {
        what();
    } else {
        main_mailbox_.post(std::move(what));
    }
}

void Worker::on_health_changed(const UpstreamHealth& health) {
    tell([this, health] { events_.on_worker_health(number_, health); });
}

void Worker::on_credentials_refused() {
    tell([this] { events_.on_credentials_refused(); });
}

void Worker::on_demoted() {
    tell([this] { events_.on_worker_demoted(); });
}

void Worker::on_target_proven() {
    tell([this, trial = trial_] { events_.on_worker_target_proven(trial); });
}

void Worker::on_target_refused(const std::string& reason) {
    tell([this, trial = trial_, reason] { events_.on_worker_target_refused(trial, reason); });
}

bool Worker::hand_over(uint64_t listener, int fd, uint64_t id) {
    return events_.hand_over(listener, fd, id);
}

void Worker::on_client_ended(uint64_t listener) {
    if (number_ == 0) return;
    tell([this, listener] { events_.on_client_ended(number_, listener); });
}

void Worker::wake() {
    mailbox_.post([this] { cache_->tell_waiters(*this); });
}

}  // namespace nearkey
