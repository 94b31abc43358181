// SPDX-License-Identifier: Apache-2.0
#include <sys/socket.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/socket.h"
#include "vmm/launch/launch.h"
#include "vmm/launch/reply.h"

namespace haneul::launch {
namespace {

ErrorCode code_from(std::string_view text) {
  for (int i = 0; i <= static_cast<int>(ErrorCode::kInternal); ++i) {
    if (haneul::name(static_cast<ErrorCode>(i)) == text) return static_cast<ErrorCode>(i);
  }
  return ErrorCode::kInternal;
}

}  // namespace

Result<VmmClient> VmmClient::connect(const std::filesystem::path& control_socket) {
  UniqueFd socket = TRY(connect_unix(control_socket, SOCK_SEQPACKET));
  VmmClient client(std::move(socket));
  TRY(client.set_deadline(std::chrono::seconds(10)));
  return client;
}

Result<std::string> VmmClient::request(const std::string& text, std::vector<UniqueFd> fds) {
  std::vector<int> numbers;
  for (const UniqueFd& fd : fds) numbers.push_back(fd.get());
  TRY(send_packet(socket_.get(), text, numbers).context("VMM"));
  Packet packet = TRY(receive_packet(socket_.get()).context("VMM"));
  auto reply = nlohmann::json::parse(packet.text, nullptr, false);
  if (!reply.is_object())
    return make_error(ErrorCode::kInternal, "the VMM answered something that is not JSON");
  auto verdict = reply.find("ok");
  if (verdict == reply.end() || !verdict->is_boolean())
    return make_error(ErrorCode::kInternal, "the VMM answered neither yes nor no");
  if (!verdict->get<bool>()) return Error(code_from(text_of(reply, "code")), text_of(reply, "error"));
  return packet.text;
}

namespace {

std::string op(std::string_view name) {
  return nlohmann::json{{"op", name}}.dump();
}

Status done(Result<std::string> reply) {
  TRY(std::move(reply));
  return {};
}

}  // namespace

Result<std::string> VmmClient::state() {
  return text_of(nlohmann::json::parse(TRY(request(op("state")))), "state");
}

Result<std::string> VmmClient::statistics() {
  return text_of(nlohmann::json::parse(TRY(request(op("statistics")))), "statistics");
}

Status VmmClient::press_power_button() {
  return done(request(op("power-button")));
}
Status VmmClient::reset() {
  return done(request(op("reset")));
}
Status VmmClient::pause() {
  return done(request(op("pause")));
}
Status VmmClient::resume() {
  return done(request(op("resume")));
}
Status VmmClient::shut_down() {
  return done(request(op("shut-down")));
}

Status VmmClient::set_deadline(std::chrono::seconds deadline) {
  timeval wait{deadline.count(), 0};
  if (::setsockopt(socket_.get(), SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) != 0 ||
      ::setsockopt(socket_.get(), SOL_SOCKET, SO_SNDTIMEO, &wait, sizeof wait) != 0) {
    return errno_error("setsockopt");
  }
  return {};
}

// Ahead of the request that uses them, because a packet carries few descriptors.
Status VmmClient::send_layers(std::vector<Layer> layers) {
  for (size_t first = 0; first < layers.size(); first += kMaxPacketFds) {
    nlohmann::json keys = nlohmann::json::array();
    std::vector<UniqueFd> fds;
    for (size_t i = first; i < std::min(layers.size(), first + kMaxPacketFds); ++i) {
      keys.push_back(layers[i].key ? nlohmann::json(*layers[i].key) : nlohmann::json());
      fds.push_back(std::move(layers[i].file));
    }
    TRY(done(request(nlohmann::json{{"op", "layers"}, {"keys", std::move(keys)}}.dump(), std::move(fds))));
  }
  return {};
}

Status VmmClient::attach_disk(Disk disk) {
  nlohmann::json text = {{"op", "attach-disk"},          {"id", disk.id},
                         {"format", name(disk.format)},  {"read_only", disk.read_only},
                         {"layers", disk.layers.size()}, {"base", static_cast<bool>(disk.base)}};
  TRY(send_layers(std::move(disk.layers)));
  std::vector<UniqueFd> fds;
  if (disk.file) fds.push_back(std::move(disk.file));
  if (disk.base) fds.push_back(std::move(disk.base));
  return done(request(text.dump(), std::move(fds)));
}

Result<std::chrono::microseconds> VmmClient::push_layers(std::vector<PushLayer> pushes) {
  nlohmann::json disks = nlohmann::json::array();
  std::vector<Layer> layers;
  for (PushLayer& push : pushes) {
    disks.push_back(push.disk);
    layers.push_back(std::move(push.layer));
  }
  TRY(send_layers(std::move(layers)));
  TRY(set_deadline(std::chrono::minutes(10)));
  auto reply = request(nlohmann::json{{"op", "push-layers"}, {"disks", std::move(disks)}}.dump());
  TRY(set_deadline(std::chrono::seconds(10)));
  auto parsed = nlohmann::json::parse(TRY(std::move(reply)));
  auto stalled = parsed.find("stalled_us");
  if (stalled == parsed.end() || !stalled->is_number_unsigned())
    return make_error(ErrorCode::kInternal, "the VMM did not say how long it held changes back");
  return std::chrono::microseconds(stalled->get<uint64_t>());
}

Status VmmClient::detach_disk(std::string_view id, bool force) {
  return done(request(nlohmann::json{{"op", "detach-disk"}, {"id", id}, {"force", force}}.dump()));
}

Status VmmClient::resize_disk(std::string_view id, uint64_t size_bytes) {
  return done(request(nlohmann::json{{"op", "resize-disk"}, {"id", id}, {"size_bytes", size_bytes}}.dump()));
}

Result<std::vector<std::string>> VmmClient::disk_ids() {
  auto reply = nlohmann::json::parse(TRY(request(op("disk-ids"))));
  std::vector<std::string> ids;
  for (const auto& id : reply["ids"]) {
    if (!id.is_string()) return make_error(ErrorCode::kInternal, "the VMM named a disk that is not text");
    ids.push_back(id.get<std::string>());
  }
  return ids;
}

}  // namespace haneul::launch
