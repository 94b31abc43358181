// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/operations.h"

#include <array>

namespace haneul::agent {
namespace {

template <typename Method>
struct Signature;
template <typename Reply, typename Request>
struct Signature<Answer<Reply> (Cloud::*)(const Caller&, const Request&)> {
  using ReplyType = Reply;
  using RequestType = Request;
};

struct Traits {
  bool own = false;
  bool slow = false;
};

template <auto Method>
constexpr Operation operation(std::string_view name, Traits traits = {}) {
  using Request = typename Signature<decltype(Method)>::RequestType;
  using Reply = typename Signature<decltype(Method)>::ReplyType;
  return {.name = name,
          .request = &type_of<Request>,
          .reply = &type_of<Reply>,
          .own = traits.own,
          .slow = traits.slow,
          .call = [](Cloud& cloud, const Caller& caller, const Json& json) -> Answer<Json> {
            Request request = TRY(decode_checked<Request>(json));
            Reply reply = TRY((cloud.*Method)(caller, request));
            return encode(reply);
          }};
}

constexpr std::array kOperations = {
    operation<&Cloud::attach_volume>("AttachVolume"),
    operation<&Cloud::cancel_task>("CancelTask", {.own = true}),
    operation<&Cloud::check_volume>("CheckVolume", {.own = true}),
    operation<&Cloud::copy_image>("CopyImage", {.slow = true}),
    operation<&Cloud::copy_snapshot>("CopySnapshot"),
    operation<&Cloud::create_image>("CreateImage", {.slow = true}),
    operation<&Cloud::create_key_pair>("CreateKeyPair"),
    operation<&Cloud::create_snapshot>("CreateSnapshot", {.slow = true}),
    operation<&Cloud::create_snapshots>("CreateSnapshots", {.slow = true}),
    operation<&Cloud::create_tags>("CreateTags"),
    operation<&Cloud::create_volume>("CreateVolume"),
    operation<&Cloud::delete_key_pair>("DeleteKeyPair"),
    operation<&Cloud::delete_snapshot>("DeleteSnapshot"),
    operation<&Cloud::delete_tags>("DeleteTags"),
    operation<&Cloud::delete_volume>("DeleteVolume"),
    operation<&Cloud::deregister_image>("DeregisterImage"),
    operation<&Cloud::describe_availability_zones>("DescribeAvailabilityZones"),
    operation<&Cloud::describe_image_attribute>("DescribeImageAttribute"),
    operation<&Cloud::describe_images>("DescribeImages"),
    operation<&Cloud::describe_instance_attribute>("DescribeInstanceAttribute"),
    operation<&Cloud::describe_instance_status>("DescribeInstanceStatus"),
    operation<&Cloud::describe_instance_types>("DescribeInstanceTypes"),
    operation<&Cloud::describe_instances>("DescribeInstances"),
    operation<&Cloud::describe_key_pairs>("DescribeKeyPairs"),
    operation<&Cloud::describe_regions>("DescribeRegions"),
    operation<&Cloud::describe_snapshot_attribute>("DescribeSnapshotAttribute"),
    operation<&Cloud::describe_snapshots>("DescribeSnapshots"),
    operation<&Cloud::describe_tags>("DescribeTags"),
    operation<&Cloud::describe_tasks>("DescribeTasks", {.own = true}),
    operation<&Cloud::describe_volumes>("DescribeVolumes"),
    operation<&Cloud::describe_volumes_modifications>("DescribeVolumesModifications"),
    operation<&Cloud::detach_volume>("DetachVolume"),
    operation<&Cloud::export_image_file>("ExportImageFile", {.own = true}),
    operation<&Cloud::export_snapshot_file>("ExportSnapshotFile", {.own = true}),
    operation<&Cloud::get_console_output>("GetConsoleOutput"),
    operation<&Cloud::import_image_file>("ImportImageFile", {.own = true, .slow = true}),
    operation<&Cloud::import_key_pair>("ImportKeyPair"),
    operation<&Cloud::import_snapshot_file>("ImportSnapshotFile", {.own = true}),
    operation<&Cloud::modify_image_attribute>("ModifyImageAttribute"),
    operation<&Cloud::modify_instance_attribute>("ModifyInstanceAttribute"),
    operation<&Cloud::modify_snapshot_attribute>("ModifySnapshotAttribute"),
    operation<&Cloud::modify_volume>("ModifyVolume"),
    operation<&Cloud::reboot_instances>("RebootInstances"),
    operation<&Cloud::register_image>("RegisterImage", {.slow = true}),
    operation<&Cloud::reset_image_attribute>("ResetImageAttribute"),
    operation<&Cloud::reset_snapshot_attribute>("ResetSnapshotAttribute"),
    operation<&Cloud::run_instances>("RunInstances"),
    operation<&Cloud::start_instances>("StartInstances"),
    operation<&Cloud::stop_instances>("StopInstances"),
    operation<&Cloud::terminate_instances>("TerminateInstances"),
};

}  // namespace

std::span<const Operation> operations() {
  return kOperations;
}

const Operation* find_operation(std::string_view name) {
  for (const Operation& operation : kOperations) {
    if (operation.name == name) return &operation;
  }
  return nullptr;
}

}  // namespace haneul::agent
