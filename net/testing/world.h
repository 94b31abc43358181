// SPDX-License-Identifier: Apache-2.0
// A small world for tests of the network: a fresh network namespace for every test that plays the host,
// another that plays the world outside behind a veth, and instances played frame by frame on the taps.
//
//   guest (tap, 172.31.0.5) -- bridge -- host 198.51.100.1 -- veth -- 198.51.100.2 outside
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "net/fabric.h"
#include "net/testing/frames.h"

namespace haneul::net::testing {

Ipv4 ip(std::string_view text);
Ipv4Prefix prefix(std::string_view text);

/// The output of a program; the test fails if it does.
std::string run(const std::vector<std::string>& words);

/// An instance, played by the test.
class Guest {
 public:
  Guest(UniqueFd tap, NicSpec nic, Ipv4 gateway)
      : tap_(std::move(tap)), nic_(std::move(nic)), gateway_(gateway) {}

  void send(const Bytes& frame) const;
  /// An IPv4 packet from this guest's own addresses to the bridge, which routes it.
  void send_ip(uint8_t protocol, Ipv4 to, std::string_view payload) const;
  /// The next frame that fits, with others skipped; nullopt after the time.
  std::optional<Frame> receive(const std::function<bool(const Frame&)>& fits,
                               std::chrono::milliseconds wait = std::chrono::seconds(10)) const;
  /// Whether no such frame comes in a moment.
  bool silent(const std::function<bool(const Frame&)>& fits) const;
  /// Asks by ARP as this guest; the answer's MAC.
  std::optional<Mac> resolve(Ipv4 address, std::chrono::milliseconds wait = std::chrono::seconds(10)) const;

  const NicSpec& nic() const { return nic_; }
  Mac mac() const { return nic_.mac; }
  Ipv4 address() const { return nic_.address; }
  void pull_out() { tap_.reset(); }

 private:
  UniqueFd tap_;
  NicSpec nic_;
  Ipv4 gateway_;
};

/// A UDP or TCP socket in some namespace.
class Socket {
 public:
  static Socket udp(uint16_t port = 0);
  static Socket listen_tcp(uint16_t port);
  /// Starts a connection and does not wait for it.
  static Socket connect_tcp(Ipv4 to, uint16_t port);
  void send(Ipv4 to, uint16_t port, std::string_view text) const;
  /// The next datagram's or chunk's text, and who sent it.
  std::optional<std::string> receive(sockaddr_in* from = nullptr,
                                     std::chrono::milliseconds wait = std::chrono::seconds(10)) const;
  bool connected(std::chrono::milliseconds wait = std::chrono::seconds(10)) const;

 private:
  explicit Socket(UniqueFd fd) : fd_(std::move(fd)) {}
  UniqueFd fd_;
};

constexpr std::chrono::milliseconds kMoment{150};

class NetworkTest : public ::testing::Test {
 protected:
  void SetUp() override;

  /// Runs something in the outside namespace.
  void outside(const std::function<void()>& work);
  /// The veth to the outside, with a default route through it.
  void make_outside();

  FabricOptions options(std::string tag = "han0", unsigned second_octet = 31) const;
  NicSpec nic(unsigned number, std::string zone = "test-1a") const;
  Fabric open(FabricOptions options, std::vector<NicSpec> live = {});
  Guest plug(Fabric& fabric, NicSpec nic);

  /// Everything in the host's namespace that a fabric could leave behind.
  static std::string everything();

  Ipv4 host_address_ = ip("198.51.100.1");
  Ipv4 outside_address_ = ip("198.51.100.2");

 private:
  UniqueFd outside_;
};

}  // namespace haneul::net::testing
