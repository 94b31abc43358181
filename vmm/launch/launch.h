// SPDX-License-Identifier: Apache-2.0
// launch(): starts one haneul-vmm process for one instance, and hands it everything it will ever use as file
// descriptors. The VMM opens nothing itself: no file, no device, no socket.
//
// The process outlives the daemon. Its control socket is a file in the instance's folder, so that the next
// daemon finds it again with VmmClient::connect(); its last words are in the status file, and its console in
// a ring file.
#pragma once

#include <sys/types.h>

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/unique_fd.h"

namespace haneul::launch {

/// How a disk's files are to be read. Declared by whoever opened them, never guessed from content.
enum class DiskFormat { kRaw, kVolume };
/// "raw", "volume".
std::string_view name(DiskFormat format);
std::optional<DiskFormat> parse_disk_format(std::string_view name);

/// One layer of a volume, see storage/FORMAT.md.
struct Layer {
  UniqueFd file;
  /// Of an encrypted layer: its key. Travels in memory only, never on a command line.
  std::optional<std::array<uint8_t, 64>> key;
};

struct Disk {
  /// What the guest sees as the disk's serial, at most 20 bytes.
  std::string id;
  DiskFormat format = DiskFormat::kRaw;
  bool read_only = false;
  /// Raw: the disk.
  UniqueFd file;
  /// A volume: its layers, the lowest first. The last is opened read-write (unless read_only), the others
  /// read-only.
  std::vector<Layer> layers;
  /// A volume: a raw file beneath the lowest layer, read-only, if that layer says that there is one.
  UniqueFd base;
};

struct Nic {
  /// A tap with IFF_VNET_HDR, IFF_NO_PI and as many queues as it has descriptors here (one).
  UniqueFd tap;
  std::array<uint8_t, 6> mac{};
  uint16_t mtu = 1500;
};

/// What the VMM becomes before it touches anything of the guest's.
struct Jail {
  /// The user and group to be, when the launcher is root; otherwise the VMM maps itself in a user namespace.
  std::optional<uid_t> uid;
  std::optional<gid_t> gid;
  /// A cgroup v2 folder to enter, if there is one; a VMM that cannot is not started.
  std::filesystem::path cgroup;
  /// Off only for debugging with tools that the filter forbids.
  bool enabled = true;
};

struct Spec {
  std::filesystem::path program;  ///< the haneul-vmm to run
  std::string instance_id;        ///< for logs and SMBIOS: "i-0123456789abcdef0"
  std::string uuid;               ///< SMBIOS system UUID, 36 characters, begins with "ec2"
  std::string product;            ///< SMBIOS product name: the instance type
  uint64_t memory_bytes = 0;
  unsigned vcpus = 1;  ///< 1 to 32
  bool huge_pages = false;
  UniqueFd kvm;                   ///< /dev/kvm, read-write
  UniqueFd kernel;                ///< ELF vmlinux or bzImage, told apart by their headers
  std::vector<UniqueFd> initrds;  ///< loaded one after the other, each padded to 4 bytes
  std::string command_line;       ///< at most 2047 bytes
  std::vector<Disk> disks;        ///< the first is /dev/vda
  std::vector<Nic> nics;
  std::filesystem::path control_socket;  ///< made by launch(), SOCK_SEQPACKET
  std::filesystem::path
      console_socket;     ///< made by launch(), SOCK_STREAM: the ring's content, then live; input back
  UniqueFd console_ring;  ///< read-write file, see base/console_ring.h
  UniqueFd status;        ///< read-write file: the VMM's last words as JSON, {"reason":…,"detail":…}
  UniqueFd log;           ///< becomes the VMM's standard error
  Jail jail;
};

/// A VMM process, identified so that a recycled pid is never taken for it.
struct Process {
  pid_t pid = -1;
  /// Field 22 of /proc/PID/stat: clock ticks after boot at which the process started.
  uint64_t start_ticks = 0;
  /// Readable when the process has ended.
  UniqueFd pidfd;
};

/// Starts the VMM and returns when it has entered the guest, or with the VMM's own sentence on why it could
/// not. Takes over the descriptors. On failure nothing is left behind: no process, no socket file.
Result<Process> launch(Spec spec, std::chrono::milliseconds timeout = std::chrono::seconds(30));

/// The process again, after a daemon's restart: kNotFound if it is gone or the pid is another's now.
Result<Process> find_process(pid_t pid, uint64_t start_ticks);

/// When a process was started, in clock ticks since boot (proc(5), field 22 of stat): with its number, which process it is.
Result<uint64_t> start_ticks_of(pid_t pid);

/// Ends the process at once (SIGKILL) and waits until it is gone.
void kill_process(const Process& process);

/// Once pidfd is readable: collects the process if it is a child of ours (one launched by an earlier daemon
/// is not).
void reap_process(const Process& process);

/// How a VMM ended, from its status file.
struct Ending {
  /// "powered-off", "reset" (where that ends it), "triple-fault", "kvm-error", "stopped", "failed" (it could not
  /// start, or not start over), or "vanished" if it had no time to say (a SIGKILL, a crash).
  std::string reason;
  /// One sentence for people, may be empty.
  std::string detail;
};
Ending read_ending(int status_fd);

/// A connection to a VMM's control socket. Not thread-safe; blocking, with a deadline on every request.
class VmmClient {
 public:
  static Result<VmmClient> connect(const std::filesystem::path& control_socket);

  /// "running", "paused" or "ended".
  Result<std::string> state();
  /// Counters as JSON text: vCPU exits by kind, device requests, memory.
  Result<std::string> statistics();
  /// The ACPI power button: the guest shuts itself down if it listens.
  Status press_power_button();
  /// An immediate reset, as EC2's RebootInstances does when the guest does not react.
  Status reset();
  /// A pause holds until resume(), across resets too.
  Status pause();
  Status resume();
  /// Plugs a disk into the running guest; kExists if the id is taken, kNoSpace when there is no slot.
  Status attach_disk(Disk disk);
  /// Asks the guest to let go. Returns at once; the disk is gone when disk_ids() no longer names it.
  /// With force the guest has lost it before this returns; a snapshot under way keeps it open until that is done.
  Status detach_disk(std::string_view id, bool force);
  Status resize_disk(std::string_view id, uint64_t size_bytes);
  Result<std::vector<std::string>> disk_ids();
  /// Puts empty layers on these disks (volumes) and returns when what lies beneath them is frozen and durable: how
  /// long the guest's changes were held back. One layer a disk: all at one moment. A disk that is named several times
  /// gets its layers in that order, and the last ones come at one moment. A layer that a disk has already, on top or
  /// further down, is left alone (and a push of it that had failed is finished), so the same request can be repeated
  /// until it succeeds. Requests that come while another is under way are carried out in order. Waits up to ten
  /// minutes: everything the guest wrote becomes durable.
  struct PushLayer {
    std::string disk;
    Layer layer;
  };
  Result<std::chrono::microseconds> push_layers(std::vector<PushLayer> pushes);
  /// Ends the VMM in order: devices drained, files closed, status written.
  Status shut_down();

 private:
  explicit VmmClient(UniqueFd socket) : socket_(std::move(socket)) {}
  Status set_deadline(std::chrono::seconds deadline);
  Status send_layers(std::vector<Layer> layers);
  Result<std::string> request(const std::string& text, std::vector<UniqueFd> fds = {});
  UniqueFd socket_;
};

}  // namespace haneul::launch
