"""A campaign on disk: what was asked, and one small file for every finished shard.

    manifest.json   the question: network, inputs, faults, plan, dtype, epsilon, version
    network.npz     the network and the inputs themselves, so that the folder needs nothing else
    inputs.npz
    shards/         START-STOP.json: the tally of configurations START .. STOP - 1, who ran it, a checksum
    records/        START-STOP.parquet: every configuration's record, where asked for
    damaged/        shard files that could not be trusted, set aside to be looked at
    claims          which shards are being run (see `claims`)

Every file appears whole or not at all: it is written beside its place, flushed to disk, renamed, and the
directory flushed. Shards lie on the grid of `dyadic`, so that files from any number of processes join.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from stat import S_ISREG

from neurofail import __version__, dyadic
from neurofail.dyadic import Range
from neurofail.errors import CampaignError, InputError
from neurofail.formats import npz
from neurofail.formats.arrays import read_npz, write_npz
from neurofail.tally import Setup, Tally, differing, replay

FORMAT = 1
# A witness replayed elsewhere may differ in the last digits: matrix products add up in another order.
_SAME = 1e-9
# Manifests and shard files are kilobytes; what is far larger is none, and is not read into memory.
_LARGEST = 1 << 26
# What no waiting cures: the path itself is not one for a campaign.
_NO_PLACE = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENOENT,
    errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL,
)  # fmt: skip


@dataclass(frozen=True)
class Shard:
    """A finished shard: its tally, and what ran it."""

    tally: Tally
    machine: str
    seconds: float

    @property
    def range(self) -> Range:
        """The configurations that it holds."""
        return self.tally.ranges[0]


def canonical(record: object) -> bytes:
    """JSON in the one form that is hashed and stored."""
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _sealed(record: dict[str, object]) -> bytes:
    return canonical({**record, "checksum": sha256(canonical(record)).hexdigest()})


def _unsealed(path: Path) -> dict[str, object]:
    """The record that `_sealed` wrote there; InputError if a bit of it has changed."""
    status = path.stat()
    if not S_ISREG(status.st_mode) or status.st_size > _LARGEST:
        raise InputError("not a file of this kind")
    try:
        record = json.loads(path.read_bytes())
        seal = record.pop("checksum")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError("torn or not a file of this kind") from None
    if seal != sha256(canonical(record)).hexdigest():
        raise InputError("its checksum is wrong")
    return dict(record)


def write_whole(path: Path, data: bytes) -> None:
    """Puts `data` at `path` so that a crash at any moment leaves all of it or nothing."""
    beside = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}")
    try:
        with open(beside, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(beside, path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
    flush(path.parent)


def flush(directory: Path) -> None:
    """Makes the names in a directory outlast a power cut."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Folder:
    """A campaign's folder; see `create` and `open`.

    Attributes
    ----------
    path : where it is
    setup : what was asked
    records : whether every configuration's record is kept
    """

    def __init__(self, path: Path, setup: Setup, records: bool, version: str) -> None:
        self.path = path
        self.setup = setup
        self.records = records
        self.version = version

    @cached_property
    def count(self) -> int:
        """How many configurations the plan has."""
        return self.setup.plan.count

    @classmethod
    def create(cls, path: str | Path, setup: Setup, *, records: bool = False) -> Folder:
        """The folder of this campaign, made if it is not there.

        Raises InputError for the folder of another campaign, naming what differs, or one that cannot be
        written; CampaignError for a full disk.
        """
        folder = cls(Path(path), setup, records, __version__)
        try:
            for name in ("shards", "records") if records else ("shards",):
                (folder.path / name).mkdir(parents=True, exist_ok=True)
            folder._settle()
        except OSError as error:
            raise storage_error(folder.path, error) from None
        return folder

    @classmethod
    def open(cls, path: str | Path) -> Folder:
        """The folder of a campaign begun before, from what lies in it; InputError if it is none."""
        at = Path(path)
        manifest = _manifest(at)
        net = npz.load(at / "network.npz")
        arrays = read_npz(at / "inputs.npz")
        if set(arrays) != {"inputs"}:
            raise InputError(f"{at / 'inputs.npz'}: must hold one array named 'inputs'")
        try:
            setup = Setup.from_dict(net, net.check_inputs(arrays["inputs"]), manifest["setup"])  # type: ignore[arg-type]  # checked there
        except InputError as error:
            raise InputError(f"{at}: {error}") from None
        return cls(at, setup, manifest["records"] is True, str(manifest["neurofail"]))

    def manifest(self) -> dict[str, object]:
        """What was asked, as plain JSON values."""
        return {
            "format": FORMAT,
            "neurofail": self.version,
            "setup": self.setup.describe(),
            "records": self.records,
        }

    def _settle(self) -> None:
        """Leaves manifest, network and inputs in place, whoever put them there first."""
        target = self.path / "manifest.json"
        if not target.exists():
            beside = self.path / f".manifest.json.{os.uname().nodename}.{os.getpid()}"
            try:
                write_whole(beside, _sealed(self.manifest()))
                # A link never replaces: of two that begin at once, one wins and the other is compared.
                os.link(beside, target)
            except FileExistsError:
                pass
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV):
                    raise
                os.replace(beside, target)  # a file system without links
            finally:
                beside.unlink(missing_ok=True)
            flush(self.path)
        found = _manifest(self.path)
        if found != json.loads(canonical(self.manifest())):
            raise InputError(f"{self.path} holds another campaign: {_difference(found, self.manifest())}")
        self._settle_array_file("network.npz", lambda path: self.setup.plan.net.save(path))
        self._settle_array_file("inputs.npz", lambda path: write_npz(path, {"inputs": self.setup.inputs}))

    def _settle_array_file(self, name: str, write: Callable[[Path], None]) -> None:
        target = self.path / name
        if target.exists():
            return
        beside = self.path / f".{os.uname().nodename}.{os.getpid()}.{name}"
        try:
            write(beside)
            write_whole(target, beside.read_bytes())
        finally:
            beside.unlink(missing_ok=True)

    def shard_path(self, block: Range) -> Path:
        """Where the file of a shard is, or will be."""
        return self.path / "shards" / f"{self._stem(block)}.json"

    def records_path(self, block: Range) -> Path:
        """Where the records of a shard are, or will be."""
        return self.path / "records" / f"{self._stem(block)}.parquet"

    def _stem(self, block: Range) -> str:
        digits = len(str(self.count))
        return f"{block[0]:0{digits}}-{block[1]:0{digits}}"

    def blocks(self) -> list[Range]:
        """The ranges of the shard files, without those inside larger ones; ascending and apart."""
        return dyadic.outermost(self._listed())

    def _listed(self) -> Iterator[Range]:
        """The ranges that file names tell; names that tell none are damaged files, left to `check`."""
        for entry in os.scandir(self.path / "shards"):
            block = self._range(entry.name)
            if block is not None:
                yield block

    def _range(self, name: str) -> Range | None:
        start, _, stop = name.removesuffix(".json").partition("-")
        if not (name.endswith(".json") and start.isdecimal() and stop.isdecimal()):
            return None
        block = int(start), int(stop)
        if not dyadic.valid(*block, self.count) or self.shard_path(block).name != name:
            return None
        return block

    def has(self, block: Range) -> Range | None:
        """The finished shard that holds this range, if there is one."""
        return next((b for b in dyadic.holders(*block, self.count) if self.shard_path(b).exists()), None)

    def put(self, shard: Shard) -> None:
        """Keeps a finished shard. CampaignError if the disk does not take it."""
        self._write(self.shard_path(shard.range), self._encoded(shard))

    def put_records(self, block: Range, data: bytes) -> None:
        """Keeps the records of a shard; they count from when the shard itself is kept."""
        self._write(self.records_path(block), data)

    def _encoded(self, shard: Shard) -> bytes:
        tally = shard.tally.to_dict()
        del tally["setup"]
        return _sealed(
            {
                "format": FORMAT,
                "campaign": self.setup.digest,
                "tally": tally,
                "machine": shard.machine,
                "seconds": shard.seconds,
            }
        )

    def get(self, block: Range) -> Shard:
        """The shard with this range; InputError if its file is damaged."""
        path = self.shard_path(block)
        try:
            record = _unsealed(path)
            if record.get("format") != FORMAT or record.get("campaign") != self.setup.digest:
                raise InputError("it belongs to another campaign")
            tally = Tally.from_dict(self.setup, record["tally"])  # type: ignore[arg-type]  # checked there
            if tally.ranges != (block,):
                raise InputError(f"it holds {tally.ranges}, not what its name says")
            if self.records and not self.records_path(block).exists():
                raise InputError(f"{self.records_path(block).name} is missing")
            return Shard(tally, str(record["machine"]), float(record["seconds"]))  # type: ignore[arg-type]  # sealed
        except OSError as error:
            raise InputError(f"{path}: {error.strerror or error}") from None
        except (InputError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path}: damaged: {error}") from None

    def shards(self) -> Iterator[Shard]:
        """Every shard that can be trusted, in order."""
        for block in self.blocks():
            try:
                yield self.get(block)
            except InputError:
                continue

    def load(self, *, mend: bool = False) -> tuple[Tally, list[str]]:
        """All that is finished, merged; and what is wrong with the shard files left out.

        With `mend`, those are set aside in damaged/, so that their ranges are run again. The worst
        evaluation is replayed by the reference; InputError if it does not give what its shard says.
        """
        said = []
        while True:
            total, bad = Tally.empty(self.setup), []
            for block in self.blocks():
                try:
                    total = total.merge(self.get(block).tally)
                except InputError as error:
                    bad.append((self.shard_path(block).name, str(error)))
            bad += [(n, f"{self.path / 'shards' / n}: damaged: no shard has this name") for n in self._odd()]
            said += [reason + (self._set_aside(name) if mend else "") for name, reason in bad]
            # A damaged shard may have hidden smaller ones that are good: set aside, then look again.
            if not (mend and bad):
                break
        self._check_witness(total)
        return total, said

    def _check_witness(self, total: Tally) -> None:
        worst = total.worst
        if worst is None:
            return
        again = replay(self.setup.plan, self.setup.inputs, worst.index, worst.input, worst.measured).error
        if not (again == worst.error or abs(again - worst.error) <= _SAME * worst.error):
            raise InputError(
                f"{self.path}: configuration {worst.index} on input {worst.input} is said to give "
                f"{worst.error!r}, but the reference gives {again!r}; a shard file has been forged"
            )

    def _odd(self) -> list[str]:
        names = [entry.name for entry in os.scandir(self.path / "shards")]
        return sorted(n for n in names if not n.startswith(".") and self._range(n) is None)

    def _set_aside(self, name: str) -> str:
        aside = self.path / "damaged"
        try:
            aside.mkdir(exist_ok=True)
            target, number = aside / name, 0
            while target.exists():
                number += 1
                target = aside / f"{name}.{number}"
            os.replace(self.path / "shards" / name, target)
        except FileNotFoundError:
            return "; another process has set it aside"
        except OSError as error:
            raise storage_error(self.path, error) from None
        return f"; set aside as {target}, to be run again"

    def sweep(self) -> None:
        """Removes what killed processes of this machine left half written."""
        for directory in (self.path, self.path / "shards", self.path / "records"):
            for left in directory.glob(f".*.{os.uname().nodename}.*"):
                pid = left.name.rpartition(".")[2]
                if pid.isdecimal() and not _alive(int(pid)):
                    left.unlink(missing_ok=True)

    def adopt(self, other: Folder) -> list[str]:
        """Copies the other folder's shards that this one lacks; what is wrong with those left behind.

        Raises InputError if the campaigns differ.
        """
        if other.manifest() != self.manifest():
            raise InputError(
                f"{other.path} holds another campaign than {self.path}: "
                f"{_difference(other.manifest(), self.manifest())}"
            )
        left = []
        # The largest first: what lies inside one that is good is then held, inside a damaged one it counts.
        for block in sorted(other._listed(), key=lambda r: (r[0] - r[1], r)):
            if self.has(block) is not None:
                continue
            try:
                shard = other.get(block)
            except InputError as error:
                left.append(str(error))
                continue
            if self.records:
                self.put_records(block, other.records_path(block).read_bytes())
            self.put(shard)
        return left

    def _write(self, path: Path, data: bytes) -> None:
        try:
            write_whole(path, data)
        except OSError as error:
            raise storage_error(self.path, error) from None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _manifest(path: Path) -> dict[str, object]:
    """The manifest of a campaign's folder, checked in form."""
    file = path / "manifest.json"
    try:
        record = _unsealed(file)
    except OSError as error:
        raise InputError(f"{path}: no campaign is here ({file.name}: {error.strerror})") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None
    if record.get("format") != FORMAT:
        raise InputError(f"{file}: format {record.get('format')!r}; this version reads format {FORMAT}")
    if not ({"setup", "records", "neurofail"} <= set(record) and isinstance(record["setup"], dict)):
        raise InputError(f"{file}: not the manifest of a campaign")
    return record


def _difference(found: dict[str, object], wanted: dict[str, object]) -> str:
    """What differs between two manifests, with both values where they are short."""
    a, b = ({**m, **m["setup"]} for m in (found, json.loads(canonical(wanted))))  # type: ignore[dict-item]  # a dict
    names = [name for name in differing(a, b).split(", ") if name != "setup"]
    return "; ".join(f"{n} is {_short(a.get(n))} there and {_short(b.get(n))} here" for n in names)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def storage_error(path: Path, error: OSError) -> InputError | CampaignError:
    """An error of the file system in words."""
    reason = error.strerror or str(error)
    if error.errno in _NO_PLACE:
        return InputError(f"{path}: cannot be written ({reason}); name a folder that can")
    then = "make room and run" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "run"
    return CampaignError(f"{path}: {reason}; every finished shard is kept: {then} the same again")
