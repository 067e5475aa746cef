#include "nearkey/dispatch/placement.h"

namespace nearkey {

namespace {
using Where = Placement::Where;

bool is_of_cluster(std::string_view name) {
    return name.starts_with("cluster|") || name == "cluster" || name == "asking";
}

}  // namespace

Placement place(const CommandSpec* spec, const CommandView& command,
                std::vector<std::string_view>& keys) {
    if (spec == nullptr || !spec->accepts(command.size())) return {Where::Anywhere};
    if (spec->first_key != 0 && spec->first_key < command.size()) {
        return {Where::Slot, slot_of(command[spec->first_key])};
    }
    if (is_of_cluster(spec->name)) return {Where::Nowhere};
    if (spec->spread != Spread::OneNode) return {Where::EveryNode};
    keys.clear();
    const bool has_keys = spec->find_first_key(command, keys);
    return has_keys ? Placement{Where::Slot, slot_of(keys.front())} : Placement{Where::Anywhere};
}

}  // namespace nearkey
