#!/bin/sh
# Runs a small federation of phantoms in containers of both images, with podman: a coordinator and three sites, each as user 10001, with
# a read-only root, no capability, and no network but one that they share. Ends with their health checks and the report.
#
#   deploy/container/try.sh
#
# Where the machine wants options, PODMAN holds those of podman, such as `--cgroup-manager cgroupfs --log-level fatal`, and PODMAN_RUN those
# of `podman run`, such as `--runtime runc --ulimit nofile=1024:1024 --ulimit nproc=1024:1024`.
set -eu
server=localhost/csasn-server:0.1.0 client=localhost/csasn-client:0.1.0
sites="centerA centerB centerC"
folder=$(mktemp -d)
names=csasn-try-coordinator
for site in $sites; do names="$names csasn-try-$site"; done
finish() {
    podman ${PODMAN:-} rm --force --time 20 $names > /dev/null 2>&1 || true
    podman ${PODMAN:-} volume rm --force $names csasn-try-images > /dev/null 2>&1 || true
}
trap 'finish; rm -rf "$folder"' EXIT
trap 'exit 130' INT TERM
finish
hardened="--read-only --cap-drop ALL --security-opt no-new-privileges --tmpfs /tmp:mode=1777 --health-interval disable"
run() { podman ${PODMAN:-} run ${PODMAN_RUN:-} $hardened "$@"; }
once="--rm --interactive --network none"
coordinator="--volume csasn-try-coordinator:/data"
site() { echo "--volume csasn-try-$1:/var/lib/csasn --volume csasn-try-images:/srv/ultrasound:ro --volume $folder:/etc/csasn:ro --env SITE=$1"; }

echo "phantoms, and the study"
run $once --volume csasn-try-images:/srv/ultrasound:U "$server" csasn phantom --out /srv/ultrasound/all --cases 30
cat > "$folder/study.yaml" << 'STUDY'
name: containers
classes: [benign, PTC, FTC, MTC]
model: {profile: csasn-test, image_size: 64}
federation: {sites: [centerA, centerB, centerC], rounds: 2}
STUDY
for name in $sites; do
    printf 'site: %s\nmanifest: /srv/ultrasound/all/%s/manifest.csv\nimages: /srv/ultrasound/all/%s/images\nstate: /var/lib/csasn/%s\n' \
        "$name" "$name" "$name" "$name" > "$folder/$name.yaml"
done
chmod -R a+rX "$folder"

echo "from keys to a membership"
run $once $coordinator "$server" sh -c 'cat > study.yaml' < "$folder/study.yaml"
run $once $coordinator "$server" sh -c 'head -c 24 /dev/urandom | base64 > /tmp/passphrase &&
    server init study.yaml --address 127.0.0.1:9443 --passphrase-file /tmp/passphrase'
run $once $coordinator "$server" cat coordinator/study.yaml > "$folder/study.yaml"
for name in $sites; do
    fingerprint=$(run $once $(site "$name") "$client" client keygen --site "$name" | sed -n 's/^fingerprint: //p')
    run $once $(site "$name") "$client" client enroll --site "$name" --study /etc/csasn/study.yaml
    run $once $(site "$name") "$client" cat "$name.request.json" |
        run $once $coordinator "$server" sh -c "cat > r.json && server enroll r.json --fingerprint '$fingerprint'"
    run $once $coordinator "$server" cat "coordinator/kits/$name.kit.zip" |
        run $once $(site "$name") "$client" sh -c "cat > kit.zip && client install --site $name kit.zip"
done

echo "the coordinator, and a site that looks at all of it"
run --detach --name csasn-try-coordinator --network none $coordinator "$server" > /dev/null
until podman ${PODMAN:-} healthcheck run csasn-try-coordinator > /dev/null 2>&1; do sleep 2; done
beside="--rm --interactive --network container:csasn-try-coordinator"
run $beside $(site centerA) "$client" client doctor --site centerA
membership=$(run $once $coordinator "$server" server status --json | sed -n 's/.*"membership_hash": "\(.\{12\}\).*/\1/p')
for name in $sites; do
    run $beside $(site "$name") "$client" client approve --site "$name" --yes "$membership" > /dev/null
    run --detach --name "csasn-try-$name" --network container:csasn-try-coordinator $(site "$name") "$client" > /dev/null
done

echo "the run"
until podman ${PODMAN:-} healthcheck run csasn-try-centerA > /dev/null 2>&1; do sleep 2; done
for name in coordinator centerA; do echo "csasn-try-$name is healthy, user $(podman ${PODMAN:-} exec "csasn-try-$name" id -u)"; done
for name in $sites; do echo "csasn-try-$name ended with $(podman ${PODMAN:-} wait "csasn-try-$name")"; done
podman ${PODMAN:-} exec csasn-try-coordinator server report
