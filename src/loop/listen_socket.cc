#include "nearkey/loop/listen_socket.h"

#include "nearkey/base/os_error.h"
#include "nearkey/base/parse_number.h"
#include "nearkey/loop/socket_name.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <utility>

namespace nearkey {

namespace {

[[noreturn]] void refuse(const std::string& address, const std::string& why) {
    throw ListenError("cannot listen on " + address + ": " + why);
}

std::string parent_of(const std::string& path) {
    const size_t slash = path.find_last_of('/');
    return slash == 0 || slash == std::string::npos ? "/" : path.substr(0, slash);
}

SocketAddress unix_address(const std::string& path) {
    sockaddr_un unix_form{};
    if (path.size() >= sizeof unix_form.sun_path) {
        refuse(path, "a Unix socket's path has at most " +
                         std::to_string(sizeof unix_form.sun_path - 1) + " bytes, this one has " +
                         std::to_string(path.size()) + "; choose a shorter one");
    }
    if (path.find('\0') != std::string::npos || path.ends_with('/')) {
        refuse(path.c_str(), "this can't be the name of a file; correct it");
    }
    unix_form.sun_family = AF_UNIX;
    path.copy(unix_form.sun_path, path.size());
    SocketAddress address;
    std::memcpy(&address.storage, &unix_form, sizeof unix_form);
    address.length = sizeof unix_form;
    address.path = path;
    return address;
}

SocketAddress tcp_address(const std::string& text, const std::string& allowed) {
    const size_t colon = text.rfind(':');
    if (colon == std::string::npos) refuse(text, allowed);
    const std::string host = text.substr(0, colon);
    const auto port = parse_number<uint16_t>(std::string_view(text).substr(colon + 1));
    if (!port) refuse(text, "the port is a number up to 65535");
    SocketAddress address;
    sockaddr_in ipv4{};
    sockaddr_in6 ipv6{};
    const bool has_brackets = host.starts_with('[') && host.ends_with(']');
    if (inet_pton(AF_INET, host.c_str(), &ipv4.sin_addr) == 1) {
        ipv4.sin_family = AF_INET;
        ipv4.sin_port = htons(*port);
        std::memcpy(&address.storage, &ipv4, sizeof ipv4);
        address.length = sizeof ipv4;
    } else if (has_brackets &&
               inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &ipv6.sin6_addr) == 1) {
        ipv6.sin6_family = AF_INET6;
        ipv6.sin6_port = htons(*port);
        std::memcpy(&address.storage, &ipv6, sizeof ipv6);
        address.length = sizeof ipv6;
    } else {
        refuse(text, allowed);
    }
    return address;
}

// Returns why the file at the address must stay, or "" if nobody listens on it. Only a refused
// connection proves that: a full queue, for one, is a sign of life.
std::string why_taken(const SocketAddress& address) {
    struct stat found {};
    if (lstat(address.path.c_str(), &found) != 0) return errno == ENOENT ? "" : os_error(errno);
    if (!S_ISSOCK(found.st_mode))
        return "a file that is no socket stands there; remove it or choose another path";
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) return os_error(errno);
    const int error = connect(fd, address.get(), address.length) == 0 ? 0 : errno;
    close(fd);
    if (error == ECONNREFUSED || error == ENOENT) return "";
    if (error == EACCES || error == EPERM)
        return "a socket of somebody else stands there; remove it or choose another path";
    return "a running process answers there; stop it or choose another path";
}

// Done before listen(), so that nobody connects by the rights of another owner.
void give_away(const std::string& path, const SocketFile& file) {
    if (file.owner == SocketFile::kOurs && file.group == SocketFile::kOurs) return;
    if (lchown(path.c_str(), file.owner, file.group) == 0) return;
    const int error = errno;
    const auto text = [](uid_t id) {
        return id == SocketFile::kOurs ? "unchanged" : std::to_string(id);
    };
    const std::string what =
        "its owner can't be set to " + text(file.owner) + " (group " + text(file.group) + "): ";
    if (error != EPERM) refuse(path, what + os_error(error));
    refuse(path, what +
                     "only root can; without root, leave the owner out and name a group that "
                     "nearkey's user is in");
}

int open_socket(const std::string& address, int family) {
    const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) refuse(address, os_error(errno));
    return fd;
}

}  // namespace

SocketAddress parse_socket_address(const std::string& address) {
    constexpr const char* kAllowed = "allowed is an absolute path, 127.0.0.1:PORT or [::1]:PORT";
    if (address.starts_with('/')) return unix_address(address);
    const std::string tcp = address.starts_with("tcp:") ? address.substr(4) : address;
    if (!tcp.starts_with("127.0.0.1:") && !tcp.starts_with("[::1]:")) refuse(tcp, kAllowed);
    return tcp_address(tcp, kAllowed);
}

