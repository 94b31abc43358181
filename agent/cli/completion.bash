# SPDX-License-Identifier: Apache-2.0
# bash completion for haneul: commands, options, and the names of what there is.

_haneul_words() { # COMMAND… MEMBER: the values of a member in the JSON that the command prints
  local member=${*: -1}
  haneul "${@:1:$#-1}" --json 2>/dev/null | sed -n "s/^ *\"$member\": \"\(.*\)\",\{0,1\}\$/\1/p"
}

_haneul() {
  local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]:-} words=
  case $COMP_CWORD:$command in
    1:*) words="run ls show start stop reboot terminate tag console ssh proxy image key type status doctor completion
      --socket --region --help --version" ;;
    2:image) words="build register ls rm" ;;
    2:key) words="create import ls rm" ;;
    2:type) words="ls" ;;
    2:completion) words="bash zsh" ;;
    *:run)
      case ${COMP_WORDS[COMP_CWORD - 1]} in
        -t | --type) words=$(_haneul_words type ls InstanceType) ;;
        -k | --key) words=$(_haneul_words key ls KeyName) ;;
        --user-data) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
        *) words="--type --name --key --count --zone --user-data --size --tag --protect --terminate-on-shutdown --wait
          --timeout --json --help $(_haneul_words image ls Name)" ;;
      esac ;;
    *:ls) words="--all --json --help" ;;
    *:show | *:start | *:reboot | *:tag | *:proxy) words="--json --help $(_haneul_words ls InstanceId)" ;;
    *:stop) words="--wait --force --timeout --json --help $(_haneul_words ls InstanceId)" ;;
    *:terminate) words="--wait --timeout --json --help $(_haneul_words ls InstanceId)" ;;
    *:console) words="--follow --help $(_haneul_words ls InstanceId)" ;;
    *:ssh) words="--user --identity --timeout --help $(_haneul_words ls InstanceId)" ;;
    *:image)
      case ${COMP_WORDS[2]} in
        build) words="tiny --kernel --json --help" ;;
        register) mapfile -t COMPREPLY < <(compgen -d -- "$current"); return ;;
        rm) words=$(_haneul_words image ls Name) ;;
      esac ;;
    *:key) [[ ${COMP_WORDS[2]} != rm ]] || words=$(_haneul_words key ls KeyName) ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _haneul haneul
