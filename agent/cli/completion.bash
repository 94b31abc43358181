# SPDX-License-Identifier: Apache-2.0
# bash completion for haneul, which knows itself what may come next.

_haneul() {
  local word=${COMP_WORDS[COMP_CWORD]} found
  COMPREPLY=()
  mapfile -t found < <("${COMP_WORDS[0]}" complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
  case ${found[0]-} in
    :files) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    :folders) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -d -- "$word") ;;
    *) COMPREPLY=("${found[@]}") ;;
  esac
}
complete -F _haneul haneul
