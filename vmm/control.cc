// SPDX-License-Identifier: Apache-2.0
#include "vmm/control.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "base/log.h"

namespace haneul::vmm {
namespace {

using nlohmann::json;

constexpr size_t kMaxClients = 16;

constexpr size_t kMaxLayers = 4096;

std::optional<std::array<uint8_t, 64>> key_of(const json& value) {
  std::array<uint8_t, 64> key{};
  if (!value.is_array() || value.size() != key.size()) return std::nullopt;
  for (size_t i = 0; i < key.size(); ++i) {
    if (!value[i].is_number_unsigned() || value[i].get<uint64_t>() > 255) return std::nullopt;
    key[i] = value[i].get<uint8_t>();
  }
  return key;
}

json failure(const Error& error) {
  return {{"ok", false}, {"code", name(error.code())}, {"error", error.message()}};
}

json reply_to(const Status& status) {
  return status.ok() ? json{{"ok", true}} : failure(status.error());
}

std::string text_of(const json& request, const char* key) {
  auto found = request.find(key);
  return found != request.end() && found->is_string() ? found->get<std::string>() : "";
}

bool flag_of(const json& request, const char* key) {
  auto found = request.find(key);
  return found != request.end() && found->is_boolean() && found->get<bool>();
}

// A volume's layers, each with its key or null: {"keys":[…]} and as many descriptors.
json take_layers(const json& request, Packet& packet, std::vector<launch::Layer>& layers) {
  auto keys = request.find("keys");
  if (keys == request.end() || !keys->is_array() || keys->size() != packet.fds.size() ||
      layers.size() + packet.fds.size() > kMaxLayers) {
    return failure({ErrorCode::kInvalidArgument, "layers needs a key or null for each of its descriptors"});
  }
  for (size_t i = 0; i < packet.fds.size(); ++i) {
    const json& key = (*keys)[i];
    launch::Layer layer{std::move(packet.fds[i]), std::nullopt};
    if (!key.is_null()) {
      auto bytes = key_of(key);
      if (!bytes) return failure({ErrorCode::kInvalidArgument, "a layer's key is 64 bytes"});
      layer.key = *bytes;
    }
    layers.push_back(std::move(layer));
  }
  return {{"ok", true}};
}

json attach(const json& request, Packet& packet, std::vector<launch::Layer> layers, ControlHandler& handler) {
  launch::Disk disk;
  disk.id = text_of(request, "id");
  disk.read_only = flag_of(request, "read_only");
  auto format = launch::parse_disk_format(text_of(request, "format"));
  bool volume = format == launch::DiskFormat::kVolume;
  size_t files = (volume ? 0u : 1u) + (flag_of(request, "base") ? 1u : 0u);
  if (disk.id.empty() || !format || packet.fds.size() != files || volume == layers.empty()) {
    return failure({ErrorCode::kInvalidArgument,
                    "attach-disk needs an id, a format (raw or volume) and the descriptors of its files"});
  }
  disk.format = *format;
  if (!volume) disk.file = std::move(packet.fds.front());
  if (flag_of(request, "base")) disk.base = std::move(packet.fds.back());
  disk.layers = std::move(layers);
  return reply_to(handler.attach_disk(std::move(disk)));
}

json answer(const json& request, Packet& packet, std::vector<launch::Layer>& layers,
            ControlHandler& handler) {
  std::string op = text_of(request, "op");
  if (op == "layers") return take_layers(request, packet, layers);
  if (op == "state") return {{"ok", true}, {"state", handler.state()}};
  if (op == "statistics") return {{"ok", true}, {"statistics", handler.statistics()}};
  if (op == "power-button") return reply_to(handler.press_power_button());
  if (op == "reset") return reply_to(handler.reset());
  if (op == "pause") return reply_to(handler.pause());
  if (op == "resume") return reply_to(handler.resume());
  if (op == "attach-disk") return attach(request, packet, std::exchange(layers, {}), handler);
  if (op == "detach-disk")
    return reply_to(handler.detach_disk(text_of(request, "id"), flag_of(request, "force")));
  if (op == "resize-disk") {
    auto size = request.find("size_bytes");
    if (size == request.end() || !size->is_number_unsigned()) {
      return failure({ErrorCode::kInvalidArgument, "resize-disk needs size_bytes"});
    }
    return reply_to(handler.resize_disk(text_of(request, "id"), size->get<uint64_t>()));
  }
  if (op == "disk-ids") return {{"ok", true}, {"ids", handler.disk_ids()}};
  if (op == "shut-down") return reply_to(handler.shut_down());
  return failure(make_error(ErrorCode::kUnsupported, "there is no operation '{}'", op));
}

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::create(EventLoop& loop, UniqueFd listening,
                                                             ControlHandler& handler) {
  std::unique_ptr<ControlServer> server(new ControlServer(loop, std::move(listening), handler));
  ControlServer* self = server.get();
  TRY(loop.watch(self->listening_.get(), EPOLLIN, [self](uint32_t) { self->accept_client(); }));
  return server;
}

ControlServer::ControlServer(EventLoop& loop, UniqueFd listening, ControlHandler& handler)
    : loop_(loop), listening_(std::move(listening)), handler_(handler) {}

ControlServer::~ControlServer() {
  loop_.unwatch(listening_.get());
  for (const auto& [fd, client] : clients_) loop_.unwatch(fd);
}

void ControlServer::accept_client() {
  auto client = accept_unix(listening_.get());
  if (!client.ok() || clients_.size() == kMaxClients) return;
  int fd = client->get();
  // One that sends requests and never reads the answers is dropped, not waited for.
  if (::fcntl(fd, F_SETFL, O_NONBLOCK) != 0) return;
  if (!loop_.watch(fd, EPOLLIN, [this, fd](uint32_t) { serve(fd); }).ok()) return;
  clients_.emplace(fd, Client{std::move(*client), next_number_++, {}});
}

void ControlServer::serve(int fd) {
  auto packet = receive_packet(fd);
  if (!packet.ok()) {
    loop_.unwatch(fd);
    clients_.erase(fd);
    return;
  }
  Client& client = clients_.at(fd);
  json request = json::parse(packet->text, nullptr, false);
  json reply;
  if (!request.is_object()) {
    reply = failure({ErrorCode::kInvalidArgument, "the request is not a JSON object"});
  } else if (text_of(request, "op") == "push-layers") {
    return begin_push(fd, client, request);
  } else {
    reply = answer(request, *packet, client.layers, handler_);
  }
  send(fd, reply.dump(-1, ' ', false, json::error_handler_t::replace));
}

void ControlServer::begin_push(int fd, Client& client, const json& request) {
  std::vector<launch::Layer> layers = std::exchange(client.layers, {});
  std::vector<launch::VmmClient::PushLayer> pushes;
  auto disks = request.find("disks");
  bool sound =
      disks != request.end() && disks->is_array() && disks->size() == layers.size() && !layers.empty();
  for (size_t i = 0; sound && i < layers.size(); ++i) {
    sound = (*disks)[i].is_string();
    if (sound) pushes.push_back({(*disks)[i].get<std::string>(), std::move(layers[i])});
  }
  auto reply = [this, fd, number = client.number](Result<std::chrono::microseconds> stalled) {
    auto found = clients_.find(fd);
    if (found == clients_.end() || found->second.number != number) return;
    json text =
        stalled.ok() ? json{{"ok", true}, {"stalled_us", stalled->count()}} : failure(stalled.error());
    send(fd, text.dump(-1, ' ', false, json::error_handler_t::replace));
  };
  if (!sound) {
    return reply(
        Error(ErrorCode::kInvalidArgument, "push-layers needs the ids of disks, and a layer for each"));
  }
  handler_.push_layers(std::move(pushes), std::move(reply));
}

void ControlServer::send(int fd, const std::string& text) {
  if (send_packet(fd, text).ok()) return;
  loop_.unwatch(fd);
  clients_.erase(fd);
}

}  // namespace haneul::vmm
