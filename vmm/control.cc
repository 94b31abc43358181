// SPDX-License-Identifier: Apache-2.0
#include "vmm/control.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <nlohmann/json.hpp>

#include "base/log.h"

namespace haneul::vmm {
namespace {

using nlohmann::json;

constexpr size_t kMaxClients = 16;

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

json attach(const json& request, Packet& packet, ControlHandler& handler) {
  launch::Disk disk;
  disk.id = text_of(request, "id");
  disk.read_only = flag_of(request, "read_only");
  std::string format = text_of(request, "format");
  disk.format = format == "overlay" ? launch::DiskFormat::kOverlay : launch::DiskFormat::kRaw;
  if (disk.id.empty() || (format != "raw" && format != "overlay") || packet.fds.empty()) {
    return failure(
        {ErrorCode::kInvalidArgument, "attach-disk needs an id, a format (raw or overlay) and a descriptor"});
  }
  disk.file = std::move(packet.fds[0]);
  if (packet.fds.size() > 1) disk.base = std::move(packet.fds[1]);
  return reply_to(handler.attach_disk(std::move(disk)));
}

json answer(Packet& packet, ControlHandler& handler) {
  json request = json::parse(packet.text, nullptr, false);
  if (!request.is_object()) return failure({ErrorCode::kInvalidArgument, "the request is not a JSON object"});
  std::string op = text_of(request, "op");
  if (op == "state") return {{"ok", true}, {"state", handler.state()}};
  if (op == "statistics") return {{"ok", true}, {"statistics", handler.statistics()}};
  if (op == "power-button") return reply_to(handler.press_power_button());
  if (op == "reset") return reply_to(handler.reset());
  if (op == "pause") return reply_to(handler.pause());
  if (op == "resume") return reply_to(handler.resume());
  if (op == "attach-disk") return attach(request, packet, handler);
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
  clients_.emplace(fd, std::move(*client));
}

void ControlServer::serve(int fd) {
  auto packet = receive_packet(fd);
  Status sent;
  if (packet.ok())
    sent = send_packet(fd, answer(*packet, handler_).dump(-1, ' ', false, json::error_handler_t::replace));
  if (!packet.ok() || !sent.ok()) {
    loop_.unwatch(fd);
    clients_.erase(fd);
  }
}

}  // namespace haneul::vmm
