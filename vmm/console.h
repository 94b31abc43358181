// SPDX-License-Identifier: Apache-2.0
// Console: the far end of the guest's serial line. Output goes to the ring file and to whoever is connected
// to the console socket; what they send is typed into the guest.
//
// A guest writes byte by byte; a reader gets in one message what has gathered in the ring since the event
// loop's last turn. A reader that is more than the ring (64 KiB) and its socket's buffer behind loses the
// oldest output, never the guest's time: its socket is written without blocking.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/console_ring.h"
#include "base/event_loop.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::vmm {

/// output() may be called from any thread; everything else on the event loop's, the destructor after the last
/// output.
class Console {
 public:
  /// Takes up to size bytes to type; returns how many it could take now.
  using Typist = std::function<size_t(std::span<const std::byte>)>;

  /// No ring: the output is kept in memory only. No listener: nobody can connect.
  static Result<std::unique_ptr<Console>> create(EventLoop& loop, const UniqueFd& ring_file,
                                                 UniqueFd listener);
  ~Console();

  /// What the guest wrote.
  void output(std::span<const std::byte> data);
  void set_typist(Typist typist) {
    typist_ = std::move(typist);
    // A new machine takes what the old one left unread.
    if (typist_) room_again();
  }
  /// The typist has room again: goes on with input that had to wait. Any thread.
  void room_again() { room_.signal(); }
  /// Also gets all output, on the thread that calls output(). Set before the guest runs.
  void set_listener(std::function<void(std::span<const std::byte>)> listener) {
    listener_ = std::move(listener);
  }

 private:
  struct Client {
    UniqueFd socket;
    std::string pending_input;
    // How much of all output ever it has been sent; what the ring no longer holds, it never gets.
    uint64_t sent = 0;
    bool behind = false;
  };

  Console(EventLoop& loop, ConsoleRing ring, UniqueFd listening, EventFd room, EventFd news);
  void accept_client();
  void serve_client(int fd, uint32_t events);
  bool read_client(Client& client);
  void drop_client(int fd);
  void send_news();
  void send_to(Client& client);
  void type_pending();
  void watch_for_more(Client& client);

  EventLoop& loop_;
  UniqueFd listening_;
  EventFd room_;
  Typist typist_;
  std::function<void(std::span<const std::byte>)> listener_;
  // Signalled once for all output until the event loop has turned.
  EventFd news_;
  std::mutex mutex_;  // guards ring_, readers_ and news_told_
  ConsoleRing ring_;
  bool readers_ = false;
  bool news_told_ = false;
  std::vector<std::unique_ptr<Client>> clients_;
};

}  // namespace haneul::vmm
