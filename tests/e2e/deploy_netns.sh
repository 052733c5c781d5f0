#!/usr/bin/env bash
# docs/deploy.md as written, without Docker: a coordinator and two hospitals, each in a network namespace of its own with one wire to the
# coordinator's, from a demo cohort to a finished run whose model equals the simulation's. Exit code 0 when everything was as expected.
#
#   sudo -E bash tests/e2e/deploy_netns.sh        KEEP=1 leaves the folder for a look; PYTHON= names another Python than python
#   bash tests/e2e/deploy_netns.sh                not as root: all on loopback
#
# It works in a temporary folder. The hospitals' folders are read-only, and compared before and after.
set -euo pipefail
repo=$(cd "$(dirname "$0")/../.." && pwd)
python=${PYTHON:-python}
work=$(mktemp -d "${TMPDIR:-/tmp}/fl-rsna-deploy.XXXXXX")
tag=fl$$
port=9092
arguments=(rounds=2 seed=7 model.image_size=32 train.batch_size=8 tracking=none)
demo=(demo.patients=24 demo.slices_per_series=6 demo.size=64 data.size=64 partition.num_sites=2 partition.name=split)
started=()

say() { printf '%5ss  %s\n' "$SECONDS" "$*"; }
fail() { say "expected $*"; exit 1; }

clean_up() {
  for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${started[@]}"; do wait "$pid" 2>/dev/null || true; done
  for name in "${namespaces[@]:-}"; do [[ -z $name ]] || ip netns delete "$name" 2>/dev/null || true; done
  chmod -R u+w "$work"
  if [[ -n ${KEEP:-} ]]; then echo "kept: $work"; else rm -rf "$work"; fi
}
trap clean_up EXIT

# A namespace a hospital, joined to the coordinator's by one wire; 10.77.<n>.1 is the coordinator on that wire.
namespaces=()
if [[ $(id -u) == 0 ]] && ip netns add "$tag-0" 2>/dev/null; then
  namespaces=("$tag-0" "$tag-1" "$tag-2")
  ip -n "$tag-0" link set lo up
  for n in 1 2; do
    ip netns add "$tag-$n"
    ip link add "${tag}a$n" netns "$tag-0" type veth peer name "${tag}b$n" netns "$tag-$n"
    ip -n "$tag-0" address add "10.77.$n.1/24" dev "${tag}a$n"
    ip -n "$tag-$n" address add "10.77.$n.2/24" dev "${tag}b$n"
    ip -n "$tag-0" link set "${tag}a$n" up
    ip -n "$tag-$n" link set lo up
    ip -n "$tag-$n" link set "${tag}b$n" up
  done
  at() { ip netns exec "$tag-$1" "${@:2}"; }
  server() { echo "10.77.$1.1"; }
  say "three network namespaces; hospitals see the coordinator and not each other"
else
  at() { "${@:2}"; }
  server() { echo 127.0.0.1; }
  say "no network namespaces here: everything on loopback"
fi

# The cohort and the model to compare with: one simulation, then every place gets its own folder and nothing else.
cd "$repo"
"$python" -m fl_rsna.simulate "${demo[@]}" "${arguments[@]}" run.name=simulated engine.workers=0 \
  paths.prepared="$work/prepared" paths.sites="$work/cohorts" paths.runs="$work/simulated" >"$work/simulated.log" 2>&1 ||
  { cat "$work/simulated.log"; fail "the simulation to end well"; }
mkdir -p "$work/coordinator/site_data/split" "$work/coordinator/runs"
cp -r "$work/cohorts/split/cohort.json" "$work/cohorts/split/test-site" "$work/coordinator/site_data/split/"
for n in 1 2; do
  mkdir "$work/hospital-$n"
  cp -r "$work/cohorts/split/site-$n" "$work/hospital-$n/site"
