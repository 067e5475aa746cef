#include "nearkey/base/command_counts.h"

#include <algorithm>

namespace nearkey {

namespace {
constexpr std::string_view kUnknown = "unknown";
constexpr std::string_view kOther = "other";
constexpr size_t kNameMax = 64;

bool is_plain(std::string_view name) {
    constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789_.:|-";
    return !name.empty() && name.size() <= kNameMax &&
           name.find_first_not_of(kLetters) == std::string_view::npos;
}
}  // namespace

size_t error_code_of(std::string_view error) {
    if (error.starts_with('-')) error.remove_prefix(1);
    const std::string_view word = error.substr(0, error.find_first_of(" \r\n"));
    const auto* const found = std::find(kErrorCodes.begin(), kErrorCodes.end() - 1, word);
    return static_cast<size_t>(found - kErrorCodes.begin());
}

CommandCount::Errors& CommandCount::errors() {
    if (errors_ == nullptr) {
        errors_ = std::make_unique<Errors>();
        shown_.store(errors_.get(), std::memory_order_release);
    }
    return *errors_;
}

void CommandCount::count_error(std::string_view error) {
    ++errors()[error_code_of(error)];
}

uint64_t CommandCount::errors(size_t code) const {
    const Errors* const shown = shown_.load(std::memory_order_acquire);
    return shown == nullptr ? 0 : uint64_t{(*shown)[code]};
}

void CommandCount::add(const CommandCount& other) {
    forwarded += other.forwarded;
    answered += other.answered;
    for (size_t code = 0; code < kErrorCodes.size(); ++code) {
        if (const uint64_t count = other.errors(code); count > 0) errors()[code] += count;
    }
}

CommandCounts::CommandCounts() : unknown_(&find(kUnknown)) {
}

CommandCounts::CommandCounts(const CommandCounts& other) : CommandCounts() {
    add(other);
}

CommandCount& CommandCounts::find(std::string_view name) {
    const auto found = rows_.find(name);
    if (found != rows_.end()) return found->second;
    return rows_.try_emplace(std::string(name), std::string(name)).first->second;
}

CommandCount& CommandCounts::of(std::string_view name) {
    const std::lock_guard lock(mutex_);
    const bool is_full = rows_.size() >= kNamesMax && !rows_.contains(name);
    return find(is_full || !is_plain(name) ? kOther : name);
}

void CommandCounts::add(const CommandCounts& other) {
    other.for_each([this](const CommandCount& row) { of(row.name()).add(row); });
}

void CommandCounts::for_each(const std::function<void(const CommandCount&)>& visit) const {
    const std::lock_guard lock(mutex_);
    for (const auto& [name, row] : rows_) {
        if (row.is_used() || &row == unknown_) visit(row);
    }
}

uint64_t CommandCounts::total(Count CommandCount::*field) const {
    uint64_t sum = 0;
    for_each([&](const CommandCount& row) { sum += row.*field; });
    return sum;
}

}  // namespace nearkey
