// SPDX-License-Identifier: Apache-2.0
#include "net/testing/world.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>

#include <array>
#include <sstream>
#include <thread>

#include "base/file.h"
#include "net/program.h"
#include "net/tap.h"

namespace haneul::net::testing {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr size_t kVnetHeaderBytes = 10;

bool wait_for(int fd, short events, Clock::time_point until) {
  pollfd ready{fd, events, 0};
  auto left = std::chrono::duration_cast<milliseconds>(until - Clock::now());
  return ::poll(&ready, 1, static_cast<int>(std::max<int64_t>(0, left.count()))) > 0;
}

sockaddr_in socket_address(Ipv4 address, uint16_t port) {
  sockaddr_in to{};
  to.sin_family = AF_INET;
  to.sin_port = htons(port);
  to.sin_addr.s_addr = htonl(address.value);
  return to;
}

UniqueFd bound_socket(int type, uint16_t port) {
  UniqueFd fd(::socket(AF_INET, type | SOCK_CLOEXEC, 0));
  sockaddr_in any = socket_address({}, port);
  int on = 1;
  EXPECT_EQ(::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof on), 0);
  EXPECT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&any), sizeof any), 0);
  return fd;
}

/// A fresh network namespace for this thread. Without root, once, inside a user namespace with root's number.
bool unshare_network() {
  if (::unshare(CLONE_NEWNET) == 0) return true;
  uid_t uid = ::geteuid();
  gid_t gid = ::getegid();
  if (::unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0) return false;
  auto put = [](const char* path, const std::string& text) {
    auto file = open_file(path, O_WRONLY);
    return file.ok() && write_all(file->get(), std::as_bytes(std::span(text))).ok();
  };
  return put("/proc/self/setgroups", "deny") && put("/proc/self/uid_map", fmt::format("0 {} 1", uid)) &&
         put("/proc/self/gid_map", fmt::format("0 {} 1", gid));
}

/// Without the indices of links, and whether a cable is in, which the kernel finds out in its own time.
std::string without_chance(const std::string& text) {
  std::string kept;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    size_t digits = line.find_first_not_of("0123456789");
    if (digits > 0 && digits != std::string::npos && line[digits] == ':') line.erase(0, digits + 1);
    for (std::string_view word : {"NO-CARRIER,", ",LOWER_UP", " linkdown"}) {
      if (size_t at = line.find(word); at != std::string::npos) line.erase(at, word.size());
    }
    if (size_t at = line.find(" state "); at != std::string::npos)
      line.erase(at, line.find(' ', at + 7) - at);
    kept += line + "\n";
  }
  return kept;
}

UniqueFd this_network() {
  return open_file("/proc/thread-self/ns/net", O_RDONLY).value();
}

}  // namespace

Ipv4 ip(std::string_view text) {
  return Ipv4::parse(text).value();
}

Ipv4Prefix prefix(std::string_view text) {
  return Ipv4Prefix::parse(text).value();
}

std::string run(const std::vector<std::string>& words) {
  auto program = find_program(words[0]);
  EXPECT_TRUE(program.ok()) << words[0];
  if (!program.ok()) return "";
  auto outcome = run_program(*program, {words.begin() + 1, words.end()});
  EXPECT_TRUE(outcome.ok() && outcome->exit_code == 0)
      << words[0] << " " << words[1] << ": " << (outcome.ok() ? outcome->errors : outcome.error().message());
  return outcome.ok() ? outcome->output : "";
}

void Guest::send(const Bytes& frame) const {
  Bytes packet = Bytes(kVnetHeaderBytes, '\0') + frame;
  EXPECT_EQ(::write(tap_.get(), packet.data(), packet.size()), static_cast<ssize_t>(packet.size()));
}

void Guest::send_ip(uint8_t protocol, Ipv4 to, std::string_view payload) const {
  auto gateway = resolve(gateway_);
  ASSERT_TRUE(gateway) << "the gateway does not answer ARP";
  send(ethernet(*gateway, mac(), kEtherIpv4, ipv4(protocol, address(), to, payload)));
}

std::optional<Frame> Guest::receive(const std::function<bool(const Frame&)>& fits, milliseconds wait) const {
  std::array<char, 4096> buffer{};
  auto until = Clock::now() + wait;
  while (wait_for(tap_.get(), POLLIN, until)) {
    ssize_t got = ::read(tap_.get(), buffer.data(), buffer.size());
    if (got < static_cast<ssize_t>(kVnetHeaderBytes)) return std::nullopt;
    auto frame =
        Frame::parse({buffer.data() + kVnetHeaderBytes, static_cast<size_t>(got) - kVnetHeaderBytes});
    if (frame && fits(*frame)) return frame;
  }
  return std::nullopt;
}

bool Guest::silent(const std::function<bool(const Frame&)>& fits) const {
  return !receive(fits, kMoment);
}

std::optional<Mac> Guest::resolve(Ipv4 target, milliseconds wait) const {
  // Asked again as a guest does: for a moment after it came up, a bridge's port does not pass frames.
  for (auto until = Clock::now() + wait; Clock::now() < until;) {
    send(ethernet(kBroadcast, mac(), kEtherArp, arp(1, mac(), address(), Mac{}, target)));
    auto answer = receive(
        [&](const Frame& f) { return f.type == kEtherArp && f.arp_operation == 2 && f.source == target; },
        std::min(wait, milliseconds(50)));
    if (answer) return answer->arp_sender_mac;
  }
  return std::nullopt;
}

