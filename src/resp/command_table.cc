#include "nearkey/resp/command_table.h"

#include "nearkey/base/ignoring_case.h"
#include "nearkey/resp/cache_rules.h"
#include "nearkey/resp/command_rules.h"
#include "nearkey/resp/replica_rules.h"

#include <algorithm>

namespace nearkey {

namespace {

constexpr size_t kSplitMax = 1024;  // words of a command whose reply is stored key by key

constexpr size_t kNameMax = 64;

std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(), to_lower);
    return result;
}

// FNV-1a over the name with the lower-case bit set: names that collide are told apart later.
size_t hash_name(std::string_view name) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const char c : name)
        hash = (hash ^ (static_cast<unsigned char>(c) | 0x20U)) * 0x100000001b3;
    return static_cast<size_t>(hash ^ (hash >> 32));
}

int64_t find_integer(const Value& map, std::string_view key, int64_t otherwise) {
    const Value* value = map.find(key);
    return value == nullptr ? otherwise : value->integer;
}

// False: it does not tell of all keys.
bool read_key_spec(const Value& entry, KeySpec& spec) {
    const Value* flags = entry.find("flags");
    const Value* begin = entry.find("begin_search");
    const Value* keys = entry.find("find_keys");
    if (flags == nullptr || begin == nullptr || keys == nullptr) return false;
    for (const Value& flag : flags->elements) {
        if (flag.text == "incomplete") return false;
        spec.is_written |= flag.text == "RW" || flag.text == "OW" || flag.text == "RM";
    }
    const Value* begin_type = begin->find("type");
    const Value* begin_spec = begin->find("spec");
    const Value* keys_type = keys->find("type");
    const Value* keys_spec = keys->find("spec");
    if (begin_type == nullptr || begin_spec == nullptr || keys_type == nullptr ||
        keys_spec == nullptr) {
        return false;
    }
    if (begin_type->text == "index") {
        spec.begin = find_integer(*begin_spec, "index", 0);
    } else if (const Value* word = begin_spec->find("keyword"); word != nullptr) {
        spec.keyword = word->text;
        spec.begin = find_integer(*begin_spec, "startfrom", 0);
    }
    spec.is_counted = keys_type->text == "keynum";
    spec.last = find_integer(*keys_spec, "lastkey", 0);
    spec.step = find_integer(*keys_spec, "keystep", 0);
    spec.limit = find_integer(*keys_spec, "limit", 0);
    spec.count_index = find_integer(*keys_spec, "keynumidx", 0);
    spec.first = find_integer(*keys_spec, "firstkey", 0);
    return spec.begin != 0 && spec.step > 0 && (spec.is_counted || keys_type->text == "range");
}

// Finds the family by the categories of COMMAND: "@write", "@string", ...
CommandFamily family_of(const Value& categories) {
    for (size_t i = 0; i < kFamilyNames.size(); ++i) {
        for (const Value& category : categories.elements) {
            const std::string_view name = category.text;
            if (name.starts_with('@') && name.substr(1) == kFamilyNames[i]) {
                return static_cast<CommandFamily>(i);
            }
        }
    }
    return CommandFamily::Other;
}

uint8_t fixed_place_of_key(const CommandSpec& spec) {
    if (spec.key_specs.empty()) return 0;
    const KeySpec& first = spec.key_specs[0];
    const bool is_fixed = first.keyword.empty() && !first.is_counted && first.begin > 0;
    return is_fixed && first.begin <= UINT8_MAX ? static_cast<uint8_t>(first.begin) : uint8_t{0};
}

void find_counts(CommandSpec& spec, CommandCounts& counts) {
    spec.counts = &counts.of(spec.name);
    for (CommandSpec& child : spec.subcommands)
        find_counts(child, counts);
}

// A table has at most 64 of them, as in Valkey.
uint64_t bit_of(std::string_view name, std::vector<std::string>& categories) {
    auto found = std::find(categories.begin(), categories.end(), name);
    if (found == categories.end() && categories.size() < 64) {
        found = categories.emplace(categories.end(), name);
    }
    if (found == categories.end()) return 0;
    return uint64_t{1} << static_cast<unsigned>(found - categories.begin());
}

uint64_t read_categories(const Value& list, std::vector<std::string>& categories) {
    uint64_t bits = 0;
    for (const Value& each : list.elements) {
        const std::string_view name = each.text;
        if (name.starts_with('@')) bits |= bit_of(name.substr(1), categories);
    }
    return bits;
}

// A command without these flags (INFO, PING, TIME, MEMORY STATS) changes neither data nor the
// server nor its connection; PUBLISH has may_replicate, CONFIG SET admin, CLIENT SETNAME noscript.
bool tells_of_effects(std::string_view flag) {
    constexpr std::string_view kFlags[] = {"write",    "may_replicate", "admin", "noscript",
                                           "blocking", "pubsub",        "module"};
    return std::find(std::begin(kFlags), std::end(kFlags), flag) != std::end(kFlags);
}

