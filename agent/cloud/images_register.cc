// SPDX-License-Identifier: Apache-2.0
// RegisterImage: from the folder of a built image, whose files become the daemon's own and whose root disk
// becomes a snapshot; or from snapshots that are there.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"
#include "base/checked.h"
#include "base/file.h"
#include "base/log.h"

namespace haneul::agent {
namespace {

// What images/tiny/build and its like write beside their files.
struct Manifest {
  int64_t format = 0;
  std::string name;
  std::string architecture = "x86_64";
  std::string kernel;
  std::string initrd;
  std::string root;
  std::string root_format = "raw";
  std::string root_device;
  std::string cmdline;
  std::string user = "haneul";
  std::string description;
  std::string kernel_version;

  template <typename Visitor>
  static void members(Visitor&& visit) {
    visit({.name = "format", .required = true}, &Manifest::format);
    visit({.name = "name", .required = true}, &Manifest::name);
    visit({.name = "architecture"}, &Manifest::architecture);
    visit({.name = "kernel", .required = true}, &Manifest::kernel);
    visit({.name = "initrd"}, &Manifest::initrd);
    visit({.name = "root"}, &Manifest::root);
    visit({.name = "root_format"}, &Manifest::root_format);
    visit({.name = "root_device"}, &Manifest::root_device);
    visit({.name = "cmdline", .required = true}, &Manifest::cmdline);
    visit({.name = "user"}, &Manifest::user);
    visit({.name = "description"}, &Manifest::description);
    visit({.name = "kernel_version"}, &Manifest::kernel_version);
  }
};

bool plain_name(const std::string& file) {
  return file.empty() || (file.find('/') == std::string::npos && file[0] != '.');
}

Answer<Manifest> read_manifest(const std::filesystem::path& folder) {
  auto text = read_file(folder / "image.json", 64 << 10);
  if (!text.ok()) {
    return api_error(ApiCode::kInvalidManifest, "{} is not an image: {}", folder.string(),
                     text.error().message());
  }
  auto json = parse_json(*text);
  auto manifest = json.ok() ? decode_checked<Manifest>(*json) : Answer<Manifest>(json.error());
  if (!manifest.ok()) {
    return api_error(ApiCode::kInvalidManifest, "{}/image.json: {}", folder.string(),
                     manifest.error().message());
  }
  std::string_view wrong =
      manifest->format != 1                ? "format is not 1"
      : manifest->architecture != "x86_64" ? "architecture is not x86_64"
      : manifest->root_format != "raw"     ? "root_format is not raw"
      : !plain_name(manifest->kernel) || !plain_name(manifest->initrd) || !plain_name(manifest->root)
          ? "a file is not a plain name in the folder"
          : "";
  if (wrong.empty()) return manifest;
  return api_error(ApiCode::kInvalidManifest, "{}/image.json: {}", folder.string(), wrong);
}

// Copies the data between the holes.
Status copy_sparse(int from, int to, uint64_t size) {
  off_t at = 0;
  off_t end = static_cast<off_t>(size);
  while (at < end) {
    off_t data = ::lseek(from, at, SEEK_DATA);
    if (data < 0) break;
    off_t hole = ::lseek(from, data, SEEK_HOLE);
    if (hole < 0) return errno_error("lseek");
    off_t in = data;
    off_t out = data;
    while (in < hole) {
      ssize_t copied = ::copy_file_range(from, &in, to, &out, static_cast<size_t>(hole - in), 0);
      if (copied < 0 && (errno == EXDEV || errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP)) {
        std::string chunk(static_cast<size_t>(std::min<off_t>(hole - in, 1 << 20)), '\0');
        auto bytes = std::as_writable_bytes(std::span(chunk));
        TRY(read_exact_at(from, static_cast<uint64_t>(in), bytes));
        TRY(write_all_at(to, static_cast<uint64_t>(in), bytes));
        in += static_cast<off_t>(chunk.size());
        out = in;
        continue;
      }
      if (copied < 0) return errno_error("copying");
      if (copied == 0) return Error(ErrorCode::kOutOfRange, "the file became shorter while it was copied");
    }
    at = hole;
  }
  return {};
}

// Shares the blocks where the file system can, else copies, holes kept. Gives the size.
Result<uint64_t> clone_file(const std::filesystem::path& from, const std::filesystem::path& to) {
  UniqueFd source = TRY(open_file(from, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (::fstat(source.get(), &info) != 0) return errno_error("fstat of {}", from.string());
  if (!S_ISREG(info.st_mode))
    return make_error(ErrorCode::kInvalidArgument, "{} is not a file", from.string());
  auto size = static_cast<uint64_t>(info.st_size);
  UniqueFd target = TRY(open_file(to, O_WRONLY | O_CREAT | O_TRUNC, 0400));
  if (::ioctl(target.get(), FICLONE, source.get()) != 0) {
    if (::ftruncate(target.get(), info.st_size) != 0) return errno_error("sizing {}", to.string());
    TRY(copy_sparse(source.get(), target.get(), size).context(fmt::format("copying {}", from.string())));
  }
  if (::fsync(target.get()) != 0) return errno_error("fsync of {}", to.string());
  return size;
}

bool valid_image_name(const std::string& name) {
  constexpr std::string_view kOthers = "()[] ./-'@_";
  return name.size() >= 3 && name.size() <= 128 && std::all_of(name.begin(), name.end(), [&](char c) {
           return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                  kOthers.find(c) != std::string_view::npos;
         });
}

}  // namespace

void boot_like(const ImageRecord& from, ImageRecord& image) {
  image.architecture = from.architecture;
  image.kernel = from.kernel;
  image.initrd = from.initrd;
  image.command_line = from.command_line;
  image.user = from.user;
  image.kernel_version = from.kernel_version;
  image.kernel_from = from.kernel_from.empty() ? from.id : from.kernel_from;
  if (!from.user.empty()) image.tags.push_back({.key = "haneul:user", .value = from.user});
}

// Under the lock.
Answer<void> Cloud::check_image_name(const Caller& caller, const std::string& name, bool replace) {
  if (!valid_image_name(name)) {
    return api_error(
        ApiCode::kInvalidAmiNameMalformed,
        "AMI names must be between 3 and 128 characters long, of letters, digits and ()[] ./-'@_");
  }
  for (const auto& [id, image] : model_.images()) {
    if (!replace && image.region == caller.region && image.name == name && image.state != "deregistered") {
      return api_error(ApiCode::kInvalidAmiNameDuplicate, "AMI name {} is already in use by AMI {}", name,
                       id);
    }
  }
  return {};
}

// What the daemon's end left in the middle of a registration, which nobody has an id of.
void Cloud::forget_half_copied_images() {
  std::vector<ImageRecord> pending;
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, image] : model_.images()) {
      if (image.state == "pending" && image.work == "register") pending.push_back(image);
    }
  }
  for (const ImageRecord& image : pending) {
    Status undone = undo_registration(image);
    if (!undone.ok()) LOG_ERROR("{} cannot be forgotten: {}", image.id, undone.error().message());
  }
}

