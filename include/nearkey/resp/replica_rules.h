// Which reads a replica answers as its primary would: by the flags of the server's COMMAND, and a
// small table for what is each server's own.
#pragma once

namespace nearkey {

struct CommandSpec;

// Called once for each spec, behind all other rules.
void apply_replica_rules(CommandSpec& spec);

}  // namespace nearkey
