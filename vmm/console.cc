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

}  // namespace

Result<std::unique_ptr<Console>> Console::create(EventLoop& loop, const UniqueFd& ring_file,
                                                 UniqueFd listener) {
  UniqueFd own_file;
  if (!ring_file) own_file = TRY(make_memfd("console"));
  ConsoleRing ring = TRY(ConsoleRing::open(ring_file ? ring_file : own_file));
  EventFd room = TRY(EventFd::create());
  EventFd news = TRY(EventFd::create());
  std::unique_ptr<Console> console(
      new Console(loop, std::move(ring), std::move(listener), std::move(room), std::move(news)));
  Console* self = console.get();
  if (self->listening_) {
    TRY(loop.watch(self->listening_.get(), EPOLLIN, [self](uint32_t) { self->accept_client(); }));
  }
  TRY(loop.watch(self->room_.fd(), EPOLLIN, [self](uint32_t) {
    self->room_.drain();
    self->type_pending();
  }));
  TRY(loop.watch(self->news_.fd(), EPOLLIN, [self](uint32_t) {
    self->news_.drain();
    self->send_news();
  }));
  return console;
}

Console::Console(EventLoop& loop, ConsoleRing ring, UniqueFd listening, EventFd room, EventFd news)
    : loop_(loop),
      listening_(std::move(listening)),
      room_(std::move(room)),
      news_(std::move(news)),
      ring_(std::move(ring)) {}

// The guest's last words may have come after the loop's last turn.
Console::~Console() {
  for (const auto& client : clients_) send_to(*client);
  if (listening_) loop_.unwatch(listening_.get());
  loop_.unwatch(room_.fd());
  loop_.unwatch(news_.fd());
  for (const auto& client : clients_) loop_.unwatch(client->socket.get());
}

void Console::output(std::span<const std::byte> data) {
  std::lock_guard lock(mutex_);
  ring_.append(data);
  if (readers_ && !news_told_) {
    news_told_ = true;
    news_.signal();
  }
  if (listener_) listener_(data);
}

void Console::send_news() {
  {
    std::lock_guard lock(mutex_);
    news_told_ = false;
  }
  for (const auto& client : clients_) {
    // Who is behind is sent more when its socket has room.
    if (client->behind) continue;
    send_to(*client);
    if (client->behind) watch_for_more(*client);
  }
}

void Console::send_to(Client& client) {
  std::string text;
  uint64_t end = 0;
  {
    std::lock_guard lock(mutex_);
    text = ring_.since(client.sent);
    end = ring_.total();
  }
  ssize_t sent = 0;
  if (!text.empty()) {
    sent = ::send(client.socket.get(), text.data(), text.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    sent = std::max<ssize_t>(sent, 0);
  }
  // What had left the ring before its turn counts as sent.
  client.sent = end - (text.size() - static_cast<size_t>(sent));
  client.behind = client.sent < end;
}

void Console::accept_client() {
  auto socket = accept_unix(listening_.get());
  if (!socket.ok()) return;
  // The oldest makes room: it may be one that a dead daemon left behind.
  if (clients_.size() == kMaxClients) drop_client(clients_.front()->socket.get());
  auto client = std::make_unique<Client>();
  client->socket = std::move(*socket);
  int fd = client->socket.get();
  int room = static_cast<int>(4 * kConsoleRingBytes);
  (void)::setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  Status watched =
      loop_.watch(fd, EPOLLIN | EPOLLRDHUP, [this, fd](uint32_t events) { serve_client(fd, events); });
  if (!watched.ok()) return;
  clients_.push_back(std::move(client));
  {
    std::lock_guard lock(mutex_);
    readers_ = true;
  }
  // What was; then what comes.
  send_to(*clients_.back());
  watch_for_more(*clients_.back());
}

void Console::serve_client(int fd, uint32_t events) {
  auto found =
      std::find_if(clients_.begin(), clients_.end(), [fd](const auto& c) { return c->socket.get() == fd; });
  if (found == clients_.end()) return;
  Client& client = **found;
  if ((events & EPOLLOUT) != 0) send_to(client);
  if ((events & ~uint32_t{EPOLLOUT}) != 0 && !read_client(client)) {
    drop_client(fd);
    return;
  }
  type_pending();
}

// False: it is gone.
bool Console::read_client(Client& client) {
  std::array<char, 4096> buffer;
  ssize_t got = ::recv(client.socket.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR)) return false;
  if (got > 0) client.pending_input.append(buffer.data(), static_cast<size_t>(got));
  return true;
}

void Console::drop_client(int fd) {
  loop_.unwatch(fd);
  std::erase_if(clients_, [fd](const auto& c) { return c->socket.get() == fd; });
  std::lock_guard lock(mutex_);
  readers_ = !clients_.empty();
}

void Console::type_pending() {
  for (const auto& client : clients_) {
    std::string& text = client->pending_input;
    if (!text.empty() && typist_) text.erase(0, typist_(std::as_bytes(std::span(text))));
    watch_for_more(*client);
  }
}

void Console::watch_for_more(Client& client) {
  uint32_t wanted = EPOLLRDHUP;
  // Back-pressure: while the guest has not read what was typed, the client's socket fills up and the client
  // waits.
  if (client.pending_input.empty()) wanted |= EPOLLIN;
  if (client.behind) wanted |= EPOLLOUT;
  (void)loop_.change(client.socket.get(), wanted);
}

}  // namespace haneul::vmm
