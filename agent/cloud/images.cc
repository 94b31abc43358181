// SPDX-License-Identifier: Apache-2.0
// The operations on images, and the daemon's own store of their files.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "agent/cloud/cloud.h"
#include "agent/cloud/crash.h"
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

Image describe_image(const ImageRecord& record) {
  Image image;
  image.architecture = record.architecture;
  image.creation_date = to_text(record.created);
  image.image_id = record.id;
  image.image_location = record.location;
  image.image_type = "machine";
  image.owner_id = kAccount;
  image.platform_details = "Linux/UNIX";
  image.state = record.state;
  image.description = record.description;
  image.hypervisor = "xen";
  image.name = record.name;
  image.root_device_name = "/dev/xvda";
  image.root_device_type = "ebs";
  image.tags = record.tags;
  image.virtualization_type = "hvm";
  if (!record.root.empty()) {
    BlockDeviceMapping mapping;
    mapping.device_name = "/dev/xvda";
    mapping.ebs = EbsBlockDevice{};
    mapping.ebs->delete_on_termination = true;
    mapping.ebs->volume_size = (record.root_bytes + (int64_t{1} << 30) - 1) >> 30;
    mapping.ebs->volume_type = "gp3";
    mapping.ebs->encrypted = false;
    image.block_device_mappings.push_back(std::move(mapping));
  }
  return image;
}

const FilterTable<ImageRecord>& image_filters() {
  using R = const ImageRecord&;
  using V = std::vector<std::string>;
  static const FilterTable<ImageRecord> table({
      {"image-id", [](R r) -> V { return {r.id}; }},
      {"name", [](R r) -> V { return {r.name}; }},
      {"description", [](R r) -> V { return {r.description}; }},
      {"state", [](R r) -> V { return {r.state}; }},
      {"architecture", [](R r) -> V { return {r.architecture}; }},
      {"owner-id", [](R) -> V { return {kAccount}; }},
      {"owner-alias", [](R) -> V { return {"self"}; }},
      {"image-type", [](R) -> V { return {"machine"}; }},
      {"is-public", [](R) -> V { return {"false"}; }},
      {"creation-date", [](R r) -> V { return {to_text(r.created)}; }},
      {"manifest-location", [](R r) -> V { return {r.location}; }},
      {"root-device-name", [](R) -> V { return {"/dev/xvda"}; }},
      {"root-device-type", [](R) -> V { return {"ebs"}; }},
      {"virtualization-type", [](R) -> V { return {"hvm"}; }},
      {"hypervisor", [](R) -> V { return {"xen"}; }},
  });
  return table;
}

}  // namespace

// Under the lock. An image's name serves as its id: the newest of that name is meant.
Answer<ImageRecord> Cloud::find_image(const Caller& caller, const std::string& id_or_name) {
  const ImageRecord* found = nullptr;
  for (const auto& [id, image] : model_.images()) {
    bool matches = image.region == caller.region && (id == id_or_name || image.name == id_or_name);
    if (!matches || image.state == "deregistered") continue;
    if (found == nullptr || found->created < image.created) found = &image;
  }
  if (found == nullptr) {
    if (!valid_id(id_or_name, "ami")) {
      return api_error(ApiCode::kInvalidAmiIdMalformed, "Invalid id: \"{}\" (expecting \"ami-...\")",
                       id_or_name);
    }
    return api_error(ApiCode::kInvalidAmiIdNotFound, "The image id '[{}]' does not exist", id_or_name);
  }
  if (found->state != "available") {
    return api_error(ApiCode::kInvalidAmiIdUnavailable, "The image id '[{}]' is {}", id_or_name,
                     found->state);
  }
  return *found;
}

// What the daemon's end left in the middle of a registration, which nobody has an id of.
void Cloud::forget_half_copied_images() {
  std::scoped_lock lock(model_.mutex());
  std::vector<std::string> pending;
  for (const auto& [id, image] : model_.images()) {
    if (image.state == "pending") pending.push_back(id);
  }
  for (const std::string& id : pending) {
    std::error_code ignored;
    std::filesystem::remove_all(options_.keeper.layout.image(id), ignored);
    Status removed = Update(model_).remove<ImageRecord>(id).commit();
    if (!removed.ok()) LOG_ERROR("{} cannot be forgotten: {}", id, removed.error().message());
  }
}

