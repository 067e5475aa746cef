#include "nearkey/resp/gather.h"

#include "nearkey/resp/elements.h"
#include "nearkey/resp/reply_writer.h"
#include "nearkey/resp/value.h"

#include <algorithm>
#include <unordered_set>
#include <utility>

namespace nearkey {

namespace {

using Result = std::optional<GatheredReply>;

GatheredReply whole(std::string_view reply) {
    return {{}, {reply}};
}

bool is_nil(std::string_view reply) {
    return reply == "$-1\r\n" || reply == "*-1\r\n" || reply == "_\r\n";
}

Result gather_values(const PartReplies& parts) {
    std::vector<Elements> elements;
    elements.reserve(parts.replies.size());
    uint64_t count = 0;
    for (const std::string_view reply : parts.replies)
        count += elements.emplace_back(reply).count();
    if (count != parts.part_of.size()) return std::nullopt;
    GatheredReply result;
    append_array_header(result.head, parts.part_of.size());
    result.pieces.reserve(parts.part_of.size());
    for (const uint16_t part : parts.part_of) {
        result.pieces.push_back(elements[part].next());
        if (result.pieces.back().empty()) return std::nullopt;
    }
    return result;
}

Result gather_joined(const PartReplies& parts) {
    GatheredReply result;
    uint64_t count = 0;
    for (const std::string_view reply : parts.replies) {
        const Elements elements(reply);
        if (!elements.is_array()) return std::nullopt;
        count += elements.count();
        result.pieces.push_back(elements.rest());
    }
    append_array_header(result.head, count);
    return result;
}

Result gather_union(const PartReplies& parts) {
    GatheredReply result;
    std::unordered_set<std::string_view> known;
    for (const std::string_view reply : parts.replies) {
        Elements elements(reply);
        if (!elements.is_array()) return std::nullopt;
        for (std::string_view next = elements.next(); !next.empty(); next = elements.next()) {
            if (known.insert(next).second) result.pieces.push_back(next);
        }
    }
    append_array_header(result.head, result.pieces.size());
    return result;
}

int64_t put_together(Gather how, int64_t one, int64_t other) {
    switch (how) {
        case Gather::Sum: {
            int64_t sum = 0;
            return __builtin_add_overflow(one, other, &sum) ? one : sum;
        }
        case Gather::Least:
            return std::min(one, other);
        default:
            return one != 0 && other != 0 ? 1 : 0;
    }
}

// The integers at the same place of each; what is none is the first one's.
bool append_element(Gather how, std::span<const std::string_view> values, std::string& out) {
    const auto first = number_of(values.front(), ':');
    if (!first) {
        out += values.front();
        return true;
    }
    int64_t number = *first;
    for (const std::string_view value : values.subspan(1)) {
        const auto other = number_of(value, ':');
        if (!other) return false;
        number = put_together(how, number, *other);
    }
    append_integer(out, number);
    return true;
}

Result gather_numbers(const PartReplies& parts) {
    GatheredReply result;
    if (number_of(parts.replies.front(), ':')) {
        const bool fits = append_element(parts.how, parts.replies, result.head);
        return fits ? Result(std::move(result)) : std::nullopt;
    }
    std::vector<Elements> arrays;
    for (const std::string_view reply : parts.replies) {
        const Elements& array = arrays.emplace_back(reply);
        if (!array.is_array() || array.count() != arrays.front().count()) return std::nullopt;
    }
    append_array_header(result.head, arrays.front().count());
    std::vector<std::string_view> values(arrays.size());
    for (uint64_t i = 0; i < arrays.front().count(); ++i) {
        for (size_t part = 0; part < arrays.size(); ++part) {
            values[part] = arrays[part].next();
            if (values[part].empty()) return std::nullopt;
        }
        if (!append_element(parts.how, values, result.head)) return std::nullopt;
    }
    return result;
}

GatheredReply gather_any(const PartReplies& parts) {
    const size_t count = parts.replies.size();
    for (size_t i = 0; i < count; ++i) {
        const std::string_view reply = parts.replies[(parts.draw + i) % count];
        if (!is_nil(reply)) return whole(reply);
    }
    return whole(parts.replies.front());
}

GatheredReply gather_running(const PartReplies& parts) {
    for (const std::string_view reply : parts.replies) {
        const auto stats = parse_value(reply);
        const Value* const running = stats ? stats->find("running_script") : nullptr;
        if (running != nullptr && !running->is_null()) return whole(reply);
    }
    return whole(parts.replies.front());
}

// Of errors, one that says more than that nothing runs there.
GatheredReply gather_one(const PartReplies& parts) {
    std::string_view error = parts.replies.front();
    for (const std::string_view reply : parts.replies) {
        if (!reply.starts_with('-')) return whole(reply);
        if (error.starts_with("-NOTBUSY")) error = reply;
    }
    return whole(error);
}

}  // namespace

std::optional<GatheredReply> gather(const PartReplies& parts) {
    switch (parts.how) {
        case Gather::Values:
            return gather_values(parts);
        case Gather::Join:
            return gather_joined(parts);
        case Gather::Union:
            return gather_union(parts);
        case Gather::Sum:
        case Gather::Least:
        case Gather::Every:
            return gather_numbers(parts);
        case Gather::Same:
            return whole(parts.replies.front());
        case Gather::Any:
            return gather_any(parts);
        case Gather::Running:
            return gather_running(parts);
        case Gather::One:
            return gather_one(parts);
    }
    return std::nullopt;
}

}  // namespace nearkey
