// SPDX-License-Identifier: Apache-2.0
#include "agent/tests/world.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "base/file.h"

namespace haneul::agent::testing {
namespace {

std::vector<std::string> read_lines(const std::filesystem::path& file) {
  std::vector<std::string> lines;
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

void write_lines(const std::filesystem::path& file, const std::vector<std::string>& lines) {
  replace_file(file, lines.empty() ? "" : fmt::format("{}\n", fmt::join(lines, "\n"))).value();
}

// Its disks are lines of a file, so that they outlive the daemon.
class FakeControl : public MachineControl {
 public:
  FakeControl(FakeMachines& machines, pid_t pid, const std::filesystem::path& folder)
      : machines_(machines), pid_(pid), status_(folder / "status"), disks_(folder / "disks") {}
  Status press_power_button() override { return machines_.deaf ? Status() : shut_down(); }
  Status reset() override {
    ++machines_.resets;
    return {};
  }
  Status shut_down() override {
    std::ofstream(status_) << R"({"reason":"powered-off","detail":""})";
    ::kill(pid_, SIGKILL);
    return {};
  }
  Status attach_disk(launch::Disk disk) override {
    if (!machines_.fail_attach.empty()) return make_error(ErrorCode::kIo, "{}", machines_.fail_attach);
    auto lines = read_lines(disks_);
    if (std::find(lines.begin(), lines.end(), disk.id) != lines.end())
      return make_error(ErrorCode::kExists, "{} is there already", disk.id);
    CHECK(!disk.layers.empty());
    lines.push_back(disk.id);
    write_lines(disks_, lines);
    return {};
  }
  Status detach_disk(const std::string& id, bool force) override {
    auto lines = read_lines(disks_);
    if (std::find(lines.begin(), lines.end(), id) == lines.end())
      return make_error(ErrorCode::kNotFound, "there is no disk {}", id);
    if (machines_.clings && !force) return {};
    std::erase(lines, id);
    write_lines(disks_, lines);
    return {};
  }
  Status resize_disk(const std::string& id, uint64_t) override {
    auto lines = read_lines(disks_);
    if (std::find(lines.begin(), lines.end(), id) == lines.end())
      return make_error(ErrorCode::kNotFound, "there is no disk {}", id);
    return {};
  }
  Result<std::vector<std::string>> disk_ids() override {
    if (!machines_.stopped) return read_lines(disks_);
    ++machines_.unanswered;
    return Error(ErrorCode::kTimeout, "no answer came in time");
  }
  Status push_layers(std::vector<launch::VmmClient::PushLayer> pushes) override {
    if (machines_.stops_at_push.exchange(false)) machines_.stopped = true;
    if (machines_.stopped) return Error(ErrorCode::kTimeout, "no answer came in time");
    if (machines_.fail_pushes > 0) {
      --machines_.fail_pushes;
      return make_error(ErrorCode::kIo, "the push failed");
    }
    if (!machines_.refuse_pushes.empty())
      return make_error(ErrorCode::kInvalidArgument, "{}", machines_.refuse_pushes);
    if (int now = ++machines_.pushing; now > machines_.most_pushing) machines_.most_pushing = now;
    std::this_thread::sleep_for(machines_.push_time);
    --machines_.pushing;
    machines_.pushes += static_cast<int>(pushes.size());
    return {};
  }

 private:
  FakeMachines& machines_;
  pid_t pid_;
  std::filesystem::path status_;
  std::filesystem::path disks_;
};

}  // namespace

std::string FakeMachines::marker(const std::string& uuid) const {
  return fmt::format("fake-vmm {} {}", state_.string(), uuid);
}

Result<launch::Process> FakeMachines::launch(launch::Spec spec) {
  if (!fail_launch.empty()) return make_error(ErrorCode::kIo, "{}", fail_launch);
  ++launches;
  CHECK(::ftruncate(spec.status.get(), 0) == 0);
  std::string name = marker(spec.uuid);
  pid_t pid = ::fork();
  if (pid == 0) {
    ::setsid();
    int null = ::open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; ++fd) ::dup2(null, fd);
    ::execl("/bin/sleep", name.c_str(), "86400", nullptr);
    ::_exit(127);
  }
  // As a started VMM, it is there under its own name before launch() returns.
  while (processes(spec.uuid).empty()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  std::ofstream(spec.control_socket) << pid;
  std::vector<std::string> disks;
  for (const launch::Disk& disk : spec.disks) disks.push_back(disk.id);
  write_lines(spec.control_socket.parent_path() / "disks", disks);
  launch::Process process;
  process.pid = pid;
  process.start_ticks = TRY(launch::start_ticks_of(pid));
  process.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  return process;
}

Result<launch::Process> FakeMachines::find(pid_t pid, uint64_t ticks) {
  return launch::find_process(pid, ticks);
}

Result<std::unique_ptr<MachineControl>> FakeMachines::connect(const std::filesystem::path& control_socket) {
  std::string text = TRY(read_file(control_socket, 64));
  auto pid = static_cast<pid_t>(std::strtol(text.c_str(), nullptr, 10));
  return std::unique_ptr<MachineControl>(
      std::make_unique<FakeControl>(*this, pid, control_socket.parent_path()));
}

void FakeMachines::kill(const launch::Process& process) {
  launch::kill_process(process);
}

Status FakeMachines::clear(const std::string& uuid) {
  for (pid_t pid : processes(uuid)) {
    auto process = launch::find_process(pid, TRY(launch::start_ticks_of(pid)));
    if (process.ok()) launch::kill_process(*process);
  }
  return {};
}

launch::Ending FakeMachines::ending(int status_fd) {
  return launch::read_ending(status_fd);
}

Result<UniqueFd> FakeMachines::open_kvm() {
  return open_file("/dev/null", O_RDWR);
}

std::vector<pid_t> FakeMachines::processes(const std::string& uuid) const {
  std::vector<pid_t> found;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    auto text = read_file(entry.path() / "cmdline", 4096);
    if (text.ok() && text->starts_with(marker(uuid))) found.push_back(static_cast<pid_t>(std::stol(name)));
  }
  return found;
}

void FakeMachines::kill_all() {
  for (pid_t pid : processes()) {
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
  }
}

FakeNetwork::FakeNetwork(std::filesystem::path folder) : folder_(std::move(folder)) {
  std::filesystem::create_directories(folder_);
}

Result<UniqueFd> FakeNetwork::plug(const NicPlan& nic) {
  if (!there_) return Error(ErrorCode::kInternal, "the network is not there");
  std::filesystem::path tap = folder_ / nic.instance_id;
  if (std::filesystem::exists(tap))
    return make_error(ErrorCode::kExists, "{} is plugged already", nic.instance_id);
  return open_file(tap, O_RDWR | O_CREAT);
}

Status FakeNetwork::unplug(const std::string& instance_id) {
  std::filesystem::remove(folder_ / instance_id);
  return {};
}

Status FakeNetwork::reconcile(const std::vector<NicPlan>& live) {
  there_ = false;
  for (const std::string& tap : taps()) {
    bool lives =
        std::any_of(live.begin(), live.end(), [&](const NicPlan& nic) { return nic.instance_id == tap; });
    if (!lives) std::filesystem::remove(folder_ / tap);
  }
  if (meanwhile) meanwhile();
  there_ = true;
  return {};
}

std::vector<std::string> FakeNetwork::taps() const {
  std::vector<std::string> found;
  for (const auto& entry : std::filesystem::directory_iterator(folder_))
    found.push_back(entry.path().filename());
  return found;
}

World::World() : owns_folder_(true) {
  std::string name = (std::filesystem::temp_directory_path() / "haneul-agent-XXXXXX").string();
  CHECK(::mkdtemp(name.data()) != nullptr);
  folder = name;
  make_keeper_options();
  make_image();
  start();
}

World::World(std::filesystem::path existing) : folder(std::move(existing)), owns_folder_(false) {
  make_keeper_options();
  make_image();
  start();
}

World::~World() {
  stop();
  if (!owns_folder_) return;
  FakeMachines(folder / "state").kill_all();
  std::filesystem::remove_all(folder);
}

void World::make_keeper_options() {
  keeper.layout.state = folder / "state";
  keeper.vmm_program = "/bin/false";
  keeper.stop_timeout = keeper.terminate_timeout = keeper.reboot_timeout = std::chrono::milliseconds(50);
}

void World::make_image() {
  image_folder = folder / "image";
  if (std::filesystem::exists(image_folder)) return;
  std::filesystem::create_directories(image_folder);
  std::ofstream(image_folder / "kernel") << "kernel";
  std::ofstream(image_folder / "initrd") << "initrd";
  std::ofstream(image_folder / "root.img") << "root";
  std::filesystem::resize_file(image_folder / "root.img", 64 << 20);
  std::ofstream(image_folder / "image.json")
      << R"({"format":1,"name":"tiny","architecture":"x86_64","kernel":"kernel","initrd":"initrd","root":"root.img",
             "root_format":"raw","root_device":"/dev/vda","cmdline":"console=ttyS0","user":"haneul",
             "description":"a test","kernel_version":"6.1"})";
}