Socket Socket::udp(uint16_t port) {
  return Socket(bound_socket(SOCK_DGRAM, port));
}

Socket Socket::listen_tcp(uint16_t port) {
  UniqueFd fd = bound_socket(SOCK_STREAM, port);
  EXPECT_EQ(::listen(fd.get(), 5), 0);
  return Socket(std::move(fd));
}

Socket Socket::connect_tcp(Ipv4 to, uint16_t port) {
  UniqueFd fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  sockaddr_in address = socket_address(to, port);
  (void)::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address);
  return Socket(std::move(fd));
}

void Socket::send(Ipv4 to, uint16_t port, std::string_view text) const {
  sockaddr_in address = socket_address(to, port);
  // A firewall may refuse it at once: whether it arrives is the test's question, not whether it was sent.
  (void)::sendto(fd_.get(), text.data(), text.size(), 0, reinterpret_cast<sockaddr*>(&address),
                 sizeof address);
}

std::optional<std::string> Socket::receive(sockaddr_in* from, milliseconds wait) const {
  if (!wait_for(fd_.get(), POLLIN, Clock::now() + wait)) return std::nullopt;
  std::array<char, 2048> buffer{};
  sockaddr_in sender{};
  socklen_t size = sizeof sender;
  ssize_t got =
      ::recvfrom(fd_.get(), buffer.data(), buffer.size(), 0, reinterpret_cast<sockaddr*>(&sender), &size);
  if (got < 0) return std::nullopt;
  if (from != nullptr) *from = sender;
  return std::string(buffer.data(), static_cast<size_t>(got));
}

bool Socket::connected(milliseconds wait) const {
  if (!wait_for(fd_.get(), POLLOUT, Clock::now() + wait)) return false;
  int error = 0;
  socklen_t size = sizeof error;
  return ::getsockopt(fd_.get(), SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0;
}

void NetworkTest::SetUp() {
  if (!unshare_network()) GTEST_SKIP() << "needs root or user namespaces";
  Status taps = check_taps();
  if (!taps.ok()) GTEST_SKIP() << taps.error().message();
  run({"ip", "link", "set", "lo", "up"});
}

void NetworkTest::outside(const std::function<void()>& work) {
  std::thread([&] {
    ASSERT_EQ(::setns(outside_.get(), CLONE_NEWNET), 0);
    work();
  }).join();
}

void NetworkTest::make_outside() {
  std::thread([&] {
    ASSERT_EQ(::unshare(CLONE_NEWNET), 0);
    outside_ = this_network();
  }).join();
  std::string path = fmt::format("/proc/{}/fd/{}", ::getpid(), outside_.get());
  run({"ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", path});
  run({"ip", "addr", "add", "198.51.100.1/24", "dev", "eth0"});
  run({"ip", "link", "set", "eth0", "up"});
  outside([] {
    run({"ip", "link", "set", "lo", "up"});
    run({"ip", "addr", "add", "198.51.100.2/24", "dev", "eth0"});
    run({"ip", "link", "set", "eth0", "up"});
  });
  run({"ip", "route", "add", "default", "via", "198.51.100.2"});
}

FabricOptions NetworkTest::options(std::string tag, unsigned second_octet) const {
  FabricOptions made;
  made.tag = std::move(tag);
  Ipv4 base{172u << 24 | second_octet << 16};
  made.zones = {{"test-1a", "", {base, 20}, {base.value + 1}},
                {"test-1b", "", {{base.value + 0x1000}, 20}, {base.value + 0x1001}}};
  return made;
}

NicSpec NetworkTest::nic(unsigned number, std::string zone) const {
  NicSpec made;
  std::string id = fmt::format("i-{:017x}", number);
  made.tap = tap_name("han0", id);
  made.mac = mac_for(id);
  made.address = {ip(zone == "test-1a" ? "172.31.0.0" : "172.31.16.0").value + number};
  made.zone = std::move(zone);
  return made;
}

Fabric NetworkTest::open(FabricOptions wanted, std::vector<NicSpec> live) {
  return Fabric::open(std::move(wanted), std::move(live)).value();
}

Guest NetworkTest::plug(Fabric& fabric, NicSpec spec) {
  UniqueFd tap = fabric.plug(spec).value();
  Ipv4 gateway;
  for (const ZoneSpec& zone : fabric.options().zones) {
    if (zone.name == spec.zone) gateway = zone.gateway;
  }
  return Guest(std::move(tap), std::move(spec), gateway);
}

std::string NetworkTest::everything() {
  std::string links = run({"ip", "-o", "link"});
  std::string text = run({"nft", "list", "ruleset"}) + links +
                     run({"ip", "-o", "-4", "addr", "show", "scope", "global"}) + run({"ip", "route"});
  for (const char* path : {"all/forwarding", "default/forwarding", "all/send_redirects", "all/proxy_arp"}) {
    text += run({"cat", fmt::format("/proc/sys/net/ipv4/conf/{}", path)});
  }
  if (links.find(" eth0") != std::string::npos)
    text += run({"cat", "/proc/sys/net/ipv4/conf/eth0/forwarding"});
  return without_chance(text);
}

}  // namespace haneul::net::testing
