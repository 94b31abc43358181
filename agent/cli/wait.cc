// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/wait.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "agent/cli/progress.h"
#include "base/unique_fd.h"

namespace haneul::agent {
namespace {

// Ctrl-C is read here while we wait, and works as ever before and after.
class Interrupts {
 public:
  Interrupts() {
    ::sigemptyset(&set_);
    ::sigaddset(&set_, SIGINT);
    ::sigprocmask(SIG_BLOCK, &set_, &before_);
    fd_.reset(::signalfd(-1, &set_, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  ~Interrupts() { ::sigprocmask(SIG_SETMASK, &before_, nullptr); }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  /// Waits that long, or until there was one.
  bool within(std::chrono::milliseconds pause) {
    pollfd wait{.fd = fd_.get(), .events = POLLIN, .revents = 0};
    if (::poll(&wait, 1, static_cast<int>(pause.count())) <= 0) return false;
    signalfd_siginfo info{};
    return ::read(fd_.get(), &info, sizeof info) == sizeof info;
  }

 private:
  sigset_t set_{};
  sigset_t before_{};
  UniqueFd fd_;
};

int percent_of(const Json& object, const char* member) {
  std::string text = text_of(object, member);
  int value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return std::clamp(value, -1, 100);
}

}  // namespace

Result<int> wait_until(const Waiting& waiting, const std::function<Result<Polled>()>& poll) {
  Interrupts interrupts;
  auto progress = std::make_unique<Progress>("waiting for " + waiting.what);
  auto start = std::chrono::steady_clock::now();
  auto pause = std::chrono::milliseconds(5);
  for (;;) {
    Polled polled = TRY(poll());
    if (!polled.failure.empty())
      return make_error(ErrorCode::kIo, "{} failed: {}", waiting.what, polled.failure);
    if (polled.done) return kCliOk;
    progress->tick(polled.percent);
    if (waiting.timeout_s > 0 &&
        std::chrono::steady_clock::now() - start > std::chrono::seconds(waiting.timeout_s)) {
      return make_error(ErrorCode::kTimeout, "{} is not done after {} s; it goes on ({} shows it)",
                        waiting.what, waiting.timeout_s, waiting.look_with);
    }
    if (interrupts.within(pause)) {
      progress.reset();
      fmt::print(stderr, "haneul: no longer waiting for {}; it goes on ({} shows it)\n", waiting.what,
                 waiting.look_with);
      return kCliInterrupted;
    }
    pause = std::min(pause * 2, std::chrono::milliseconds(200));
  }
}

Result<int> wait_for_snapshot(Api& api, const std::string& id) {
  return wait_until({"snapshot " + id, "haneul snapshot show " + id}, [&]() -> Result<Polled> {
    Json shown = TRY(api.snapshot(id));
    Polled polled{
        .done = shown["State"] == "completed", .percent = percent_of(shown, "Progress"), .failure = ""};
    if (shown["State"] == "error") polled.failure = text_of(shown, "StateMessage");
    return polled;
  });
}

Result<int> wait_for_image(Api& api, const std::string& id) {
  return wait_until({"image " + id, "haneul image show " + id}, [&]() -> Result<Polled> {
    Json image = TRY(api.image(id));
    Polled polled{.done = image["State"] == "available", .percent = 0, .failure = ""};
    if (image["State"] == "failed")
      polled.failure = text_of(image.value("StateReason", Json::object()), "Message");
    int count = 0;
    for (const Json& mapping : image.value("BlockDeviceMappings", Json::array())) {
      std::string snapshot = text_of(mapping.value("Ebs", Json::object()), "SnapshotId");
      if (snapshot.empty() || polled.done || !polled.failure.empty()) continue;
      polled.percent += percent_of(TRY(api.snapshot(snapshot)), "Progress");
      ++count;
    }
    if (count > 0) polled.percent /= count;
    return polled;
  });
}

Result<EndedTask> wait_for_task(Api& api, const std::string& id) {
  EndedTask ended;
  ended.status = TRY(wait_until({"task " + id, "haneul volume check --task " + id}, [&]() -> Result<Polled> {
    Json reply = TRY(api.call("DescribeTasks", {{"TaskIds", {id}}}));
    ended.task = reply["Tasks"].at(0);
    std::string state = text_of(ended.task, "State");
    Polled polled{.done = state == "completed", .percent = percent_of(ended.task, "Progress"), .failure = ""};
    if (state == "failed") polled.failure = text_of(ended.task, "StateMessage");
    if (state == "cancelled") polled.failure = "it was cancelled";
    return polled;
  }));
  return ended;
}

Result<int> gib_from(const std::string& text) {
  int value = 0;
  auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string unit(parsed.ptr, text.data() + text.size());
  bool tib = unit == "T" || unit == "TiB";
  bool known = unit.empty() || unit == "G" || unit == "GiB" || tib;
  if (parsed.ec != std::errc() || !known || value < 1 || value > 16384 || (tib && value > 16)) {
    return make_error(ErrorCode::kInvalidArgument, "a size is a number of GiB or TiB as 20G or 1T, not '{}'",
                      text);
  }
  return tib ? value * 1024 : value;
}

std::string zone_name(const Api& api, const std::string& zone) {
  std::string region = api.region().empty() ? "us-east-1" : api.region();
  return zone.size() == 1 ? region + zone : zone;
}

Result<Json> tag_specifications(const std::string& type, const std::string& name,
                                const std::vector<std::string>& tags) {
  Json list = Json::array();
  if (!name.empty()) list.push_back({{"Key", "Name"}, {"Value", name}});
  for (const std::string& tag : tags) {
    size_t equals = tag.find('=');
    if (equals == 0 || equals == std::string::npos)
      return make_error(ErrorCode::kInvalidArgument, "a tag is KEY=VALUE, not '{}'", tag);
    list.push_back({{"Key", tag.substr(0, equals)}, {"Value", tag.substr(equals + 1)}});
  }
  if (list.empty()) return Json::array();
  return Json::array({{{"ResourceType", type}, {"Tags", list}}});
}

Result<std::string> readable_path(const std::filesystem::path& path) {
  if (::access(path.c_str(), R_OK) != 0) return errno_error("cannot read {}", path.string());
  return std::filesystem::absolute(path).lexically_normal().string();
}

Result<std::string> writable_path(const std::filesystem::path& path) {
  std::filesystem::path absolute = std::filesystem::absolute(path).lexically_normal();
  if (::access(absolute.parent_path().c_str(), W_OK) != 0)
    return errno_error("cannot write to {}", absolute.parent_path().string());
  return absolute.string();
}

}  // namespace haneul::agent
