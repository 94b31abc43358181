// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/options.h"

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <map>

#include "agent/cli/defaults.h"
#include "agent/daemon/network_record.h"

namespace haneul::agent {
namespace {

// Beside this program, or where an installation puts it.
std::filesystem::path default_vmm() {
  std::error_code error;
  auto self = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  for (const auto& candidate : {self / "haneul-vmm", self.parent_path() / "libexec" / "haneul-vmm",
                                self.parent_path() / "bin" / "haneul-vmm"}) {
    if (::access(candidate.c_str(), X_OK) == 0) return candidate;
  }
  return self / "haneul-vmm";
}

}  // namespace

ParsedOptions parse_daemon_options(int argc, char** argv) {
  DaemonOptions options;
  options.state = default_state();
  options.vmm = default_vmm();
  options.network = ::geteuid() == 0 ? NetworkChoice::kHost : NetworkChoice::kPrivate;
  const std::map<std::string, NetworkChoice> networks = {
      {"host", NetworkChoice::kHost}, {"private", NetworkChoice::kPrivate}, {"none", NetworkChoice::kNone}};
  const std::map<std::string, LogLevel> levels = {{"debug", LogLevel::kDebug},
                                                  {"info", LogLevel::kInfo},
                                                  {"warn", LogLevel::kWarning},
                                                  {"error", LogLevel::kError}};
  int stop_seconds = 60;
  int terminate_seconds = 10;
  int reboot_seconds = 30;
  bool foreground = true;

  CLI::App app{"haneuld: EC2's compute service on one machine", "haneuld"};
  app.set_version_flag("--version", "haneuld " HANEUL_VERSION);
  app.add_option("--state", options.state, "folder of everything that lasts")->capture_default_str();
  app.add_option("--socket", options.socket, "unix socket to serve the API on");
  app.add_option("--vmm", options.vmm, "the haneul-vmm program")->capture_default_str();
  app.add_option("--network", options.network,
                 "host: bridges on this host; private: a network of its own; none")
      ->transform(CLI::CheckedTransformer(networks, CLI::ignore_case).description("host|private|none"));
  std::string vpc = "auto";
  app.add_option(
         "--vpc", vpc,
         "range of the instances' addresses, a /16 such as 172.31.0.0/16; auto: one that this host does "
         "not use. Chosen at the first start and kept")
      ->check([](const std::string& text) {
        auto range = text == "auto" ? Result<net::Ipv4Prefix>(net::Ipv4Prefix{}) : parse_vpc(text);
        return range.ok() ? std::string() : range.error().message();
      })
      ->type_name("auto|CIDR")
      ->capture_default_str();
  std::string regions;
  app.add_option("--regions", regions,
                 "regions, and the letters of their zones (abc if none are given), as "
                 "us-east-1:abc,eu-west-1:ab; the "
                 "first is the default. Kept until others are given")
      ->check([](const std::string& text) {
        auto parsed = parse_regions(text);
        return parsed.ok() ? std::string() : parsed.error().message();
      })
      ->type_name("LIST");
  app.add_option("--log-level", options.log_level, "debug, info, warn or error")
      ->transform(CLI::CheckedTransformer(levels, CLI::ignore_case).description("debug|info|warn|error"));
  app.add_option("--stop-timeout", stop_seconds, "seconds a guest has for its shutdown on stop")
      ->capture_default_str();
  app.add_option("--terminate-timeout", terminate_seconds, "the same on terminate")->capture_default_str();
  app.add_option("--reboot-timeout", reboot_seconds, "the same on reboot, before a reset")
      ->capture_default_str();
  app.add_flag("--without-kvm", options.without_kvm, "start although no instance can run here");
  app.add_flag("--foreground", foreground, "stay in the foreground (it always does)");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    int status = app.exit(error);
    return {std::nullopt, status == 0 ? kExitOk : kExitUsage};
  }
  std::error_code ignored;
  options.state = std::filesystem::absolute(options.state, ignored);
  if (options.socket.empty()) options.socket = default_socket(options.state);
  options.socket = std::filesystem::absolute(options.socket, ignored);
  options.vmm = std::filesystem::absolute(options.vmm, ignored);
  if (!regions.empty()) options.regions = parse_regions(regions).value();
  if (vpc != "auto") options.vpc = parse_vpc(vpc).value();
  options.stop_timeout = std::chrono::seconds(stop_seconds);
  options.terminate_timeout = std::chrono::seconds(terminate_seconds);
  options.reboot_timeout = std::chrono::seconds(reboot_seconds);
  return {std::move(options), kExitOk};
}

}  // namespace haneul::agent
