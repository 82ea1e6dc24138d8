#!/bin/sh
# A whole deployment on this machine: a coordinator and four sites as real processes on loopback, with TLS and enrolment, by the
# public commands alone. Usage: deploy/local.sh [HOSPITALS [OUT]]; it installs the commands into .venv where they are not on PATH.
#
# HOSPITALS holds study.yaml and sites/ (made by `csasn phantom` where it is missing); everything else goes to OUT, which must not exist.
set -eu

hospitals=${1:-demo}
out=${2:-runs/local}
here=$(cd "$(dirname "$0")/.." && pwd)
PATH="$here/.venv/bin:$PATH"

[ -e "$out" ] && { echo "$out exists: move it away first" >&2; exit 10; }
command -v csasn > /dev/null || make -C "$here" .venv/ready
[ -e "$hospitals/study.yaml" ] || csasn phantom --out "$hospitals"
mkdir -p "$out/sites"
out=$(cd "$out" && pwd)
hospitals=$(cd "$hospitals" && pwd)
sites=$(python3 -c 'import sys; [print(p.stem) for p in sorted(__import__("pathlib").Path(sys.argv[1]).glob("*.yaml"))]' "$hospitals/sites")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
pids=""
finish() {
    for pid in $pids; do kill "$pid" 2>/dev/null || true; done
    server stop --folder "$out/coordinator" 2>/dev/null || true
    wait
}
trap finish EXIT
trap 'exit 130' INT TERM

# coordinator: an authority, whose key a passphrase closes, and a certificate for this address
(umask 077; head -c 24 /dev/urandom | base64 > "$out/passphrase")
server init "$hospitals/study.yaml" --address "127.0.0.1:$port" --folder "$out/coordinator" --passphrase-file "$out/passphrase"

# sites: keys, a request of public halves, the kit
for site in $sites; do
    python3 - "$hospitals/sites/$site.yaml" "$out" "$site" > "$out/sites/$site.yaml" <<'PYTHON'
import pathlib, re, sys
source, out, site = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
for line in source.read_text().splitlines():
    if found := re.match(r"(manifest|images): (.*)", line):
        line = f"{found[1]}: {(source.parent / found[2].strip()).resolve()}"
    elif line.startswith("state:"):
        line = f"state: {out}/state/{site}"
    print(line)
PYTHON
done
cd "$out"
for site in $sites; do
    fingerprint=$(client keygen --site "$site" | sed -n 's/^fingerprint: //p') # in earnest: read over the telephone
    client enroll --site "$site" --study coordinator/study.yaml --out "$site.request.json"
    server enroll "$site.request.json" --folder coordinator --fingerprint "$fingerprint"
    client install --site "$site" "coordinator/kits/$site.kit.zip"
done

server start --run --listen 127.0.0.1 --folder coordinator > start.log 2>&1 &
coordinator=$! pids=$!
until grep -q '"started": true' status.json 2>/dev/null; do
    sleep 0.2
    kill -0 "$coordinator" 2>/dev/null || { cat start.log >&2; exit 1; }
    server status --folder coordinator --json > status.json
done
membership=$(python3 -c 'import json; print(json.load(open("status.json"))["membership_hash"][:12])')

# every hospital reads what is proposed, compares fingerprints with the others, and signs
for site in $sites; do
    client approve --site "$site" --membership coordinator/membership.json --yes "$membership" > "approve-$site.log"
    client --site "$site" > "client-$site.log" 2>&1 &
    pids="$pids $!" clients="${clients:-} $!"
done

# until the study is finished
while sleep 5; do
    kill -0 "$coordinator" 2>/dev/null || { cat start.log >&2; exit 1; }
    server status --folder coordinator --json > status.json
    line=$(python3 -c 'import json; s = json.load(open("status.json")); print(s["phase"], s["run_status"], "round", s["round"], "of", s["num_rounds"])')
    [ "$line" = "${last:-}" ] || echo "$line"
    last=$line
    case $line in finished*) break ;; failed*) server report --folder coordinator; exit 8 ;; esac
done
for pid in $clients; do wait "$pid"; done # they end by themselves
server report --folder coordinator
echo "everything is in $out; the report: $(ls "$out"/coordinator/runs/*/report.json)"
