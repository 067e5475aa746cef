// The verbs that ask a running nearkey, their options and what they have in common.
// Each is a function that prints for a person (or, with `json`, for a program) and returns the exit
// code: 0 done, 1 nearkey refused, 2 nobody answers. Mistakes go to `err`, one line each.
#pragma once

#include "nearkey/cli/admin_client.h"

#include <cstdint>
#include <iosfwd>
#include <string>

namespace nearkey {

struct AskOptions {
    AdminTarget target;
    bool json = false;            // what the admin server says, on one line
    uint64_t limit = 100;         // rows at most
    std::string level;            // log-level: empty asks for the present one
    bool once = false;            // top: one page, then the end
    uint64_t interval_ms = 1000;  // top: from one page to the next
};

using AskFunction = int (*)(const AskOptions& options, std::ostream& out, std::ostream& err);

// One line says whether it is ready, on `out` whatever it says; 0 ready, 1 not ready, 2 nobody
// answers in time, or not as nearkey does.
int run_ready(const AskOptions& options, std::ostream& out, std::ostream& err);
// One page on how it is.
int run_stats(const AskOptions& options, std::ostream& out, std::ostream& err);
// How it is, as rates, drawn anew in every interval until q; one page if stdout is no terminal.
// 0: ended by q, Ctrl-C or a signal, also if nobody answered then; `once`: as other verbs.
int run_top(const AskOptions& options, std::ostream& out, std::ostream& err);
// A table, at most `limit` rows of it. Of keys the limit holds for hits and for misses.
int run_clients(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_connections(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_nodes(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_hot_keys(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_slow_log(const AskOptions& options, std::ostream& out, std::ostream& err);
// Both wait for the outcome, at most their timeout, and print it.
int run_reload(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_upgrade(const AskOptions& options, std::ostream& out, std::ostream& err);
// Without a level it prints the present one. REQUIRES: the level is empty or a plain word.
int run_log_level(const AskOptions& options, std::ostream& out, std::ostream& err);
int run_cache_clear(const AskOptions& options, std::ostream& out, std::ostream& err);

// Says why there is no answer, or what nearkey refused: the exit code.
// REQUIRES: the reply is no answer, or a refusal.
int report(const AdminReply& reply, std::ostream& err);
// The exit code after all was printed: output that can't be written is a failure.
int finish(std::ostream& out, std::ostream& err);

}  // namespace nearkey