// An entry of COMMAND: name, arity, flags, first key, last key, step, categories, tips, key specs,
// sub-commands.
bool read_spec(const Value& entry, std::vector<std::string>& categories, CommandSpec& spec) {
    if (entry.elements.size() < 3) return false;
    spec.name = lower(entry.elements[0].text);
    spec.arity = entry.elements[1].integer;
    spec.may_repeat = true;
    for (const Value& flag : entry.elements[2].elements) {
        spec.may_repeat &= !tells_of_effects(flag.text);
        spec.needs_no_auth |= flag.text == "no_auth";
        spec.is_noscript |= flag.text == "noscript";
        spec.is_taken_busy |= flag.text == "allow_busy";
        spec.is_readonly |= flag.text == "readonly";
        spec.is_write |= flag.text == "write";
        spec.waits_in_pause |= flag.text == "write" || flag.text == "may_replicate";
        spec.is_module |= flag.text == "module";
        spec.is_blocking |= flag.text == "blocking";
    }
    spec.may_repeat |= spec.is_readonly;
    if (entry.elements.size() > 6) spec.family = family_of(entry.elements[6]);
    spec.is_servers_own = true;
    if (entry.elements.size() >= 7)
        spec.categories = read_categories(entry.elements[6], categories);
    apply_rules(spec);
    bool specs_known = entry.elements.size() >= 9;
    for (size_t i = 0; specs_known && i < entry.elements[8].elements.size(); ++i)
        specs_known = read_key_spec(entry.elements[8].elements[i], spec.key_specs.emplace_back());
    spec.names_one_key = !spec.key_specs.empty() && spec.key_specs[0].last == 0;
    apply_cache_rules(spec, specs_known);
    spec.first_key = fixed_place_of_key(spec);
    apply_spread_rules(spec, entry.elements.size() > 7 ? &entry.elements[7] : nullptr);
    apply_replica_rules(spec);
    if (entry.elements.size() < 10) return true;
    for (const Value& child : entry.elements[9].elements) {
        CommandSpec subcommand;
        // Their names are read without "parent|", so they must have it.
        if (read_spec(child, categories, subcommand) &&
            subcommand.name.starts_with(spec.name + '|')) {
            subcommand.subcommands.clear();  // No server has any, and they would not be found.
            spec.subcommands.push_back(std::move(subcommand));
        }
    }
    return true;
}

}  // namespace

bool CommandSpec::is_cacheable_with(size_t words) const {
    return words == 2 || (cache_split != CacheSplit::None && words <= kSplitMax);
}

CommandTable::CommandTable(const Value& reply) {
    is_complete_ = !reply.elements.empty() && reply.elements[0].elements.size() >= 10;
    for (const Value& entry : reply.elements) {
        CommandSpec spec;
        if (read_spec(entry, categories_, spec)) specs_.push_back(std::move(spec));
    }
    // Names that the server does not list.
    for (const std::string_view name : {"host:", "post", "nearkey"}) {
        CommandSpec spec;
        spec.name = name;
        spec.arity = -1;
        spec.categories = bit_of("slow", categories_) | bit_of("admin", categories_);
        apply_rules(spec);
        // Valkey closes a client that sends HTTP before it checks rights.
        spec.needs_no_auth = spec.route == Route::Close;
        specs_.push_back(std::move(spec));
    }
    if (specs_.size() > UINT16_MAX / 4) specs_.resize(UINT16_MAX / 4);
    number_specs();
    size_t capacity = 64;
    while (capacity < specs_.size() * 4)
        capacity *= 2;
    slots_.resize(capacity);
    for (size_t i = 0; i < specs_.size(); ++i) {
        size_t slot = hash_name(specs_[i].name) & (capacity - 1);
        while (slots_[slot] != 0)
            slot = (slot + 1) & (capacity - 1);
        slots_[slot] = static_cast<uint16_t>(i + 1);
    }
}

void CommandTable::count_in(CommandCounts& counts) {
    for (CommandSpec& spec : specs_)
        find_counts(spec, counts);
}

// Sub-commands that have no number of their own have that of the command. No server has so many.
void CommandTable::number_specs() {
    const auto next = [this] { return static_cast<uint16_t>(id_count_++); };
    for (CommandSpec& spec : specs_) {
        spec.id = next();
        for (CommandSpec& child : spec.subcommands)
            child.id = id_count_ < UINT16_MAX - specs_.size() ? next() : spec.id;
    }
}

uint64_t CommandTable::category_bit(std::string_view name) const {
    const auto found = std::find(categories_.begin(), categories_.end(), name);
    if (found == categories_.end()) return 0;
    return uint64_t{1} << static_cast<unsigned>(found - categories_.begin());
}

const CommandSpec* CommandTable::find(const CommandView& command) const {
    const CommandSpec* spec = find_name(command[0]);
    if (spec == nullptr || spec->subcommands.empty() || command.size() < 2) return spec;
    const size_t prefix = spec->name.size() + 1;
    for (const CommandSpec& child : spec->subcommands) {
        if (equals_ignoring_case(std::string_view(child.name).substr(prefix), command[1])) {
            return &child;
        }
    }
    return nullptr;
}

const CommandSpec* CommandTable::find_name(std::string_view name) const {
    if (slots_.empty() || name.size() > kNameMax) return nullptr;
    const size_t mask = slots_.size() - 1;
    for (size_t slot = hash_name(name) & mask; slots_[slot] != 0; slot = (slot + 1) & mask) {
        const CommandSpec& spec = specs_[slots_[slot] - 1U];
        if (spec.name.size() == name.size() && equals_ignoring_case(spec.name, name)) return &spec;
    }
    return nullptr;
}

bool has_block_option(const CommandView& command) {
    for (size_t i = 1; i < command.size(); ++i) {
        if (equals_ignoring_case(command[i], "STREAMS")) return false;
        if (equals_ignoring_case(command[i], "BLOCK")) return true;
        if (equals_ignoring_case(command[i], "GROUP")) i += 2;  // its names may be any word
    }
    return false;
}

}  // namespace nearkey
