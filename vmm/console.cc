// SPDX-License-Identifier: Apache-2.0
#include "vmm/console.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>

#include "base/file.h"
#include "base/log.h"
#include "base/socket.h"

namespace haneul::vmm {
namespace {

constexpr size_t kMaxClients = 8;

void send_without_waiting(int socket, const void* data, size_t size) {
  (void)::send(socket, data, size, MSG_DONTWAIT | MSG_NOSIGNAL);
}

}  // namespace

Result<std::unique_ptr<Console>> Console::create(EventLoop& loop, const UniqueFd& ring_file,
                                                 UniqueFd listener) {
  UniqueFd own_file;
  if (!ring_file) own_file = TRY(make_memfd("console"));
  ConsoleRing ring = TRY(ConsoleRing::open(ring_file ? ring_file : own_file));
  EventFd room = TRY(EventFd::create());
  std::unique_ptr<Console> console(new Console(loop, std::move(ring), std::move(listener), std::move(room)));
  Console* self = console.get();
  if (self->listening_) {
    TRY(loop.watch(self->listening_.get(), EPOLLIN, [self](uint32_t) { self->accept_client(); }));
  }
  TRY(loop.watch(self->room_.fd(), EPOLLIN, [self](uint32_t) {
    self->room_.drain();
    self->type_pending();
  }));
  return console;
}

Console::Console(EventLoop& loop, ConsoleRing ring, UniqueFd listening, EventFd room)
    : loop_(loop), listening_(std::move(listening)), room_(std::move(room)), ring_(std::move(ring)) {}

Console::~Console() {
  if (listening_) loop_.unwatch(listening_.get());
  loop_.unwatch(room_.fd());
  for (const auto& client : clients_) loop_.unwatch(client->socket.get());
}

void Console::output(std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  ring_.append(data);
  for (const auto& client : clients_) send_without_waiting(client->socket.get(), data.data(), data.size());
  if (listener_) listener_(data);
}

void Console::accept_client() {
  auto socket = accept_unix(listening_.get());
  if (!socket.ok()) return;
  std::lock_guard lock(mutex_);
  // The oldest makes room: it may be one that a dead daemon left behind.
  if (clients_.size() == kMaxClients) {
    loop_.unwatch(clients_.front()->socket.get());
    clients_.erase(clients_.begin());
  }
  auto client = std::make_unique<Client>();
  client->socket = std::move(*socket);
  int fd = client->socket.get();
  int room = static_cast<int>(4 * kConsoleRingBytes);
  (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  // Under the lock, so that the new client gets every byte once: what was, then what comes.
  std::string so_far = ring_.contents();
  send_without_waiting(fd, so_far.data(), so_far.size());
  Status watched =
      loop_.watch(fd, EPOLLIN | EPOLLRDHUP, [this, fd](uint32_t events) { read_client(fd, events); });
  if (!watched.ok()) return;
  clients_.push_back(std::move(client));
}

void Console::read_client(int fd, uint32_t events) {
  (void)events;
  auto found =
      std::find_if(clients_.begin(), clients_.end(), [fd](const auto& c) { return c->socket.get() == fd; });
  if (found == clients_.end()) return;
  std::array<char, 4096> buffer;
  ssize_t got = ::recv(fd, buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) {
    drop_client(fd);
    return;
  }
  if (got < 0) return;
  (*found)->pending_input.append(buffer.data(), static_cast<size_t>(got));
  type_pending();
}

void Console::drop_client(int fd) {
  loop_.unwatch(fd);
  std::lock_guard lock(mutex_);
  std::erase_if(clients_, [fd](const auto& c) { return c->socket.get() == fd; });
}

void Console::type_pending() {
  for (const auto& client : clients_) {
    std::string& text = client->pending_input;
    if (!text.empty() && typist_) text.erase(0, typist_(std::as_bytes(std::span(text))));
    // Back-pressure: while the guest has not read what was typed, the client's socket fills up and the client
    // waits.
    uint32_t wanted = text.empty() ? EPOLLIN | EPOLLRDHUP : EPOLLRDHUP;
    (void)loop_.change(client->socket.get(), wanted);
  }
}

}  // namespace haneul::vmm
