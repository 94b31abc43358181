// SPDX-License-Identifier: Apache-2.0
#include "devices/virtio/net.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include <cstring>
#include <string>
#include <vector>

#include <fmt/ranges.h>

#include "base/checked.h"
#include "devices/virtio/io_worker.h"
#include "devices/virtio/net_header.h"
#include "devices/virtio/net_receive.h"
#include "devices/virtio/net_transmit.h"

namespace haneul::devices::virtio {
namespace {

constexpr unsigned kRingEntries = 256;
constexpr uint16_t kMinMtu = 68;
constexpr std::array<uint16_t, 2> kQueueSizes{kNetQueueSize, kNetQueueSize};
constexpr size_t kReceiveQueue = 0;
constexpr size_t kTransmitQueue = 1;

class NetDevice final : public Net, private IoWorker::Client {
 public:
  NetDevice(const NetOptions& options, UniqueFd tap, std::unique_ptr<IoWorker> worker)
      : options_(options),
        name_(fmt::format("net {:02x}", fmt::join(options.mac, ":"))),
        tap_(std::move(tap)),
        worker_(std::move(worker)),
        receiver_(worker_->ring(), tap_.get(), statistics_),
        transmitter_(worker_->ring(), tap_.get(), statistics_) {}
  ~NetDevice() override { NetDevice::reset(); }

  DeviceType type() const override { return DeviceType::kNet; }
  std::string_view name() const override { return name_; }
  uint64_t features() const override;
  bool accepts(uint64_t features) const override { return net::consistent(features); }
  std::span<const uint16_t> queue_sizes() const override { return kQueueSizes; }
  uint32_t config_size() const override { return sizeof(net::Config); }
  void read_config(uint32_t offset, std::span<std::byte> data) override;
  void attach(DeviceHost&) override {}

  Status activate(Activation activation) override;
  void reset() override;
  void let_go() override { worker_->ask_to_halt(); }
  Status pause() override;
  Status resume() override;
  const NetStatistics& statistics() const override { return statistics_; }

 private:
  void rang(size_t doorbell) override;
  bool work() override;
  void stop() override;
  bool idle() override { return receiver_.idle() && transmitter_.idle(); }
  Status set_up_tap(uint64_t features) const;

  const NetOptions options_;
  const std::string name_;
  const UniqueFd tap_;
  NetStatistics statistics_;
  const std::unique_ptr<IoWorker> worker_;
  net::Receiver receiver_;
  net::Transmitter transmitter_;

  ThreadStarter* threads_ = nullptr;
  bool active_ = false;
  uint64_t features_ = 0;
  std::array<std::unique_ptr<Queue>, 2> queues_;
};

uint64_t NetDevice::features() const {
  return net::kFeatureChecksum | net::kFeatureGuestChecksum | net::kFeatureMtu | net::kFeatureMac |
         net::kFeatureGuestTso4 | net::kFeatureGuestTso6 | net::kFeatureGuestEcn | net::kFeatureHostTso4 |
         net::kFeatureHostTso6 | net::kFeatureHostEcn | net::kFeatureMergeableBuffers | net::kFeatureStatus;
}

void NetDevice::read_config(uint32_t offset, std::span<std::byte> data) {
  net::Config config;
  config.mac = options_.mac;
  config.status = net::kStatusLinkUp;
  config.max_virtqueue_pairs = 1;
  config.mtu = options_.mtu;
  CHECK(range_within(offset, data.size(), sizeof config));
  std::memcpy(data.data(), reinterpret_cast<const std::byte*>(&config) + offset, data.size());
}

Status NetDevice::set_up_tap(uint64_t features) const {
  if (!options_.is_tap) return {};
  int header_bytes = sizeof(net::Header);
  if (::ioctl(tap_.get(), TUNSETVNETHDRSZ, &header_bytes) != 0)
    return errno_error("{}: TUNSETVNETHDRSZ", name_);
  if (::ioctl(tap_.get(), TUNSETOFFLOAD, net::tap_offloads(features)) != 0) {
    return errno_error("{}: TUNSETOFFLOAD", name_);
  }
  return {};
}

Status NetDevice::activate(Activation activation) {
  CHECK(!worker_->running() && !active_);
  TRY(set_up_tap(activation.features));
  threads_ = &activation.threads;
  features_ = activation.features;
  for (size_t i = 0; i < queues_.size(); ++i) queues_[i] = std::move(activation.queues[i]);
  active_ = true;
  Status running = resume();
  active_ = running.ok();
  return running;
}

void NetDevice::reset() {
  worker_->halt();
  active_ = false;
  receiver_.forget_frames();
  for (auto& queue : queues_) queue.reset();
}

Status NetDevice::pause() {
  worker_->halt();
  return {};
}

Status NetDevice::resume() {
  if (!active_ || worker_->running()) return {};
  receiver_.begin(queues_[kReceiveQueue].get(), features_);
  transmitter_.begin(queues_[kTransmitQueue].get(), features_);
  std::vector<const EventFd*> doorbells;
  for (auto& queue : queues_) doorbells.push_back(queue != nullptr ? &queue->doorbell() : nullptr);
  return worker_->start(*threads_, "net", *this, std::move(doorbells));
}

void NetDevice::rang(size_t doorbell) {
  if (doorbell == kReceiveQueue) {
    receiver_.rang();
  } else {
    transmitter_.rang();
  }
}

bool NetDevice::work() {
  receiver_.work();
  return transmitter_.work();
}

void NetDevice::stop() {
  receiver_.stop();
  transmitter_.stop();
}

}  // namespace

Result<std::unique_ptr<Net>> make_net(NetOptions options, UniqueFd tap) {
  if ((options.mac[0] & 1) != 0) {
    return make_error(ErrorCode::kInvalidArgument,
                      "a network device's MAC address cannot be a multicast one");
  }
  if (options.mtu < kMinMtu) {
    return make_error(ErrorCode::kInvalidArgument, "an MTU of {} is under the least, {}", options.mtu,
                      kMinMtu);
  }
  // With O_NONBLOCK, io_uring gives up on a tap that is busy (before Linux 6.4, on any tap) instead of
  // waiting for it.
  int flags = ::fcntl(tap.get(), F_GETFL);
  if (flags < 0 || ::fcntl(tap.get(), F_SETFL, flags & ~O_NONBLOCK) != 0) {
    return errno_error("the network device's tap");
  }
  auto worker = TRY(IoWorker::create(kRingEntries).context("a network device"));
  return std::unique_ptr<Net>(std::make_unique<NetDevice>(options, std::move(tap), std::move(worker)));
}

}  // namespace haneul::devices::virtio
