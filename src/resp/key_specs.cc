// Finds a command's keys by what the server says of them: getKeysUsingKeySpecs in db.c.
#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/command_parser.h"
#include "nearkey/resp/command_table.h"
#include "nearkey/resp/number.h"

namespace nearkey {

namespace {

// Where the keys begin; 0: there are none, as the keyword is not there.
int64_t find_begin(const KeySpec& spec, const CommandView& command) {
    if (spec.keyword.empty()) return spec.begin;
    const auto size = static_cast<int64_t>(command.size());
    const bool is_forward = spec.begin > 0;
    const int64_t start = is_forward ? spec.begin : size + spec.begin;
    for (int64_t i = start; i > 0 && i < size; i += is_forward ? 1 : -1) {
        if (equals_ignoring_case(command[static_cast<size_t>(i)], spec.keyword)) return i + 1;
    }
    return 0;
}

}  // namespace

bool CommandSpec::find_keys(const CommandView& command, std::vector<std::string_view>& keys) const {
    const auto size = static_cast<int64_t>(command.size());
    for (const KeySpec& spec : key_specs) {
        const int64_t begin = find_begin(spec, command);
        if (begin == 0) continue;
        int64_t first = begin;
        int64_t last = begin + spec.last;
        if (spec.is_counted) {
            const int64_t index = begin + spec.count_index;
            if (index >= size) return false;
            const auto count = parse_integer(command[static_cast<size_t>(index)]);
            if (!count || *count < 0 || *count > size) return false;
            first = begin + spec.first;
            last = first + (*count - 1) * spec.step;
        } else if (spec.last < 0) {
            last = spec.limit <= 1 ? size + spec.last
                                   : begin + (size - begin) / spec.limit + spec.last;
        }
        if (first <= 0 || last >= size || spec.step < 1) return false;
        for (int64_t i = first; i <= last; i += spec.step)
            keys.push_back(command[static_cast<size_t>(i)]);
    }
    return true;
}

}  // namespace nearkey
