// SPDX-License-Identifier: Apache-2.0
#include "agent/daemon/host.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/sysinfo.h>

#include <sstream>

#include "agent/cloud/places.h"
#include "base/file.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

class HostControl : public MachineControl {
 public:
  explicit HostControl(launch::VmmClient client) : client_(std::move(client)) {}
  Status press_power_button() override { return client_.press_power_button(); }
  Status reset() override { return client_.reset(); }
  Status shut_down() override { return client_.shut_down(); }
  Status attach_disk(launch::Disk disk) override { return client_.attach_disk(std::move(disk)); }
  Status detach_disk(const std::string& id, bool force) override { return client_.detach_disk(id, force); }
  Status resize_disk(const std::string& id, uint64_t size_bytes) override {
    return client_.resize_disk(id, size_bytes);
  }
  Result<std::vector<std::string>> disk_ids() override { return client_.disk_ids(); }
  Status push_layers(std::vector<launch::VmmClient::PushLayer> pushes) override {
    auto held = TRY(client_.push_layers(std::move(pushes)));
    LOG_INFO("a snapshot held the guest's changes back for {} us", held.count());
    return {};
  }

 private:
  launch::VmmClient client_;
};

}  // namespace

HostMachines::~HostMachines() {
  if (options_.cgroups) options_.cgroups->remove();
}

Result<launch::Process> HostMachines::launch(launch::Spec spec) {
  std::string id = spec.instance_id;
  if (options_.cgroups) {
    auto group = options_.cgroups->make(spec.instance_id, limits_for(spec.memory_bytes, spec.vcpus));
    if (!group.ok()) return std::move(group).error().context("the instance's limits");
    spec.jail.cgroup = std::move(*group);
  }
  auto launched = launch::launch(std::move(spec));
  if (!launched.ok()) gone(id);
  return launched;
}

Result<launch::Process> HostMachines::find(pid_t pid, uint64_t ticks) {
  return launch::find_process(pid, ticks);
}

Result<std::unique_ptr<MachineControl>> HostMachines::connect(const std::filesystem::path& control_socket) {
  launch::VmmClient client = TRY(launch::VmmClient::connect(control_socket));
  return std::unique_ptr<MachineControl>(std::make_unique<HostControl>(std::move(client)));
}

void HostMachines::kill(const launch::Process& process) {
  launch::kill_process(process);
}

// The uuid is random and among the VMM's arguments.
Status HostMachines::clear(const std::string& uuid) {
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto arguments = read_file(entry.path() / "cmdline", 64 << 10);
    std::string wanted = "--uuid" + std::string(1, '\0') + uuid;
    if (!arguments.ok() || arguments->find(wanted) == std::string::npos) continue;
    auto pid = static_cast<pid_t>(std::strtol(name.c_str(), nullptr, 10));
    auto ticks = launch::start_ticks_of(pid);
    if (!ticks.ok()) continue;
    auto process = launch::find_process(pid, *ticks);
    if (!process.ok()) continue;
    LOG_INFO("ending process {}, a virtual machine that was started and never recorded", pid);
    launch::kill_process(*process);
  }
  return {};
}

launch::Ending HostMachines::ending(int status_fd) {
  return launch::read_ending(status_fd);
}

void HostMachines::gone(const std::string& instance_id) {
  if (options_.cgroups) options_.cgroups->drop(instance_id);
}

Result<UniqueFd> HostMachines::open_kvm() {
  return open_host_kvm();
}

launch::Jail HostMachines::jail(unsigned slot) {
  launch::Jail jail;
  if (options_.first_uid) {
    jail.uid = *options_.first_uid + slot;
    jail.gid = static_cast<gid_t>(*options_.first_uid + slot);
  }
  return jail;
}

Result<storage::Store*> HostStores::of(const std::string& region) {
  std::scoped_lock lock(mutex_);
  auto& store = stores_[region];
  if (store == nullptr) {
    std::filesystem::path folder = state_ / "regions" / region;
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    if (error) return Error::from_errno(error.value(), fmt::format("cannot make {}", folder.string()));
    storage::StoreOptions options;
    // One key a region; a state folder of before has one for all.
    options.key_file = state_ / "store.key";
    if (!std::filesystem::exists(options.key_file, error)) options.key_file = folder / "store.key";
    store = TRY(storage::Store::open(folder / "store", options));
  }
  return store.get();
}

Result<UniqueFd> open_host_kvm() {
  UniqueFd kvm(::open("/dev/kvm", O_RDWR | O_CLOEXEC));
  if (!kvm && errno == ENOENT) {
    return Error(
        ErrorCode::kUnsupported,
        "there is no /dev/kvm: this machine has no hardware virtualization, it is switched off in the "
        "firmware, or the module kvm_intel or kvm_amd is not loaded");
  }
  if (!kvm && (errno == EACCES || errno == EPERM)) {
    return Error(ErrorCode::kPermission,
                 "no permission to open /dev/kvm: join the group kvm, or run as root");
  }
  if (!kvm) return errno_error("cannot open /dev/kvm");
  int version = ::ioctl(kvm.get(), KVM_GET_API_VERSION, 0);
  if (version != KVM_API_VERSION) {
    return make_error(ErrorCode::kUnsupported, "/dev/kvm speaks version {}, not {}", version,
                      KVM_API_VERSION);
  }
  return kvm;
}

uint64_t host_memory_mib() {
  struct sysinfo info {};
  ::sysinfo(&info);
  return static_cast<uint64_t>(info.totalram) * info.mem_unit >> 20;
}

std::string host_name_server() {
  for (const char* file : {"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"}) {
    auto text = read_file(file, 64 << 10);
    if (!text.ok()) continue;
    std::istringstream lines(*text);
    for (std::string line; std::getline(lines, line);) {
      std::istringstream words(line);
      std::string key;
      std::string value;
      words >> key >> value;
      bool reachable = address_from(value) && !value.starts_with("127.");
      if (key == "nameserver" && reachable) return value;
    }
  }
  return "";
}

}  // namespace haneul::agent
