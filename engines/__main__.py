"""``python -m engines inspect|verify|sign|triton-export model.engine``."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from artefacts.arguments import ArgumentParser
from artefacts.command import run_command
from artefacts.errors import InputError
from artefacts.texts import printable, printable_json
from artefacts.words import counted
from engines.history import versions_of
from engines.loading import check_machine
from engines.manifest import Manifest, read_manifest, read_verified
from engines.monitoring.settings import Monitored
from engines.monitoring.settings import add_flags as add_monitoring
from engines.passport import VersionRecord
from engines.serving.release import Expected, Release
from engines.serving.signing import check_signature, sign
from engines.serving.triton import export_triton, server_options

__all__ = ["main"]


def inspect(arguments: argparse.Namespace) -> None:
    """Print what the manifest says; ``--json`` prints the file."""
    manifest = read_manifest(arguments.engine)
    if arguments.json:
        print(printable_json(manifest.to_bytes().decode()), end="")
        return
    for title, text in describe(manifest):
        # A manifest is untrusted: a line each, without control characters.
        print(f"{title:<14}{printable(text, kept='')}")


def verify(arguments: argparse.Namespace) -> None:
    """Check hash, schema, digest and signature, and whether this machine can load the engine."""
    manifest, data = read_verified(arguments.engine)
    print(f"intact: {len(data)} bytes, sha256 {manifest.engine_sha256}")
    if arguments.trusted_key is not None:
        check_signature(arguments.engine, manifest, arguments.trusted_key)
        print(f"signed by the key of {arguments.trusted_key}")
        wanted = Expected(
            name=arguments.name, version=arguments.model_version, revoked=arguments.revoked
        )
        wanted.check(arguments.engine, manifest)
    check_machine(arguments.engine, manifest)
    print("fits this machine")


def sign_engine(arguments: argparse.Namespace) -> None:
    """Sign engine and manifest; load(..., trusted_key=...) then refuses any other."""
    release = None
    if arguments.name is not None:
        release = Release(
            name=arguments.name, version=arguments.model_version or "", expires=arguments.expires
        )
    elif arguments.model_version is not None or arguments.expires is not None:
        raise InputError(
            "--model-version or --expires without --name, expected the model's name with them; "
            "add --name"
        )
    print(f"written: {sign(arguments.engine, arguments.key, release=release)}")


def triton_export(arguments: argparse.Namespace) -> None:
    """Add the engine to a model repository of Triton; the next version of its model."""
    version = export_triton(
        arguments.engine,
        arguments.repository,
        name=arguments.name,
        max_batch=arguments.max_batch,
        instances=arguments.instances,
        trusted_key=arguments.trusted_key,
        monitored=Monitored.from_flags(arguments),
    )
    print(f"written: {version} and config.pbtxt beside it")
    command = f"tritonserver --model-repository {shlex.quote(str(version.parents[1]))}"
    print(f"serve:   {command} {server_options(read_manifest(arguments.engine))}".rstrip())


def describe(manifest: Manifest) -> list[tuple[str, str]]:
    """Title and text of each line that ``inspect`` prints."""
    lines = [
        ("target", f"{manifest.target}, {manifest.precision}, TF32 {manifest.options.get('tf32')}"),
        ("library", f"{manifest.library['name']} {manifest.library['version']}"),
        ("device", str(manifest.device["name"])),
        ("engine", f"{manifest.engine_bytes} bytes, sha256 {manifest.engine_sha256}"),
        ("onnx", f"{manifest.onnx['name']}, sha256 {manifest.onnx['sha256']}"),
        ("created", manifest.created),
    ]
    lines += [("input", f"{s.name} {s.dtype} {s.shape}") for s in manifest.inputs]
    lines += [("output", f"{s.name} {s.dtype} {s.shape}") for s in manifest.outputs]
    lines += [("profile", str(profile.to_json())) for profile in manifest.profiles]
    if manifest.coverage is not None:
        cover = manifest.coverage
        lines.append(
            (
                "int8",
                f"{len(cover.int8_layers)} of {len(cover.nodes)} layers, "
                f"{cover.int8_mac_share:.1%} of multiply-accumulates ({cover.source})",
            )
        )
        lines += [("not int8", name) for name in cover.float_layers]
    for name in ("calibrator", "samples", "preprocess"):
        if (value := getattr(manifest.passport, name)) is not None:
            lines.append((name, str(value)))
    lines += [("version", _version(record)) for record in versions_of(manifest)]
    return lines + [(name, str(result)) for name, result in sorted(manifest.measured.items())]


def _version(record: VersionRecord) -> str:
    """``2, merged with the data before, 600 samples (ab12…), …`` in one line."""
    parts = [f"{record.version}", _HOW.get(record.how, record.how), f"on {record.created}"]
    if record.samples is not None:
        parts.append(counted(record.samples, "sample"))
    parts += [f"data {_short(record.samples_sha256)}", f"ranges {_short(record.ranges_sha256)}"]
    parts.append(f"engine {_short(record.engine_sha256)}")
    if record.came_from is not None:
        parts.append(f"from engine {_short(record.came_from)}")
    return ", ".join(parts) + (f": {record.verdict}" if record.verdict else "")


def _short(digest: str | None) -> str:
    return "unknown" if digest is None else f"{digest[:12]}…"


_HOW = {
    "built": "built",
    "merged": "recalibrated with the data before and new",
    "replaced": "recalibrated with new data alone",
}

COMMANDS = {
    "inspect": inspect,
    "verify": verify,
    "sign": sign_engine,
    "triton-export": triton_export,
    "export-triton": triton_export,
}


def add_flags(name: str, to: argparse.ArgumentParser) -> None:
    """The flags of one command."""
    if name == "inspect":
        to.add_argument("--json", action="store_true", help="print the manifest itself")
    elif name == "verify":
        to.add_argument("--trusted-key", type=Path, help="public key, PEM: check the signature")
        to.add_argument("--name", help="of the model, that must have been signed")
        to.add_argument("--model-version", help="likewise")
        to.add_argument("--revoked", type=Path, help="text file with a SHA-256 a line")
    elif name == "sign":
        to.add_argument("--key", type=Path, required=True, help="private key, PEM (P-256)")
        to.add_argument("--name", help="of the model, signed with it")
        to.add_argument("--model-version", help="likewise")
        to.add_argument("--expires", type=date.fromisoformat, help="last day, e.g. 2030-12-31")
    else:
        to.add_argument("repository", type=Path, help="folder of Triton's models")
        to.add_argument("--name", help="of the model; default: the engine's file name")
        to.add_argument("--max-batch", type=int, help="default: what the profiles allow")
        to.add_argument("--instances", type=int, default=1, help="engines side by side")
        to.add_argument(
            "--trusted-key", type=Path, help="public key, PEM: serve only what it signed"
        )
        add_monitoring(to)


def main(argv: Sequence[str] | None = None, prog: str = "python -m engines") -> int:
    """Run a command; 0 done, 2 bad input or environment."""
    arguments = parser(prog).parse_args(argv)
    return run_command(lambda: arguments.command(arguments), debug=arguments.debug)


def parser(prog: str) -> argparse.ArgumentParser:
    """The argument parser, a subparser for each command."""
    root = ArgumentParser(prog=prog, description=__doc__)
    root.add_argument("--debug", action="store_true", help="show the trace of an error")
    commands = root.add_subparsers(required=True, metavar="|".join(COMMANDS))
    for name, command in COMMANDS.items():
        added = commands.add_parser(name, help=(command.__doc__ or "").split(";")[0])
        added.add_argument("engine", help="engine file; its manifest lies beside it")
        added.set_defaults(command=command)
        add_flags(name, added)
    return root


if __name__ == "__main__":
    sys.exit(main())
