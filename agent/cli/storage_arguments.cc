// SPDX-License-Identifier: Apache-2.0
// The names and options of the commands on images, volumes and snapshots.
#include "agent/cli/arguments.h"

namespace haneul::agent {
namespace {

CLI::Option* add_format(CLI::App& command, std::string& format) {
  return command.add_option("--format", format, "raw or qcow2; never guessed")
      ->required()
      ->check(CLI::IsMember({"raw", "qcow2"}));
}

void add_image_makers(CLI::App& image, Arguments& args, Action& chosen) {
  ImageOptions& options = args.image;
  auto* create = add(image, args, chosen, "create", "make an image of an instance and all its volumes",
                     [&args](Api& api) { return image_create_command(api, args.shared, args.image); });
  create->add_option("instance", options.one, "id or name")->required();
  create->add_option("-n,--name", options.name, "the image's name")->required();
  create->add_option("--description", options.description, "what it is");
  create->add_flag("--no-reboot", options.no_reboot, "do not shut the guest down for it");
  create->add_flag("-w,--wait", options.wait, "until it is available");
  auto* import = add(image, args, chosen, "import", "make an image of a disk's file",
                     [&args](Api& api) { return image_import_command(api, args.shared, args.image); });
  import->add_option("file", options.file, "the root disk")->required()->check(CLI::ExistingFile);
  add_format(*import, options.format);
  import->add_option("-n,--name", options.name, "the image's name")->required();
  import->add_option("--kernel-of", options.kernel_of, "the image whose kernel boots it")->required();
  import->add_option("--description", options.description, "what it is");
  import->add_flag("--encrypted", options.encrypted, "keep its data encrypted");
  auto* exported = add(image, args, chosen, "export", "write an image's root disk to a file",
                       [&args](Api& api) { return image_export_command(api, args.shared, args.image); });
  exported->add_option("image", options.one, "id or name")->required();
  exported->add_option("file", options.file, "a file that is not there yet")->required();
  add_format(*exported, options.format);
  auto* copy = add(image, args, chosen, "copy", "copy an image, to another region",
                   [&args](Api& api) { return image_copy_command(api, args.shared, args.image); });
  copy->add_option("image", options.one, "id or name")->required();
  copy->add_option("--to-region", options.to_region, "where to; this region by default");
  copy->add_option("-n,--name", options.name, "its name there; the same by default");
  copy->add_option("--description", options.description, "what it is");
  copy->add_flag("-w,--wait", options.wait, "until it is available");
  auto* show = add(image, args, chosen, "show", "everything about an image",
                   [&args](Api& api) { return image_show_command(api, args.shared, args.one); });
  show->add_option("image", args.one, "id or name")->required();
}

void add_volume_changes(CLI::App& volume, Arguments& args, Action& chosen) {
  VolumeOptions& options = args.volume;
  auto* attach = add(volume, args, chosen, "attach", "attach a volume to an instance",
                     [&args](Api& api) { return volume_attach_command(api, args.shared, args.volume); });
  attach->add_option("volume", options.volume, "id or name")->required();
  attach->add_option("instance", options.instance, "id or name")->required();
  attach->add_option("--device", options.device, "as /dev/sdf; the first free one by default");
  attach->add_option("--timeout", options.timeout_s, "seconds to wait at most")->capture_default_str();
  auto* detach = add(volume, args, chosen, "detach", "detach a volume, when the guest lets go of it",
                     [&args](Api& api) { return volume_detach_command(api, args.shared, args.volume); });
  detach->add_option("volume", options.volume, "id or name")->required();
  detach->add_flag("-f,--force", options.force, "do not wait for the guest; what it has not written is lost");
  detach->add_option("--timeout", options.timeout_s, "seconds to wait at most")->capture_default_str();
  auto* resize = add(volume, args, chosen, "resize", "grow a volume, in use or not",
                     [&args](Api& api) { return volume_resize_command(api, args.shared, args.volume); });
  resize->add_option("volume", options.volume, "id or name")->required();
  resize->add_option("size", options.size, "as 20G")->required();
  resize->add_option("--timeout", options.timeout_s, "seconds to wait at most")->capture_default_str();
  auto* rm = add(volume, args, chosen, "rm", "delete volumes",
                 [&args](Api& api) { return volume_remove_command(api, args.shared, args.many); });
  rm->add_option("volume", args.many, "ids or names")->required();
  auto* check = add(
      volume, args, chosen, "check", "verify every structure and checksum, in use or not", [&args](Api& api) {
        return volume_check_command(api, args.shared, args.one, args.volume.task, args.volume.quick);
      });
  check->add_option("volume", args.one, "a volume or a snapshot; everything in the region by default");
  check->add_flag("--quick", options.quick, "structures only, not the data");
  check->add_option("--task", options.task, "look at a check or an export that was begun before");
}

void add_snapshot_files(CLI::App& snapshot, Arguments& args, Action& chosen) {
  SnapshotOptions& options = args.snapshot;
  auto* exported = add(snapshot, args, chosen, "export", "write a snapshot to a file", [&args](Api& api) {
    return snapshot_export_command(api, args.shared, args.snapshot);
  });
  exported->add_option("snapshot", options.one, "id or name")->required();
  exported->add_option("file", options.file, "a file that is not there yet")->required();
  add_format(*exported, options.format);
  auto* import = add(snapshot, args, chosen, "import", "make a snapshot of a disk's file",
                     [&args](Api& api) { return snapshot_import_command(api, args.shared, args.snapshot); });
  import->add_option("file", options.file, "the disk")->required()->check(CLI::ExistingFile);
  add_format(*import, options.format);
  import->add_option("-n,--name", options.name, "the tag Name");
  import->add_option("--description", options.description, "what it is");
  import->add_option("--tag", options.tags, "KEY=VALUE, repeatable")->allow_extra_args(false);
  import->add_flag("--encrypted", options.encrypted, "keep its data encrypted");
}

}  // namespace

void add_volumes(CLI::App& app, Arguments& args, Action& chosen) {
  CLI::App& volume = *app.add_subcommand("volume", "volumes (EBS)")->require_subcommand(1);
  VolumeOptions& options = args.volume;
  auto* create = add(volume, args, chosen, "create", "make a volume",
                     [&args](Api& api) { return volume_create_command(api, args.shared, args.volume); });
  create->add_option("--size", options.size, "as 8G");
  create->add_option("--from", options.from, "a snapshot, its id or name");
  create->add_option("--zone", options.zone, "Availability Zone, as us-east-1b or b; the first by default");
  create->add_option("--type", options.type, "gp3, gp2, io1, io2, st1, sc1 or standard");
  create->add_option("--iops", options.iops, "as EC2 takes them; shown, not enforced");
  create->add_option("--throughput", options.throughput, "MiB/s, of gp3; shown, not enforced");
  create->add_option("-n,--name", options.name, "the tag Name");
  create->add_option("--tag", options.tags, "KEY=VALUE, repeatable")->allow_extra_args(false);
  create->add_flag("--encrypted", options.encrypted, "keep its data encrypted");
  add(volume, args, chosen, "ls", "list volumes",
      [&args](Api& api) { return volume_list_command(api, args.shared); });
  auto* show = add(volume, args, chosen, "show", "everything about a volume",
                   [&args](Api& api) { return volume_show_command(api, args.shared, args.one); });
  show->add_option("volume", args.one, "id or name")->required();
  add_volume_changes(volume, args, chosen);
}

void add_snapshots(CLI::App& app, Arguments& args, Action& chosen) {
  CLI::App& snapshot = *app.add_subcommand("snapshot", "snapshots of volumes")->require_subcommand(1);
  SnapshotOptions& options = args.snapshot;
  auto* create = add(snapshot, args, chosen, "create", "snapshot a volume, as it is at this moment",
                     [&args](Api& api) { return snapshot_create_command(api, args.shared, args.snapshot); });
  create->add_option("volume", options.one, "id or name")->required();
  create->add_option("-n,--name", options.name, "the tag Name");
  create->add_option("--description", options.description, "what it is");
  create->add_option("--tag", options.tags, "KEY=VALUE, repeatable")->allow_extra_args(false);
  create->add_flag("-w,--wait", options.wait, "until it is completed");
  add(snapshot, args, chosen, "ls", "list snapshots",
      [&args](Api& api) { return snapshot_list_command(api, args.shared); });
  auto* show = add(snapshot, args, chosen, "show", "everything about a snapshot",
                   [&args](Api& api) { return snapshot_show_command(api, args.shared, args.one); });
  show->add_option("snapshot", args.one, "id or name")->required();
  auto* copy = add(snapshot, args, chosen, "copy", "copy a snapshot, to another region",
                   [&args](Api& api) { return snapshot_copy_command(api, args.shared, args.snapshot); });
  copy->add_option("snapshot", options.one, "id or name")->required();
  copy->add_option("--to-region", options.to_region, "where to; this region by default");
  copy->add_option("-n,--name", options.name, "the copy's tag Name");
  copy->add_option("--description", options.description, "what it is");
  copy->add_option("--tag", options.tags, "KEY=VALUE, repeatable")->allow_extra_args(false);
  copy->add_flag("-w,--wait", options.wait, "until it is completed");
  auto* rm = add(snapshot, args, chosen, "rm", "delete snapshots; later ones stay whole",
                 [&args](Api& api) { return snapshot_remove_command(api, args.shared, args.many); });
  rm->add_option("snapshot", args.many, "ids or names")->required();
  auto* share = add(snapshot, args, chosen, "share", "who may make volumes of it; shows it, too",
                    [&args](Api& api) { return snapshot_share_command(api, args.shared, args.snapshot); });
  share->add_option("snapshot", options.one, "id or name")->required();
  share->add_option("--account", options.accounts, "an account's 12 digits, repeatable")
      ->allow_extra_args(false);
  share->add_flag("--public", options.everyone, "everyone");
  share->add_flag("--remove", options.remove, "no longer; without accounts, private again");
  add_snapshot_files(snapshot, args, chosen);
}

void add_images(CLI::App& app, Arguments& args, Action& chosen) {
  CLI::App& image = *app.add_subcommand("image", "images (AMIs)")->require_subcommand(1);
  add_image_makers(image, args, chosen);
  auto* build = add(image, args, chosen, "build", "build an image and register it", [&args](Api& api) {
    return image_build_command(api, args.shared, args.one, args.kernel);
  });
  build->add_option("name", args.one, "which: tiny or debian-12")->required();
  build->add_option("--kernel", args.kernel, "of tiny: Debian's, or a small one that boots fastest")
      ->check(CLI::IsMember({"debian", "fast"}));
  auto* reg = add(image, args, chosen, "register", "register an image's folder, or a snapshot of a root",
                  [&args](Api& api) -> Result<int> {
                    if (!args.image.snapshot.empty())
                      return image_of_snapshot_command(api, args.shared, args.image);
                    if (args.file.empty())
                      return Error(ErrorCode::kInvalidArgument, "a folder is needed, or --snapshot");
                    return image_register_command(api, args.shared, args.file, args.image.name);
                  });
  reg->add_option("folder", args.file, "with image.json and its files")->check(CLI::ExistingDirectory);
  reg->add_option("-n,--name", args.image.name, "its name; image.json's by default");
  reg->add_option("--snapshot", args.image.snapshot, "of a root volume, instead of a folder");
  reg->add_option("--kernel-of", args.image.kernel_of,
                  "the image whose kernel boots it; by default the snapshot's own");
  add(image, args, chosen, "ls", "list images",
      [&args](Api& api) { return image_list_command(api, args.shared); });
  auto* rm = add(image, args, chosen, "rm", "deregister images",
                 [&args](Api& api) { return image_remove_command(api, args.shared, args.many); });
  rm->add_option("image", args.many, "ids or names")->required();
}

}  // namespace haneul::agent
