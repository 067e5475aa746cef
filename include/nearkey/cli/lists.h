// The verbs that show a list of what a running nearkey has: clients, connections, keys, requests.
// A table for people, at most `limit` rows of it; with `json` the admin server's page on one line.
#pragma once

#include "nearkey/cli/ask.h"

namespace nearkey {

int run_clients(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_connections(const AskOptions& options, std::ostream& out, std::ostream& err);
// The limit holds for hits and for misses.
int run_hot_keys(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_slow_log(const AskOptions& options, std::ostream& out, std::ostream& err);

}  // namespace nearkey
