"""Known files, fetched once into the user's cache and accepted by their sha256 alone.

A download that is cut short or is another file never takes the name of the right one (pooch writes beside it, checks,
then moves), and a cached file is checked each time.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxdl.core.errors import DataError


def fetch(name: str, mirrors: Sequence[str], sha256: Mapping[str, str]) -> Path:
    """The cache folder of the dataset `name`, with its files downloaded where missing.

    Args:
        name: of the dataset, and of its folder in the cache.
        mirrors: addresses that end in a slash, tried in their order.
        sha256: of each file, by its name.

    Raises:
        DataError: no mirror gave a file with the right hash, or the cache cannot be written.
    """
    import pooch  # slow to import

    try:
        folder = Path(pooch.os_cache("jaxdl")) / name
    except RuntimeError:  # no home
        raise DataError(f"'{name}' is fetched into the user's cache folder, and this user has none; pass --data-dir (data_dir) "
                        "with the folder where its files lie") from None
    for file, digest in sha256.items():
        _retrieve(name, file, digest, folder, mirrors)
    return folder


def _retrieve(name: str, file: str, sha256: str, folder: Path, mirrors: Sequence[str]) -> None:
    import pooch

    for url in mirrors:
        try:
            pooch.retrieve(url + file, known_hash=f"sha256:{sha256}", fname=file, path=folder)
            return
        except OSError as e:  # no network, no room
            reason = e.strerror or type(e).__name__
        except ValueError:
            reason = "the file offered has another hash"
    raise DataError(f"{file} of '{name}' is not in {folder} and could not be downloaded ({reason}); pass --data-dir "
                    "(data_dir) with the folder where its files lie")
