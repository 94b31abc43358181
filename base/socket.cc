// SPDX-License-Identifier: Apache-2.0
#include "base/socket.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace haneul {
namespace {

// A socket address has room for 107 bytes of path. A longer one is reached through the folder's descriptor.
struct Address {
  sockaddr_un value{};
  UniqueFd folder;
};

Result<Address> address_of(const std::filesystem::path& path) {
  Address address;
  address.value.sun_family = AF_UNIX;
  std::string text = path.string();
  if (text.size() >= sizeof address.value.sun_path) {
    address.folder = TRY(open_file(path.parent_path(), O_PATH | O_DIRECTORY));
    text = fmt::format("/proc/self/fd/{}/{}", address.folder.get(), path.filename().string());
    if (text.size() >= sizeof address.value.sun_path) {
      return make_error(ErrorCode::kInvalidArgument, "the socket's name is too long: {}", path.string());
    }
  }
  std::memcpy(address.value.sun_path, text.data(), text.size());
  return address;
}

const sockaddr* generic(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address.value);
}

bool is_listener_dead(int connected) {
  ucred listener{};
  socklen_t size = sizeof listener;
  return ::getsockopt(connected, SOL_SOCKET, SO_PEERCRED, &listener, &size) == 0 && listener.pid > 0 &&
         ::kill(listener.pid, 0) != 0 && errno == ESRCH;
}

// Frees the name for a new socket, if what has it is a socket that nobody serves: only a refused connection
// says so. Another error may be a live socket's of another type, or another user's.
Status remove_dead(const std::filesystem::path& path, const Address& address, int type, Listener listener) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0 && !S_ISSOCK(info.st_mode)) {
    return make_error(ErrorCode::kExists, "{} exists and is not a socket", path.string());
  }
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return errno_error("socket");
  const bool connected = ::connect(fd.get(), generic(address), sizeof address.value) == 0;
  const bool orphan = connected && listener == Listener::kStays && is_listener_dead(fd.get());
  if (connected ? !orphan : errno == EAGAIN) {
    return make_error(ErrorCode::kExists, "{} is already served by a live process", path.string());
  }
  if (orphan) {
    ::unlink(path.c_str());
    return {};
  }
  if (errno == EPROTOTYPE) {
    return make_error(ErrorCode::kExists, "{} is a socket of another kind, of a live process", path.string());
  }
  if (errno == ENOENT) return {};
  if (errno != ECONNREFUSED) {
    return Error(
        ErrorCode::kExists,
        errno_error("{} may be served by a live process, and cannot be asked", path.string()).message());
  }
  ::unlink(path.c_str());
  return {};
}

}  // namespace

Result<UniqueFd> connect_unix(const std::filesystem::path& path, int type,
                              std::chrono::milliseconds timeout) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  Address address = TRY(address_of(path));
  // A listener that accepts nothing has a full queue sooner or later; then connect() waits as sending does.
  timeval limit{.tv_sec = timeout.count() / 1000, .tv_usec = timeout.count() % 1000 * 1000};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) != 0)
    return errno_error("setsockopt");
  if (::connect(fd.get(), generic(address), sizeof address.value) != 0) {
    if (errno == EAGAIN) {
      return make_error(ErrorCode::kTimeout, "{} takes no connection within {} ms", path.string(),
                        timeout.count());
    }
    return errno_error("cannot connect to {}", path.string());
  }
  timeval none{};
  if (::setsockopt(fd.get(), SOL_SOCKET, SO_SNDTIMEO, &none, sizeof none) != 0)
    return errno_error("setsockopt");
  return fd;
}

Result<UniqueFd> listen_unix(const std::filesystem::path& path, int type, unsigned mode, Listener listener) {
  UniqueFd fd(::socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  if (!fd) return errno_error("socket");
  Address address = TRY(address_of(path));
  if (::bind(fd.get(), generic(address), sizeof address.value) != 0) {
    if (errno != EADDRINUSE) return errno_error("cannot listen on {}", path.string());
    TRY(remove_dead(path, address, type, listener));
    if (::bind(fd.get(), generic(address), sizeof address.value) != 0) {
      return errno_error("cannot listen on {}", path.string());
    }
  }
  if (::chmod(path.c_str(), mode) != 0) return errno_error("chmod of {}", path.string());
  if (::listen(fd.get(), 64) != 0) return errno_error("listen on {}", path.string());
  return fd;
}

Result<UniqueFd> accept_unix(int listener) {
  UniqueFd fd(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  if (!fd) return errno_error("accept");
  return fd;
}

Result<std::pair<UniqueFd, UniqueFd>> socket_pair(int type) {
  int fds[2];
  if (::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) != 0) return errno_error("socketpair");
  return std::pair(UniqueFd(fds[0]), UniqueFd(fds[1]));
}

Status send_packet(int socket, std::string_view text, std::span<const int> fds) {
  CHECK(fds.size() <= kMaxPacketFds && text.size() <= kMaxPacketBytes);
  iovec data{.iov_base = const_cast<char*>(text.data()), .iov_len = text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty()) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(fds.size_bytes());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(fds.size_bytes());
    std::memcpy(CMSG_DATA(header), fds.data(), fds.size_bytes());
  }
  for (;;) {
    if (::sendmsg(socket, &message, MSG_NOSIGNAL) >= 0) return {};
    if (errno != EINTR) return errno_error("sending a packet");
  }
}

Result<Packet> receive_packet(int socket) {
  Packet packet;
  packet.text.resize(kMaxPacketBytes);
  iovec data{.iov_base = packet.text.data(), .iov_len = packet.text.size()};
  alignas(cmsghdr) char control[CMSG_SPACE(kMaxPacketFds * sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof control;
  ssize_t got = 0;
  do {
    got = ::recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) return errno_error("receiving a packet");
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof fd);
      packet.fds.emplace_back(fd);
    }
  }
  if (got == 0) return Error(ErrorCode::kCancelled, "the peer closed the connection");
  if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
    return make_error(ErrorCode::kInvalidArgument, "a packet of more than {} bytes or {} descriptors",
                      kMaxPacketBytes, kMaxPacketFds);
  }
  packet.text.resize(static_cast<size_t>(got));
  return packet;
}

}  // namespace haneul
