// One socket to Valkey: hiredis connects it (TCP, Unix, TLS), buffers and writes; our loop watches
// it. Replies are not read by hiredis's reader but handed on as bytes (docs/decisions.md).
// Owned by a Connection and made anew for each attempt. Nothing is called back after it is
// destroyed, and it is not destroyed inside its own callback.
#pragma once

#include "nearkey/base/buffer.h"
#include "nearkey/base/metrics.h"
#include "nearkey/loop/fd_watch.h"
#include "nearkey/upstream/tls.h"
#include "nearkey/upstream/url.h"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

struct redisAsyncContext;

namespace nearkey {

class SocketEvents {
public:
    virtual void on_connected() = 0;
    // False if nothing more shall be read from this socket.
    virtual bool on_bytes(std::string_view bytes) = 0;
    // True if the last read ended inside a large value: the rest may come a little at a time.
    virtual bool is_reading_large() const = 0;
    virtual void on_socket_lost(const std::string& reason) = 0;
    // Answers HiredisSocket::tell_of_room().
    virtual void on_socket_room() {}

protected:
    ~SocketEvents() = default;
};

struct SocketOptions {
    const UpstreamUrl& url;
    const std::string& address;  // numeric, for TCP
    const TlsContext* tls;       // null: none
    uint64_t tcp_user_timeout_ms;
    Count* certificate_end_s;  // set with TLS: when the server's certificate ends, Unix time
};

class HiredisSocket final : private Deferred {
public:
    // `scratch` receives reads; shared by all sockets of the loop.
    HiredisSocket(Loop& loop, std::span<char> scratch, Metrics& metrics, SocketEvents& events);
    ~HiredisSocket();

    // Starts connecting. Empty on success, else the reason. on_connected() or on_socket_lost()
    // follow later.
    [[nodiscard]] std::string connect(const SocketOptions& options);

    // Queues bytes; they leave with one write before the loop sleeps. Large ones leave at once,
    // behind the queued ones, as far as the kernel takes them: without a copy.
    void send(std::string_view bytes);
    // The same without a copy, for large ones.
    void send_owned(Buffer bytes);
    size_t unsent() const;
    // on_socket_room() follows once, when most of the unsent bytes have left.
    void tell_of_room() { tells_of_room_ = true; }
    // Memory of unsent bytes.
    size_t memory_bytes() const { return counted_unsent_; }
    // Closes the sending half once everything queued has left.
    void finish_sending();
    void pause_reading();
    void resume_reading();

    // Gives back an empty buffer of hiredis's that has room for more.
    void shrink();

    // Stops watching and telling, and drops unsent bytes: the first half of the end, possible
    // inside a callback.
    void abandon();

private:
    void before_sleep() override;
    void on_events(FdEvents seen);
    void finish_connecting();
    void read();
    void flush();
    void queue(std::string_view bytes);
    // Writes both, one behind the other; returns the bytes written. Nothing: the socket is lost.
    std::optional<size_t> write_plain(std::string_view first, std::string_view second);
    // Writes a part of output_; true if all of it was taken. Nothing: the socket is lost.
    std::optional<bool> write_output();
    // The same, through hiredis.
    std::optional<bool> write_tls();
    void lose(std::string reason);
    std::string error_text() const;
    void count_unsent();
    void note_certificate();
    void set_tcp_options(uint64_t user_timeout_ms);

    Loop& loop_;
    std::span<char> scratch_;
    Metrics& metrics_;
    SocketEvents& events_;
    const TlsContext* tls_ = nullptr;
    ssl_st* ssl_ = nullptr;  // hiredis owns it
    redisAsyncContext* context_ = nullptr;
    bool connected_ = false;
    Count* certificate_end_s_ = nullptr;  // null: it is noted
    bool lost_ = false;
    bool is_large_ = false;    // output_ is one large command, or begins with one
    size_t read_max_ = 0;      // bytes of the next read
    bool read_again_ = false;  // OpenSSL may hold bytes that the loop can't see
    bool is_paused_ = false;
    bool tells_of_room_ = false;
    bool is_finishing_ = false;  // shut down for sending when nothing is left to send
    size_t counted_unsent_ = 0;
    std::unique_ptr<FdWatch> watch_;
    // Bytes to be sent. With TLS, part of them is in hiredis's output buffer: see kTlsOutputMax.
    Buffer output_;
};

// Frees sockets that may have ended inside their own callback, once the turn is over.
class SocketReaper final : private Deferred {
public:
    explicit SocketReaper(Loop& loop) : Deferred(loop, Phase::Reap) {}
    // Null is fine.
    void take(std::unique_ptr<HiredisSocket> socket);

private:
    void before_sleep() override { ended_.clear(); }
    std::vector<std::unique_ptr<HiredisSocket>> ended_;
};

}  // namespace nearkey
