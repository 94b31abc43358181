// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/wait.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <csignal>
#include <future>

#include "agent/cli/progress.h"

namespace haneul::agent {

volatile std::sig_atomic_t& interrupted() {
  static volatile std::sig_atomic_t flag = 0;
  return flag;
}

namespace {

// Ctrl-C is noticed here while we wait, and works as ever before and after. It cuts a request short, too: a daemon that
// does not answer keeps nobody.
class Interrupts {
 public:
  Interrupts() {
    interrupted() = 0;
    struct sigaction noticed {};
    noticed.sa_handler = [](int) { interrupted() = 1; };
    ::sigaction(SIGINT, &noticed, &before_);
  }
  ~Interrupts() { ::sigaction(SIGINT, &before_, nullptr); }
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;

  /// Waits that long, or until there was one.
  static bool within(std::chrono::milliseconds pause) {
    if (interrupted() == 0) ::poll(nullptr, 0, static_cast<int>(pause.count()));
    return interrupted() != 0;
  }

 private:
  struct sigaction before_ {};
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
    Result<Polled> polled = poll();
    if (interrupted() == 0) {
      if (!polled.ok()) return std::move(polled).error();
      if (!polled->failure.empty())
        return make_error(ErrorCode::kIo, "{} failed: {}", waiting.what, polled->failure);
      if (polled->done) return kCliOk;
      progress->tick(polled->percent);
    }
    if (Interrupts::within(pause)) {
      progress.reset();
      fmt::print(stderr, "haneul: no longer waiting for {}; {} goes on ({} shows it)\n", waiting.what,
                 waiting.work, waiting.look_with);
      return kCliInterrupted;
    }
    if (waiting.timeout_s > 0 &&
        std::chrono::steady_clock::now() - start > std::chrono::seconds(waiting.timeout_s)) {
      return make_error(ErrorCode::kTimeout, "waited {} s for {}; {} goes on ({} shows it)",
                        waiting.timeout_s, waiting.what, waiting.work, waiting.look_with);
    }
    pause = std::min(pause * 2, std::chrono::milliseconds(200));
  }
}

Result<Json> call_with_progress(Api& api, std::string_view operation, const Json& request,
                                const std::string& what) {
  Interrupts interrupts;
  Progress progress(what);
  // Ctrl-C is for this thread: the other one's request is not to be cut short.
  sigset_t interrupt;
  ::sigemptyset(&interrupt);
  ::sigaddset(&interrupt, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &interrupt, nullptr);
  auto reply = std::async(std::launch::async, [&] { return api.call(operation, request); });
  ::pthread_sigmask(SIG_UNBLOCK, &interrupt, nullptr);
  while (reply.wait_for(std::chrono::milliseconds(50)) != std::future_status::ready) {
    progress.tick();
    if (interrupted() == 0) continue;
    progress.clear();
    fmt::print(stderr, "haneul: no longer waiting for the daemon, {} goes on\n", what);
    ::_exit(kCliInterrupted);  // nothing else can end the request
  }
  return reply.get();
}

Result<int> wait_for_instances(Api& api, const std::vector<std::string>& ids, const std::string& state,
                               int timeout_s, const std::string& work) {
  Waiting waiting{fmt::format("{} to be {}", fmt::join(ids, ", "), state),
                  ids.size() == 1 ? "haneul show " + ids[0] : "haneul ls", timeout_s, work};
  return wait_until(waiting, [&]() -> Result<Polled> {
    size_t there = 0;
    for (const Json& instance : TRY(api.instances(ids))) {
      std::string now = text_of(instance["State"], "Name");
      if (now == state) ++there;
      bool lost = now != state &&
                  (now == "terminated" || (state == "running" && (now == "stopped" || now == "stopping")));
      if (!lost) continue;
      std::string reason = text_of(instance.value("StateReason", Json::object()), "Message");
      return make_error(ErrorCode::kIo, "{} is {}: {}", text_of(instance, "InstanceId"), now, reason);
    }
    return Polled{.done = there == ids.size(), .percent = -1, .failure = ""};
  });
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

Result<std::string> zone_name(Api& api, const std::string& zone) {
  if (zone.size() == 1) return TRY(api.own_region()) + zone;
  if (!zone.empty()) return zone;
  Json zones = TRY(api.call("DescribeAvailabilityZones", Json::object()))["AvailabilityZones"];
  return text_of(zones.at(0), "ZoneName");
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
