"""Certificates for tests, made by openssl: an authority, a broker's certificate, a client's."""

from __future__ import annotations

import subprocess
from pathlib import Path

from support.needs import needs_program


class Authority:
    """A certificate authority in a folder of its own."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        extensions = ("-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")
        self._openssl(
            "req", "-x509", "-days", "2", "-subj", f"/CN={name}", *extensions, *_new_key(self._key), "-out",
            str(self.certificate),
        )  # fmt: skip

    def issue(self, name: str, subject_alt_name: str) -> tuple[Path, Path]:
        """A certificate and its key."""
        certificate, key, request = (self._folder / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        extensions = self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={subject_alt_name}\n")
        self._openssl("req", "-new", "-subj", f"/CN={name}", *_new_key(key), "-out", str(request))
        self._openssl(
            "x509", "-req", "-days", "2", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key),
            "-CAcreateserial", "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip
        return certificate, key

    def _openssl(self, *arguments: str) -> None:
        subprocess.run([needs_program("openssl"), *arguments], check=True, capture_output=True, timeout=60)


def _new_key(file: Path) -> tuple[str, ...]:
    return ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(file))
