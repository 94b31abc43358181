// SPDX-License-Identifier: Apache-2.0
// haneuld: opens the state, makes the world match it, and serves the control socket until it is told to stop.
// Instances run on without it.
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <set>

#include "agent/cloud/cloud.h"
#include "agent/daemon/footprint.h"
#include "agent/daemon/host.h"
#include "agent/daemon/host_network.h"
#include "agent/daemon/network_record.h"
#include "agent/daemon/options.h"
#include "agent/daemon/private_network.h"
#include "agent/daemon/vmm_users.h"
#include "agent/http/router.h"
#include "agent/keys/key_pair.h"
#include "base/file.h"
#include "base/socket.h"
#include "net/program.h"

namespace haneul::agent {
namespace {

/// Why the daemon ends, and the status with which it does.
struct Failure {
  int status;
  Error error;
};

int fail(const Error& error, int status) {
  LOG_ERROR("{}", error.message());
  return status;
}

/// A full disk has a status of its own, whatever it was that did not fit.
Failure failure(const Error& error, int status = kExitFailed) {
  return {error.code() == ErrorCode::kNoSpace ? kExitNoSpace : status, error};
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

// Those that a former daemon of this cloud started.
std::set<pid_t> recorded_vmms(StateStore& store) {
  std::set<pid_t> pids;
  auto instances = store.list(InstanceRecord::kKind);
  for (const auto& object : instances.ok() ? *instances : std::vector<StateStore::Object>{}) {
    Answer<Json> json = parse_json(object.value);
    if (json.ok()) pids.insert(json->value("pid", 0));
  }
  return pids;
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
  void probe_kvm();
  std::optional<Failure> open_network();
  HostMachinesOptions machines_options() const;
  std::optional<Failure> open_cloud();
  Status serve();
  void clean_up();
  bool idle() const;

  const DaemonOptions options_;
  Footprint footprint_;
  UniqueFd lock_;
  UniqueFd choosing_;  ///< this network, while its tag and range are being chosen
  std::string kvm_ = "not available";
  std::string vpc_;
  std::vector<RegionPlan> regions_;
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

// What needs no folder comes first: a host that cannot do it is left as it was.
std::optional<Failure> Daemon::prepare() {
  auto kvm = open_host_kvm();
  if (!kvm.ok() && !options_.without_kvm) return failure(kvm.error(), kExitNoKvm);
  if (!kvm.ok()) LOG_WARNING("no instance can run: {}", kvm.error().message());
  Status made = footprint_.make_folder(options_.state, 0700);
  if (made.ok()) made = footprint_.make_folder(options_.socket.parent_path(), 0755);
  if (!made.ok()) return failure(made.error());
  auto lock = footprint_.lock(options_.state);
  if (!lock.ok())
    return failure(lock.error(), lock.error().code() == ErrorCode::kBusy ? kExitInUse : kExitFailed);
  lock_ = std::move(*lock);
  auto listener = listen_unix(options_.socket, SOCK_STREAM, 0660, Listener::kStays);
  if (!listener.ok())
    return failure(listener.error(),
                   listener.error().code() == ErrorCode::kExists ? kExitInUse : kExitFailed);
  listener_ = std::move(*listener);
  owns_socket_ = true;
  if (kvm.ok()) probe_kvm();
  if (options_.network == NetworkChoice::kPrivate) {
    auto entered = enter_private_network(options_.state);
    if (!entered.ok()) return failure(entered.error(), kExitNetwork);
    made_network_ = *entered;
  }
  return std::nullopt;
}

// Whether Linux guests can run here is for the VMM to say; a cloud of other guests is fine without.
void Daemon::probe_kvm() {
  constexpr auto kPatience = std::chrono::seconds(20);
  auto outcome = net::run_program(options_.vmm, {"--probe"}, {}, kPatience);
  bool fit = outcome.ok() && outcome->exit_code == 0;
  std::string sentence = outcome.ok() ? outcome->output + outcome->errors : outcome.error().message();
  kvm_ = fit ? "runs Linux guests" : sentence.substr(0, sentence.find('\n'));
  if (!fit) LOG_WARNING("Linux guests will not run: {}", kvm_);
}

// The range of the VPC and the tag. On the host's network, nobody else chooses until the bridges are there.
std::optional<Failure> Daemon::open_network() {
  bool shared = options_.network == NetworkChoice::kHost;
  if (shared) {
    auto lock = net::lock_network();
    if (!lock.ok()) return failure(lock.error(), kExitNetwork);
    choosing_ = std::move(*lock);
  }
  auto regions = settle_regions(*store_, options_.regions);
  if (!regions.ok())
    return failure(regions.error(),
                   regions.error().code() == ErrorCode::kCorrupt ? kExitCorrupt : kExitFailed);
  regions_ = std::move(*regions);
  NetworkSurvey survey;
  survey.choose_tag = [&](const std::string& wanted) -> Result<std::string> {
    if (shared) return net::choose_tag(options_.state, wanted);
    return wanted.empty() ? net::tag_for(options_.state) : wanted;
  };
  survey.user_of = [&](const std::string& tag, const net::Ipv4Prefix& range) -> Result<std::string> {
    return shared ? net::range_user(tag, options_.state, range) : std::string();
  };
  auto record = settle_network(*store_, options_.vpc, survey);
  if (!record.ok())
    return failure(record.error(),
                   record.error().code() == ErrorCode::kCorrupt ? kExitCorrupt : kExitNetwork);
  vpc_ = record->vpc;
  places_ = Places(parse_vpc(vpc_).value().address.value, regions_);
  network_ =
      std::make_unique<HostNetwork>(options_.network, record->tag, net::owner_of(options_.state), places_);
  return std::nullopt;
}

HostMachinesOptions Daemon::machines_options() const {
  HostMachinesOptions machines;
  machines.first_uid = first_vmm_uid(options_.state, recorded_vmms(*store_));
  // By the whole hash: unlike the tag, no two clouds have the same.
  auto cgroups = Cgroups::create("/proc/self/mounts", sha256_hex(options_.state.string()).substr(0, 16));
  if (cgroups.ok()) {
    machines.cgroups = std::move(*cgroups);
  } else {
    LOG_INFO("instances have no limits by cgroup: {}", cgroups.error().message());
  }
  return machines;
}

std::optional<Failure> Daemon::open_cloud() {
  Status known = refuse_lost_database(options_.state);
  if (!known.ok()) return failure(known.error(), kExitCorrupt);
  auto store = SqliteStore::open(options_.state / "state.db");
  if (!store.ok())
    return failure(store.error(), store.error().code() == ErrorCode::kCorrupt ? kExitCorrupt : kExitFailed);
  store_ = std::move(*store);
  if (auto failed = open_network()) return failed;
  machines_ = std::make_unique<HostMachines>(machines_options());
  CloudOptions cloud;
  cloud.keeper.layout.state = options_.state;
  cloud.keeper.vmm_program = options_.vmm;
  if (options_.network == NetworkChoice::kHost) cloud.keeper.name_server = host_name_server;
  cloud.keeper.stop_timeout = options_.stop_timeout;
  cloud.keeper.terminate_timeout = options_.terminate_timeout;
  cloud.keeper.reboot_timeout = options_.reboot_timeout;
  cloud.host_memory_mib = host_memory_mib();
  cloud.vpc_network = parse_vpc(vpc_).value().address.value;
  cloud.regions = regions_;
  stores_ = std::make_unique<HostStores>(options_.state);
  auto opened = Cloud::open(std::move(cloud), *store_, *machines_, *network_, *stores_);
  choosing_.reset();
  if (!opened.ok()) {
    int status = network_->failed()                             ? kExitNetwork
                 : opened.error().code() == ErrorCode::kCorrupt ? kExitCorrupt
                                                                : kExitFailed;
    return failure(opened.error(), status);
  }
  cloud_ = std::move(*opened);
  return std::nullopt;
}

Status Daemon::serve() {
  Json regions = Json::array();
  for (const RegionPlace& region : places_.regions()) regions.push_back(region.name);
  Json facts{{"version", HANEUL_VERSION},
             {"pid", ::getpid()},
             {"state", options_.state.string()},
             {"socket", options_.socket.string()},
             {"vmm", options_.vmm.string()},
             {"network", network_name(options_.network)},
             {"vpc", vpc_},
             {"regions", regions},
             {"kvm", kvm_},
             {"started", to_text(now())}};
  router_ = std::make_unique<Router>(*cloud_, std::move(facts));
  auto refuse = [](unsigned status, const std::string& sentence) {
    const char* code = status == 413   ? "RequestEntityTooLarge"
                       : status == 503 ? "Unavailable"
                                       : "MalformedQueryString";
    return Router::error_reply(status, code, sentence);
  };
  server_ = TRY(HttpServer::start(
      std::move(listener_), HttpLimits{},
      [this](const HttpRequest& request) { return router_->handle(request); }, Router::lane_of, refuse));
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
  auto failed = prepare();
  if (!failed) failed = open_cloud();
  if (!failed) {
    Status serving = serve();
    if (!serving.ok()) failed = failure(serving.error());
  }
  if (failed) {
    clean_up();
    stores_.reset();
    store_.reset();
    footprint_.undo();
    return fail(failed->error, failed->status);
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
