// SPDX-License-Identifier: Apache-2.0
// Cloud: the operations of the API, one method each. A method checks its request against the model, records
// what is to be, and leaves the work to the Keeper; it never waits for a guest.
//
// Thread-safe: methods may be called from any thread.
#pragma once

#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "agent/cloud/keeper.h"
#include "agent/cloud/model.h"
#include "agent/cloud/places.h"
#include "agent/ops/filter.h"
#include "agent/ops/ids.h"
#include "agent/ops/images_api.h"
#include "agent/ops/instances_api.h"
#include "agent/ops/keys_api.h"
#include "agent/ops/places_api.h"
#include "agent/ops/tags_api.h"

namespace haneul::agent {

struct CloudOptions {
  KeeperOptions keeper;
  uint64_t host_memory_mib = 0;
  size_t max_instances = 1000;
  unsigned threads = 8;
};

/// Who asks, and for which region.
struct Caller {
  std::string region;
};

/// The reply of an operation that has nothing to say but that it worked.
struct Nothing {
  bool result = true;
  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "Return"}, &Nothing::result);
  }
};

inline constexpr const char* kAccount = "000000000000";

class Cloud {
 public:
  /// Loads the state and reconciles the world with it.
  static Result<std::unique_ptr<Cloud>> open(CloudOptions options, StateStore& store, Machines& machines,
                                             Network& network, VolumeStore& volumes);
  /// Lets instances run on.
  ~Cloud();

  // instances.cc, instances_describe.cc, instances_change.cc
  Answer<Reservation> run_instances(const Caller&, const RunInstancesRequest&);
  Answer<DescribeInstancesReply> describe_instances(const Caller&, const DescribeInstancesRequest&);
  Answer<DescribeInstanceStatusReply> describe_instance_status(const Caller&,
                                                               const DescribeInstanceStatusRequest&);
  Answer<StartInstancesReply> start_instances(const Caller&, const StartInstancesRequest&);
  Answer<StopInstancesReply> stop_instances(const Caller&, const StopInstancesRequest&);
  Answer<Nothing> reboot_instances(const Caller&, const RebootInstancesRequest&);
  Answer<TerminateInstancesReply> terminate_instances(const Caller&, const TerminateInstancesRequest&);
  Answer<GetConsoleOutputReply> get_console_output(const Caller&, const GetConsoleOutputRequest&);
  Answer<Nothing> modify_instance_attribute(const Caller&, const ModifyInstanceAttributeRequest&);
  Answer<DescribeInstanceAttributeReply> describe_instance_attribute(const Caller&,
                                                                     const DescribeInstanceAttributeRequest&);
  Answer<DescribeInstanceTypesReply> describe_instance_types(const Caller&,
                                                             const DescribeInstanceTypesRequest&);
  // images.cc
  Answer<DescribeImagesReply> describe_images(const Caller&, const DescribeImagesRequest&);
  Answer<RegisterImageReply> register_image(const Caller&, const RegisterImageRequest&);
  Answer<Nothing> deregister_image(const Caller&, const DeregisterImageRequest&);
  // key_pairs.cc
  Answer<CreateKeyPairReply> create_key_pair(const Caller&, const CreateKeyPairRequest&);
  Answer<ImportKeyPairReply> import_key_pair(const Caller&, const ImportKeyPairRequest&);
  Answer<DescribeKeyPairsReply> describe_key_pairs(const Caller&, const DescribeKeyPairsRequest&);
  Answer<Nothing> delete_key_pair(const Caller&, const DeleteKeyPairRequest&);
  // regions.cc
  Answer<DescribeRegionsReply> describe_regions(const Caller&, const DescribeRegionsRequest&);
  Answer<DescribeAvailabilityZonesReply> describe_availability_zones(const Caller&,
                                                                     const DescribeAvailabilityZonesRequest&);
  // tags.cc
  Answer<Nothing> create_tags(const Caller&, const CreateTagsRequest&);
  Answer<Nothing> delete_tags(const Caller&, const DeleteTagsRequest&);
  Answer<DescribeTagsReply> describe_tags(const Caller&, const DescribeTagsRequest&);

  /// The socket of a running instance's console, and the address to reach it at.
  Answer<std::filesystem::path> console_socket(const Caller&, const std::string& instance_id);
  Answer<std::string> instance_address(const Caller&, const std::string& instance_id);
  /// Figures for `haneul doctor`: instances by state, images.
  Json summary();
  const Places& places() const { return places_; }
  /// Waits until no work is queued or running (for tests).
  void wait_idle() { executor_.wait_idle(); }

 private:
  Cloud(CloudOptions options, StateStore& store, Machines& machines, Network& network, VolumeStore& volumes,
        std::unique_ptr<Supervisor> supervisor);
  void schedule_tidying();
  void forget_half_copied_images();

  // All under the model's lock.
  Answer<std::vector<InstanceRecord>> find_instances(const Caller&, const std::vector<std::string>& ids);
  Answer<ImageRecord> find_image(const Caller&, const std::string& id_or_name);
  const KeyRecord* find_key(const Caller&, const std::string& name);
  std::set<std::string> used_addresses();
  size_t live_instances();
  Answer<InstanceRecord> instance_template(const Caller&, const RunInstancesRequest&, const ImageRecord&);
  Answer<std::vector<InstanceRecord>> new_instances(const Caller&, const RunInstancesRequest&);
  Answer<Reservation> earlier_reservation(const TokenRecord& token, const std::string& digest);
  Answer<void> check_size(const std::string& type);
  Instance describe(const InstanceRecord&);
  Reservation reservation(const std::vector<InstanceRecord>& instances);
  Answer<std::vector<InstanceStateChange>> change_state(const std::vector<InstanceRecord>& instances,
                                                        Event event, std::vector<std::string>& changed);
  Status copy_image(const std::filesystem::path& from, ImageRecord& image);
  Answer<void> tag_resource(Update& update, const Caller&, const std::string& id,
                            const std::function<Answer<void>(std::vector<Tag>&)>& change);

  const CloudOptions options_;
  const Places places_;
  Model model_;
  std::unique_ptr<Supervisor> supervisor_;
  Executor executor_;
  Keeper keeper_;
  Network& network_;
};

/// The error of a dry run that would have worked.
ApiError dry_run_error();
/// Checks tags as EC2 does: number, lengths, no key twice, none that begins with "aws:".
Answer<void> check_tags(const std::vector<Tag>& tags);
/// The tags for one resource type among the request's specifications; another type than those allowed is an
/// error.
Answer<std::vector<Tag>> tags_for(const std::vector<TagSpecification>& specifications, std::string_view type,
                                  const std::vector<std::string_view>& allowed);

}  // namespace haneul::agent
