#include "nearkey/server/shared_segment.h"

#include "nearkey/base/random.h"

#include <cstddef>
#include <system_error>

namespace nearkey {

void SharedSegment::make(uint64_t size, const std::string& terms) {
    if (size == size_ && terms == terms_) return;
    end();
    size_ = size;
    terms_ = terms;
    if (size == 0) return;
    const uint64_t pages = (size + NEARKEY_SEGMENT_PAGE - 1) / NEARKEY_SEGMENT_PAGE;
    const NearCache::Hold hold(cache_);
    try {
        memory_ = std::make_unique<SharedMemory>(pages * NEARKEY_SEGMENT_PAGE,
                                                 offsetof(nearkey_segment_header, owner));
        incarnation_ = random_word();
    } catch (const std::system_error& error) {
        why_not_ = std::string("no shared memory can be made: ") + error.what();
        log_.warning("shared_memory_off", {{"reason", why_not_}});
    }
}

// Buckets go first: who reads an item of which nothing is left finds its entry gone.
void SharedSegment::end() {
    const NearCache::Hold hold(cache_);
    size_ = 0;
    terms_.clear();
    why_not_ = "shared memory is off (listener.shared_memory)";
    if (memory_ == nullptr) return;
    cache_.shared_replies().end();
    memory_->give_up();
    const size_t size = memory_->bytes().size();
    const auto& header = *reinterpret_cast<const nearkey_segment_header*>(memory_->bytes().data());
    if (header.magic == NEARKEY_SEGMENT_MAGIC) {
        memory_->wipe(header.buckets_at, header.items_at);
        memory_->wipe(header.items_at, size);
        memory_->wipe(header.sources_at, header.buckets_at);
    }
    memory_.reset();
}

SegmentGrant SharedSegment::hand_out() {
    const NearCache::Hold hold(cache_);
    if (memory_ == nullptr) return {.descriptor = {}, .why_not = why_not_};
    SegmentGrant grant{.descriptor = memory_->reader(), .incarnation = incarnation_};
    if (grant.descriptor.get() < 0) {
        grant.why_not = "no file descriptor is left for the shared memory";
        return grant;
    }
    if (!cache_.shared_replies().is_active()) {
        cache_.shared_replies().begin(memory_->bytes(), {random_word(), incarnation_});
    }
    ++metrics_.shared_handed_out_total;
    return grant;
}

}  // namespace nearkey
