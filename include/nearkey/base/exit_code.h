// The exit codes of every verb; `nearkey --help` explains them.
// Probes and scripts rely on them: they are part of the interface.
#pragma once

namespace nearkey {

constexpr int kExitOk = 0;
// serve: stopped by an error. ready: not ready. The verbs that ask a running nearkey: it refused.
constexpr int kExitFailed = 1;
// Wrong command line or configuration. The verbs that ask a running nearkey: nobody answers.
constexpr int kExitMistaken = 2;

}  // namespace nearkey
