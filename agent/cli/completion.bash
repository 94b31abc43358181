# SPDX-License-Identifier: Apache-2.0
# bash completion for haneul: commands, options, and the names of what there is.

_haneul_words() { # COMMAND… MEMBER: the values of a member in the JSON that the command prints
  local member=${*: -1}
  haneul "${@:1:$#-1}" --json 2>/dev/null | sed -n "s/^ *\"$member\": \"\(.*\)\",\{0,1\}\$/\1/p"
}

_haneul() {
  local current=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]:-} words=
  case $COMP_CWORD:$command in
    1:*) words="run ls show start stop reboot terminate tag console ssh proxy image volume snapshot key type status doctor completion
      --socket --region --help --version" ;;
    2:image) words="build register create import export copy ls show rm" ;;
    2:volume) words="create ls show attach detach resize rm check" ;;
    2:snapshot) words="create ls show copy rm share export import" ;;
    2:key) words="create import ls rm" ;;
    2:type) words="ls" ;;
    2:completion) words="bash zsh" ;;
    *:run)
      case ${COMP_WORDS[COMP_CWORD - 1]} in
        -t | --type) words=$(_haneul_words type ls InstanceType) ;;
        -k | --key) words=$(_haneul_words key ls KeyName) ;;
        --user-data) mapfile -t COMPREPLY < <(compgen -f -- "$current"); return ;;
        *) words="--type --name --key --count --zone --user-data --size --volume --tag --protect --terminate-on-shutdown --wait
          --timeout --json --help $(_haneul_words image ls Name)" ;;
      esac ;;
    *:image)
      case ${COMP_WORDS[2]}:${COMP_WORDS[COMP_CWORD - 1]} in
        *:--format) words="raw qcow2" ;;
        *:--to-region) words="us-east-1 eu-west-1" ;;
        *:--snapshot) words=$(_haneul_words snapshot ls SnapshotId) ;;
        *:--kernel-of) words=$(_haneul_words image ls Name) ;;
        build:*) words="tiny --kernel --json --help" ;;
        register:register) mapfile -t COMPREPLY < <(compgen -d -- "$current"); words="--snapshot" ;;
        register:*) words="--name --snapshot --kernel-of --json --help" ;;
        create:*) words="--name --description --no-reboot --wait --json --help $(_haneul_words ls InstanceId)" ;;
        copy:*) words="--to-region --name --description --wait --json --help $(_haneul_words image ls Name)" ;;
        import:*)
          mapfile -t COMPREPLY < <(compgen -f -- "$current")
          words="--format --name --kernel-of --description --encrypted --json --help" ;;
        export:*) words="--format --json --help $(_haneul_words image ls Name)" ;;
        show:* | rm:*) words="--json --help $(_haneul_words image ls Name)" ;;
        ls:*) words="--json --help" ;;
      esac ;;
    *:volume)
      case ${COMP_WORDS[2]}:${COMP_WORDS[COMP_CWORD - 1]} in
        *:--type) words="gp3 gp2 io1 io2 st1 sc1 standard" ;;
        *:--from) words=$(_haneul_words snapshot ls SnapshotId) ;;
        create:*) words="--size --from --zone --type --iops --throughput --name --tag --encrypted --json --help" ;;
        attach:attach) words=$(_haneul_words volume ls VolumeId) ;;
        attach:*) words="--device --timeout --json --help $(_haneul_words ls InstanceId)" ;;
        detach:*) words="--force --timeout --json --help $(_haneul_words volume ls VolumeId)" ;;
        resize:*) words="--timeout --json --help $(_haneul_words volume ls VolumeId)" ;;
        check:*) words="--quick --task --json --help $(_haneul_words volume ls VolumeId)" ;;
        show:* | rm:*) words="--json --help $(_haneul_words volume ls VolumeId)" ;;
        ls:*) words="--json --help" ;;
      esac ;;
    *:snapshot)
      case ${COMP_WORDS[2]}:${COMP_WORDS[COMP_CWORD - 1]} in
        *:--format) words="raw qcow2" ;;
        *:--to-region) words="us-east-1 eu-west-1" ;;
        create:*) words="--name --description --tag --wait --json --help $(_haneul_words volume ls VolumeId)" ;;
        copy:*) words="--to-region --name --description --tag --wait --json --help
          $(_haneul_words snapshot ls SnapshotId)" ;;
        share:*) words="--account --public --remove --json --help $(_haneul_words snapshot ls SnapshotId)" ;;
        export:export | show:* | rm:*) words="--json --help $(_haneul_words snapshot ls SnapshotId)" ;;
        export:* | import:*)
          mapfile -t COMPREPLY < <(compgen -f -- "$current")
          words="--format --name --description --tag --encrypted --json --help" ;;
        ls:*) words="--json --help" ;;
      esac ;;
    *:ls) words="--all --json --help" ;;
    *:show | *:start | *:reboot | *:tag | *:proxy) words="--json --help $(_haneul_words ls InstanceId)" ;;
    *:stop) words="--wait --force --timeout --json --help $(_haneul_words ls InstanceId)" ;;
    *:terminate) words="--wait --timeout --json --help $(_haneul_words ls InstanceId)" ;;
    *:console) words="--follow --help $(_haneul_words ls InstanceId)" ;;
    *:ssh) words="--user --identity --timeout --help $(_haneul_words ls InstanceId)" ;;
    *:key) [[ ${COMP_WORDS[2]} != rm ]] || words=$(_haneul_words key ls KeyName) ;;
  esac
  mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$words" -- "$current")
}
complete -F _haneul haneul
