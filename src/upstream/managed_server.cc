#include "nearkey/upstream/managed_server.h"

#include "nearkey/base/os_error.h"
#include "nearkey/base/parse_number.h"

#include <sys/stat.h>
#include <unistd.h>
#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

namespace nearkey {

namespace {

constexpr uint64_t kSettledMs = 1000;
constexpr std::string_view kDirectoryPrefix = "managed-";
constexpr std::string_view kSocketName = "/valkey.sock";
constexpr std::string_view kDefaultPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin";

bool is_program(const std::string& path) {
    struct stat found {};
    return stat(path.c_str(), &found) == 0 && S_ISREG(found.st_mode) &&
           access(path.c_str(), X_OK) == 0;
}

// The program's path, or "".
std::string find_program(const std::string& name) {
    if (name.find('/') != std::string::npos) return is_program(name) ? name : "";
    const char* const variable = std::getenv("PATH");
    std::string_view folders = variable == nullptr ? kDefaultPath : variable;
    while (!folders.empty()) {
        const std::string_view folder = folders.substr(0, folders.find(':'));
        folders.remove_prefix(std::min(folder.size() + 1, folders.size()));
        if (folder.empty()) continue;  // The current directory is no place for a server.
        const std::string path = std::string(folder) + "/" + name;
        if (is_program(path)) return path;
    }
    return "";
}

std::string find_server(const std::string& name) {
    const std::string path = find_program(name);
    if (!path.empty()) return path;
    // An operator who names another program wants that one.
    const bool is_default = name == ManagedServerOptions{}.server;
    const std::string instead = is_default ? find_program("redis-server") : "";
    if (!instead.empty()) return instead;
    throw std::runtime_error("managed: there is no " + name +
                             (is_default ? ", nor redis-server" : "") +
                             "; install valkey-server, or name a Valkey with --upstream");
}

// The pid of a name as "managed-123", or 0.
pid_t pid_of(std::string_view name) {
    if (!name.starts_with(kDirectoryPrefix)) return 0;
    name.remove_prefix(kDirectoryPrefix.size());
    return std::max(parse_number<pid_t>(name).value_or(0), 0);
}

bool is_our_directory(const std::string& path) {
    struct stat found {};
    return lstat(path.c_str(), &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid();
}

void remove_tree(const std::string& path) {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
}

// Removes the directories that killed predecessors left. The pid may look dead and yet be alive in
// another container that shares the directory: the lock knows better. A live pid needs no question,
// and so nobody who is just starting finds his lock in our hand.
void remove_stale_directories(const std::string& parent) {
    std::vector<std::string> stale;
    std::error_code error;
    for (std::filesystem::directory_iterator entry(parent, error), end; !error && entry != end;
         entry.increment(error)) {
        const pid_t pid = pid_of(entry->path().filename().native());
        if (pid == 0 || kill(pid, 0) == 0 || errno != ESRCH) continue;
        if (is_our_directory(entry->path().native())) stale.push_back(entry->path().native());
    }
    for (const std::string& directory : stale) {
        try {
            const auto lock = FileLock::take(directory + ".lock");
            if (lock != nullptr) remove_tree(directory);
        } catch (const ListenError&) {
            // It stays. That is untidy, and no reason not to start.
        }
    }
}

std::string server_directory(const ManagedServerOptions& options) {
    return options.directory + "/" + std::string(kDirectoryPrefix) + std::to_string(getpid());
}

}  // namespace

ManagedServer::ManagedServer(Loop& loop, Log& log, Metrics& metrics,
                             const ManagedServerOptions& options)
    : loop_(loop),
      log_(log),
      metrics_(metrics),
      options_(options),
      program_(find_server(options.server)),
      directory_(server_directory(options)),
      backoff_(options.backoff_min_ms, options.backoff_max_ms, options.seed),
      timer_(loop, [this] { on_timer(); }) {
    static_cast<void>(parse_socket_address(socket_path()));  // Throws if the path is too long.
    make_private_directory(options.directory);
    remove_stale_directories(options.directory);
    lock_ = FileLock::take(directory_ + ".lock");
    if (lock_ == nullptr) {
        throw std::runtime_error("managed: a running process uses " + directory_ +
                                 "; set managed.directory to another folder");
    }
    // A predecessor may have had our pid; in a container every one has.
    if (is_our_directory(directory_)) remove_tree(directory_);
    if (mkdir(directory_.c_str(), 0700) != 0) {
        throw std::runtime_error("managed: cannot create " + directory_ + ": " + os_error(errno));
    }
    start();
}

ManagedServer::~ManagedServer() {
    child_.reset();
    remove_tree(directory_);
}

std::string ManagedServer::socket_path() const {
    return directory_ + std::string(kSocketName);
}

void ManagedServer::start() {
    const std::vector<std::string> argv = {
        program_, "--port", "0", "--unixsocket", socket_path(), "--unixsocketperm", "700",
        // Nothing is kept on disk; files written after all, such as a crash report, go with us.
        "--save", "", "--appendonly", "no", "--dir", directory_, "--maxmemory",
        std::to_string(options_.memory_bytes), "--maxmemory-policy", "allkeys-lru",
        // It stays our child, and tells systemd nothing.
        "--daemonize", "no", "--supervised", "no"};
    child_ =
        std::make_unique<ChildProcess>(loop_, ChildCommand{argv, ChildOutput::Discard},
                                       [this](int status, int signal) { on_exit(status, signal); });
    if (child_->is_running()) {
        timer_.start_once(kSettledMs);
        return;
    }
    if (state_ != State::Failing) {
        log_.warning("managed_server_not_started",
                     {{"program", std::string_view(program_)},
                      {"reason", std::string_view(child_->failure())}});
    }
    fail_and_retry();
}

void ManagedServer::on_timer() {
    if (child_ == nullptr) {
        ++metrics_.managed_restarts_total;
        start();
        return;
    }
    state_ = State::Running;
    backoff_.reset();
    log_.info("managed_server_running",
              {{"program", std::string_view(program_)}, {"pid", int64_t{child_->pid()}}});
}

void ManagedServer::on_exit(int status, int signal) {
    if (state_ != State::Failing) {
        log_.warning("managed_server_ended", {{"program", std::string_view(program_)},
                                              {"status", int64_t{status}},
                                              {"signal", int64_t{signal}}});
    }
    fail_and_retry();
}

void ManagedServer::fail_and_retry() {
    state_ = State::Failing;
    child_.reset();
    timer_.start_once(backoff_.next_ms());
}

}  // namespace nearkey