SocketAddress parse_network_address(const std::string& address) {
    return tcp_address(address, "allowed is ADDRESS:PORT or [ADDRESS]:PORT, in numbers");
}

void make_private_directory(const std::string& path) {
    if (mkdir(path.c_str(), 0700) == 0) return;
    if (errno != EEXIST) throw ListenError("cannot create " + path + ": " + os_error(errno));
    struct stat target {};
    if (stat(path.c_str(), &target) != 0 || !S_ISDIR(target.st_mode)) {
        throw ListenError(path + " is not a directory; choose a path in one");
    }
    struct stat itself {};
    struct stat parent {};
    if (lstat(path.c_str(), &itself) != 0 || stat(parent_of(path).c_str(), &parent) != 0) {
        throw ListenError("cannot use " + path + ": " + os_error(errno));
    }
    const bool is_trusted = itself.st_uid == geteuid() || itself.st_uid == 0;
    if ((parent.st_mode & S_IWOTH) != 0 && !is_trusted) {
        throw ListenError("cannot use " + path +
                          ": it belongs to another user, who could replace nearkey's files; "
                          "choose a folder of nearkey's own or of root's");
    }
}

std::unique_ptr<FileLock> FileLock::take(const std::string& path) {
    while (true) {
        const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0) throw ListenError("cannot lock " + path + ": " + os_error(errno));
        std::unique_ptr<FileLock> lock(new FileLock(path, fd));
        if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
            const int error = errno;
            lock->path_.clear();  // The file is not ours to remove.
            if (error == EWOULDBLOCK) return nullptr;
            throw ListenError("cannot lock " + path + ": " + os_error(error));
        }
        // Its former holder may have removed the file between our open() and flock().
        if (is_same_file(fd, path)) return lock;
        lock->path_.clear();
    }
}

std::unique_ptr<FileLock> FileLock::adopt(int fd) {
    return std::unique_ptr<FileLock>(new FileLock({}, fd));
}

FileLock::FileLock(std::string path, int fd) : path_(std::move(path)), fd_(fd) {
}

// The file is removed while it is locked: nobody else can have taken this very file.
FileLock::~FileLock() {
    if (!path_.empty() && is_same_file(fd_, path_)) unlink(path_.c_str());
    close(fd_);
}

// Delegates, so that the destructor cleans up after a constructor that throws.
ListenSocket::ListenSocket(const std::string& address, int backlog, SocketFile file)
    : ListenSocket() {
    const SocketAddress parsed = parse_socket_address(address);
    address_ = address;
    backlog_ = backlog;
    if (parsed.is_unix()) {
        bind_unix(parsed, file);
    } else {
        bind_tcp(parsed);
    }
    if (listen(fd_, backlog_) != 0) refuse(address_, os_error(errno));
}

ListenSocket::ListenSocket(BoundSocket bound)
    : address_(std::move(bound.address)),
      path_(address_.starts_with('/') ? address_ : std::string()),
      lock_(std::move(bound.lock)),
      fd_(bound.fd),
      is_ours_(false),
      is_left_to_us_(bound.is_left_to_us) {
    fcntl(fd_, F_SETFD, FD_CLOEXEC);
    fcntl(fd_, F_SETFL, fcntl(fd_, F_GETFL) | O_NONBLOCK);
    if (is_unix()) note_file();
}

std::unique_ptr<ListenSocket> ListenSocket::for_network(const std::string& address, int backlog) {
    std::unique_ptr<ListenSocket> socket(new ListenSocket);
    socket->address_ = address;
    socket->backlog_ = backlog;
    socket->bind_tcp(parse_network_address(address));
    if (listen(socket->fd_, backlog) != 0) refuse(address, os_error(errno));
    return socket;
}

ListenSocket::~ListenSocket() {
    stop_listening();
}

bool ListenSocket::is_file_there() const {
    struct stat found {};
    return file_ && lstat(path_.c_str(), &found) == 0 && found.st_ino == file_->inode &&
           found.st_dev == file_->device;
}

void ListenSocket::set_backlog(int backlog) {
    backlog_ = backlog;
    if (!is_refusing_) listen(fd_, backlog);
}

void ListenSocket::set_mode(mode_t mode) {
    if (!is_file_ours()) return;
    chmod(path_.c_str(), mode);
    file_->made.mode = mode;
}

