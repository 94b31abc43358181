// SPDX-License-Identifier: Apache-2.0
#include "vmm/options.h"

#include <fcntl.h>
#include <getopt.h>

#include <charconv>
#include <string>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/socket.h"

namespace haneul::vmm {
namespace {

enum : int {
  kMemory = 256,
  kVcpus,
  kKernel,
  kInitrd,
  kCommandLine,
  kDisk,
  kNet,
  kUuid,
  kProduct,
  kHugePages,
  kNoEntropy,
  kKvmFd,
  kConsole,
  kConsoleRing,
  kConsoleListener,
  kControl,
  kStatus,
  kReadyFd,
  kJail,
  kNoFilter,
  kUid,
  kGid,
  kPaused,
  kResetEnds,
  kProbe,
  kHelp,
  kVersion,
};

constexpr option kOptions[] = {
    {"memory", required_argument, nullptr, kMemory},
    {"vcpus", required_argument, nullptr, kVcpus},
    {"kernel", required_argument, nullptr, kKernel},
    {"initrd", required_argument, nullptr, kInitrd},
    {"cmdline", required_argument, nullptr, kCommandLine},
    {"disk", required_argument, nullptr, kDisk},
    {"net", required_argument, nullptr, kNet},
    {"uuid", required_argument, nullptr, kUuid},
    {"product", required_argument, nullptr, kProduct},
    {"huge-pages", no_argument, nullptr, kHugePages},
    {"no-entropy", no_argument, nullptr, kNoEntropy},
    {"kvm-fd", required_argument, nullptr, kKvmFd},
    {"console", no_argument, nullptr, kConsole},
    {"console-ring", required_argument, nullptr, kConsoleRing},
    {"console-listener", required_argument, nullptr, kConsoleListener},
    {"control", required_argument, nullptr, kControl},
    {"status", required_argument, nullptr, kStatus},
    {"ready-fd", required_argument, nullptr, kReadyFd},
    {"jail", no_argument, nullptr, kJail},
    {"no-filter", no_argument, nullptr, kNoFilter},
    {"uid", required_argument, nullptr, kUid},
    {"gid", required_argument, nullptr, kGid},
    {"paused", no_argument, nullptr, kPaused},
    {"reset-ends", no_argument, nullptr, kResetEnds},
    {"probe", no_argument, nullptr, kProbe},
    {"help", no_argument, nullptr, kHelp},
    {"version", no_argument, nullptr, kVersion},
    {nullptr, 0, nullptr, 0},
};

constexpr char kHelpText[] =
    R"(Usage: haneul-vmm --kernel FILE [OPTION...]
       haneul-vmm --probe
Run one virtual machine under KVM, until it powers off.

A FILE is a path, or fd:N for a descriptor that the program inherited.

  --memory SIZE          128M by default; K, M, G, T; a multiple of 2 MiB
  --vcpus N              1 to 32
  --kernel FILE          an ELF vmlinux or a bzImage
  --initrd FILE          may be repeated: loaded one after the other
  --cmdline TEXT         the kernel's command line
  --disk KEY=VALUE,...   format=raw|volume (raw); file=FILE; id=TEXT; ro.
                         A volume has layer=FILE,... (the lowest first) instead
                         of a file; base=FILE is a raw image beneath them. The
                         first disk is /dev/vda
  --net KEY=VALUE,...    tap=fd:N; mac=AA:BB:CC:DD:EE:FF; mtu=N
  --uuid UUID            of the system, for SMBIOS
  --product TEXT         the system's product name, for SMBIOS
  --huge-pages           back the guest's memory with huge pages
  --no-entropy           no virtio-rng device
  --console              write the serial console to standard output
  --console-ring FILE    keep the console's last 64 KiB in this file
  --console-listener F   unix stream socket for the console: a path or fd:N
  --control FILE         unix seqpacket socket for control: a path or fd:N
  --status FILE          where to write how the machine ended
  --paused               start with the vCPUs standing still
  --reset-ends           end at a reset instead of starting over
  --jail                 namespaces, empty root, no capabilities, then the filter
  --no-filter            with --jail: no system-call filter, for debugging
  --uid N, --gid N       with --jail, as root: become this user and group
  --kvm-fd N, --ready-fd N   descriptors from a launcher
  --probe                tell whether this KVM can run Linux guests
  --help, --version

Exit status: 0 the guest powered off or was stopped; 1 something failed;
2 usage; 3 no usable KVM; 4 the guest ended in a fault.
)";

Error bad(std::string_view option, std::string_view value, std::string_view wanted) {
  return make_error(ErrorCode::kInvalidArgument, "--{}: '{}' is not {}", option, value, wanted);
}

template <typename T>
Result<T> number(std::string_view option, std::string_view text) {
  T value{};
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return bad(option, text, "a number");
  return value;
}

Result<uint64_t> parse_size(std::string_view option, std::string_view text) {
  unsigned shift = 0;
  std::string_view digits = text;
  constexpr std::string_view kUnits = "KMGT";
  if (size_t unit = text.empty() ? std::string_view::npos : kUnits.find(text.back());
      unit != std::string_view::npos) {
    shift = 10 * (static_cast<unsigned>(unit) + 1);
    digits.remove_suffix(1);
  }
  uint64_t value = TRY(number<uint64_t>(option, digits));
  if (value > (~0ull >> shift)) return bad(option, text, "a size that fits in 64 bits");
  return value << shift;
}

// "fd:N" takes over an inherited descriptor; anything else is a path.
Result<UniqueFd> file_or_fd(std::string_view option, std::string_view text, int flags) {
  if (text.starts_with("fd:")) {
    int fd = TRY(number<int>(option, text.substr(3)));
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) return bad(option, text, "an open descriptor");
    return UniqueFd(fd);
  }
  return open_file(std::string(text), flags);
}

