#include "nearkey/session/known_scripts.h"

#include "nearkey/base/ignoring_case.h"

#include <algorithm>
#include <utility>

namespace nearkey {

KnownScripts::Script* KnownScripts::find(std::string_view sha) {
    const auto known = std::find_if(scripts_.begin(), scripts_.end(), [sha](const Script& each) {
        return equals_ignoring_case(each.sha, sha);
    });
    return known == scripts_.end() ? nullptr : &*known;
}

void KnownScripts::note(std::string_view sha, std::string_view body,
                        std::vector<std::string> nodes) {
    const std::lock_guard lock(mutex_);
    if (Script* const known = find(sha)) {
        known->nodes = std::move(nodes);
        return;
    }
    scripts_.push_back({std::string(sha), std::string(body), std::move(nodes)});
    bytes_ += bytes_of(scripts_.back());
    while (bytes_ > options_.scripts_bytes_max) {
        ++metrics_.cluster_scripts_bytes_max_total;
        bytes_ -= bytes_of(scripts_.front());
        scripts_.pop_front();
    }
    metrics_.cluster_scripts_bytes = bytes_;
}

void KnownScripts::clear() {
    const std::lock_guard lock(mutex_);
    scripts_.clear();
    bytes_ = 0;
    metrics_.cluster_scripts_bytes = 0;
}

std::string KnownScripts::body_for(std::string_view sha, std::string_view node) {
    const std::lock_guard lock(mutex_);
    const Script* const known = find(sha);
    if (known == nullptr) return {};
    const bool is_told =
        std::find(known->nodes.begin(), known->nodes.end(), node) != known->nodes.end();
    return is_told ? std::string() : known->body;
}

void KnownScripts::note_told(std::string_view sha, std::string_view node) {
    const std::lock_guard lock(mutex_);
    if (Script* const known = find(sha)) known->nodes.emplace_back(node);
}

}  // namespace nearkey
