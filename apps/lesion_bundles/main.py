"""A MONAI Label app that serves this project's exported bundles; docs/monai_label.md says what it does differently.

It needs MONAI Label and nothing of this project: copy its folder anywhere, and unpack bundles into `model/` there.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import monai.bundle
import torch
from fastapi import HTTPException

try:
    import torchvision  # noqa: F401
except RuntimeError:
    # A build for CUDA beside a torch for CPUs lacks two operators. MONAI Label uses neither, but fails to import it.
    _OPERATORS = torch.library.Library("torchvision", "DEF")
    for _name in ("nms", "qnms"):
        _OPERATORS.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from guarding import guard, known
from image_files import name_of, unpacked_size
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random
from monailabel.tasks.infer.basic_infer import CallBackTypes
from monailabel.tasks.infer.bundle import BundleInferTask
from monailabel.tasks.train.bundle import BundleTrainTask
from monailabel.utils.others.class_utils import unload_module
from monailabel.utils.others.generic import name_to_device
from monailabel.utils.sessions import Sessions
from plain_names import PlainNames, PlainSessions

logger = logging.getLogger("lesion_bundles")

# What a training or a batch, in a process of its own, doesn't have.
_SERVER = "monailabel.app"

Request = dict[str, Any]


class Refusal(ValueError):
    """Something that was asked for and can't be had, in one line."""


def cause(error: BaseException) -> tuple[str, bool]:
    """What went wrong, in one line, and whether whoever asked can mend it.

    Each bundle has an InputError of its own for that, which MONAI wraps, so it is known by its name.
    """
    link: BaseException | None = error
    while link is not None:
        if {"InputError", "Refusal"} & {kind.__name__ for kind in type(link).__mro__}:
            return str(link), True
        error, link = link, link.__cause__ or link.__context__
    return f"{type(error).__name__}: {' '.join(str(error).split())}", False


@contextmanager
def bundle_path(folder: Path) -> Iterator[None]:
    """While a bundle's own code is imported: it is found, and another's of the same name isn't."""
    before = [*sys.path]
    sys.path.insert(0, str(folder))
    unload_module("scripts")
    try:
        yield
    finally:
        sys.path[:] = before


def loader_of(handlers: Sequence[Mapping[str, Any]]) -> int:
    """Which of a config's handlers is a bundle's WeightsLoader, which refuses weights that aren't the network's."""
    return next(number for number, one in enumerate(handlers) if one["_target_"].endswith(".WeightsLoader"))


def scan_of(file: str, folder: Path) -> str:
    """What a bundle reads of an image: with several modalities the folder beside it that has its name, if any."""
    metadata = monai.bundle.ConfigParser.load_config_file(folder / "configs" / "metadata.json")
    several = len(metadata["network_data_format"]["inputs"]["image"]["channel_def"]) > 1
    beside = file.removesuffix(".gz").removesuffix(".nii")
    return beside if several and os.path.isdir(beside) else file


class Inference(BundleInferTask):
    """A bundle's inference, with its own weights or none, that notes how uncertain it is."""

    def __init__(self, folder: Path, conf: Mapping[str, str]) -> None:
        for file in ("configs/inference.json", "configs/metadata.json", "models/model.pt"):
            if not (folder / file).is_file():
                raise Refusal(f"no {file} in {folder}: unpack the whole bundle, with its weights")
        with bundle_path(folder):  # which it leaves there where it fails
            super().__init__(str(folder), conf, load_strict=True)
        self._config.pop("model_filename")  # another file than models/model.pt isn't checked
        self.dimension = 3  # volumes come and go, whatever the network takes of them
        with bundle_path(folder):
            number = loader_of(self.bundle_config.config["handlers"])
            self.loader = self.bundle_config.get_parsed_content(f"handlers#{number}")
        if "save_uncertainty" in self.bundle_config.config:
            self.bundle_config["save_uncertainty"] = True
        self.loader.load(None)

    def __call__(
        self, request: Request, callbacks: dict[CallBackTypes, Callable[[Any], Any]] | None = None
    ) -> tuple[str | None, dict[str, Any]]:
        """The label's file and what is said of it, "uncertainty" among it: see `Uncertainty`."""
        noted: dict[str, Any] = {}

        def note(data: Any) -> Any:
            if (entropy := data.pop("entropy", None)) is not None:
                brain = entropy[entropy > 0]
                noted["uncertainty"] = round(float(brain.mean()), 6) if brain.numel() else 0.0
            return data

        image = scan_of(request["image"], Path(self.bundle_path))
        request = {**request, "case": name_of(image), "image": image}
        if os.path.isdir(image):  # has no ending that the label's could be taken from
            request = {"result_extension": ".nii.gz", **request}
        label, said = super().__call__(request, {CallBackTypes.POST_TRANSFORMS: note, **(callbacks or {})})
        return label, {**said, **noted}

    def writer(self, data: dict[str, Any], extension: str | None = None, dtype: Any = None) -> tuple[str, dict]:
        """Write the label: of a picture one with the same rows and columns, not a volume of one slice."""
        if Path(data["image_path"]).suffix.lower() in (".png", ".jpg"):
            data, extension = {**data, "pred": data["pred"][0].numpy().T}, ".png"
        return super().writer(data, extension, dtype)

    def _get_network(self, device: str, data: Any) -> Any:
        """Those that a training or somebody else put there since are checked, too."""
        if self._networks.get(device, (None, None))[1] != os.stat(self.path[0]).st_mtime:
            self.loader.load(None)
        return super()._get_network(device, data)


