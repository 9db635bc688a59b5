# shellcheck shell=bash
# The programs that a script needs besides Python's packages. Comes after progress.sh.

export PATH="$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin" # where daemons live

# ensure_programs PROGRAM:PACKAGE[:ELSEWHERE]...: installs what is missing, where that needs no password; PACKAGE is
# Debian's and Ubuntu's name, ELSEWHERE Fedora's and Homebrew's where theirs is another one. Where it cannot, it says
# what to install, and fails.
ensure_programs() {
  local triple program package elsewhere missing=() packages=() others=()
  for triple in "$@"; do
    IFS=: read -r program package elsewhere <<<"$triple"
    if command -v "$program" >/dev/null; then continue; fi
    missing+=("$program")
    if [[ " ${packages[*]-} " == *" $package "* ]]; then continue; fi
    packages+=("$package")
    if [[ " ${others[*]-} " != *" ${elsewhere:-$package} "* ]]; then others+=("${elsewhere:-$package}"); fi
  done
  if ((${#missing[@]} == 0)); then return; fi
  say "Missing: ${missing[*]}. Trying to install: ${packages[*]}"
  if "$(dirname "${BASH_SOURCE[0]}")/apt-install" "${packages[@]}"; then return; fi
  say "Not possible from here. Install them yourself:"
  say "  Debian, Ubuntu:  sudo apt-get install ${packages[*]}"
  say "  Fedora:          sudo dnf install ${others[*]}"
  say "  macOS:           brew install ${others[*]}"
  return 1
}
