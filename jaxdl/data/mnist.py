"""MNIST and Fashion-MNIST: IDX files, fetched where no folder is given.

The hashes are those of the files that the authors published: LeCun, Cortes and Burges, "The MNIST database of handwritten
digits"; Xiao, Rasul and Vollgraf, "Fashion-MNIST" (2017).
"""

from pathlib import Path

from jaxdl.core.types import Examples
from jaxdl.data import fetch, idx
from jaxdl.data.registry import Reader

NUM_CLASSES = 10
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



def _reader(name: str, summary: str, class_names: tuple[str, ...] | None = None) -> Reader:
    def read(folder: Path | None, split: str) -> Examples:
        if folder is None:
            files = {file: digest for file, digest in SHA256[name].items() if file.startswith(idx.PREFIX[split])}
            folder = fetch.fetch(name, MIRRORS[name], files)
        return idx.read_split(folder, split, NUM_CLASSES)

    return Reader(summary, read, "fetched", num_classes=NUM_CLASSES, class_names=class_names, sha256=SHA256[name])


MNIST = _reader("mnist", "28x28 handwritten digits, 60,000 to train and 10,000 to test; IDX files")
FASHION_MNIST = _reader(
    "fashion_mnist", "28x28 pictures of clothes, 60,000 to train and 10,000 to test; IDX files",
    ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"))
