#include "nearkey/resp/command_table.h"

#include "nearkey/resp/command_rules.h"
#include "nearkey/resp/number.h"

#include <algorithm>

namespace nearkey {

namespace {

constexpr size_t kNameMax = 64;

std::string lower(std::string_view text) {
    std::string result(text);
    std::transform(result.begin(), result.end(), result.begin(), to_lower);
    return result;
}

// FNV-1a over the lower-case name.
size_t hash_name(std::string_view name) {
    uint64_t hash = 0xcbf29ce484222325;
    for (const char c : name) {
        hash = (hash ^ static_cast<unsigned char>(to_lower(c))) * 0x100000001b3;
    }
    return static_cast<size_t>(hash ^ (hash >> 32));
}

// An entry of COMMAND: name, arity, flags, first key, last key, step, categories, tips, key specs,
// sub-commands.
bool read_spec(const Value& entry, CommandSpec& spec) {
    if (entry.elements.size() < 3) return false;
    spec.name = lower(entry.elements[0].text);
    spec.arity = entry.elements[1].integer;
    for (const Value& flag : entry.elements[2].elements) {
        spec.is_readonly |= flag.text == "readonly";
        spec.is_write |= flag.text == "write";
        spec.is_module |= flag.text == "module";
        spec.is_blocking |= flag.text == "blocking";
    }
    apply_rules(spec);
    if (entry.elements.size() < 10) return true;
    for (const Value& child : entry.elements[9].elements) {
        CommandSpec subcommand;
        // Their names are read without "parent|", so they must have it.
        if (read_spec(child, subcommand) && subcommand.name.starts_with(spec.name + '|')) {
            spec.subcommands.push_back(std::move(subcommand));
        }
    }
    return true;
}

}  // namespace

bool CommandSpec::accepts(size_t arguments) const {
    const auto count = static_cast<int64_t>(arguments);
    return arity >= 0 ? count == arity : count + arity >= 0;
}

CommandTable::CommandTable(const Value& reply) {
    is_complete_ = !reply.elements.empty() && reply.elements[0].elements.size() >= 10;
    for (const Value& entry : reply.elements) {
        CommandSpec spec;
        if (read_spec(entry, spec)) specs_.push_back(std::move(spec));
    }
    // Names that the server does not list.
    for (const std::string_view name : {"host:", "post", "nearkey"}) {
        CommandSpec spec;
        spec.name = name;
        spec.arity = -1;
        apply_rules(spec);
        specs_.push_back(std::move(spec));
    }
    if (specs_.size() > UINT16_MAX / 4) specs_.resize(UINT16_MAX / 4);
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
