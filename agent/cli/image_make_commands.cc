// SPDX-License-Identifier: Apache-2.0
// Images made of what is there: instances, snapshots, files, other images.
#include <fmt/format.h>

#include "agent/cli/commands.h"
#include "agent/cli/wait.h"

namespace haneul::agent {
namespace {

Result<int> print_image(Api& api, const Shared& shared, const std::string& id, bool wait) {
  if (wait) {
    int status = TRY(wait_for_image(api, id));
    if (status != kCliOk) return status;
  }
  Json image = TRY(api.image(id));
  if (shared.json) {
    print_json(image);
  } else {
    fmt::print("{} {} {}\n", id, text_of(image, "Name"), text_of(image, "State"));
  }
  return kCliOk;
}

void print_line(std::string_view label, const std::string& value) {
  if (!value.empty()) fmt::print("{:<18}{}\n", label, value);
}

}  // namespace

Result<int> image_create_command(Api& api, const Shared& shared, const ImageOptions& options) {
  Json request{{"InstanceId", TRY(api.instance_id(options.one))}, {"Name", options.name}};
  if (!options.description.empty()) request["Description"] = options.description;
  if (options.no_reboot) request["NoReboot"] = true;
  std::string id = text_of(TRY(api.call("CreateImage", request)), "ImageId");
  return print_image(api, shared, id, options.wait);
}

Result<int> image_of_snapshot_command(Api& api, const Shared& shared, const ImageOptions& options) {
  if (options.name.empty()) return Error(ErrorCode::kInvalidArgument, "--snapshot needs --name");
  std::string snapshot = TRY(api.snapshot_id(options.snapshot));
  Json request{{"Name", options.name},
               {"RootDeviceName", "/dev/xvda"},
               {"BlockDeviceMappings",
                Json::array({{{"DeviceName", "/dev/xvda"}, {"Ebs", {{"SnapshotId", snapshot}}}}})}};
  if (!options.kernel_of.empty()) request["KernelImage"] = options.kernel_of;
  std::string id = text_of(TRY(api.call("RegisterImage", request)), "ImageId");
  return print_image(api, shared, id, true);
}

Result<int> image_import_command(Api& api, const Shared& shared, const ImageOptions& options) {
  Json request{{"Path", TRY(readable_path(options.file))},
               {"Format", options.format},
               {"Name", options.name},
               {"KernelImage", options.kernel_of}};
  if (!options.description.empty()) request["Description"] = options.description;
  if (options.encrypted) request["Encrypted"] = true;
  std::string id = text_of(TRY(api.call("ImportImageFile", request)), "ImageId");
  return print_image(api, shared, id, true);
}

Result<int> image_export_command(Api& api, const Shared& shared, const ImageOptions& options) {
  std::string path = TRY(writable_path(options.file));
  std::string image = text_of(TRY(api.image(options.one)), "ImageId");
  Json request{{"ImageId", image}, {"Path", path}, {"Format", options.format}};
  std::string task = text_of(TRY(api.call("ExportImageFile", request)), "TaskId");
  EndedTask ended = TRY(wait_for_task(api, task));
  if (ended.status != kCliOk) return ended.status;
  if (shared.json) {
    print_json(ended.task);
  } else {
    fmt::print("{}\n", path);
  }
  return kCliOk;
}

Result<int> image_copy_command(Api& api, const Shared& shared, const ImageOptions& options) {
  Json source = TRY(api.image(options.one));
  std::string own = TRY(api.own_region());
  Api there(api.socket(), options.to_region.empty() ? own : options.to_region);
  Json request{{"Name", options.name.empty() ? text_of(source, "Name") : options.name},
               {"SourceRegion", own},
               {"SourceImageId", text_of(source, "ImageId")}};
  if (!options.description.empty()) request["Description"] = options.description;
  std::string id = text_of(TRY(there.call("CopyImage", request)), "ImageId");
  return print_image(there, shared, id, options.wait);
}

Result<int> image_show_command(Api& api, const Shared& shared, const std::string& name) {
  Json image = TRY(api.image(name));
  if (shared.json) {
    print_json(image);
    return kCliOk;
  }
  print_line("Id", text_of(image, "ImageId"));
  print_line("Name", text_of(image, "Name"));
  print_line("State", text_of(image, "State"));
  print_line("Reason", text_of(image.value("StateReason", Json::object()), "Message"));
  print_line("Description", text_of(image, "Description"));
  print_line("Location", text_of(image, "ImageLocation"));
  print_line("Architecture", text_of(image, "Architecture"));
  print_line("Created", text_of(image, "CreationDate"));
  print_line("Public", image["Public"] == true ? "yes" : "no");
  for (const Json& mapping : image.value("BlockDeviceMappings", Json::array())) {
    Json ebs = mapping.value("Ebs", Json::object());
    std::string what =
        ebs.empty()
            ? fmt::format("{} of {} GiB", text_of(mapping, "VirtualName"), text_of(mapping, "EphemeralSize"))
            : fmt::format("{} of {} GiB{}", text_of(ebs, "SnapshotId"), text_of(ebs, "VolumeSize"),
                          ebs["DeleteOnTermination"] == true ? "" : ", kept");
    print_line("Device", fmt::format("{} {}", text_of(mapping, "DeviceName"), what));
  }
  for (const Json& tag : image.value("Tags", Json::array()))
    print_line("Tag", fmt::format("{}={}", text_of(tag, "Key"), text_of(tag, "Value")));
  return kCliOk;
}

}  // namespace haneul::agent