Result<UniqueFd> listener(std::string_view option, std::string_view text, int type) {
  if (text.starts_with("fd:")) return file_or_fd(option, text, 0);
  return listen_unix(std::string(text), type);
}

using Pairs = std::vector<std::pair<std::string_view, std::string_view>>;

Pairs split_pairs(std::string_view text) {
  Pairs pairs;
  while (!text.empty()) {
    std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    size_t equals = item.find('=');
    pairs.emplace_back(item.substr(0, equals),
                       equals == std::string_view::npos ? "" : item.substr(equals + 1));
  }
  return pairs;
}

constexpr const char* kDiskForm =
    "file=FILE or layer=FILE..., with format=raw|volume, base=FILE, keys=fd:N, id=TEXT, ro";

// As launch() writes them: for each layer a byte that says whether it has a key, and 64 bytes.
Status read_keys(std::string_view text, std::vector<launch::Layer>& layers) {
  if (!text.starts_with("fd:")) return bad("disk", text, "a descriptor of keys, fd:N");
  UniqueFd file = TRY(file_or_fd("disk", text, 0));
  for (size_t i = 0; i < layers.size(); ++i) {
    std::array<uint8_t, 65> record{};
    TRY(read_exact_at(file.get(), i * record.size(), std::as_writable_bytes(std::span(record)))
            .context("keys"));
    if (record[0] == 0) continue;
    std::copy(record.begin() + 1, record.end(), layers[i].key.emplace().begin());
  }
  return {};
}

// The lowest first; only the last is written.
Status open_layers(const std::vector<std::string_view>& files, std::string_view keys, launch::Disk& disk) {
  for (size_t i = 0; i < files.size(); ++i) {
    bool top = i + 1 == files.size();
    int access = top && !disk.read_only ? O_RDWR : O_RDONLY;
    disk.layers.push_back({TRY(file_or_fd("disk", files[i], access).context("--disk")), std::nullopt});
  }
  if (!keys.empty()) TRY(read_keys(keys, disk.layers));
  return {};
}

Result<launch::Disk> parse_disk(std::string_view text) {
  launch::Disk disk;
  std::string_view file;
  std::string_view base;
  std::string_view keys;
  std::vector<std::string_view> layers;
  for (auto [key, value] : split_pairs(text)) {
    if (key == "file") {
      file = value;
    } else if (key == "layer") {
      layers.push_back(value);
    } else if (key == "keys") {
      keys = value;
    } else if (key == "base") {
      base = value;
    } else if (key == "id") {
      disk.id = value;
    } else if (key == "ro" && value.empty()) {
      disk.read_only = true;
    } else if (auto format = launch::parse_disk_format(value); key == "format" && format) {
      disk.format = *format;
    } else {
      return bad("disk", text, kDiskForm);
    }
  }
  bool volume = disk.format == launch::DiskFormat::kVolume;
  if (volume && layers.empty()) return bad("disk", text, "complete: layer=FILE is missing");
  if (!volume && file.empty()) return bad("disk", text, "complete: file=FILE is missing");
  if (volume != file.empty() || volume == layers.empty()) return bad("disk", text, kDiskForm);
  if (volume) {
    TRY(open_layers(layers, keys, disk));
  } else {
    disk.file = TRY(file_or_fd("disk", file, disk.read_only ? O_RDONLY : O_RDWR).context("--disk"));
  }
  if (!base.empty()) disk.base = TRY(file_or_fd("disk", base, O_RDONLY).context("--disk"));
  return disk;
}

Result<std::array<uint8_t, 6>> parse_mac(std::string_view text) {
  std::array<uint8_t, 6> mac{};
  if (text.size() != 17) return bad("net", text, "a MAC address");
  for (size_t i = 0; i < 6; ++i) {
    const char* start = text.data() + 3 * i;
    auto [end, error] = std::from_chars(start, start + 2, mac[i], 16);
    if (error != std::errc() || end != start + 2 || (i < 5 && *end != ':'))
      return bad("net", text, "a MAC address");
  }
  return mac;
}