void World::start() {
  std::filesystem::create_directories(keeper.layout.state);
  if (!machines) machines = std::make_unique<FakeMachines>(keeper.layout.state);
  if (!network) network = std::make_unique<FakeNetwork>(folder / "taps");
  store = SqliteStore::open(keeper.layout.state / "state.db").value();
  stores = std::make_unique<FakeStores>(keeper.layout.state);
  CloudOptions options;
  options.keeper = keeper;
  options.host_memory_mib = 40000;
  options.max_instances = max_instances;
  disk = std::make_unique<FullableStore>(*store);
  cloud = Cloud::open(options, *disk, *machines, *network, *stores).value();
}

void World::stop() {
  cloud.reset();
  stores.reset();
  disk.reset();
  store.reset();
}

void World::restart() {
  stop();
  start();
}

Answer<Json> World::try_call(std::string_view operation, const Json& request) {
  const Operation* found = find_operation(operation);
  CHECK(found != nullptr);
  return found->call(*cloud, Caller{region}, request);
}

Json World::call(std::string_view operation, const Json& request) {
  return try_call(operation, request).value();
}

std::string World::refusal(std::string_view operation, const Json& request) {
  auto answer = try_call(operation, request);
  if (answer.ok()) return "";
  return fmt::format("{}: {}", name(answer.error().code()), answer.error().message());
}

