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

#include "agent/cloud/archive.h"
#include "agent/cloud/keeper.h"
#include "agent/cloud/model.h"
#include "agent/cloud/places.h"
#include "agent/ops/files_api.h"
#include "agent/ops/filter.h"
#include "agent/ops/ids.h"
#include "agent/ops/images_api.h"
#include "agent/ops/instances_api.h"
#include "agent/ops/keys_api.h"
#include "agent/ops/places_api.h"
#include "agent/ops/snapshots_api.h"
#include "agent/ops/tags_api.h"
#include "agent/ops/volumes_api.h"

namespace haneul::agent {

struct CloudOptions {
  KeeperOptions keeper;
  uint64_t host_memory_mib = 0;
  /// The /16 of the VPC. The same at every start.
  uint32_t vpc_network = kEc2sVpc;
  std::vector<RegionPlan> regions = default_regions();
  size_t max_instances = 1000;
  size_t max_volumes = 10000;
  size_t max_snapshots = 100000;
  unsigned threads = 8;
  /// For copies, imports, checks and the like.
  unsigned background_threads = 2;
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
                                             Network& network, Stores& stores);
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
  // images.cc, images_register.cc, images_make.cc, permissions.cc
  Answer<DescribeImagesReply> describe_images(const Caller&, const DescribeImagesRequest&);
  Answer<RegisterImageReply> register_image(const Caller&, const RegisterImageRequest&);
  Answer<CreateImageReply> create_image(const Caller&, const CreateImageRequest&);
  Answer<CopyImageReply> copy_image(const Caller&, const CopyImageRequest&);
  Answer<ImportImageFileReply> import_image_file(const Caller&, const ImportImageFileRequest&);
  Answer<Nothing> deregister_image(const Caller&, const DeregisterImageRequest&);
  Answer<Nothing> modify_image_attribute(const Caller&, const ModifyImageAttributeRequest&);
  Answer<DescribeImageAttributeReply> describe_image_attribute(const Caller&,
                                                               const DescribeImageAttributeRequest&);
  Answer<Nothing> reset_image_attribute(const Caller&, const ResetImageAttributeRequest&);
  // volumes.cc, volumes_describe.cc
  Answer<Volume> create_volume(const Caller&, const CreateVolumeRequest&);
  Answer<Nothing> delete_volume(const Caller&, const DeleteVolumeRequest&);
  Answer<VolumeAttachment> attach_volume(const Caller&, const AttachVolumeRequest&);
  Answer<VolumeAttachment> detach_volume(const Caller&, const DetachVolumeRequest&);
  Answer<ModifyVolumeReply> modify_volume(const Caller&, const ModifyVolumeRequest&);
  Answer<DescribeVolumesReply> describe_volumes(const Caller&, const DescribeVolumesRequest&);
  Answer<DescribeVolumesModificationsReply> describe_volumes_modifications(
      const Caller&, const DescribeVolumesModificationsRequest&);
  // snapshots.cc, snapshots_describe.cc, permissions.cc
  Answer<Snapshot> create_snapshot(const Caller&, const CreateSnapshotRequest&);
  Answer<CreateSnapshotsReply> create_snapshots(const Caller&, const CreateSnapshotsRequest&);
  Answer<CopySnapshotReply> copy_snapshot(const Caller&, const CopySnapshotRequest&);
  Answer<Nothing> delete_snapshot(const Caller&, const DeleteSnapshotRequest&);
  Answer<ImportSnapshotFileReply> import_snapshot_file(const Caller&, const ImportSnapshotFileRequest&);
  Answer<DescribeSnapshotsReply> describe_snapshots(const Caller&, const DescribeSnapshotsRequest&);
  Answer<Nothing> modify_snapshot_attribute(const Caller&, const ModifySnapshotAttributeRequest&);
  Answer<DescribeSnapshotAttributeReply> describe_snapshot_attribute(const Caller&,
                                                                     const DescribeSnapshotAttributeRequest&);
  Answer<Nothing> reset_snapshot_attribute(const Caller&, const ResetSnapshotAttributeRequest&);
  // tasks.cc
  Answer<Task> export_snapshot_file(const Caller&, const ExportSnapshotFileRequest&);
  Answer<Task> export_image_file(const Caller&, const ExportImageFileRequest&);
  Answer<Task> check_volume(const Caller&, const CheckVolumeRequest&);
  Answer<DescribeTasksReply> describe_tasks(const Caller&, const DescribeTasksRequest&);
  Answer<Nothing> cancel_task(const Caller&, const CancelTaskRequest&);
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
  void wait_idle();

 private:
  Cloud(CloudOptions options, StateStore& store, Machines& machines, Network& network, Stores& stores,
        std::unique_ptr<Supervisor> supervisor);
  void schedule_tidying();
  void forget_half_copied_images();

  // All under the model's lock.
  Answer<std::vector<InstanceRecord>> find_instances(const Caller&, const std::vector<std::string>& ids);
  Answer<ImageRecord> find_image(const Caller&, const std::string& id_or_name);
  /// Of any state that a client sees.
  Answer<ImageRecord> find_image_record(const Caller&, const std::string& id);
  Answer<VolumeRecord> find_volume(const Caller&, const std::string& id);
  Answer<SnapshotRecord> find_snapshot(const Caller&, const std::string& id);
  const KeyRecord* find_key(const Caller&, const std::string& name);
  std::set<std::string> used_addresses();
  size_t live_instances();
  std::vector<InstanceBlockDeviceMapping> mappings_of(const InstanceRecord& instance);
  Instance describe(const InstanceRecord&);
  Volume describe(const VolumeRecord&);
  Snapshot describe(const SnapshotRecord&);
  Reservation reservation(const std::vector<InstanceRecord>& instances);

