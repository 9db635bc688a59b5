# shellcheck shell=bash
# Says what the scripts are doing. Everything goes to standard error: standard output belongs to the program.

say() { printf '%s\n' "$*" >&2; }

# run_logged LABEL LOG COMMAND...: the command's output goes to LOG, signs of life go to the user.
run_logged() {
  local label=$1 log=$2 child status=0
  shift 2
  SECONDS=0
  # A process group of its own (-m), so that Ctrl-C can end the command with everything that it started.
  set -m
  "$@" >>"$log" 2>&1 </dev/null &
  child=$!
  set +m
  # shellcheck disable=SC2064
  trap "kill -- -$child 2>/dev/null || true; wait $child || true; say; say 'interrupted: $label'; exit 130" INT TERM HUP
  show_progress "$label" "$log" "$child"
  wait "$child" || status=$?
  trap - INT TERM HUP
  return "$status"
}

show_progress() {
  local label=$1 log=$2 child=$3 next=15
  while kill -0 "$child" 2>/dev/null; do
    if [[ -t 2 ]]; then
      printf '\r\033[K  %s (%d s) %.60s' "$label" "$SECONDS" "$(last_step "$log")" >&2
    elif ((SECONDS >= next)); then
      say "  still $label ($SECONDS s) $(last_step "$log")"
      next=$((SECONDS + 15))
    fi
    sleep 0.3
  done
  if [[ -t 2 ]]; then printf '\r\033[K' >&2; fi
}

# What pip or Ninja was doing last, shortened to "Downloading torch-2.13.0…" or "step 12/208".
last_step() {
  tail -n 40 "$1" | tr '\r' '\n' | sed -nE \
    -e 's/^Installing collected.*/unpacking what was downloaded/p' \
    -e 's/^\[([0-9]+\/[0-9]+)\] .*/step \1/p' \
    -e 's/^ *(Collecting|Downloading|Building) ([^ ]+).*/\1 \2/p' | tail -n 1
}

failed_steps=()

# run_step NAME COMMAND...: a heading, then the command; a failure is remembered for report_steps.
run_step() {
  local name=$1
  shift
  printf '\n=== %s ===\n' "$name"
  "$@" || failed_steps+=("$name")
}

# Says how the steps went; fails if one of them failed.
report_steps() {
  if ((${#failed_steps[@]} == 0)); then
    printf '\nAll passed.\n'
    return
  fi
  printf '\nFailed: %s\n' "$(IFS=, && echo "${failed_steps[*]}")"
  return 1
}
