#!/usr/bin/env bash
# A night of acceptance from cron, Jenkins or a workflow: one at a time on a host, then the trend.
#
#   ci/nightly.sh [-e FILE] [PYTEST ARGUMENT...]
#
# FILE (default: $NIGHTLY_ENV, else /etc/npu-acceptance.env where there is one) is sourced: it sets
# the harness's own variables (HARNESS_STORE, IMAGENET_DIR, ...) and these:
#   NIGHTLY_PYTHON    the interpreter (default: .venv/bin/python, else python3)
#   NIGHTLY_ARGS      arguments of pytest, split at spaces, when none are given here
#   NIGHTLY_LOCK      the lock that keeps two nights apart (default: nightly.lock beside the runs)
#   NIGHTLY_HOURS     after so many hours the night is ended (default: 10)
#   NIGHTLY_STORE_GB  tidy the store to this size afterwards (default: leave it)
#   NIGHTLY_NOTIFY    a command of bash that is told of each end (docs/nightly.md)
#   NIGHTLY_NOTIFY_S  the seconds it has (default: 60)
#
# Ends with pytest's exit code (docs/nightly.md), with 7 when the time was up, and with 75 when
# another night still runs: then nothing was run.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

usage() {
  sed -n '2,/^set -e/{/^set -e/d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
}

say() {
  printf '%s nightly: %s\n' "$(date -u +%Y-%m-%dT%H:%M:%SZ)" "$*"
}

fail() {
  screen=$*
  say "$*" >&2
  exit 4
}

# Tell NIGHTLY_NOTIFY how the night ended: its standard input is the first screen. Whatever it does,
# the night keeps its code. What it prints is not kept: it may hold the token of an address.
tell() {
  local code=$1 text json summary=$run/summary.md status=0
  [[ -n $notify ]] || return 0
  [[ -n $run && -f $summary ]] || summary=
  text=${screen:-the night ended with exit code $code}
  # Cut to what WeCom takes, which takes the least.
  json=$("${python:-python3}" -c 'import json, sys
print(json.dumps(sys.stdin.buffer.read(2000).decode(errors="ignore")))' <<<"$text") || json="\"exit code $code\""
  NIGHTLY_CODE=$code NIGHTLY_RUN=$run NIGHTLY_SUMMARY=$summary NIGHTLY_JSON=$json \
    timeout --kill-after=5 "${NIGHTLY_NOTIFY_S:-60}" bash -c "$notify" \
    <<<"$text" >/dev/null 2>&1 9>&- || status=$?
  [[ $status -eq 0 ]] || say "NIGHTLY_NOTIFY ended with $status: was the notice sent?" >&2
}

screen= run= notify=
env_file=${NIGHTLY_ENV:-}
# Only at the front: whatever else begins with a dash is pytest's.
case ${1:-} in
  -h | --help)
    usage
    exit 0
    ;;
  -e)
    [[ $# -ge 2 ]] || fail "-e needs a file"
    env_file=$2
    shift 2
    ;;
esac
given=$env_file
notify=${NIGHTLY_NOTIFY:-}
trap 'tell $?' EXIT

if [[ -z $env_file && -r /etc/npu-acceptance.env ]]; then
  env_file=/etc/npu-acceptance.env
fi
if [[ -n $given && ! -r $given ]]; then
  fail "the environment file $given cannot be read"
fi
if [[ -n $env_file ]]; then
  [[ $env_file == */* ]] || env_file=./$env_file # `.` looks for a bare name on PATH
  say "environment from $env_file"
  set -a
  # shellcheck source=/dev/null
  . "$env_file" || fail "$env_file failed"
  set +a
fi
# Out of the environment of what the night runs, with any token in it.
notify=${NIGHTLY_NOTIFY:-}
unset NIGHTLY_NOTIFY

python=${NIGHTLY_PYTHON:-}
if [[ -z $python ]]; then
  python=python3
  [[ -x $root/.venv/bin/python ]] && python=$root/.venv/bin/python
fi
command -v -- "$python" >/dev/null || fail "no Python at $python: set NIGHTLY_PYTHON"
for tool in flock timeout; do
  command -v "$tool" >/dev/null || fail "$tool is not on PATH (util-linux, coreutils)"
done

cd "$root"
export HARNESS_RUNS=${HARNESS_RUNS:-$root/runs}
lock=${NIGHTLY_LOCK:-$HARNESS_RUNS/nightly.lock}
mkdir -p "$HARNESS_RUNS" "$(dirname "$lock")" || fail "cannot make $HARNESS_RUNS"
touch "$lock" || fail "cannot write the lock $lock"

# Print the first screen, and keep it without a workflow's annotation for the notice.
show() {
  local lines status=0
  lines=$("$python" -m harness why "$@") || status=$?
  printf '%s\n' "$lines"
  screen=$(grep -v '^::' <<<"$lines") || true
  return $status
}

# Children inherit the descriptor: should this shell be killed, the lock is free when they are gone.
exec 9>>"$lock"
if ! flock --nonblock 9; then
  say "another night still runs, holding $lock: nothing was run" >&2
  show --exit-code=75 || true
  exit 75
fi

arguments=("$@")
if [[ ${#arguments[@]} -eq 0 ]]; then
  read -r -a arguments <<<"${NIGHTLY_ARGS:-}"
fi
hours=${NIGHTLY_HOURS:-10}
[[ $hours =~ ^[0-9]+(\.[0-9]+)?$ ]] || fail "NIGHTLY_HOURS=$hours is not a number of hours"

latest() {
  readlink -- "$HARNESS_RUNS/latest" 2>/dev/null || true
}

before=$(latest)
say "pytest ${arguments[*]-}"
code=0
# Interrupted first, so that the run writes what it has and its report; killed two minutes later.
# In the foreground group, so that an interrupt of this script reaches pytest.
timeout --foreground --signal=INT --kill-after=120 "${hours}h" \
  "$python" -m pytest ${arguments[@]+"${arguments[@]}"} || code=$? # bash 4.2 has no empty arrays
late=()
case $code in
  124 | 137)
    late=(--stopped-after="$hours")
    code=7
    ;;
esac

run=$(latest)
status=0
if [[ -n $run && $run != "$before" ]]; then
  run=$HARNESS_RUNS/$run
  [[ -n ${GITHUB_OUTPUT:-} ]] && printf 'run=%s\n' "$run" >>"$GITHUB_OUTPUT"
  "$python" -m harness trend || say "no trend page: see above" >&2
else
  run=
fi
if [[ -n ${NIGHTLY_STORE_GB:-} ]]; then
  "$python" -m harness cache gc --max-gb="$NIGHTLY_STORE_GB" || say "the store was not tidied" >&2
fi

# Last, so that it is what a reader of the log sees.
show ${run:+"$run"} --exit-code="$code" ${late[@]+"${late[@]}"} || status=$?
if [[ $status -ne 0 ]]; then
  say "the run ended with exit code $code; its records cannot be read" >&2
fi
exit "$code"
