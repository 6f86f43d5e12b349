"""The Kubernetes manifests and the compose file, for tests/it/deploy/files.rs.

    manifests.py check     every resource against the schema of its kind, unknown fields refused; exit 1 names them
    manifests.py commands  what is started where, with its environment: one JSON list
"""

import json
import pathlib
import sys

import kubernetes_validate
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "deploy"
VERSION = "1.32"
# What Kubernetes says of it is kustomize's business.
NOT_RESOURCES = {"kustomization.yaml"}
KEYS = ("runAsNonRoot", "seccompProfile")


def resources():
    files = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    listed = yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"]
    there = [f.name for f in files if f.name not in NOT_RESOURCES]
    if sorted(listed) != there:
        sys.exit(f"kustomization.yaml lists {sorted(listed)}, there are {there}")
    for file in files:
        if file.name not in NOT_RESOURCES:
            for resource in yaml.safe_load_all(file.read_text()):
                yield file.name, resource


def pods():
    for file, resource in resources():
        template = resource.get("spec", {}).get("template")
        if template:
            yield file, template["spec"]


def hardened(file, spec):
    """What the namespace's level `restricted` asks for, and what we ask for besides."""
    missing = [key for key in KEYS if not spec["securityContext"].get(key)]
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        if own.get("allowPrivilegeEscalation") is not False:
            missing.append("allowPrivilegeEscalation: false")
        if own.get("readOnlyRootFilesystem") is not True:
            missing.append("readOnlyRootFilesystem")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            missing.append("capabilities.drop: [ALL]")
        if "memory" not in container["resources"]["limits"]:
            missing.append("limits.memory")
        if container["image"].endswith(":latest") or ":" not in container["image"]:
            missing.append("a version of the image")
    return [f"{file}: {what} is missing" for what in missing]


def check():
    errors, count = [], 0
    for file, resource in resources():
        count += 1
        try:
            kubernetes_validate.validate(resource, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            errors.append(f"{file} {resource.get('kind')}: {error}")
    for file, spec in pods():
        errors += hardened(file, spec)
    for error in errors:
        print(error, file=sys.stderr)
    if errors:
        sys.exit(1)
    print(json.dumps({"resources": count}))


def commands():
    found = []
    for file, spec in pods():
        for c in spec["containers"]:
            # A value from a secret or a label is some word to whoever checks the command.
            env = {e["name"]: e.get("value", "0" if e["name"] == "INSTANCE" else "secret") for e in c.get("env", [])}
            env = {k: v.replace("$(TAPELINE_ROUTE_PASSWORD)", "secret") for k, v in env.items()}
            found.append({"file": f"kubernetes/{file}", "argv": c["command"] + c.get("args", []), "env": env})
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        env = {k: "secret" if v.startswith("${TAPELINE") else v for k, v in service.get("environment", {}).items()}
        found.append({"file": f"compose.yaml {name}", "argv": service["command"], "env": env})
    print(json.dumps(found))


{"check": check, "commands": commands}[sys.argv[1]]()
