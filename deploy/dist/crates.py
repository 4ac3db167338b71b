#!/usr/bin/env python3
"""Tells which crates are linked into streamgate: their licences for people, or a CycloneDX document for programs.

    crates.py notices >THIRD-PARTY-NOTICES
    crates.py sbom    >streamgate.cdx.json     with the time in SOURCE_DATE_EPOCH

It asks cargo, and reads the licence files in the crates as they were fetched.
"""

import collections
import datetime
import json
import os
import pathlib
import re
import subprocess
import sys
import tomllib
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[2]
LICENCE_FILE = re.compile(r"(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
PACKAGE = "streamgate"


def fail(message):
    sys.exit(f"crates.py: {message}")


def cargo(*arguments):
    """What cargo prints when it is called like that."""
    ran = subprocess.run(["cargo", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        fail(f"cargo {' '.join(arguments)} failed; its message is above")
    return ran.stdout


def host():
    """The target that rustc builds for."""
    told = subprocess.run(["rustc", "--version", "--verbose"], stdout=subprocess.PIPE, text=True, check=True)
    return re.search(r"^host: (.*)$", told.stdout, re.MULTILINE)[1]


def linked():
    """The packages that end up in the program, from cargo's metadata, by name and version; and which needs which."""
    target = host()
    tree = cargo("tree", "--locked", "--package", PACKAGE, "--target", target, "--edges", "normal,no-proc-macro",
                 "--prefix", "depth", "--no-dedupe", "--format", " {p}")
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    by_name = {(package["name"], package["version"]): package for package in metadata["packages"]}
    needs, path = collections.defaultdict(set), []
    for line in tree.splitlines():
        depth, name, version, *_ = line.split()
        package = name, version.removeprefix("v")
        path = path[: int(depth)] + [package]
        needs[package]
        if len(path) > 1:
            needs[path[-2]].add(package)
    return {package: by_name[package] for package in sorted(needs)}, needs


def texts(package):
    """The licence files of a package."""
    folder = pathlib.Path(package["manifest_path"]).parent
    files = [*folder.iterdir(), *folder.glob("LICENSES/*")]
    files = [file for file in sorted(files) if file.is_file() and (LICENCE_FILE.match(file.name) or file.parent != folder)]
    return [file.read_text(encoding="utf-8", errors="replace").strip() for file in files]


def texts_of_sibling(package, packages):
    """For a package that was published without a licence file: those of another one from its repository."""
    for other in packages.values():
        if other["repository"] == package["repository"] and other["license"] == package["license"] and texts(other):
            return texts(other)
    name = f"{package['name']} {package['version']} ({package['license']})"
    fail(f"{name} holds no licence file, nor does a linked crate of its repository; have its authors publish one, "
         "or add its text to deploy/dist/crates.py")


def notices(packages):
    """Each text once, below the names of the crates that hold it."""
    others = {name: package for name, package in packages.items() if name[0] != PACKAGE}
    holders = collections.defaultdict(list)
    for (name, version), package in others.items():
        for text in texts(package) or texts_of_sibling(package, others):
            holders[" ".join(text.split())].append((f"{name} {version}", text))
    print(f"{PACKAGE} is linked with Rust's standard library (MIT OR Apache-2.0) and with these {len(others)} crates.\n"
          "Their licences follow, and then the texts.\n")
    for (name, version), package in others.items():
        licence = package["license"] or fail(f"{name} {version} names no licence in its Cargo.toml; replace the crate")
        print(f"{name} {version}: {licence}")
    for named in sorted(holders.values()):
        names = ", ".join(sorted({name for name, _ in named}))
        print(f"\n{'=' * 100}\n{names}\n{'-' * 100}\n{named[0][1]}")


def purl(name):
    return f"pkg:cargo/{name[0]}@{name[1]}"


def component(name, package, checksums):
    """A crate, as CycloneDX describes it."""
    kind = "application" if name[0] == PACKAGE else "library"
    described = {"type": kind, "bom-ref": purl(name), "name": name[0], "version": name[1], "purl": purl(name)}
    if package["license"]:
        # Cargo still takes the slash that SPDX has given up.
        described["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if name in checksums:
        described["hashes"] = [{"alg": "SHA-256", "content": checksums[name]}]
    if package["repository"]:
        described["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return described


def sbom(packages, needs):
    """A CycloneDX document, the same for the same crates and time."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or fail("SOURCE_DATE_EPOCH is not set; set it to the time of the commit, in seconds")
    time = datetime.datetime.fromtimestamp(int(epoch), datetime.timezone.utc)
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    checksums = {(it["name"], it["version"]): it["checksum"] for it in lock["package"] if "checksum" in it}
    described = {name: component(name, package, checksums) for name, package in packages.items()}
    main = next(name for name in packages if name[0] == PACKAGE)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"timestamp": time.isoformat().replace("+00:00", "Z"), "component": described.pop(main)},
        "components": list(described.values()),
        "dependencies": [{"ref": purl(name), "dependsOn": sorted(map(purl, needs[name]))} for name in packages],
    }
    identity = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True))
    print(json.dumps({"serialNumber": f"urn:uuid:{identity}", **document}, indent=1))


def main():
    packages, needs = linked()
    match sys.argv[1:]:
        case ["notices"]:
            notices(packages)
        case ["sbom"]:
            sbom(packages, needs)
        case _:
            fail("say which: crates.py notices, or crates.py sbom")


main()
