// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/builder.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <set>

#include "base/checked.h"
#include "base/file.h"

namespace haneul::agent {
namespace {

void append_entry(std::string& out, const std::string& path, unsigned mode, std::string_view content,
                  unsigned inode) {
  // The fields of the newc format, 8 hexadecimal digits each: see cpio(5).
  const std::array<size_t, 13> fields = {inode,           mode, 0, 0, 1, 0, content.size(), 0, 0, 0, 0,
                                         path.size() + 1, 0};
  out += "070701";
  for (size_t field : fields) out += fmt::format("{:08x}", field);
  out += path;
  out += '\0';
  out.resize(align_up(out.size(), 4), '\0');
  out += content;
  out.resize(align_up(out.size(), 4), '\0');
}

Result<UniqueFd> memory_file(const char* file_name, const std::string& content) {
  UniqueFd fd = TRY(make_memfd(file_name));
  TRY(write_all(fd.get(), std::as_bytes(std::span(content))));
  return fd;
}

Result<UniqueFd> image_file(const Layout& layout, const ImageRecord& image, const std::string& file) {
  auto opened = open_file(layout.image(image.id) / file, O_RDONLY);
  return std::move(opened).context(fmt::format("image {}", image.name));
}

}  // namespace

std::string make_cpio(const std::vector<GuestFile>& files) {
  std::string out;
  unsigned inode = 1;
  std::set<std::string> folders;
  for (const GuestFile& file : files) {
    for (size_t slash = file.path.find('/'); slash != std::string::npos;
         slash = file.path.find('/', slash + 1)) {
      std::string folder = file.path.substr(0, slash);
      if (folders.insert(folder).second) append_entry(out, folder, S_IFDIR | 0755, "", inode++);
    }
    append_entry(out, file.path, S_IFREG | file.mode, file.content, inode++);
  }
  append_entry(out, "TRAILER!!!", 0, "", 0);
  return out;
}

std::string instance_env(const InstanceRecord& instance, const Zone& zone, const std::string& dns) {
  std::string text;
  auto line = [&text](std::string_view key, std::string_view value) {
    text += fmt::format("{}='{}'\n", key, value);
  };
  line("INSTANCE_ID", instance.id);
  line("HOSTNAME", host_name(instance.address));
  line("DOMAIN", domain_name(instance.region));
  line("ADDRESS", fmt::format("{}/{}", instance.address, kSubnetBits));
  line("GATEWAY", address_text(gateway_of(zone)));
  if (!dns.empty()) line("DNS", dns);
  line("MAC", instance.mac);
  return text;
}

std::vector<GuestFile> guest_files(const InstanceRecord& instance, const Zone& zone, const std::string& dns) {
  std::vector<GuestFile> files;
  files.push_back({.path = "etc/haneul/instance.env", .content = instance_env(instance, zone, dns)});
  if (!instance.authorized_key.empty()) {
    files.push_back({.path = "etc/haneul/authorized_keys", .content = instance.authorized_key + "\n"});
  }
  if (!instance.user_data.bytes.empty()) {
    files.push_back({.path = "etc/haneul/user-data", .mode = 0600, .content = instance.user_data.bytes});
  }
  return files;
}

std::array<uint8_t, 6> mac_bytes(const std::string& mac) {
  std::array<unsigned, 6> parts{};
  std::array<uint8_t, 6> bytes{};
  CHECK(std::sscanf(mac.c_str(), "%x:%x:%x:%x:%x:%x", &parts[0], &parts[1], &parts[2], &parts[3], &parts[4],
                    &parts[5]) == 6);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(parts[i]);
  return bytes;
}

std::string disk_serial(const std::string& volume_id) {
  size_t dash = volume_id.find('-');
  if (dash == std::string::npos) return volume_id.substr(0, 20);
  return (volume_id.substr(0, dash) + volume_id.substr(dash + 1)).substr(0, 20);
}

Status make_instance_folder(const Layout& layout, const std::string& id) {
  if (::mkdir(layout.instance(id).c_str(), 0700) != 0 && errno != EEXIST)
    return errno_error("cannot make the folder {}", layout.instance(id).string());
  return {};
}

launch::Disk make_disk(std::string serial, storage::OpenStack stack) {
  launch::Disk disk;
  disk.id = std::move(serial);
  disk.format = launch::DiskFormat::kVolume;
  for (storage::OpenLayer& layer : stack.layers) {
    disk.layers.push_back({.file = std::move(layer.fd), .key = layer.key});
  }
  return disk;
}

Result<launch::Spec> make_spec(const Layout& layout, const InstanceRecord& instance, const ImageRecord& image,
                               const InstanceType& type, const Zone& zone, const std::string& dns) {
  launch::Spec spec;
  spec.instance_id = instance.id;
  spec.uuid = instance.uuid;
  spec.product = instance.type;
  spec.memory_bytes = static_cast<uint64_t>(type.memory_mib) << 20;
  spec.vcpus = static_cast<unsigned>(type.vcpus);
  spec.kernel = TRY(image_file(layout, image, image.kernel));
  if (!image.initrd.empty()) spec.initrds.push_back(TRY(image_file(layout, image, image.initrd)));
  spec.initrds.push_back(TRY(memory_file("initrd", make_cpio(guest_files(instance, zone, dns)))));
  spec.command_line = image.command_line;
  spec.control_socket = layout.control_socket(instance.id);
  spec.console_socket = layout.console_socket(instance.id);
  spec.console_ring = TRY(open_file(layout.console(instance.id), O_RDWR | O_CREAT));
  spec.status = TRY(open_file(layout.status(instance.id), O_RDWR | O_CREAT | O_TRUNC));
  spec.log = TRY(open_file(layout.log(instance.id), O_WRONLY | O_CREAT | O_APPEND));
  return spec;
}

}  // namespace haneul::agent
