// SPDX-License-Identifier: Apache-2.0
// haneuld: opens the state, makes the world match it, and serves the control socket until it is told to stop.
// Instances run on without it.
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "agent/cloud/cloud.h"
#include "agent/daemon/host.h"
#include "agent/daemon/options.h"
#include "agent/daemon/private_network.h"
#include "agent/http/router.h"
#include "agent/keys/key_pair.h"
#include "base/file.h"
#include "base/socket.h"

namespace haneul::agent {
namespace {

// From what systemd documents as unused by anyone (its UIDS-GIDS page): 2^28 ids, of which each cloud takes
// 2^16.
constexpr uid_t kFirstVmmUid = 0x70000000;

/// Why the daemon ends, and the status with which it does.
struct Failure {
  int status;
  Error error;
};

int fail(const Error& error, int status) {
  LOG_ERROR("{}", error.message());
  return status;
}

Status make_folders(const std::filesystem::path& path, mode_t mode) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) return {};
  std::filesystem::create_directories(path, error);
  if (error) return Error::from_errno(error.value(), fmt::format("cannot make the folder {}", path.string()));
  if (::chmod(path.c_str(), mode) != 0) return errno_error("chmod of {}", path.string());
  return {};
}

// Held as long as the process lives; the kernel lets go of it whatever its end.
Result<UniqueFd> lock_state(const std::filesystem::path& state) {
  UniqueFd lock = TRY(open_file(state / "lock", O_RDWR | O_CREAT));
  if (::flock(lock.get(), LOCK_EX | LOCK_NB) == 0) return lock;
  if (errno != EWOULDBLOCK) return errno_error("cannot lock {}", state.string());
  return make_error(ErrorCode::kBusy, "another haneuld has the state folder {}", state.string());
}

// Instances whose database is gone must not be taken for an empty cloud.
Status refuse_lost_database(const std::filesystem::path& state) {
  std::error_code error;
  if (std::filesystem::exists(state / "state.db", error)) return {};
  if (!std::filesystem::is_directory(state / "instances", error)) return {};
  if (std::filesystem::is_empty(state / "instances", error)) return {};
  return make_error(ErrorCode::kCorrupt,
                    "{} has instances but no state.db: put the file back, or move the folder away",
                    state.string());
}

// sd_notify(3)'s protocol, without its library.
void notify_ready() {
  const char* path = std::getenv("NOTIFY_SOCKET");  // NOLINT(concurrency-mt-unsafe)
  if (path == nullptr || std::strlen(path) >= sizeof(sockaddr_un::sun_path)) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path, std::strlen(path));
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  UniqueFd fd(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  auto size = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + std::strlen(path));
  constexpr std::string_view kReady = "READY=1";
  if (::sendto(fd.get(), kReady.data(), kReady.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), size) < 0) {
    LOG_WARNING("cannot tell the service manager: {}",
                std::strerror(errno));  // NOLINT(concurrency-mt-unsafe)
  }
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

sigset_t block_signals() {
  sigset_t signals;
  ::sigemptyset(&signals);
  ::sigaddset(&signals, SIGTERM);
  ::sigaddset(&signals, SIGINT);
  ::pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  ::signal(SIGPIPE, SIG_IGN);
  return signals;
}

std::optional<uid_t> first_vmm_uid(const DaemonOptions& options) {
  // Inside a user namespace of its own, root may not become another user.
  auto map = read_file("/proc/self/uid_map", 4096);
  bool whole = map.ok() && map->find("4294967295") != std::string::npos;
  if (::geteuid() != 0 || !whole) return std::nullopt;
  auto hash = std::strtoul(sha256_hex(options.state.string()).substr(0, 8).c_str(), nullptr, 16);
  return kFirstVmmUid + static_cast<uid_t>(hash % 4096 << 16);
}

const char* network_name(NetworkChoice choice) {
  return choice == NetworkChoice::kHost ? "host" : choice == NetworkChoice::kPrivate ? "private" : "none";
}

class Daemon {
 public:
  explicit Daemon(DaemonOptions options) : options_(std::move(options)) {}
  int run(const sigset_t& signals);

 private:
  std::optional<Failure> prepare();
  std::optional<Failure> open_cloud();
  Status serve();
  void clean_up();
  bool idle() const;

  const DaemonOptions options_;
  UniqueFd lock_;
  UniqueFd listener_;
  bool owns_socket_ = false;
  bool made_network_ = false;
  Places places_;
  std::unique_ptr<SqliteStore> store_;
  std::unique_ptr<HostMachines> machines_;
  std::unique_ptr<HostNetwork> network_;
  std::unique_ptr<HostStores> stores_;
  std::unique_ptr<Cloud> cloud_;
  std::unique_ptr<Router> router_;
  std::unique_ptr<HttpServer> server_;
};