std::string World::register_tiny() {
  return call("RegisterImage", {{"Name", "tiny"}, {"ImageLocation", image_folder.string()}})["ImageId"];
}

std::string World::run_one(Json extra) {
  Json request{{"ImageId", "tiny"}, {"MinCount", 1}, {"MaxCount", 1}};
  request.update(extra);
  return call("RunInstances", request)["Instances"][0]["InstanceId"];
}

Json World::instance(const std::string& id) {
  return call("DescribeInstances", {{"InstanceIds", {id}}})["Reservations"][0]["Instances"][0];
}

std::string World::state(const std::string& id) {
  return instance(id)["State"]["Name"];
}

bool World::becomes(const std::string& id, std::string_view wanted) {
  for (int i = 0; i < 2000; ++i) {
    if (state(id) == wanted) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

InstanceRecord World::record(const std::string& id) {
  for (const auto& object : store->list("instance").value()) {
    if (object.id == id) return decode<InstanceRecord>(parse_json(object.value).value());
  }
  return {};
}

VolumeRecord World::volume_record(const std::string& id) {
  for (const auto& object : store->list("volume").value()) {
    if (object.id == id) return decode<VolumeRecord>(parse_json(object.value).value());
  }
  return {};
}

std::string World::root(const std::string& instance_id) {
  return instance(instance_id)["BlockDeviceMappings"][0]["Ebs"]["VolumeId"];
}

Json World::volume(const std::string& id) {
  return call("DescribeVolumes", {{"VolumeIds", {id}}})["Volumes"][0];
}

Json World::snapshot(const std::string& id) {
  return call("DescribeSnapshots", {{"SnapshotIds", {id}}})["Snapshots"][0];
}

Json World::image(const std::string& id) {
  return call("DescribeImages", {{"ImageIds", {id}}})["Images"][0];
}

std::string World::make_volume(Json extra) {
  Json request{{"AvailabilityZone", region + "a"}};
  if (!extra.contains("SnapshotId")) request["Size"] = 8;
  request.update(extra);
  std::string id = call("CreateVolume", request)["VolumeId"];
  CHECK(eventually([&] { return volume(id)["State"] == "available"; }));
  return id;
}

std::string World::make_snapshot(const std::string& volume_id) {
  std::string id = call("CreateSnapshot", {{"VolumeId", volume_id}})["SnapshotId"];
  CHECK(eventually([&] { return snapshot(id)["State"] == "completed"; }));
  return id;
}

std::vector<std::string> World::disks(const std::string& instance_id) {
  return read_lines(keeper.layout.instance(instance_id) / "disks");
}

bool World::eventually(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return false;
}

void World::guest_ends(const std::string& id, const std::string& reason) {
  if (!reason.empty()) {
    std::ofstream(keeper.layout.status(id)) << Json{{"reason", reason}, {"detail", "at address 0x10"}}.dump();
  }
  for (pid_t pid : machines->processes(record(id).uuid)) ::kill(pid, SIGKILL);
}

}  // namespace haneul::agent::testing
