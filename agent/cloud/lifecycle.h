// SPDX-License-Identifier: Apache-2.0
// The instance state machine of EC2: six states with their codes, and what each event makes of them. Pure.
#pragma once

#include <optional>
#include <string_view>

#include "agent/ops/shapes.h"

namespace haneul::agent {

enum class State { kPending, kRunning, kShuttingDown, kTerminated, kStopping, kStopped };

enum class Event {
  kLaunched,         ///< the VMM has entered the guest
  kLaunchFailed,     ///< of an instance that never ran
  kRestartFailed,    ///< of one that ran before
  kStart,            ///< StartInstances
  kStop,             ///< StopInstances
  kTerminate,        ///< TerminateInstances
  kGuestStopped,     ///< the guest powered itself off, behaviour "stop"
  kGuestTerminated,  ///< the guest powered itself off, behaviour "terminate"
  kCrashed,          ///< the VMM ended otherwise
  kReleased,         ///< all that a stop or a terminate has to release is released
};

/// The next state; the same one if the event changes nothing and is fine; nullopt if it is not allowed
/// (IncorrectInstanceState for a client's event).
std::optional<State> next_state(State state, Event event);

std::string_view name(State state);
int64_t code(State state);
std::optional<State> state_from(std::string_view name);
InstanceState describe(State state);

}  // namespace haneul::agent
