// What the load client is asked to do, and its command line. Nothing here touches a socket.
// nearkey_load_client --help prints kLoadUsage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace nearkey::bench {

enum class LoadCommand {
    Get,
    Set,
    Mixed,  // nine GETs, then a SET
    Mget,   // of 20 keys
    Incr,
    Alternate,  // a batch of SETs, a batch of GETs
};
enum class LoadDraw { Uniform, Zipf, Sequence };

struct LoadOptions {
    std::string unix_path;  // empty: TCP
    uint16_t tcp_port = 0;  // of 127.0.0.1
    LoadCommand command = LoadCommand::Get;
    LoadDraw draw = LoadDraw::Uniform;
    double zipf_exponent = 1.0;
    size_t clients = 50;
    size_t pipeline = 1;
    size_t threads = 2;
    double warm_up_s = 0;
    double seconds = 0;     // 0: until `requests` were answered
    uint64_t requests = 0;  // 0: for `seconds`
    uint64_t keys = 100'000;
    std::string prefix = "key:";  // of each key; twelve digits follow
    size_t value_bytes = 100;
    std::string segment;       // URL of the shared memory that is asked first; empty: none is
    std::vector<int> watched;  // processes whose processor time is told
};

inline constexpr std::string_view kLoadUsage =
    R"(usage: nearkey_load_client (--unix PATH|--port PORT) (--seconds S|--requests N) [OPTION...]
  --command get|set|mixed|mget|incr|alternate   mixed is 9 GET : 1 SET, mget asks for 20 keys
  --clients 50 --pipeline 1 --threads 2 --warm-up SECONDS
  --keys 100000 --prefix key: --value-bytes 100
  --draw uniform|zipf|sequence --zipf EXPONENT  sequence needs --requests
  --segment URL                                 GET -P 1: ask nearkey's shared memory first
  --watch PID[,PID...]                          whose processor time belongs to the result
)";

// The options, or what is wrong with the command line. `arguments` is without the program's name.
std::variant<LoadOptions, std::string> parse_load_options(std::span<const char* const> arguments);

}  // namespace nearkey::bench
