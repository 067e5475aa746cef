#include "nearkey/cli/terminal.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <string_view>

namespace nearkey {

namespace {

constexpr const char* kEnter = "\x1b[?1049h\x1b[?25l\x1b[?7l";  // other screen, no cursor, no wrap
constexpr const char* kLeave = "\x1b[?7h\x1b[?25h\x1b[?1049l";
constexpr std::array<int, 6> kSignals = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGWINCH};

sigset_t watched_signals() {
    sigset_t set;
    sigemptyset(&set);
    for (const int signum : kSignals)
        sigaddset(&set, signum);
    return set;
}

}  // namespace

bool Terminal::is_there() {
    const char* const kind = std::getenv("TERM");
    return isatty(STDOUT_FILENO) == 1 && kind != nullptr && *kind != '\0' &&
           std::string_view(kind) != "dumb";
}

Terminal::Terminal() : has_keys_(isatty(STDIN_FILENO) == 1) {
    const sigset_t watched = watched_signals();
    pthread_sigmask(SIG_BLOCK, &watched, &signals_before_);
    signal_fd_ = signalfd(-1, &watched, SFD_CLOEXEC | SFD_NONBLOCK);
    tcgetattr(STDOUT_FILENO, &before_);
    enter();
}

Terminal::~Terminal() {
    leave();
    // A signal after the last wait() has no further effect: we end.
    signalfd_siginfo late{};
    while (read(signal_fd_, &late, sizeof late) == sizeof late) {
    }
    if (signal_fd_ >= 0) close(signal_fd_);
    pthread_sigmask(SIG_SETMASK, &signals_before_, nullptr);
}

void Terminal::enter() {
    termios raw = before_;
    raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    tcsetattr(STDOUT_FILENO, TCSAFLUSH, &raw);
    write_all(kEnter);
}

void Terminal::leave() {
    write_all(kLeave);
    tcsetattr(STDOUT_FILENO, TCSAFLUSH, &before_);
}

ScreenSize Terminal::size() const {
    winsize window{};
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) != 0 || window.ws_row == 0) return {};
    return {window.ws_row, window.ws_col};
}

void Terminal::draw(const std::vector<ScreenLine>& lines) {
    std::string bytes = "\x1b[H";
    for (size_t i = 0; i < lines.size(); ++i) {
        // Before the text: in the last column the cursor stays on the last character.
        bytes += i > 0 ? "\r\n\x1b[K" : "\x1b[K";
        if (lines[i].is_strong) bytes += "\x1b[1m";
        bytes += lines[i].text;
        if (lines[i].is_strong) bytes += "\x1b[0m";
    }
    const bool is_full = lines.size() >= size().rows;
    write_all(bytes + (is_full ? "" : "\r\n\x1b[J"));
}

Terminal::Event Terminal::wait(std::chrono::milliseconds longest) {
    using Clock = std::chrono::steady_clock;
    const auto end = Clock::now() + longest;
    while (!is_gone_) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(end - Clock::now()).count();
        if (left <= 0) return Event::Nothing;
        std::array<pollfd, 2> sources = {
            {{signal_fd_, POLLIN, 0}, {has_keys_ ? STDIN_FILENO : -1, POLLIN, 0}}};
        if (poll(sources.data(), sources.size(), static_cast<int>(left)) <= 0) continue;
        Event event = Event::Nothing;
        if (sources[0].revents != 0) event = on_signal();
        if (sources[1].revents != 0 && event == Event::Nothing) event = on_keys();
        if (event != Event::Nothing) return event;
    }
    return Event::Quit;
}

Terminal::Event Terminal::on_signal() {
    signalfd_siginfo signal{};
    if (read(signal_fd_, &signal, sizeof signal) != sizeof signal) return Event::Nothing;
    if (signal.ssi_signo == SIGTSTP) {
        stop_until_continued();
        return Event::Resized;  // it may have been, meanwhile
    }
    return signal.ssi_signo == SIGWINCH ? Event::Resized : Event::Quit;
}

Terminal::Event Terminal::on_keys() {
    std::array<char, 64> keys{};
    const ssize_t count = read(STDIN_FILENO, keys.data(), keys.size());
    if (count == 0 || (count < 0 && errno != EINTR && errno != EAGAIN)) is_gone_ = true;
    const std::string_view typed(keys.data(), count > 0 ? static_cast<size_t>(count) : 0);
    return typed.find_first_of("qQ") != std::string_view::npos ? Event::Quit : Event::Nothing;
}

void Terminal::stop_until_continued() {
    leave();
    raise(SIGSTOP);
    enter();
}

void Terminal::write_all(const std::string& bytes) {
    std::string_view rest = bytes;
    while (!rest.empty() && !is_gone_) {
        const ssize_t count = write(STDOUT_FILENO, rest.data(), rest.size());
        if (count > 0) rest.remove_prefix(static_cast<size_t>(count));
        if (count < 0 && errno != EINTR) is_gone_ = true;
    }
}

}  // namespace nearkey
