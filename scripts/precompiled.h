// What most files of src and tests include of others: meson.build has it compiled once for each
// target. A file includes what it uses all the same: builds with -Db_pch=false do without this.
#include <algorithm>
#include <array>
#include <chrono>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