class Training(BundleTrainTask):
    """A bundle's training on the images with final labels, which goes on from the weights that are served.

    These are validated first, as if they were those of an epoch before the first, and only better ones replace them.
    """

    def config(self) -> dict[str, Any]:
        """What a request may say."""
        return {"max_epochs": 50, "val_split": 0.2, "device": super().config()["device"]}

    def __call__(self, request: Request, datastore: Datastore) -> dict[str, Any]:
        """Train.

        Raises:
            Refusal: there are too few images with labels.
        """
        folder, config = Path(self.bundle_path), self.bundle_config.config
        labelled = sorted(datastore.datalist(), key=lambda one: str(one["image"]))
        cases = [{**one, "case": name_of(one["image"]), "image": scan_of(one["image"], folder)} for one in labelled]
        held_out = max(1, round(len(cases) * float(request.get("val_split", 0.2))))
        if held_out >= len(cases):
            raise Refusal(f"{len(cases)} images with final labels, {held_out} of them to validate on: label more")
        epochs = int(request.get("max_epochs", 50))
        components = config.get("components", "")
        settings = {
            "data": {"training": cases[:-held_out], "validation": cases[-held_out:]},
            "bundle_root": str(folder),
            "device": name_to_device(request.get("device")),
            "weights": str(folder / "models" / "model.pt"),
            "output_dir": str(folder / "eval" / "label"),
            "train#trainer#max_epochs": epochs,
            "epochs": epochs,
            "stages": [epochs],
            "val_interval": min(config["val_interval"], epochs),
            # There is no curriculum of labels that were drawn a minute ago: their training is its last stage.
            "components": components.replace("C", ""),
            "trained_with#components": components,
            "run": [
                *config["run"][:-1],
                f"$@train#handlers#{loader_of(config['train']['handlers'])}.load(None)",
                "$@validate#evaluator.run()",
                config["run"][-1],
            ],
        }
        known = {id: value for id, value in settings.items() if self.bundle_config.get(id) is not None}
        with bundle_path(folder):
            monai.bundle.run(meta_file=self.bundle_metadata_path, config_file=self.bundle_config_path, **known)
        return {}


class Uncertainty(Strategy):
    """The image without a final label that inference was most uncertain of.

    Each inference notes the mean entropy of its probabilities within the brain's box, from 0 to 1, with the image. An
    inference of all images, as by /batch/infer, has them all noted.
    """

    def __init__(self) -> None:
        super().__init__("The image that the bundle's last inference was most uncertain of")

    def __call__(self, request: Request, datastore: Datastore) -> dict[str, Any] | None:
        """Of the bundle that `request` names as "model", or of all."""
        unlabelled = datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels"))
        noted = [
            (value, image)
            for image in unlabelled
            for model, value in datastore.get_image_info(image).get("uncertainty", {}).items()
            if request.get("model") in (None, model)
        ]
        if unlabelled and not noted:
            raise Refusal(
                f"no uncertainty is noted of {len(unlabelled)} images: ask for /batch/infer of a bundle first"
            )
        return {"id": max(noted)[1], "weight": max(noted)[0]} if noted else None


