// SPDX-License-Identifier: Apache-2.0
// console, ssh and the proxy that ssh goes through: it works whatever network the instances are in, and for
// users who may use the daemon's socket and nothing else.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <thread>

#include "agent/cli/commands.h"
#include "agent/cli/defaults.h"
#include "agent/cli/progress.h"
#include "agent/cli/terminal.h"
#include "agent/cli/wait.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

constexpr std::string_view kKeysBegin = "-----BEGIN SSH HOST KEY KEYS-----";
constexpr std::string_view kKeysEnd = "-----END SSH HOST KEY KEYS-----";

Result<std::string> console_text(Api& api, const std::string& id) {
  Json reply = TRY(api.call("GetConsoleOutput", {{"InstanceId", id}}));
  return from_base64(text_of(reply, "Output")).value_or("");
}

// The host keys that the instance printed at its boot, as lines of known_hosts.
std::string host_keys_in(const std::string& console, const std::string& id) {
  size_t begin = console.rfind(kKeysBegin);
  size_t end = begin == std::string::npos ? begin : console.find(kKeysEnd, begin);
  if (end == std::string::npos) return "";
  std::string lines;
  size_t at = console.find('\n', begin);
  while (at != std::string::npos && at < end) {
    size_t next = console.find('\n', at + 1);
    std::string line = console.substr(at + 1, std::min(next, end) - at - 1);
    size_t key = std::min(line.find("ssh-"), line.find("ecdsa-"));
    if (key != std::string::npos)
      lines += fmt::format("{} {}\n", id, line.substr(key, line.find_last_not_of("\r\n") + 1 - key));
    at = next;
  }
  return lines;
}

// sshd is up a moment after the instance is "running".
Status wait_for_port(Api& api, const std::string& id, int port, std::chrono::seconds timeout) {
  Progress progress(fmt::format("waiting for ssh on {}", id));
  auto deadline = std::chrono::steady_clock::now() + timeout;
  for (;;) {
    auto stream = api.stream(fmt::format("/tunnel/{}/{}", id, port));
    if (stream.ok()) return {};
    bool later = stream.error().message().ends_with("(Unavailable)");
    if (!later) {
      std::string state = text_of(TRY(api.instance(id))["State"], "Name");
      if (state != "pending") return stream.error();
    }
    if (std::chrono::steady_clock::now() > deadline) {
      return make_error(ErrorCode::kTimeout,
                        "{} did not answer ssh within {} s (haneul console {} shows why)", id,
                        timeout.count(), id);
    }
    progress.tick();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
  }
}

Result<std::filesystem::path> known_hosts_file(Api& api, const std::string& id) {
  std::filesystem::path folder = cache_folder() / "known_hosts";
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) return Error::from_errno(error.value(), fmt::format("cannot make {}", folder.string()));
  std::filesystem::path file = folder / id;
  std::string keys = host_keys_in(TRY(console_text(api, id)), id);
  if (!keys.empty()) TRY(replace_file(file, keys));
  return file;
}

std::string shell_quoted(const std::string& word) {
  std::string out = "'";
  for (char c : word) out += c == '\'' ? "'\\''" : std::string(1, c);
  return out + "'";
}

// ssh expands % in its options.
std::string percent_escaped(const std::string& text) {
  std::string out;
  for (char c : text) out += c == '%' ? "%%" : std::string(1, c);
  return out;
}

// EC2 does not say who logs in to an image; ours carry it in a tag.
std::string login_user(Api& api, const SshOptions& options, const Json& instance) {
  if (!options.user.empty()) return options.user;
  auto image = api.image(text_of(instance, "ImageId"));
  std::string user = image.ok() ? tag_of(*image, "haneul:user") : "";
  return user.empty() ? "haneul" : user;
}

}  // namespace

Result<int> console_command(Api& api, const Shared& shared, const std::string& name, bool follow) {
  std::string id = TRY(api.instance_id(name));
  if (shared.json) {
    print_json(TRY(api.call("GetConsoleOutput", {{"InstanceId", id}})));
    return kCliOk;
  }
  bool interactive = !follow && ::isatty(STDIN_FILENO) == 1 && ::isatty(STDOUT_FILENO) == 1;
  std::string state = text_of(TRY(api.instance(id))["State"], "Name");
  if ((follow || interactive) && state == "pending") {
    int status = TRY(wait_for_instances(api, {id}, "running", 60, "the launch"));
    if (status != kCliOk) return status;
  }
  bool live = state == "running" || state == "pending" || state == "stopping" || state == "shutting-down";
  if ((!interactive && !follow) || !live) {
    std::string text = TRY(console_text(api, id));
    TRY(write_all(STDOUT_FILENO, std::as_bytes(std::span(text))));
    return kCliOk;
  }
  Upgraded upgraded = TRY(api.stream("/console/" + id));
  if (interactive) fmt::print(stderr, "console of {}: Ctrl-] leaves\n", id);
  PumpEnd end = TRY(pump(upgraded.reply.stream, upgraded.first_bytes, {.interactive = interactive}));
  if (interactive)
    fmt::print(stderr, "\n{}\n", end == PumpEnd::kStream ? "the console has ended" : "left the console");
  return end == PumpEnd::kInterrupted ? kCliInterrupted : kCliOk;
}

Result<int> proxy_command(Api& api, const std::string& name, int port) {
  std::string id = TRY(api.instance_id(name));
  Upgraded upgraded = TRY(api.stream(fmt::format("/tunnel/{}/{}", id, port)));
  TRY(pump(upgraded.reply.stream, upgraded.first_bytes, {.input = true}));
  return kCliOk;
}

Result<int> ssh_command(Api& api, const SshOptions& options) {
  std::string id = TRY(api.instance_id(options.instance));
  Json instance = TRY(api.instance(id));
  TRY(wait_for_port(api, id, 22, std::chrono::seconds(options.timeout_s)));
  std::filesystem::path known_hosts = TRY(known_hosts_file(api, id));
  std::error_code error;
  bool known = std::filesystem::exists(known_hosts, error);

  std::string proxy = shell_quoted(own_path().string()) + " --socket " + shell_quoted(api.socket().string());
  if (!api.region().empty()) proxy += " --region " + shell_quoted(api.region());
  std::vector<std::string> words = {"ssh",
                                    "-o",
                                    "ProxyCommand=" + percent_escaped(proxy) + " proxy " + id + " 22",
                                    "-o",
                                    "HostKeyAlias=" + id,
                                    "-o",
                                    "UserKnownHostsFile=" + percent_escaped(known_hosts.string()),
                                    "-o",
                                    "GlobalKnownHostsFile=/dev/null",
                                    "-o",
                                    fmt::format("StrictHostKeyChecking={}", known ? "yes" : "accept-new"),
                                    "-o",
                                    "CheckHostIP=no",
                                    "-o",
                                    "LogLevel=ERROR"};
  std::vector<std::filesystem::path> keys;
  if (!options.identity.empty()) {
    keys.push_back(options.identity);
  } else {
    keys = private_key_files(api, text_of(instance, "KeyName"));
  }
  if (!keys.empty()) words.insert(words.end(), {"-o", "IdentitiesOnly=yes"});
  for (const auto& key : keys) words.insert(words.end(), {"-i", key.string()});
  words.push_back(login_user(api, options, instance) + "@" + id);
  words.insert(words.end(), options.command.begin(), options.command.end());

  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  ::execvp("ssh", argv.data());
  return errno_error("cannot run ssh (the package openssh-client has it)");
}

}  // namespace haneul::agent
