# shellcheck shell=bash
# Writes the pinned versions: `scripts/setup --lock`. Resolves from nothing, installs nothing.

write_locks() {
  local flavour report
  report=$(mktemp)
  for flavour in cpu gpu; do
    say "Resolving the $flavour build; pip may download gigabytes to read what they ask for."
    pip_install resolving --dry-run --ignore-installed --report "$report" \
      -e 'client[plot]' -e "worker[$flavour,demo,estimate,redis]" -r requirements/test.txt -r requirements/backends.txt
    .venv/bin/python scripts/lib/report_to_lock.py <"$report" >"requirements/lock-$flavour.txt"
    say "  requirements/lock-$flavour.txt has $(grep -c == "requirements/lock-$flavour.txt") versions."
  done
  rm -f "$report"
}
