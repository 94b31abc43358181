// SPDX-License-Identifier: Apache-2.0
// Unix sockets: listening, connecting, and packets that carry file descriptors.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul {

/// Listens on a new socket file of the type given (SOCK_STREAM or SOCK_SEQPACKET). A file left by a process
/// that no longer serves it is replaced; one that is served, or may be, is kExists. Paths longer than sun_path
/// work. kStays: whoever listens there does so itself and passes its socket to nobody. Then the death of that process is
/// enough, though a child that it had just made may still have the socket open for a moment.
enum class Listener { kMayBePassedOn, kStays };
Result<UniqueFd> listen_unix(const std::filesystem::path& path, int type, unsigned mode = 0600,
                             Listener listener = Listener::kMayBePassedOn);
/// kTimeout if the other side takes no connection in that time: it may be hostile, and never take one. The
/// socket itself has no time limit.
Result<UniqueFd> connect_unix(const std::filesystem::path& path, int type,
                              std::chrono::milliseconds timeout = std::chrono::seconds(5));
Result<UniqueFd> accept_unix(int listener);
Result<std::pair<UniqueFd, UniqueFd>> socket_pair(int type);

/// At most this many descriptors go with one packet, and this many bytes.
constexpr size_t kMaxPacketFds = 8;
constexpr size_t kMaxPacketBytes = 64 << 10;

struct Packet {
  std::string text;
  std::vector<UniqueFd> fds;
};

/// One packet on a SOCK_SEQPACKET socket, with the descriptors.
Status send_packet(int socket, std::string_view text, std::span<const int> fds = {});
/// The next packet. The peer's end is kCancelled; one too large or cut short is kInvalidArgument.
Result<Packet> receive_packet(int socket);

}  // namespace haneul
