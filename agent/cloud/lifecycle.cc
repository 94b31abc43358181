// SPDX-License-Identifier: Apache-2.0
#include "agent/cloud/lifecycle.h"

#include <array>

namespace haneul::agent {
namespace {

struct Row {
  State state;
  std::string_view name;
  int64_t code;
};
constexpr std::array<Row, 6> kStates = {{{State::kPending, "pending", 0},
                                         {State::kRunning, "running", 16},
                                         {State::kShuttingDown, "shutting-down", 32},
                                         {State::kTerminated, "terminated", 48},
                                         {State::kStopping, "stopping", 64},
                                         {State::kStopped, "stopped", 80}}};

const Row& row(State state) {
  return kStates[static_cast<size_t>(state)];
}

std::optional<State> from_pending(Event event) {
  switch (event) {
    case Event::kLaunched:
      return State::kRunning;
    case Event::kLaunchFailed:
      return State::kShuttingDown;
    case Event::kRestartFailed:
      return State::kStopping;
    case Event::kStart:
      return State::kPending;
    case Event::kTerminate:
      return State::kShuttingDown;
    default:
      return std::nullopt;
  }
}

std::optional<State> from_running(Event event) {
  switch (event) {
    case Event::kStart:
      return State::kRunning;
    case Event::kStop:
    case Event::kGuestStopped:
    case Event::kRestartFailed:
    case Event::kCrashed:
      return State::kStopping;
    case Event::kTerminate:
    case Event::kGuestTerminated:
      return State::kShuttingDown;
    default:
      return std::nullopt;
  }
}

std::optional<State> from_stopping(Event event) {
  switch (event) {
    case Event::kStop:
      return State::kStopping;
    case Event::kTerminate:
      return State::kShuttingDown;
    case Event::kReleased:
      return State::kStopped;
    default:
      return std::nullopt;
  }
}

}  // namespace

std::optional<State> next_state(State state, Event event) {
  switch (state) {
    case State::kPending:
      return from_pending(event);
    case State::kRunning:
      return from_running(event);
    case State::kStopping:
      return from_stopping(event);
    case State::kStopped:
      if (event == Event::kStart) return State::kPending;
      if (event == Event::kStop) return State::kStopped;
      if (event == Event::kTerminate) return State::kShuttingDown;
      return std::nullopt;
    case State::kShuttingDown:
      if (event == Event::kTerminate) return State::kShuttingDown;
      if (event == Event::kReleased) return State::kTerminated;
      return std::nullopt;
    case State::kTerminated:
      if (event == Event::kTerminate) return State::kTerminated;
      return std::nullopt;
  }
  return std::nullopt;
}

std::string_view name(State state) {
  return row(state).name;
}

int64_t code(State state) {
  return row(state).code;
}

std::optional<State> state_from(std::string_view name) {
  for (const Row& candidate : kStates) {
    if (candidate.name == name) return candidate.state;
  }
  return std::nullopt;
}

InstanceState describe(State state) {
  return {.code = code(state), .name = std::string(name(state))};
}

}  // namespace haneul::agent
