# Sourced by the comparisons with peers.
# shellcheck shell=bash

# arguments "OPTION…" "FLAG…" WORD…: `--some-option VALUE` sets the variable some_option, `--some-flag` sets some_flag to 1; the script's
# first comment is its help.
arguments() {
  local options=" $1 " flags=" $2 " name
  shift 2
  while [ $# -gt 0 ]; do
    name=${1#--}
    if [ "$1" = -h ] || [ "$name" = help ]; then
      sed -n '2,/^[^#]/s/^# \{0,1\}//p' "benches/peers/${0##*/}"
      exit 0
    elif [[ $1 == --* && $options == *" $name "* ]]; then
      [ $# -ge 2 ] || { echo "error: $1 needs a value" >&2; exit 2; }
      printf -v "${name//-/_}" %s "$2"
      shift 2
    elif [[ $1 == --* && $flags == *" $name "* ]]; then
      printf -v "${name//-/_}" 1
      shift
    else
      echo "error: unknown argument '$1' (see --help)" >&2
      exit 2
    fi
  done
}
