// What a session holds, and gives back.
#include "nearkey/session/session.h"

#include <string>
#include <utility>

namespace nearkey {

namespace {
// So many places of the rings are not worth a look.
constexpr size_t kRingsFree = 64;
// A ring with more room gives it back when it is empty.
constexpr size_t kRingKept = 4096;
// What NearCache keeps of a key that is being written, unless it is long.
constexpr size_t kWriteBytes = 160;
// A shorter string has no memory of its own.
constexpr size_t kShortString = 16;

template <class T>
size_t bytes_of(Ring<T>& ring) {
    if (ring.empty() && ring.capacity() > kRingKept) ring.shrink();
    return ring.capacity() * sizeof(T);
}

size_t bytes_of(const std::string& text) {
    return text.capacity() < kShortString ? 0 : text.capacity();
}

// To assign {} would keep the room.
template <class T>
void give_back(T& container) {
    T().swap(container);
}
}  // namespace

void Session::account() {
    size_t held = input_.capacity() + output_.capacity() + held_bytes_ + late_bytes_ +
                  held_by_.identity + held_by_.multi_keys + parser_.memory_bytes();
    const size_t rings = fills_.capacity() + writes_.capacity() + unstored_reads_.capacity();
    if (rings > kRingsFree || held_by_.spare > 0) held += ring_bytes();
    if (tags_ != nullptr) held += tags_->memory_bytes();
    context_.metrics.client_memory_bytes += held - held_by_.accounted;
    held_by_.accounted = held;
    if (context_.memory.is_short_of_buffers()) context_.events.on_memory_exceeded();
}

// Of rings with much room. Where they are empty it is spare.
size_t Session::ring_bytes() {
    const size_t bytes =
        bytes_of(fills_) + bytes_of(writes_) + bytes_of(unstored_reads_) + bytes_of(steps_);
    const bool is_spare =
        fills_.empty() && writes_.empty() && unstored_reads_.empty() && steps_.empty();
    const size_t spare = is_spare ? bytes : 0;
    context_.metrics.client_spare_bytes += spare - std::exchange(held_by_.spare, spare);
    return bytes + writes_.size() * kWriteBytes;
}

void Session::count_identity() {
    for (std::string* const name :
         {&identity_.name, &identity_.library, &identity_.library_version})
        name->shrink_to_fit();
    held_by_.identity = bytes_of(identity_.name) + bytes_of(identity_.library) +
                        bytes_of(identity_.library_version);
    if (lease_ != nullptr) held_by_.identity *= 2;  // It has been told them.
}

size_t Session::memory_bytes() const {
    size_t bytes = held_by_.accounted;
    if (lease_ == nullptr) return bytes;
    bytes += lease_->memory_bytes() + lease_->owed() * MemoryBudget::kRequestBytes;
    // What a blocking command writes is known to NearCache until it ends.
    for (size_t i = 0; i < writes_.size(); ++i) {
        if (writes_[i].write != nullptr) bytes += bytes_of(writes_[i].write->first);
    }
    return bytes;
}

void Session::pause_for_memory() {
    if (ended_) return;
    pause(kMemory, nullptr);
    if (tunnel_ != nullptr) update_tunnel_reading();
    if (held_by_.spare > 0) shrink();
}

void Session::resume_after_memory() {
    if (ended_) return;
    unpause(kMemory);
    update_reading();
    if (tunnel_ != nullptr) update_tunnel_reading();
}

void SessionContext::shrink() {
    give_back(encoded);
    give_back(keys);
    give_back(missing);
    give_back(arguments);
    give_back(pttl);
}

void Session::shrink() {
    fills_.shrink();
    writes_.shrink();
    unstored_reads_.shrink();
    steps_.shrink();
    late_fills_.shrink_to_fit();
    slow_.shrink_to_fit();
    if (!ended_) account();
}

}  // namespace nearkey
