// SPDX-License-Identifier: Apache-2.0
#include "net/tap.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sys/ioctl.h>

#include <cerrno>
#include <cstring>

#include "base/file.h"

namespace haneul::net {
namespace {

constexpr const char* kDevice = "/dev/net/tun";

Result<UniqueFd> open_device() {
  UniqueFd fd(::open(kDevice, O_RDWR | O_NONBLOCK | O_CLOEXEC));
  if (fd) return fd;
  if (errno == ENOENT || errno == ENODEV || errno == ENXIO) {
    return make_error(ErrorCode::kUnsupported,
                      "there is no {0}: load the kernel module `tun`, or give the container the device {0}",
                      kDevice);
  }
  if (errno == EACCES || errno == EPERM) {
    return make_error(ErrorCode::kPermission, "no permission to open {} for reading and writing", kDevice);
  }
  return errno_error("opening {}", kDevice);
}

}  // namespace

Status check_taps() {
  TRY(open_device());
  return {};
}

Result<UniqueFd> create_tap(const std::string& name) {
  CHECK(name.size() < IFNAMSIZ);
  UniqueFd fd = TRY(open_device());
  ifreq request{};
  std::memcpy(request.ifr_name, name.c_str(), name.size());
  // Exclusive: without it a persistent tap of somebody else's would be joined instead of refused.
  request.ifr_flags = static_cast<short>(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_TUN_EXCL);
  if (::ioctl(fd.get(), TUNSETIFF, &request) == 0) return fd;
  if (errno == EBUSY || errno == EEXIST) {
    return make_error(ErrorCode::kExists, "an interface named {} is there already", name);
  }
  if (errno == EPERM) {
    return make_error(ErrorCode::kPermission, "no permission (CAP_NET_ADMIN) to create tap {}", name);
  }
  return errno_error("creating tap {}", name);
}

}  // namespace haneul::net