bool ListenSocket::has_lost_file() const {
    return file_ && fd_ >= 0 && !is_file_there();
}

int ListenSocket::rebind() {
    const BoundFile lost = *file_;
    const int before = std::exchange(fd_, -1);
    try {
        bind_unix(parse_socket_address(path_), lost.made);
        if (listen(fd_, backlog_) != 0) refuse(address_, os_error(errno));
    } catch (const ListenError&) {
        if (is_file_ours()) unlink(path_.c_str());
        if (fd_ >= 0) close(fd_);
        fd_ = before;
        file_ = lost;
        throw;
    }
    return before;
}

// A connect() to a Unix socket asks whether its listener still receives, which can't be taken back.
// A TCP socket stops listening, and keeps its port.
bool ListenSocket::refuse_more() {
    if (!is_ours_) return false;
    is_refusing_ = shutdown(fd_, SHUT_RD) == 0;
    if (is_refusing_ && is_unix()) {
        // Clients that wait in connect() for room in the queue are woken by a queue that grows, and
        // by nothing else before the close (unix_listen in the kernel's af_unix.c).
        listen(fd_, 0);
        listen(fd_, backlog_);
    }
    return is_refusing_;
}

bool ListenSocket::may_listen_again() const {
    return !is_unix() || access(parent_of(path_).c_str(), W_OK) == 0;
}

void ListenSocket::listen_again() {
    if (is_unix()) {
        // Its mode may forbid even us to ask who answers there.
        if (is_file_ours()) unlink(path_.c_str());
        close(rebind());
    } else {
        // A port that the kernel chose is not kept; EINVAL says that this one is.
        const SocketAddress address = parse_socket_address(address_);
        if (bind(fd_, address.get(), address.length) != 0 && errno != EINVAL) {
            refuse(address_, os_error(errno));
        }
        if (listen(fd_, backlog_) != 0) refuse(address_, os_error(errno));
    }
    is_refusing_ = false;
}

void ListenSocket::claim() {
    if (!std::exchange(is_left_to_us_, false)) return;
    is_ours_ = true;
    if (lock_ == nullptr) return;
    lock_->claim(path_ + ".lock");
}

void ListenSocket::leave() {
    file_.reset();
    if (lock_ != nullptr) lock_->leave();
    stop_listening();
}

void ListenSocket::stop_listening() {
    if (is_file_ours()) unlink(path_.c_str());
    file_.reset();
    if (fd_ >= 0) close(std::exchange(fd_, -1));
    lock_.reset();
}

void ListenSocket::lock_path() {
    const std::string name = path_ + ".lock";
    if (lock_ != nullptr && is_same_file(lock_->fd(), name)) return;
    lock_ = FileLock::take(name);
    if (lock_ != nullptr) return;
    refuse(path_, "a running process holds " + name + "; stop that nearkey or choose another path");
}

void ListenSocket::bind_unix(const SocketAddress& address, const SocketFile& file) {
    path_ = address.path;
    make_private_directory(parent_of(path_));
    lock_path();
    const std::string taken = why_taken(address);
    if (!taken.empty()) refuse(path_, taken);
    if (unlink(path_.c_str()) != 0 && errno != ENOENT) refuse(path_, os_error(errno));

    fd_ = open_socket(path_, AF_UNIX);
    // The umask, not a chmod afterwards: there is no moment at which the mode is another.
    const mode_t umask_before = umask(~file.mode & 0777);
    const int error = bind(fd_, address.get(), address.length) == 0 ? 0 : errno;
    umask(umask_before);
    if (error != 0) refuse(path_, os_error(error));
    file_.reset();
    note_file();
    if (!file_) refuse(path_, "its file was removed");
    give_away(path_, file);
    file_->made = file;
}

// REQUIRES: the file, if it is there, is the one that our socket was bound to.
void ListenSocket::note_file() {
    struct stat made {};
    if (lstat(path_.c_str(), &made) != 0) return;
    file_ = BoundFile{made.st_dev, made.st_ino, {made.st_mode & 0777, made.st_uid, made.st_gid}};
}

void ListenSocket::bind_tcp(const SocketAddress& address) {
    fd_ = open_socket(address_, address.storage.ss_family);
    // Connections of a predecessor that still linger are no reason to wait. It lets nobody share a
    // port on which another process listens.
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    const int off = 0;
    if (address.storage.ss_family == AF_INET6) {
        setsockopt(fd_, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
    }
    if (bind(fd_, address.get(), address.length) != 0) {
        refuse(address_, os_error(errno));
    }
    address_ = local_name(fd_);
}

}  // namespace nearkey