// The files before the records: what a crash leaves is then still known.
Status Cloud::undo_registration(const ImageRecord& image) {
  std::error_code ignored;
  std::filesystem::remove_all(options_.keeper.layout.image(image.id), ignored);
  storage::Store* store = TRY(stores_.of(image.region));
  std::scoped_lock lock(model_.mutex());
  Update update(model_);
  for (const MappingRecord& mapping : image.mappings) {
    Status deleted = store->delete_snapshot(mapping.snapshot_id);
    if (!deleted.ok() && deleted.error().code() != ErrorCode::kNotFound) return deleted;
    update.remove<SnapshotRecord>(mapping.snapshot_id);
  }
  TRY(update.remove<ImageRecord>(image.id).commit());
  archive_.collect(image.region);
  return {};
}

// ---- a folder ----

Status Cloud::import_root(const std::filesystem::path& file, const std::string& snapshot_id,
                          const std::string& region) {
  UniqueFd root = TRY(open_file(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK));
  struct stat info {};
  if (::fstat(root.get(), &info) != 0) return errno_error("fstat of {}", file.string());
  if (!S_ISREG(info.st_mode))
    return make_error(ErrorCode::kInvalidArgument, "{} is not a file", file.string());
  storage::Store* store = TRY(stores_.of(region));
  uint64_t bytes = align_up(static_cast<uint64_t>(info.st_size), 512);
  return store
      ->import_snapshot(snapshot_id, root.get(), storage::ImageFormat::kRaw, bytes, false,
                        [](unsigned) { return true; })
      .context(file.string());
}

