#compdef haneul
# SPDX-License-Identifier: Apache-2.0
# zsh completion for haneul: commands, and the ids of what there is.

_haneul() {
  local -a commands ids
  commands=(
    'run:launch instances' 'ls:list instances' 'show:everything about an instance' 'start:start stopped instances'
    'stop:stop instances' 'reboot:shut down and start again' 'terminate:end instances' 'tag:set or remove tags'
    'console:serial console' 'ssh:log in' 'proxy:a port as a pipe' 'image:images' 'volume:volumes' 'snapshot:snapshots' 'key:key pairs' 'type:instance types'
    'status:the daemon' 'doctor:is this machine fit' 'completion:completion scripts')
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  case $words[2] in
    image) (( CURRENT == 3 )) && _values 'image command' build register create import export copy ls show rm || _files ;;
    volume) (( CURRENT == 3 )) && _values 'volume command' create ls show attach detach resize rm check ;;
    snapshot) (( CURRENT == 3 )) && _values 'snapshot command' create ls show copy rm share export import || _files ;;
    key) (( CURRENT == 3 )) && _values 'key command' create import ls rm || _files ;;
    type) _values 'type command' ls ;;
    completion) _values shell bash zsh ;;
    show|start|stop|reboot|terminate|tag|console|ssh|proxy)
      ids=(${(f)"$(haneul ls --json 2>/dev/null | sed -n 's/^ *"InstanceId": "\(.*\)",\{0,1\}$/\1/p')"})
      compadd -a ids ;;
    *) _files ;;
  esac
}
_haneul "$@"