  // RunInstances.
  struct Launch {
    std::vector<InstanceRecord> instances;
    std::vector<VolumeRecord> volumes;
  };
  Answer<InstanceRecord> instance_template(const Caller&, const RunInstancesRequest&, const ImageRecord&);
  Answer<Launch> new_instances(const Caller&, const RunInstancesRequest&);
  Answer<Reservation> earlier_reservation(const TokenRecord& token, const std::string& digest);
  Answer<void> check_size(const std::string& type);
  Answer<std::vector<MappingRecord>> launch_mappings(const Caller&, const RunInstancesRequest&,
                                                     const ImageRecord&);
  Answer<void> apply_mapping(const Caller&, const BlockDeviceMapping&, std::vector<MappingRecord>& mappings);
  Answer<void> apply_ebs(const Caller&, const EbsBlockDevice&, MappingRecord& mapping);

  Answer<std::vector<InstanceStateChange>> change_state(const std::vector<InstanceRecord>& instances,
                                                        Event event, std::vector<std::string>& changed,
                                                        bool force = false);
  Answer<void> check_root(const InstanceRecord& instance);
  Answer<void> change_mappings(const InstanceRecord&, const ModifyInstanceAttributeRequest&, Update& update);
  Answer<void> tag_resource(Update& update, const Caller&, const std::string& id,
                            const std::function<Answer<void>(std::vector<Tag>&)>& change);

  // Volumes and snapshots.
  Answer<VolumeRecord> new_volume(const Caller&, const CreateVolumeRequest&);
  Answer<void> check_attach(const VolumeRecord&, const InstanceRecord&, const AttachVolumeRequest&);
  Answer<VolumeRecord> detachable(const Caller&, const DetachVolumeRequest&);
  SnapshotRecord new_snapshot(const VolumeRecord& volume, const std::string& group,
                              const std::string& description, std::vector<Tag> tags);
  Answer<void> check_room(size_t new_volumes, size_t new_snapshots);
  Answer<void> begin_recorded(const std::string& group);
  Answer<void> check_no_snapshot_begins(const VolumeRecord& volume);

  // Images.
  /// `replace`: the name may be another image's.
  Answer<void> check_image_name(const Caller&, const std::string& name, bool replace = false);
  Answer<void> record_registration(ImageRecord record, SnapshotRecord snapshot);
  void deregister(Update& update, ImageRecord record);
  void clear_deregistered();
  Answer<RegisterImageReply> register_folder(const Caller&, const RegisterImageRequest&);
  Answer<RegisterImageReply> register_snapshot(const Caller&, const RegisterImageRequest&);
  Answer<ImageRecord> image_of_snapshots(const Caller&, const RegisterImageRequest&);
  Status copy_image_files(const std::filesystem::path& from, ImageRecord& image);
  Status import_root(const std::filesystem::path& file, const std::string& snapshot_id,
                     const std::string& region);
  Status undo_registration(const ImageRecord& image);
  struct ImagePlan {
    ImageRecord image;
    std::vector<SnapshotRecord> snapshots;
  };
  Answer<ImagePlan> image_from_instance(const Caller&, const InstanceRecord&, const CreateImageRequest&);
  Answer<ImagePlan> image_copy(const Caller&, const CopyImageRequest&);

  Task describe(const TaskRecord&);
  Answer<Task> start_task(TaskRecord task);

  const CloudOptions options_;
  const Places places_;
  Model model_;
  std::unique_ptr<Supervisor> supervisor_;
  Executor executor_;
  Executor background_;
  Keeper keeper_;
  Archive archive_;
  Network& network_;
  Stores& stores_;
};

/// GiB, rounded up, as EC2 shows sizes.
int64_t gib(int64_t bytes);
/// "InvalidVolume.NotFound" and the like, or that an id is not one.
ApiError unknown_id(const std::string& id);
ApiError malformed_id(ApiCode code, const std::string& id, std::string_view prefix);
/// Checks what a volume is to be: type, IOPS, throughput, size in GiB; fills in the type's own values.
Answer<void> check_performance(const std::string& type, std::optional<int64_t> wanted_iops,
                               std::optional<int64_t> wanted_throughput, int64_t& iops, int64_t& throughput);
Answer<void> check_gib(int64_t size);
/// A device name as EC2 takes them: /dev/sdb, /dev/xvdba…
bool valid_device(const std::string& name);
/// An image's block devices as the API shows them.
std::vector<BlockDeviceMapping> describe_mappings(const ImageRecord& image);
/// The image is to boot with another's kernel, initrd and command line.
void boot_like(const ImageRecord& from, ImageRecord& image);
/// A path of this host that a client named, for reading; its format declared.
Answer<void> check_import(const std::string& path, const std::string& format);
/// The error of a dry run that would have worked.
ApiError dry_run_error();
/// Checks tags as EC2 does: number, lengths, no key twice, none that begins with "aws:".
Answer<void> check_tags(const std::vector<Tag>& tags);
/// The tags for one resource type among the request's specifications; another type than those allowed is an
/// error.
Answer<std::vector<Tag>> tags_for(const std::vector<TagSpecification>& specifications, std::string_view type,
                                  const std::vector<std::string_view>& allowed);

}  // namespace haneul::agent
