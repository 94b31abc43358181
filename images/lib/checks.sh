# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the tests of images share. Sourced; needs a folder $work.

failures=0

check() { # WHAT COMMAND...
  local what=$1
  shift
  # shellcheck disable=SC2154 # work is the callers'
  if "$@" >"$work/check" 2>&1; then
    echo "ok    $what"
  else
    echo "FAIL  $what"
    sed 's/^/      /' "$work/check"
    failures=$((failures + 1))
  fi
}

# Ends the test PROGRAM with what it found.
conclude() { # PROGRAM
  [ $failures = 0 ] || { echo "$1: $failures failed"; exit 1; }
  echo "$1: all passed"
}
