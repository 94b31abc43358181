// SPDX-License-Identifier: Apache-2.0
// Builder: from an instance's record to the Spec that starts its VMM: files of its folder, the image's kernel
// and initrd, and a second initrd made in memory that tells the guest who it is.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "agent/cloud/instance_types.h"
#include "agent/cloud/places.h"
#include "agent/cloud/seams.h"
#include "agent/state/records.h"

namespace haneul::agent {

/// Where things are in a state folder.
struct Layout {
  std::filesystem::path state;
  std::filesystem::path image(const std::string& id) const { return state / "images" / id; }
  std::filesystem::path instance(const std::string& id) const { return state / "instances" / id; }
  std::filesystem::path console(const std::string& id) const { return instance(id) / "console"; }
  std::filesystem::path status(const std::string& id) const { return instance(id) / "status"; }
  std::filesystem::path log(const std::string& id) const { return instance(id) / "vmm.log"; }
  std::filesystem::path control_socket(const std::string& id) const { return instance(id) / "control.sock"; }
  std::filesystem::path console_socket(const std::string& id) const { return instance(id) / "console.sock"; }
};

struct GuestFile {
  std::string path;  ///< "etc/haneul/instance.env"
  unsigned mode = 0644;
  std::string content;
};
/// An uncompressed cpio archive in the "newc" format, with the folders that the files need.
std::string make_cpio(const std::vector<GuestFile>& files);

/// KEY='VALUE' lines for the guest.
std::string instance_env(const InstanceRecord& instance, const Zone& zone, const std::string& dns);
std::vector<GuestFile> guest_files(const InstanceRecord& instance, const Zone& zone, const std::string& dns);

Status make_instance_folder(const Layout& layout, const std::string& id);

/// The Spec without its disks, its network interface and its jail.
Result<launch::Spec> make_spec(const Layout& layout, const InstanceRecord& instance, const ImageRecord& image,
                               const InstanceType& type, const Zone& zone, const std::string& dns);

/// A volume as a disk of a VMM.
launch::Disk make_disk(std::string serial, storage::OpenStack stack);

std::array<uint8_t, 6> mac_bytes(const std::string& mac);
/// As a disk's serial: EC2's "vol0123456789abcdef0", 20 bytes.
std::string disk_serial(const std::string& volume_id);

}  // namespace haneul::agent
