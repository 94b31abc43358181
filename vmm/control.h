// SPDX-License-Identifier: Apache-2.0
// ControlServer: the VMM's control socket. Each packet is a JSON object {"op":…} with the descriptors it
// needs, and gets one packet back: {"ok":true,…} or {"ok":false,"code":…,"error":…}. The requests are those
// of launch::VmmClient.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "base/event_loop.h"
#include "base/result.h"
#include "base/socket.h"
#include "vmm/launch/launch.h"

namespace haneul::vmm {

/// What the requests do. On the event loop's thread.
class ControlHandler {
 public:
  virtual ~ControlHandler() = default;
  virtual std::string state() = 0;
  virtual std::string statistics() = 0;
  virtual Status press_power_button() = 0;
  virtual Status reset() = 0;
  virtual Status pause() = 0;
  virtual Status resume() = 0;
  virtual Status attach_disk(launch::Disk disk) = 0;
  virtual Status detach_disk(const std::string& id, bool force) = 0;
  virtual Status resize_disk(const std::string& id, uint64_t size_bytes) = 0;
  virtual std::vector<std::string> disk_ids() = 0;
  /// Answers later, on the loop's thread: how long changes were held back.
  using PushReply = std::function<void(Result<std::chrono::microseconds>)>;
  virtual void push_layers(std::vector<launch::VmmClient::PushLayer> pushes, PushReply reply) = 0;
  virtual Status shut_down() = 0;
};

/// Belongs to the event loop's thread.
class ControlServer {
 public:
  /// `listening`: a SOCK_SEQPACKET socket that listens.
  static Result<std::unique_ptr<ControlServer>> create(EventLoop& loop, UniqueFd listening,
                                                       ControlHandler& handler);
  ~ControlServer();

 private:
  struct Client {
    UniqueFd socket;
    uint64_t number = 0;  ///< descriptors are used again, numbers are not
    /// Sent ahead of the request that needs them.
    std::vector<launch::Layer> layers;
  };
  ControlServer(EventLoop& loop, UniqueFd listening, ControlHandler& handler);
  void accept_client();
  void serve(int fd);
  void begin_push(int fd, Client& client, const nlohmann::json& request);
  void send(int fd, const std::string& text);

  EventLoop& loop_;
  UniqueFd listening_;
  ControlHandler& handler_;
  std::map<int, Client> clients_;
  uint64_t next_number_ = 1;
};

}  // namespace haneul::vmm
