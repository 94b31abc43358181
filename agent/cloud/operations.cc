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

template <auto Method>
constexpr Operation operation(std::string_view name) {
  using Request = typename Signature<decltype(Method)>::RequestType;
  using Reply = typename Signature<decltype(Method)>::ReplyType;
  return {.name = name,
          .request = &type_of<Request>,
          .reply = &type_of<Reply>,
          .call = [](Cloud& cloud, const Caller& caller, const Json& json) -> Answer<Json> {
            Request request = TRY(decode_checked<Request>(json));
            Reply reply = TRY((cloud.*Method)(caller, request));
            return encode(reply);
          }};
}

constexpr std::array kOperations = {
    operation<&Cloud::create_key_pair>("CreateKeyPair"),
    operation<&Cloud::create_tags>("CreateTags"),
    operation<&Cloud::delete_key_pair>("DeleteKeyPair"),
    operation<&Cloud::delete_tags>("DeleteTags"),
    operation<&Cloud::deregister_image>("DeregisterImage"),
    operation<&Cloud::describe_availability_zones>("DescribeAvailabilityZones"),
    operation<&Cloud::describe_images>("DescribeImages"),
    operation<&Cloud::describe_instance_attribute>("DescribeInstanceAttribute"),
    operation<&Cloud::describe_instance_status>("DescribeInstanceStatus"),
    operation<&Cloud::describe_instance_types>("DescribeInstanceTypes"),
    operation<&Cloud::describe_instances>("DescribeInstances"),
    operation<&Cloud::describe_key_pairs>("DescribeKeyPairs"),
    operation<&Cloud::describe_regions>("DescribeRegions"),
    operation<&Cloud::describe_tags>("DescribeTags"),
    operation<&Cloud::get_console_output>("GetConsoleOutput"),
    operation<&Cloud::import_key_pair>("ImportKeyPair"),
    operation<&Cloud::modify_instance_attribute>("ModifyInstanceAttribute"),
    operation<&Cloud::reboot_instances>("RebootInstances"),
    operation<&Cloud::register_image>("RegisterImage"),
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