Status Cloud::copy_image_files(const std::filesystem::path& from, ImageRecord& image) {
  std::filesystem::path to = options_.keeper.layout.image(image.id);
  if (::mkdir(to.c_str(), 0700) != 0) return errno_error("cannot make the folder {}", to.string());
  TRY(clone_file(from / image.kernel, to / image.kernel));
  crash_point("register.copying");
  if (!image.initrd.empty()) TRY(clone_file(from / image.initrd, to / image.initrd));
  TRY(sync_folder(to));
  for (MappingRecord& mapping : image.mappings) {
    TRY(import_root(from / image.root, mapping.snapshot_id, image.region));
    storage::Store* store = TRY(stores_.of(image.region));
    mapping.bytes = static_cast<int64_t>(TRY(store->snapshot(mapping.snapshot_id)).size_bytes);
    image.root_bytes = mapping.bytes;
  }
  return {};
}

Answer<RegisterImageReply> Cloud::register_folder(const Caller& caller, const RegisterImageRequest& request) {
  std::filesystem::path folder = request.image_location.value_or("");
  if (!folder.is_absolute()) {
    return ApiError(ApiCode::kInvalidParameterValue,
                    "ImageLocation must be the absolute path of an image's folder on this host");
  }
  Manifest manifest = TRY(read_manifest(folder));
  ImageRecord record;
  record.region = caller.region;
  record.name = request.name.empty() ? manifest.name : request.name;
  record.description = request.description.value_or(manifest.description);
  record.state = "pending";
  record.architecture = manifest.architecture;
  record.location = folder.string();
  record.created = now();
  record.kernel = manifest.kernel;
  record.initrd = manifest.initrd;
  record.root = manifest.root;
  record.command_line = manifest.cmdline;
  record.user = manifest.user;
  record.kernel_version = manifest.kernel_version;
  if (!manifest.user.empty()) record.tags.push_back({.key = "haneul:user", .value = manifest.user});
  SnapshotRecord snapshot;
  {
    std::scoped_lock lock(model_.mutex());
    TRY(check_image_name(caller, record.name, request.replace.value_or(false)));
    if (request.dry_run.value_or(false)) return dry_run_error();
    record.id = new_id("ami");
    snapshot.id = new_id("snap");
    if (!record.root.empty()) {
      MappingRecord mapping;
      mapping.device = record.root_device;
      mapping.snapshot_id = snapshot.id;
      mapping.iops = 3000;
      mapping.throughput = 125;
      record.mappings.push_back(std::move(mapping));
    }
    TRY(Update(model_).put(record).commit());
  }
  crash_point("register.intended");
  Status copied = copy_image_files(folder, record);
  crash_point("register.copied");
  if (!copied.ok()) {
    TRY(undo_registration(record));
    return copied.error();
  }
  TRY(record_registration(record, std::move(snapshot)));
  if (request.replace.value_or(false)) clear_deregistered();
  LOG_INFO("{} is {}, from {}", record.id, record.name, record.location);
  return RegisterImageReply{.image_id = record.id};
}