done
rm -rf "$work"/*/site_data/split/test-site/packed "$work"/hospital-*/site/packed
chmod -R a-w "$work"/hospital-*/site
listing() { find "$work"/hospital-*/site -printf '%p %s %T@\n' | sort; }
before=$(listing)
say "cohort partitioned, simulated, and brought to its places"

# Keys: each side its own; the .pub goes one way, ca.crt the other.
cd "$work/coordinator"
"$python" -m fl_rsna.keys server --host "$(server 1)" --host "$(server 2)" >/dev/null
mkdir -p certificates/authorized
for n in 1 2; do
  (cd "$work/hospital-$n" && "$python" -m fl_rsna.keys site --name "site-$n" >/dev/null)
  cp "$work/hospital-$n/certificates/authorized/site-$n.pub" certificates/authorized/
  cp certificates/superlink/ca.crt "$work/hospital-$n/certificates/sites/site-$n/ca.crt"
done
say "keys made and exchanged"

inside() { # what comes before a command at place n
  [[ ${#namespaces[@]} == 0 ]] || echo "ip netns exec $tag-$1"
}
serve() { # like site below, in a subshell of its own, which the command takes the place of
  exec $(inside 0) "$python" -m fl_rsna.superlink --certificates certificates/superlink --state "$work/coordinator/state" --port $port
}
serve >"$work/superlink.log" 2>&1 &
started+=($!)

site() { # n, more arguments
  cd "$work/hospital-$1"
  exec $(inside "$1") "$python" -m fl_rsna.site --folder site --state state --keys "certificates/sites/site-$1" \
    --superlink "$(server "$1"):$port" --name "site-$1" "${@:2}"
}
until (site 1 --check) >"$work/check-1.log" 2>&1 || grep -q "^problem *registered" "$work/check-1.log"; do
  [[ $SECONDS -lt 300 ]] || { cat "$work/check-1.log" "$work/superlink.log"; fail "a SuperLink that answers"; }
  sleep 1
done
grep -v "^ok" "$work/check-1.log"
say "hospital 1 has looked: only its key is not known yet"

for n in 1 2; do
  site $n >"$work/site-$n.log" 2>&1 &
  started+=($!)
done

at 0 "$python" -m fl_rsna.coordinate "${arguments[@]}" run.name=deployed partition.name=split deploy.superlink=127.0.0.1:$port ||
  { cat "$work"/superlink.log "$work"/site-*.log; fail "a finished run"; }
cat "$work/site-1.log"
(site 1 --check) >"$work/check-1.log" 2>&1 || { cat "$work/check-1.log"; fail "a site without problems once its key is admitted"; }
say "hospital 1 has looked again: no problem"
ps -eo pid,ppid,args | grep -F "$work" | grep -v grep | cut -c1-150 || true

if [[ ${#namespaces[@]} -gt 0 ]]; then
  status=$(at 1 "$python" -c "
import ssl, urllib.error, urllib.request
context = ssl.create_default_context(cafile='$work/hospital-1/certificates/sites/site-1/ca.crt')
try: urllib.request.urlopen(urllib.request.Request('https://$(server 1):$port/v1/control/list-runs', data=b''), context=context, timeout=10)
except urllib.error.HTTPError as error: print(error.code)")
  [[ $status == 403 ]] || fail "the Control API to refuse a hospital with 403, got $status"
  say "the Control API refuses a hospital"
fi
[[ $(listing) == "$before" ]] || fail "the hospitals' folders to stay as they were"
model_of() { "$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))["model_sha256"])' "$1/summary.json"; }
one=$(model_of "$work/simulated/simulated") two=$(model_of "$work/coordinator/runs/deployed")
[[ $one == "$two" ]] || fail "the simulation's model $one, got $two"
say "the hospitals' folders are untouched, and the model is the simulation's"
printf '{"seconds": %s, "namespaces": %s, "model_sha256": "%s", "same_as_simulation": true}\n' "$SECONDS" "${#namespaces[@]}" "$two"
