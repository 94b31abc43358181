#compdef haneul
# SPDX-License-Identifier: Apache-2.0
# zsh completion for haneul, which knows itself what may come next.

_haneul() {
  local -a found
  found=("${(@f)$("$words[1]" complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  case $found[1] in
    :files) _files ;;
    :folders) _files -/ ;;
    *) compadd -a found ;;
  esac
}
_haneul "$@"