std::optional<Failure> Daemon::prepare() {
  Status made = make_folders(options_.state, 0700);
  if (made.ok()) made = make_folders(options_.socket.parent_path(), 0755);
  if (!made.ok()) return Failure{kExitFailed, made.error()};
  auto lock = lock_state(options_.state);
  if (!lock.ok())
    return Failure{lock.error().code() == ErrorCode::kBusy ? kExitInUse : kExitFailed, lock.error()};
  lock_ = std::move(*lock);
  auto kvm = open_host_kvm();
  if (!kvm.ok() && !options_.without_kvm) return Failure{kExitNoKvm, kvm.error()};
  if (!kvm.ok()) LOG_WARNING("no instance can run: {}", kvm.error().message());
  auto listener = listen_unix(options_.socket, SOCK_STREAM, 0660);
  if (!listener.ok()) {
    return Failure{listener.error().code() == ErrorCode::kExists ? kExitInUse : kExitFailed,
                   listener.error()};
  }
  listener_ = std::move(*listener);
  owns_socket_ = true;
  if (options_.network == NetworkChoice::kPrivate) {
    auto entered = enter_private_network(options_.state);
    if (!entered.ok()) return Failure{kExitNetwork, entered.error()};
    made_network_ = *entered;
  }
  return std::nullopt;
}

std::optional<Failure> Daemon::open_cloud() {
  Status known = refuse_lost_database(options_.state);
  if (!known.ok()) return Failure{kExitCorrupt, known.error()};
  auto store = SqliteStore::open(options_.state / "state.db");
  if (!store.ok())
    return Failure{store.error().code() == ErrorCode::kCorrupt ? kExitCorrupt : kExitFailed, store.error()};
  store_ = std::move(*store);
  HostMachinesOptions machines;
  machines.first_uid = first_vmm_uid(options_);
  if (auto cgroups = Cgroups::create("/proc/self/mounts", net::tag_for(options_.state)); cgroups.ok()) {
    machines.cgroups = std::move(*cgroups);
  } else {
    LOG_INFO("instances have no limits by cgroup: {}", cgroups.error().message());
  }
  machines_ = std::make_unique<HostMachines>(std::move(machines));
  network_ = std::make_unique<HostNetwork>(options_.network, net::tag_for(options_.state), places_);
  CloudOptions cloud;
  cloud.keeper.layout.state = options_.state;
  cloud.keeper.vmm_program = options_.vmm;
  if (options_.network == NetworkChoice::kHost) cloud.keeper.dns = host_name_server();
  cloud.keeper.stop_timeout = options_.stop_timeout;
  cloud.keeper.terminate_timeout = options_.terminate_timeout;
  cloud.keeper.reboot_timeout = options_.reboot_timeout;
  cloud.host_memory_mib = host_memory_mib();
  stores_ = std::make_unique<HostStores>(options_.state);
  auto opened = Cloud::open(std::move(cloud), *store_, *machines_, *network_, *stores_);
  if (!opened.ok()) {
    int status = network_->failed()                             ? kExitNetwork
                 : opened.error().code() == ErrorCode::kCorrupt ? kExitCorrupt
                                                                : kExitFailed;
    return Failure{status, opened.error()};
  }
  cloud_ = std::move(*opened);
  return std::nullopt;
}

Status Daemon::serve() {
  Json facts{{"version", HANEUL_VERSION},        {"pid", ::getpid()},
             {"state", options_.state.string()}, {"socket", options_.socket.string()},
             {"vmm", options_.vmm.string()},     {"network", network_name(options_.network)},
             {"started", to_text(now())}};
  router_ = std::make_unique<Router>(*cloud_, std::move(facts));
  auto refuse = [](unsigned status, const std::string& sentence) {
    return Router::error_reply(status, status == 413 ? "RequestEntityTooLarge" : "MalformedQueryString",
                               sentence);
  };
  server_ = TRY(HttpServer::start(
      std::move(listener_), HttpLimits{},
      [this](const HttpRequest& request) { return router_->handle(request); }, refuse));
  return {};
}

// Nothing runs that needs the network that this daemon made.
bool Daemon::idle() const {
  Json states = cloud_->summary()["instances"];
  for (const auto& [state, count] : states.items()) {
    if (state != "stopped" && state != "terminated") return false;
  }
  return true;
}

void Daemon::clean_up() {
  server_.reset();
  bool served = cloud_ != nullptr;
  bool last = served && idle();
  cloud_.reset();
  if (owns_socket_) ::unlink(options_.socket.c_str());
  if (!served && made_network_) leave_private_network(options_.state);
  if (!last) return;
  Status removed = network_->remove_all();
  if (!removed.ok()) LOG_WARNING("{}", removed.error().message());
  if (options_.network == NetworkChoice::kPrivate) leave_private_network(options_.state);
}

int Daemon::run(const sigset_t& signals) {
  auto failure = prepare();
  if (!failure) failure = open_cloud();
  if (!failure) {
    Status serving = serve();
    if (!serving.ok()) failure = Failure{kExitFailed, serving.error()};
  }
  if (failure) {
    clean_up();
    return fail(failure->error, failure->status);
  }
  LOG_INFO("haneuld {} is ready on {}", HANEUL_VERSION, options_.socket.string());
  notify_ready();
  int signal = 0;
  ::sigwait(&signals, &signal);
  LOG_INFO("stopping; instances run on");
  clean_up();
  return kExitOk;
}

}  // namespace
}  // namespace haneul::agent

int main(int argc, char** argv) {
  using namespace haneul::agent;
  ParsedOptions parsed = parse_daemon_options(argc, argv);
  if (!parsed.options) return parsed.status;
  haneul::set_log_level(parsed.options->log_level);
  sigset_t signals = block_signals();
  raise_descriptor_limit();
  return Daemon(std::move(*parsed.options)).run(signals);
}