Result<launch::Nic> parse_net(std::string_view text) {
  launch::Nic nic;
  for (auto [key, value] : split_pairs(text)) {
    if (key == "tap" && value.starts_with("fd:")) {
      nic.tap = TRY(file_or_fd("net", value, 0));
    } else if (key == "mac") {
      nic.mac = TRY(parse_mac(value));
    } else if (key == "mtu") {
      nic.mtu = TRY(number<uint16_t>("net", value));
    } else {
      return bad("net", text, "tap=fd:N[,mac=AA:BB:CC:DD:EE:FF][,mtu=N]");
    }
  }
  if (!nic.tap) return bad("net", text, "complete: tap=fd:N is missing");
  return nic;
}

Status take_machine_option(int chosen, std::string_view value, MachineConfig& machine) {
  switch (chosen) {
    case kMemory:
      machine.memory_bytes = TRY(parse_size("memory", value));
      break;
    case kVcpus:
      machine.vcpus = TRY(number<unsigned>("vcpus", value));
      break;
    case kKernel:
      machine.kernel = TRY(file_or_fd("kernel", value, O_RDONLY).context("--kernel"));
      break;
    case kInitrd:
      machine.initrds.push_back(TRY(file_or_fd("initrd", value, O_RDONLY).context("--initrd")));
      break;
    case kCommandLine:
      machine.command_line = value;
      break;
    case kDisk:
      machine.disks.push_back(TRY(parse_disk(value)));
      break;
    case kNet:
      machine.nics.push_back(TRY(parse_net(value)));
      break;
    case kUuid:
      machine.uuid = value;
      break;
    case kProduct:
      machine.product = value;
      break;
    case kHugePages:
      machine.huge_pages = true;
      break;
    case kNoEntropy:
      machine.entropy = false;
      break;
    default:
      CHECK(false);
  }
  return {};
}

Status take_option(int chosen, std::string_view value, Options& options) {
  RunnerConfig& runner = options.runner;
  switch (chosen) {
    case kKvmFd:
      options.kvm = TRY(file_or_fd("kvm-fd", fmt::format("fd:{}", value), 0));
      break;
    case kConsole:
      options.console_to_stdout = true;
      break;
    case kConsoleRing:
      runner.console_ring = TRY(file_or_fd("console-ring", value, O_RDWR | O_CREAT));
      break;
    case kConsoleListener:
      runner.console_listener = TRY(listener("console-listener", value, SOCK_STREAM));
      break;
    case kControl:
      runner.control_listener = TRY(listener("control", value, SOCK_SEQPACKET));
      break;
    case kStatus:
      options.status = TRY(file_or_fd("status", value, O_RDWR | O_CREAT));
      break;
    case kReadyFd:
      options.ready = TRY(file_or_fd("ready-fd", fmt::format("fd:{}", value), 0));
      break;
    case kJail:
      options.jail = true;
      break;
    case kNoFilter:
      options.filter = false;
      break;
    case kUid:
      options.uid = TRY(number<uid_t>("uid", value));
      break;
    case kGid:
      options.gid = TRY(number<gid_t>("gid", value));
      break;
    case kPaused:
      runner.start_paused = true;
      break;
    case kResetEnds:
      runner.reset_ends = true;
      break;
    case kProbe:
      options.action = Options::Action::kProbe;
      break;
    case kHelp:
      options.action = Options::Action::kHelp;
      break;
    case kVersion:
      options.action = Options::Action::kVersion;
      break;
    default:
      return take_machine_option(chosen, value, runner.machine);
  }
  return {};
}

}  // namespace

const char* help_text() {
  return kHelpText;
}

Result<Options> parse_options(int argc, char** argv) {
  Options options;
  ::opterr = 0;
  ::optind = 1;
  for (;;) {
    int chosen = ::getopt_long(argc, argv, "+:", kOptions, nullptr);
    if (chosen == -1) break;
    if (chosen == ':') return make_error(ErrorCode::kInvalidArgument, "{} needs a value", argv[optind - 1]);
    if (chosen == '?')
      return make_error(ErrorCode::kInvalidArgument, "there is no option {}", argv[optind - 1]);
    TRY(take_option(chosen, ::optarg != nullptr ? ::optarg : "", options));
  }
  if (optind < argc) return make_error(ErrorCode::kInvalidArgument, "'{}' is not an option", argv[optind]);
  if (options.action == Options::Action::kRun && !options.runner.machine.kernel) {
    return Error(ErrorCode::kInvalidArgument, "--kernel is missing");
  }
  return options;
}

}  // namespace haneul::vmm