Status Cloud::copy_image(const std::filesystem::path& from, ImageRecord& image) {
  std::filesystem::path to = options_.keeper.layout.image(image.id);
  if (::mkdir(to.c_str(), 0700) != 0) return errno_error("cannot make the folder {}", to.string());
  TRY(clone_file(from / image.kernel, to / image.kernel));
  crash_point("register.copying");
  if (!image.initrd.empty()) TRY(clone_file(from / image.initrd, to / image.initrd));
  if (!image.root.empty())
    image.root_bytes = static_cast<int64_t>(TRY(clone_file(from / image.root, to / image.root)));
  return sync_folder(to);
}

Answer<RegisterImageReply> Cloud::register_image(const Caller& caller, const RegisterImageRequest& request) {
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
  if (!valid_image_name(record.name)) {
    return api_error(
        ApiCode::kInvalidAmiNameMalformed,
        "AMI names must be between 3 and 128 characters long, of letters, digits and ()[] ./-'@_");
  }
  {
    std::scoped_lock lock(model_.mutex());
    for (const auto& [id, image] : model_.images()) {
      if (image.region == caller.region && image.name == record.name && image.state != "deregistered") {
        return api_error(ApiCode::kInvalidAmiNameDuplicate, "AMI name {} is already in use by AMI {}",
                         record.name, id);
      }
    }
    if (request.dry_run.value_or(false)) return dry_run_error();
    record.id = new_id("ami");
    TRY(Update(model_).put(record).commit());
  }
  crash_point("register.intended");
  Status copied = copy_image(folder, record);
  crash_point("register.copied");
  std::scoped_lock lock(model_.mutex());
  if (!copied.ok()) {
    std::error_code ignored;
    std::filesystem::remove_all(options_.keeper.layout.image(record.id), ignored);
    TRY(Update(model_).remove<ImageRecord>(record.id).commit());
    return copied.error();
  }
  record.state = "available";
  TRY(Update(model_).put(record).commit());
  LOG_INFO("{} is {}, from {}", record.id, record.name, record.location);
  return RegisterImageReply{.image_id = record.id};
}

Answer<Nothing> Cloud::deregister_image(const Caller& caller, const DeregisterImageRequest& request) {
  {
    std::scoped_lock lock(model_.mutex());
    if (!valid_id(request.image_id, "ami")) {
      return api_error(ApiCode::kInvalidAmiIdMalformed, "Invalid id: \"{}\" (expecting \"ami-...\")",
                       request.image_id);
    }
    ImageRecord record = TRY(find_image(caller, request.image_id));
    if (request.dry_run.value_or(false)) return dry_run_error();
    record.state = "deregistered";
    TRY(Update(model_).put(record).commit());
  }
  crash_point("deregister.recorded");
  // The files go when no instance stands on them any more.
  executor_.post("tidy", [this] { keeper_.tidy(); });
  return Nothing{};
}

Answer<DescribeImagesReply> Cloud::describe_images(const Caller& caller,
                                                   const DescribeImagesRequest& request) {
  TRY(image_filters().check(request.filters));
  std::scoped_lock lock(model_.mutex());
  for (const std::string& id : request.image_ids) {
    if (!valid_id(id, "ami")) {
      return api_error(ApiCode::kInvalidAmiIdMalformed, "Invalid id: \"{}\" (expecting \"ami-...\")", id);
    }
    auto found = model_.images().find(id);
    if (found == model_.images().end() || found->second.region != caller.region ||
        found->second.state == "deregistered") {
      return api_error(ApiCode::kInvalidAmiIdNotFound, "The image id '[{}]' does not exist", id);
    }
  }
  if (request.dry_run.value_or(false)) return dry_run_error();
  const auto& owners = request.owners;
  bool ours = owners.empty() || std::any_of(owners.begin(), owners.end(), [](const std::string& owner) {
                return owner == "self" || owner == kAccount;
              });
  DescribeImagesReply reply;
  for (const auto& [id, record] : model_.images()) {
    const auto& wanted = request.image_ids;
    bool named = wanted.empty() || std::find(wanted.begin(), wanted.end(), id) != wanted.end();
    if (!ours || !named || record.region != caller.region || record.state == "deregistered") continue;
    if (image_filters().matches(record, record.tags, request.filters))
      reply.images.push_back(describe_image(record));
  }
  return reply;
}

}  // namespace haneul::agent