// What is registered takes the name from those that had it in the same commit: it is never nobody's.
Answer<void> Cloud::record_registration(ImageRecord record, SnapshotRecord snapshot) {
  std::scoped_lock lock(model_.mutex());
  record.state = "available";
  Update update(model_);
  for (const auto& [id, image] : model_.images()) {
    bool named = image.region == record.region && image.name == record.name && id != record.id;
    bool registering = image.state == "pending" && image.work == "register";
    if (!named || registering || image.state == "deregistered") continue;
    deregister(update, image);
  }
  if (!record.mappings.empty()) {
    snapshot.region = record.region;
    snapshot.owner = kAccount;
    snapshot.volume_id = "vol-ffffffff";
    snapshot.bytes = record.root_bytes;
    snapshot.state = "completed";
    snapshot.progress = 100;
    snapshot.work = "import";
    snapshot.begun = true;
    snapshot.started = record.created;
    snapshot.description = fmt::format("Root of {} ({})", record.id, record.name);
    snapshot.image_id = record.id;
    update.put(snapshot);
  }
  TRY(update.put(std::move(record)).commit());
  return {};
}

// ---- snapshots ----

// Under the lock.
Answer<ImageRecord> Cloud::image_of_snapshots(const Caller& caller, const RegisterImageRequest& request) {
  TRY(check_image_name(caller, request.name));
  ImageRecord image;
  image.region = caller.region;
  image.name = request.name;
  image.description = request.description.value_or("");
  image.state = "pending";
  image.work = "create";
  image.created = now();
  image.root_device = request.root_device_name.value_or("/dev/xvda");
  for (const BlockDeviceMapping& mapping : request.block_device_mappings)
    TRY(apply_mapping(caller, mapping, image.mappings));
  const MappingRecord* root = nullptr;
  for (MappingRecord& mapping : image.mappings) {
    if (mapping.device == image.root_device) root = &mapping;
  }
  if (root == nullptr || root->snapshot_id.empty()) {
    return api_error(ApiCode::kInvalidBlockDeviceMapping,
                     "The root device {} must be mapped to a volume with a snapshotId", image.root_device);
  }
  image.root_bytes = root->bytes;
  if (request.kernel_image) {
    boot_like(TRY(find_image(caller, *request.kernel_image)), image);
  } else {
    auto booted = model_.images().find(model_.snapshots()[root->snapshot_id].image_id);
    if (booted == model_.images().end()) {
      return api_error(
          ApiCode::kMissingParameter,
          "The snapshot {} comes from no image: KernelImage must name one whose kernel is to boot it",
          root->snapshot_id);
    }
    boot_like(booted->second, image);
  }
  image.id = new_id("ami");
  image.location = fmt::format("{}/{}", kAccount, image.name);
  return image;
}

Answer<RegisterImageReply> Cloud::register_snapshot(const Caller& caller,
                                                    const RegisterImageRequest& request) {
  std::string id;
  {
    std::scoped_lock lock(model_.mutex());
    ImageRecord image = TRY(image_of_snapshots(caller, request));
    if (request.dry_run.value_or(false)) return dry_run_error();
    // The root boots that image's kernel; what comes of the root later boots this one's, which is the same.
    for (MappingRecord& mapping : image.mappings) {
      if (mapping.device == image.root_device) mapping.delete_on_termination = true;
    }
    TRY(Update(model_).put(image).commit());
    id = image.id;
  }
  crash_point("register.intended");
  TRY(archive_.take_kernel(id));
  return RegisterImageReply{.image_id = id};
}

Answer<RegisterImageReply> Cloud::register_image(const Caller& caller, const RegisterImageRequest& request) {
  if (request.image_location && !request.block_device_mappings.empty()) {
    return ApiError(ApiCode::kInvalidParameterCombination,
                    "ImageLocation and BlockDeviceMappings do not go together");
  }
  if (request.block_device_mappings.empty()) return register_folder(caller, request);
  if (request.replace.value_or(false)) {
    return ApiError(ApiCode::kInvalidParameterCombination, "Replace goes with ImageLocation only");
  }
  return register_snapshot(caller, request);
}

}  // namespace haneul::agent
