"""Known files, fetched once into the user's cache and accepted by their sha256 alone.

A download that is cut short or is another file never takes the name of the right one (pooch writes beside it, checks,
then moves), and a cached file is checked each time. The hashes are those of the files that the authors published:
LeCun, Cortes and Burges, "The MNIST database of handwritten digits"; Xiao, Rasul and Vollgraf, "Fashion-MNIST" (2017).
"""

from pathlib import Path

from jaxdl.core.errors import DataError
from jaxdl.data.idx import PREFIX

MIRRORS = {
    "mnist": ("https://ossci-datasets.s3.amazonaws.com/mnist/",
              "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    "fashion_mnist": ("https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
                      "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"),
}
SHA256 = {
    "mnist": {
        "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    },
    "fashion_mnist": {
        "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    },
}


def fetch(name: str, split: str) -> Path:
    """The cache folder with the files of `split` ("train" or "test") of the dataset `name`, downloaded where missing.

    Raises:
        DataError: no mirror gave a file with the right hash, or the cache cannot be written.
    """
    import pooch  # slow to import

    folder = Path(pooch.os_cache("jaxdl")) / name
    for file, sha256 in SHA256[name].items():
        if file.startswith(PREFIX[split]):
            _retrieve(name, file, sha256, folder)
    return folder


def _retrieve(name: str, file: str, sha256: str, folder: Path) -> None:
    import pooch

    for url in MIRRORS[name]:
        try:
            pooch.retrieve(url + file, known_hash=f"sha256:{sha256}", fname=file, path=folder)
            return
        except OSError as e:  # no network, no room
            reason = e.strerror or type(e).__name__
        except ValueError:
            reason = "the file offered has another hash"
    raise DataError(f"{file} of '{name}' is not in {folder} and could not be downloaded ({reason}); pass --data-dir "
                    "(data_dir) with the folder where its files lie")
