#include "nearkey/daemon/memory_watch.h"

#include "nearkey/base/text_of_file.h"

#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>
#include <charconv>

namespace nearkey {

namespace {

constexpr uint64_t kLookMs = 100;
constexpr std::string_view kAnonymous = "anon ";

// The number at the beginning.
std::optional<uint64_t> number_in(std::string_view text) {
    uint64_t number = 0;
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), number);
    return parsed.ec == std::errc() ? std::optional<uint64_t>(number) : std::nullopt;
}

std::optional<MemoryUse> address_space() {
    rlimit limit{};
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return std::nullopt;
    const std::optional<uint64_t> pages = number_in(text_of_file("/proc/self/statm"));
    if (!pages) return std::nullopt;
    return MemoryUse{*pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)), limit.rlim_cur};
}

std::optional<MemoryUse> cgroup_use(const std::string& folder) {
    if (folder.empty()) return std::nullopt;
    const std::string max = text_of_file(folder + "/memory.max");
    // There is seldom a limit: then this is all that is read.
    return number_in(max) ? parse_cgroup(max, text_of_file(folder + "/memory.stat")) : std::nullopt;
}

bool is_nearer(const MemoryUse& one, const MemoryUse& other) {
    return static_cast<double>(one.used) / static_cast<double>(one.limit) >
           static_cast<double>(other.used) / static_cast<double>(other.limit);
}

}  // namespace

std::optional<MemoryUse> parse_cgroup(const std::string& max, const std::string& stat) {
    const std::optional<uint64_t> limit = number_in(max);
    const size_t line = stat.starts_with(kAnonymous) ? 0 : stat.find("\nanon ");
    if (!limit || *limit == 0 || line == std::string::npos) return std::nullopt;
    const size_t begin = line == 0 ? kAnonymous.size() : line + 1 + kAnonymous.size();
    const std::optional<uint64_t> used = number_in(std::string_view(stat).substr(begin));
    return used ? std::optional(MemoryUse{*used, *limit}) : std::nullopt;
}

std::string own_cgroup() {
    const std::string line = text_of_file("/proc/self/cgroup");
    if (!line.starts_with("0::/")) return "";
    return "/sys/fs/cgroup" + line.substr(3, line.find('\n') - 3);
}

std::optional<MemoryUse> memory_use(const std::string& cgroup) {
    const std::optional<MemoryUse> space = address_space();
    const std::optional<MemoryUse> group = cgroup_use(cgroup);
    if (!space || !group) return space ? space : group;
    return is_nearer(*space, *group) ? space : group;
}

MemoryWatch::MemoryWatch(Loop& loop, Metrics& metrics, Log& log, NearCache* cache)
    : metrics_(metrics), log_(log), cache_(cache), cgroup_(own_cgroup()), timer_(loop, [this] {
          look();
      }) {
    look();
}

void MemoryWatch::look() {
    std::optional<MemoryUse> use = memory_use(cgroup_);
    if (!use) {
        timer_.stop();
    } else if (!timer_.is_active()) {
        timer_.start_repeating(kLookMs);
    }
    if (use && use->is_short()) {
        shed();
        use = memory_use(cgroup_);
    }
    const bool was_short = metrics_.memory_short != 0;
    if (!was_short && use && use->is_short()) {
        metrics_.memory_short = 1;
        log_.warning("memory_short", {{"used", static_cast<int64_t>(use->used)},
                                      {"limit", static_cast<int64_t>(use->limit)}});
    } else if (was_short && (!use || use->is_enough())) {
        metrics_.memory_short = 0;
        log_.info("memory_enough", {});
    }
}

void MemoryWatch::shed() {
    if (cache_ == nullptr || cache_->entries() == 0) return;
    ++metrics_.memory_sheds_total;
    log_.warning("memory_shed", {{"bytes", static_cast<int64_t>(cache_->bytes())}});
    cache_->clear(InvalidationCause::Memory, Loop::boot_ms());
    cache_->sweep(SIZE_MAX, Loop::boot_ms());
    malloc_trim(0);
}

}  // namespace nearkey