class LesionBundles(MONAILabelApp):
    """Serves all bundles in `model/`."""

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self.bundles = Path(app_dir, "model")
        # Of an upload, and of what it is unpacked.
        self.limit = int(conf.get("upload_mib", 1024)) * 2**20
        # Uploads come here, and an inference may be asked of them: not of all that this machine has in /tmp.
        tempfile.tempdir = None  # after /reload, that of the app before, which is removed with it
        self.sent = tempfile.TemporaryDirectory(prefix="lesion_bundles_")
        tempfile.tempdir = self.sent.name
        super().__init__(app_dir, studies, conf, "Lesion Bundles", "Brain lesions in MRI, and lesions in other images")
        values = {value for task in self._infers.values() for value in task.labels.values()}
        # To bundles that know a lesion and nothing else, any other value is one, too.
        self._datastore.values = values if len(values) > 1 else ()
        self._datastore.limit = self.limit

    def init_datastore(self) -> Datastore:
        """The one that MONAI Label chooses by `studies`, but with plain names."""
        store = super().init_datastore()
        store.__class__ = type("PlainDatastore", (PlainNames, type(store)), {})
        return store

    def _load_sessions(self, load: bool = False) -> Sessions | None:
        """MONAI Label's, but with plain names."""
        sessions = super()._load_sessions(load)
        # They are a dictionary, at first an empty one.
        return None if sessions is None else PlainSessions(sessions.store_path, sessions.expiry)

    def init_infers(self) -> dict[str, Inference]:
        """Those that can be used; the others are told in a line each."""
        infers = {}
        for folder in sorted(path for path in self.bundles.iterdir() if path.is_dir()):
            try:
                infers[folder.name] = Inference(folder, self.conf)
            except Exception as error:  # of whatever is in a folder
                logger.error("%s is left out: %s", folder.name, cause(error)[0])
        if not infers:
            raise Refusal(f"no bundle to serve in {self.bundles}: unpack exported bundles there")
        return infers

    def init_trainers(self) -> dict[str, Training]:
        """Of the same bundles."""
        return {name: Training(str(self.bundles / name), self.conf) for name in self._infers}

    def init_strategies(self) -> dict[str, Strategy]:
        """MONAI Label's two, and ours."""
        return {"uncertainty": Uncertainty(), "random": Random(), "first": First()}

    def on_init_complete(self) -> None:
        """The server is about to listen."""
        guard(sys.modules[_SERVER].app, self.conf.get("hosts", ""), self.limit)
        super().on_init_complete()

    @contextmanager
    def _answers(self, what: str) -> Iterator[None]:
        """What fails is one line in the log and in the answer; only what nobody outside can mend is logged whole."""
        try:
            yield
        except HTTPException:
            raise
        except Exception as error:
            line, is_theirs = cause(error)
            logger.error("%s: %s", what, line, exc_info=None if is_theirs else error)
            if _SERVER not in sys.modules:
                raise SystemExit(f"{what}: {line}") from None  # the last line, which /train and /batch show
            raise HTTPException(422 if is_theirs else 500, line) from None

    def bundle_path(self, model: str | None) -> str | None:
        """Asked for before any training or batch is started.

        Without one MONAI Label would put a path that a request names on the path of Python.
        """
        if model not in self._infers:
            raise HTTPException(404, f"no model {model!r}: there are {', '.join(self._infers)}")
        return super().bundle_path(model)

    def _expect_image(self, request: Request, datastore: Datastore) -> None:
        """Let it be one of the datastore, or one that was sent, and what is read of it not too large."""
        image = request["image"]
        file = datastore.get_image_uri(image)
        if not file:
            sessions = self.sessions()
            sent = [Path(self.sent.name), *([] if sessions is None else [Path(sessions.store_path)])]
            if not os.path.exists(image) or not any(Path(image).resolve().is_relative_to(p.resolve()) for p in sent):
                raise HTTPException(404, f"no image {image!r} in the datastore")
        if (size := unpacked_size(scan_of(file or image, self.bundles / request["model"]))) > self.limit:
            raise HTTPException(413, f"{image}: {size >> 20} MiB unpacked, the limit is {self.limit >> 20}")

    def infer(self, request: Request, datastore: Datastore | None = None) -> dict[str, Any]:
        """Infer, and note the uncertainty with an image of the datastore."""
        datastore, request = datastore or self.datastore(), known(request)
        self.bundle_path(request["model"])
        self._expect_image(request, datastore)
        with self._answers(f"infer {request['model']} of {request['image']}"):
            result: dict[str, Any] = super().infer(request, datastore)
            if "uncertainty" in result["params"] and datastore.get_image_uri(request["image"]):
                noted = datastore.get_image_info(request["image"]).get("uncertainty", {})
                noted = {**noted, request["model"]: result["params"]["uncertainty"]}
                datastore.update_image_info(request["image"], {"uncertainty": noted})
            return result

    def infer_wsi(self, request: Request, datastore: Datastore | None = None) -> dict[str, Any]:
        """The same: no bundle reads slides, of which MONAI Label would open any file."""
        return self.infer(request, datastore)

    def batch_infer(self, request: Request, datastore: Datastore | None = None) -> dict[str, Any]:
        """One image after another; one that fails is told, and the others are done."""

        def infer(one: Request, store: Datastore) -> dict[str, Any]:
            try:
                return self.infer(one, store)
            except (HTTPException, SystemExit) as error:
                return {"error": str(error)}

        alone = {"multi_gpu": False, "max_workers": 1}  # two at once would unload each other's modules
        return self._batch_infer({**request, **alone}, datastore or self.datastore(), infer)

    def train(self, request: Request) -> dict[str, Any]:
        """Train one bundle."""
        with self._answers(f"train {request['model']}"):
            return super().train(request)

    def next_sample(self, request: Request) -> dict[str, Any]:
        """The image to label next."""
        request = known(request)
        if request["strategy"] not in self._strategies:
            raise HTTPException(404, f"no strategy {request['strategy']!r}: there are {', '.join(self._strategies)}")
        with self._answers(f"sample by {request['strategy']}"):
            return super().next_sample(request)
