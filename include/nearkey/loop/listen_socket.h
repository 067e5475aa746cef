// A listening socket: a Unix path, loopback TCP, or TCP of any address, for what others may see.
// Owned by the part that accepts on it.
// The one rule: a path on which somebody answers is never taken away, and we remove no file but
// ours. PATH.lock, locked while we live, decides between two daemons that start at once:
//   lock ─▶ does somebody answer? ─▶ remove the dead file ─▶ bind ─▶ listen     any failure throws
// One that somebody else has bound for us (inherited_sockets.h) has no lock, and its file stays.
// A file that is removed or replaced while we listen is found by has_lost_file(). Constructed by
// the loop's thread, while no other makes files: it changes the umask of the whole process for the
// length of a bind().
#pragma once

#include <sys/socket.h>
#include <sys/types.h>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

namespace nearkey {

// A mistake of the operator, or a clash with another process. what() is one line with the path.
class ListenError : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

// An address in the kernel's form.
struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;
    std::string path;  // empty: TCP

    bool is_unix() const { return !path.empty(); }
    const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// "/absolute/path", or "127.0.0.1:PORT" or "[::1]:PORT" with or without "tcp:" before it. Throws
// ListenError for anything else.
SocketAddress parse_socket_address(const std::string& address);
// "ADDRESS:PORT" or "[ADDRESS]:PORT", numbers both. Throws the same.
SocketAddress parse_network_address(const std::string& address);

// Creates the directory with mode 0700 if it does not exist (its parent must). Throws ListenError
// if it can't, and if it stands in a folder where everybody may write, as /tmp, and is another
// user's: that user could replace our files in it.
void make_private_directory(const std::string& path);

// The owner of a Unix socket's file, and who may open it.
struct SocketFile {
    static constexpr uid_t kOurs = static_cast<uid_t>(-1);  // owner and group as bind() leaves them

    mode_t mode;
    uid_t owner = kOurs;
    gid_t group = kOurs;
};

// A file that exists and is locked (flock) while this object lives; a crash unlocks it too.
class FileLock {
public:
    // Null if another process has it. Throws ListenError if the file can't be opened.
    static std::unique_ptr<FileLock> take(const std::string& path);
    // Takes the lock of another process, which gave us its descriptor: the file is that process's
    // until claim().
    static std::unique_ptr<FileLock> adopt(int fd);
    ~FileLock();
    FileLock(const FileLock&) = delete;
    FileLock& operator=(const FileLock&) = delete;

    int fd() const { return fd_; }
    // The file is ours to remove from here on, or another process's that has the descriptor too.
    void claim(const std::string& path) { path_ = path; }
    void leave() { path_.clear(); }

private:
    FileLock(std::string path, int fd);

    std::string path_;
    int fd_;
};

// A socket that listens already, which another process has bound.
struct BoundSocket {
    int fd;
    std::string address;             // as ListenSocket::address() has it
    bool is_left_to_us;              // by a nearkey that we replace; else it stays another's
    std::unique_ptr<FileLock> lock;  // of its file, if it is left to us
};

class ListenSocket {
public:
    // Listens at once; the address is one that parse_socket_address() takes, and port 0 leaves the
    // choice to the kernel. A Unix socket has the file's mode from its first moment, and its
    // owner before anybody can connect; its directory is created as make_private_directory()
    // does. Throws ListenError.
    ListenSocket(const std::string& address, int backlog, SocketFile file);
    // Takes over the descriptor; the socket keeps its owner until claim(). REQUIRES: it is a
    // listening stream socket.
    explicit ListenSocket(BoundSocket bound);
    // Listens where other hosts can connect, at an address that parse_network_address() takes.
    // "[::]" is IPv4 as well, whatever the host's default is. Throws ListenError.
    static std::unique_ptr<ListenSocket> for_network(const std::string& address, int backlog);
    ~ListenSocket();
    ListenSocket(const ListenSocket&) = delete;
    ListenSocket& operator=(const ListenSocket&) = delete;

    // Non-blocking, closed on exec; -1 after stop_listening().
    int fd() const { return fd_; }
    // The path, or "127.0.0.1:PORT" with the real port.
    const std::string& address() const { return address_; }
    bool is_unix() const { return !path_.empty(); }
    // True if nobody else accepts on it, and the file is removed at the end.
    bool is_ours() const { return is_ours_; }
    // The descriptor of the locked PATH.lock; -1 if there is none.
    int lock_fd() const { return lock_ == nullptr ? -1 : lock_->fd(); }

    void set_backlog(int backlog);
    // Sets a Unix socket's mode, if the file is still ours.
    void set_mode(mode_t mode);
    // True if the file of a Unix socket was removed or replaced, so that nobody can connect.
    bool has_lost_file() const;
    // Binds a new socket where the lost file was, with its owner and mode. Returns the descriptor
    // of the old one, the caller's to close: clients that have connected to it can still be
    // accepted. Throws ListenError, for one if somebody else answers there by now; then nothing has
    // changed. REQUIRES: is_ours(), and has_lost_file() or is_refusing().
    int rebind();
    // Refuses clients that connect from now on. Those that have connected to a Unix socket can
    // still be accepted; those of a TCP socket are cut off. REQUIRES: nobody watches it. False, and
    // nothing is done: others accept on it too.
    bool refuse_more();
    bool is_refusing() const { return is_refusing_; }
    // True if listen_again() may make a file where it needs one.
    bool may_listen_again() const;
    // A Unix socket is another one from here on, with the same owner and mode. Throws ListenError;
    // then it refuses still. REQUIRES: is_refusing().
    void listen_again();
    // Only we accept on it from here on, if it is left to us.
    void claim();
    // The socket lives on in another process, which has its descriptors: closes ours, and removes
    // nothing.
    void leave();
    // Closes the descriptor, which nobody watches any more, removes the socket file if it is still
    // ours, and leaves the address to a successor. Twice is once.
    void stop_listening();

private:
    // The file that bind() made; an open socket keeps its inode from being used again.
    struct BoundFile {
        dev_t device;
        ino_t inode;
        SocketFile made;
    };

    ListenSocket() = default;
    bool is_file_there() const;
    bool is_file_ours() const { return is_ours_ && is_file_there(); }
    void lock_path();
    void bind_unix(const SocketAddress& address, const SocketFile& file);
    void bind_tcp(const SocketAddress& address);
    void note_file();

    std::string address_;
    std::string path_;
    std::unique_ptr<FileLock> lock_;
    int fd_ = -1;
    int backlog_ = SOMAXCONN;
    bool is_ours_ = true;
    bool is_left_to_us_ = false;
    bool is_refusing_ = false;
    std::optional<BoundFile> file_;  // empty: TCP, or it was gone when we came
};

}  // namespace nearkey
