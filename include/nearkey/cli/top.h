// `nearkey top`: how a running nearkey is, as rates, drawn anew in every interval until q.
// Where stdout is no terminal, or with `once`, it prints one page and ends.
#pragma once

#include "nearkey/cli/ask.h"

namespace nearkey {

// 0: ended by q, Ctrl-C or a signal, also if nobody answered then; `once`: as the other verbs.
int run_top(const AskOptions& options, std::ostream& out, std::ostream& err);

}  // namespace nearkey
