// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "agent/cli/commands.h"
#include "agent/cli/wait.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

struct Finding {
  std::string subject;
  bool good = false;
  /// Whether instances cannot run because of it.
  bool vital = true;
  std::string sentence;
};

// The first line that the program says, and its exit status.
std::pair<int, std::string> ask(const std::filesystem::path& program, const char* argument) {
  int fds[2];
  if (::pipe2(fds, O_CLOEXEC) != 0) return {127, "cannot make a pipe"};
  UniqueFd in(fds[0]);
  UniqueFd out(fds[1]);
  std::string path = program.string();
  pid_t pid = ::fork();
  if (pid == 0) {
    ::dup2(out.get(), STDOUT_FILENO);
    ::dup2(out.get(), STDERR_FILENO);
    ::execl(path.c_str(), path.c_str(), argument, nullptr);
    ::_exit(127);
  }
  out.reset();
  std::string text;
  std::array<char, 4096> buffer;
  ssize_t got = 0;
  while ((got = ::read(in.get(), buffer.data(), buffer.size())) > 0 && text.size() < 65536) {
    text.append(buffer.data(), static_cast<size_t>(got));
  }
  int status = 0;
  ::waitpid(pid, &status, 0);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, text.substr(0, text.find('\n'))};
}

Finding check_device(const char* subject, const char* path, const char* what_for) {
  UniqueFd fd(::open(path, O_RDWR | O_CLOEXEC));
  if (fd) return {subject, true, true, fmt::format("{} opens", path)};
  int number = errno;
  return {
      subject, false, true,
      fmt::format("{}: {} ({})", path, std::strerror(number), what_for)};  // NOLINT(concurrency-mt-unsafe)
}

Finding check_probe(const std::filesystem::path& vmm) {
  if (vmm.empty()) return {"haneul-vmm", false, true, "the program is neither beside haneul nor in PATH"};
  auto [status, sentence] = ask(vmm, "--probe");
  return {"linux guests", status == 0, true, sentence};
}

Finding check_tool(const std::string& tool, bool vital, const char* package) {
  std::filesystem::path path = find_program(tool);
  if (path.empty()) return {tool, false, vital, fmt::format("not found: the package {} has it", package)};
  return {tool, true, vital, path.string()};
}

// The structures of every region's volumes and snapshots; `haneul volume check` reads the data as well.
void check_stores(Api& api, std::vector<Finding>& findings) {
  auto regions = api.call("DescribeRegions", Json::object());
  if (!regions.ok()) return;
  for (const Json& region : (*regions)["Regions"]) {
    std::string name = text_of(region, "RegionName");
    std::string subject = "store " + name;
    Api there(api.socket(), name);
    auto task = there.call("CheckVolume", {{"MetadataOnly", true}});
    auto ended = task.ok() ? wait_for_task(there, text_of(*task, "TaskId")) : Result<EndedTask>(task.error());
    if (!ended.ok()) {
      findings.push_back({subject, false, false, ended.error().message()});
      continue;
    }
    if (ended->status != kCliOk) return;
    Json faults = ended->task.value("Faults", Json::array());
    for (const Json& fault : faults) {
      findings.push_back({subject, false, false,
                          fmt::format("{}: {}: {}", text_of(fault, "Subject"), text_of(fault, "Where"),
                                      text_of(fault, "What"))});
    }
    if (faults.empty())
      findings.push_back({subject, true, false,
                          fmt::format("{} layers, all is well", text_of(ended->task, "CheckedLayers"))});
  }
}

std::vector<Finding> examine(Api& api) {
  std::vector<Finding> findings;
  auto status = api.status();
  if (status.ok()) {
    findings.push_back({"haneuld", true, true,
                        fmt::format("version {}, process {}, state in {}", text_of(*status, "version"),
                                    text_of(*status, "pid"), text_of(*status, "state"))});
    findings.push_back({"network", true, true, text_of(*status, "network")});
    for (const Json& warning : status->value("warnings", Json::array())) {
      findings.push_back({"network", false, false, warning.get<std::string>()});
    }
    check_stores(api, findings);
  } else {
    findings.push_back({"haneuld", false, true, status.error().message()});
  }
  findings.push_back(check_device("kvm", "/dev/kvm", "the daemon's user needs it: the group kvm, or root"));
  findings.push_back(check_probe(find_program("haneul-vmm")));
  findings.push_back(check_device("tun", "/dev/net/tun", "the instances' network needs it"));
  findings.push_back(check_tool("nft", true, "nftables"));
  findings.push_back(check_tool("ssh", false, "openssh-client"));
  return findings;
}

}  // namespace

std::filesystem::path own_path() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error);
}

std::filesystem::path find_program(const std::string& name) {
  std::vector<std::filesystem::path> folders = {own_path().parent_path()};
  const char* path = std::getenv("PATH");  // NOLINT(concurrency-mt-unsafe)
  std::string_view rest = path == nullptr ? "" : path;
  while (!rest.empty()) {
    size_t colon = rest.find(':');
    folders.emplace_back(rest.substr(0, colon));
    rest = colon == std::string_view::npos ? "" : rest.substr(colon + 1);
  }
  // Where system administrators' programs are, which users' PATHs often leave out.
  for (const char* folder : {"/usr/sbin", "/sbin"}) folders.emplace_back(folder);
  for (const auto& folder : folders) {
    if (!folder.empty() && ::access((folder / name).c_str(), X_OK) == 0) return folder / name;
  }
  return {};
}

Result<int> doctor_command(Api& api, const Shared& shared) {
  std::vector<Finding> findings = examine(api);
  bool fit = true;
  Json list = Json::array();
  for (const Finding& finding : findings) {
    fit = fit && (finding.good || !finding.vital);
    list.push_back({{"Subject", finding.subject},
                    {"Good", finding.good},
                    {"Vital", finding.vital},
                    {"Message", finding.sentence}});
    if (shared.json) continue;
    fmt::print("{:<5} {:<15} {}\n",
               finding.good    ? "ok"
               : finding.vital ? "BAD"
                               : "warn",
               finding.subject, finding.sentence);
  }
  if (shared.json) print_json(Json{{"Fit", fit}, {"Findings", list}});
  return fit ? kCliOk : kCliUnfit;
}

Result<int> status_command(Api& api, const Shared& shared) {
  Json status = TRY(api.status());
  if (shared.json) {
    print_json(status);
    return kCliOk;
  }
  for (const auto& [key, value] : status.items()) fmt::print("{:<10} {}\n", key, text_of(status, key));
  return kCliOk;
}

}  // namespace haneul::agent
