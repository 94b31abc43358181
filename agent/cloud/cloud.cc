// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/cloud.h"

#include <algorithm>

#include "base/log.h"

namespace haneul::agent {

Cloud::Cloud(CloudOptions options, StateStore& store, Machines& machines, Network& network, Stores& stores,
             std::unique_ptr<Supervisor> supervisor)
    : options_(std::move(options)),
      places_(options_.vpc_network, options_.regions),
      model_(store),
      supervisor_(std::move(supervisor)),
      executor_(options_.threads),
      background_(options_.background_threads),
      keeper_(options_.keeper, model_, places_, machines, network, stores, *supervisor_, executor_),
      archive_(options_.keeper.layout, model_, keeper_, stores, *supervisor_, background_),
      network_(network),
      stores_(stores) {
  keeper_.set_hooks({.shut_down = [this](const std::string& id) { archive_.begin_after_shutdown(id); },
                     .freed = [this](const std::string& region) { archive_.collect(region); }});
}

Result<std::unique_ptr<Cloud>> Cloud::open(CloudOptions options, StateStore& store, Machines& machines,
                                           Network& network, Stores& stores) {
  for (const char* folder : {"images", "instances"}) {
    std::error_code error;
    std::filesystem::create_directories(options.keeper.layout.state / folder, error);
    if (error) {
      return Error::from_errno(
          error.value(), fmt::format("cannot make {}/{}", options.keeper.layout.state.string(), folder));
    }
  }
  auto supervisor = TRY(Supervisor::create());
  std::unique_ptr<Cloud> cloud(
      new Cloud(std::move(options), store, machines, network, stores, std::move(supervisor)));
  TRY(cloud->model_.load());
  for (const RegionPlace& region : cloud->places_.regions()) {
    TRY(stores.of(region.name).context(fmt::format("the block store of {}", region.name)));
  }
  cloud->forget_half_copied_images();
  TRY(cloud->keeper_.reconcile());
  cloud->archive_.resume();
  cloud->schedule_tidying();
  return cloud;
}

Cloud::~Cloud() {
  archive_.stop();
  supervisor_->stop();
  executor_.stop();
  background_.stop();
  std::scoped_lock lock(model_.mutex());
  model_.save_late();
}

// Work of the one executor may give work to the other.
void Cloud::wait_idle() {
  for (int i = 0; i < 3; ++i) {
    executor_.wait_idle();
    background_.wait_idle();
  }
}

void Cloud::schedule_tidying() {
  supervisor_->after(std::chrono::minutes(1), [this] {
    executor_.post("tidy", [this] { keeper_.tidy(); });
    schedule_tidying();
  });
}

// ---- what several operations need; all under the model's lock ----

Answer<std::vector<InstanceRecord>> Cloud::find_instances(const Caller& caller,
                                                          const std::vector<std::string>& ids) {
  std::vector<InstanceRecord> found;
  std::vector<std::string> missing;
  for (const std::string& id : ids) {
    if (!valid_id(id, "i")) {
      return api_error(ApiCode::kInvalidInstanceIdMalformed, "Invalid id: \"{}\" (expecting \"i-...\")", id);
    }
    auto record = model_.instances().find(id);
    if (record == model_.instances().end() || record->second.region != caller.region) {
      missing.push_back(id);
    } else if (std::none_of(found.begin(), found.end(), [&](const auto& other) { return other.id == id; })) {
      found.push_back(record->second);
    }
  }
  if (missing.size() == 1) {
    return api_error(ApiCode::kInvalidInstanceIdNotFound, "The instance ID '{}' does not exist", missing[0]);
  }
  if (!missing.empty()) {
    return api_error(ApiCode::kInvalidInstanceIdNotFound, "The instance IDs '{}' do not exist",
                     fmt::join(missing, ", "));
  }
  return found;
}

const KeyRecord* Cloud::find_key(const Caller& caller, const std::string& name) {
  for (const auto& [id, key] : model_.keys()) {
    if (key.name == name && key.region == caller.region) return &key;
  }
  return nullptr;
}

std::set<std::string> Cloud::used_addresses() {
  std::set<std::string> used;
  for (const auto& [id, instance] : model_.instances()) {
    if (instance.state != name(State::kTerminated)) used.insert(instance.address);
  }
  return used;
}

size_t Cloud::live_instances() {
  return used_addresses().size();
}

Answer<void> Cloud::check_size(const std::string& type_name) {
  const InstanceType* type = find_instance_type(type_name);
  if (type == nullptr) {
    return api_error(ApiCode::kInvalidInstanceType, "The instance type '{}' does not exist", type_name);
  }
  if (type->vcpus > 32) {
    return api_error(ApiCode::kInsufficientInstanceCapacity,
                     "{} has {} vCPUs; a virtual machine of this host has at most 32", type_name,
                     type->vcpus);
  }
  if (static_cast<uint64_t>(type->memory_mib) > options_.host_memory_mib) {
    return api_error(ApiCode::kInsufficientInstanceCapacity,
                     "{} needs {} MiB of memory; this host has {} MiB", type_name, type->memory_mib,
                     options_.host_memory_mib);
  }
  return {};
}

ApiError dry_run_error() {
  return {ApiCode::kDryRunOperation, "Request would have succeeded, but DryRun flag is set."};
}

Json Cloud::summary() {
  Json states = Json::object();
  size_t images = 0;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, instance] : model_.instances())
      states[instance.state] = states.value(instance.state, 0) + 1;
    for (const auto& [id, image] : model_.images()) images += image.state == "available" ? 1 : 0;
  }
  return Json{{"instances", states}, {"images", images}, {"warnings", network_.warnings()}};
}

namespace {

Answer<void> expect_machine(const InstanceRecord& instance) {
  if (instance.pid > 0) return {};
  // Between the two machines of a reboot there is none.
  if (instance.state == name(State::kRunning))
    return api_error(ApiCode::kUnavailable, "The instance '{}' is being rebooted", instance.id);
  return api_error(ApiCode::kIncorrectInstanceState, "The instance '{}' is not running, but {}", instance.id,
                   instance.state);
}

}  // namespace

Answer<std::filesystem::path> Cloud::console_socket(const Caller& caller, const std::string& instance_id) {
  std::scoped_lock lock(model_.mutex());
  auto found = TRY(find_instances(caller, {instance_id}));
  TRY(expect_machine(found[0]));
  return options_.keeper.layout.console_socket(instance_id);
}

Answer<std::string> Cloud::instance_address(const Caller& caller, const std::string& instance_id) {
  std::scoped_lock lock(model_.mutex());
  auto found = TRY(find_instances(caller, {instance_id}));
  TRY(expect_machine(found[0]));
  return found[0].address;
}

}  // namespace haneul::agent
