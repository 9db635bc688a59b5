"""A certificate authority for tests, which also signs what nobody should trust."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY: Final = timedelta(days=1)
_HOSTS: Final = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, as PEM files."""

    cert: Path
    key: Path

    @property
    def server_config(self) -> tuple[str, str]:
        """Mosquitto's lines for a listener that shows this certificate."""
        return f"certfile {self.cert}", f"keyfile {self.key}"


class Authority:
    """Certificates that `cert` vouches for.

    Args:
        folder: where the files go.
        name: its own; two authorities in one folder need two.
    """

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._name = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0
        own = self._build(self._name, self._key).add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        self.cert = self._write(f"{name}.crt", own)

    def server(self, *hosts: str, expired: bool = False) -> Pair:
        """A broker's certificate; for loopback unless `hosts` say another."""
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts or _HOSTS])
        return self._issue(ExtendedKeyUsageOID.SERVER_AUTH, names, expired=expired)

    def client(self) -> Pair:
        return self._issue(ExtendedKeyUsageOID.CLIENT_AUTH)

    def _issue(
        self, usage: x509.ObjectIdentifier, names: x509.SubjectAlternativeName | None = None, *, expired: bool = False
    ) -> Pair:
        self._issued += 1
        stem = f"{self.cert.stem}-{self._issued}"
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._build(_name(stem), key, expired=expired)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
        if names is not None:
            builder = builder.add_extension(names, False)
        key_file = self._folder / f"{stem}.key"
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Pair(self._write(f"{stem}.crt", builder), key_file)

    def _build(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + (-_DAY if expired else _DAY)
        return x509.CertificateBuilder(
            issuer_name=self._name,
            subject_name=subject,
            public_key=key.public_key(),
            serial_number=x509.random_serial_number(),
            not_valid_before=(end - 3 * _DAY).replace(tzinfo=None),
            not_valid_after=end.replace(tzinfo=None),
        )

    def _write(self, name: str, builder: x509.CertificateBuilder) -> Path:
        path = self._folder / name
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
