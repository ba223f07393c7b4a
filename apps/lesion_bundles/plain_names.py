"""What MONAI Label makes paths of, refused unless it is a plain name: ids, tags and names of files, and sessions.

And what would leave an image with a label that isn't its own.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from image_files import expect_fit, unpacked_size
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.utils.sessions import Sessions

logger = logging.getLogger("lesion_bundles")

# Ids and tags become names of files in the datastore's folders, and may lead nowhere else.
_NAME = re.compile(r"[\w-][\w.-]*")
_IMAGE = (".nii", ".nii.gz", ".nrrd", ".png", ".jpg", ".jpeg", ".dcm")
_LABEL = (".nii", ".nii.gz", ".png")  # no bundle could train on another


def refuse(status: int, line: str) -> HTTPException:
    """What to raise for a request that nothing is done of; it is told in the log, too."""
    logger.error("%s", line)
    return HTTPException(status, line)


class PlainNames:
    """A datastore that writes files of plain names only, before MONAI Label makes paths of them."""

    # Of final labels, beside 0: those that a bundle knows; any where there are none.
    values: Collection[int] = ()
    # Bytes of what is read.
    limit = 2**30

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image that was sent."""
        with _kept_unless_refused(image_filename):
            self._expect(image_filename, _IMAGE, image=image_id)
            tags = [*self.get_labels_by_image_id(image_id)]  # type: ignore[attr-defined]
            # Those that were deleted a moment ago may still be listed.
            if any(Path(self.get_label_uri(image_id, tag)).is_file() for tag in tags):  # type: ignore[attr-defined]
                raise refuse(409, f"image {image_id!r} has labels, which aren't another's: delete the image first")
            added: str = super().add_image(image_id, image_filename, image_info)  # type: ignore[misc]
            return added

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label that was sent or inferred; a final one is trained on, and so must fit."""
        with _kept_unless_refused(label_filename):
            self._expect(label_filename, _LABEL, image=image_id, tag=label_tag)
            if image_id not in self.list_images():  # type: ignore[attr-defined]
                raise refuse(404, f"no image {image_id!r} in the datastore")
            if label_tag == DefaultLabelTag.FINAL:
                image = Path(self.get_image_uri(image_id))  # type: ignore[attr-defined]
                if (size := unpacked_size(label_filename)) > self.limit:
                    raise refuse(413, f"the label: {size >> 20} MiB unpacked, the limit is {self.limit >> 20}")
                try:
                    expect_fit(Path(label_filename), image, self.values)
                except Exception as error:
                    line = " ".join(str(error).split()) or type(error).__name__
                    raise refuse(422, f"the label of {image_id!r} can't be used: {line}") from None
            saved: str = super().save_label(image_id, label_filename, label_tag, label_info)  # type: ignore[misc]
            return saved

    def _expect(self, file: str, endings: Sequence[str], **names: str) -> None:
        """Raise unless all are plain."""
        wrong = [f"{what} {name!r}" for what, name in names.items() if not _NAME.fullmatch(str(name))]
        if wrong:
            raise refuse(422, f"{wrong[0]} is no plain name of letters, digits, '_', '-' and '.'")
        # Which MONAI Label will add to the id: a longer one, if its list of endings has none.
        ending = self._to_id(Path(file).name)[1]  # type: ignore[attr-defined]
        if ending.lower() not in endings:
            raise refuse(422, f"a file of ending {ending!r}, not one of {' '.join(endings)}")


@contextmanager
def _kept_unless_refused(file: str) -> Iterator[None]:
    """Remove what was sent after an error, as MONAI Label doesn't."""
    try:
        yield
    except HTTPException:
        if Path(file).resolve().is_relative_to(Path(tempfile.gettempdir()).resolve()):
            Path(file).unlink(missing_ok=True)
        raise


class PlainSessions(Sessions):
    """Sessions that are what was sent, as it is: no archive is unpacked, and no other folder is taken for one."""

    def add_session(
        self, data_file: str, expiry: int = 0, uncompress: bool = False, session_id: str | None = None
    ) -> Any:
        """Keep what was sent."""
        if uncompress:  # members of an archive may lead anywhere, and have any size
            raise refuse(422, "archives aren't unpacked: send the files of a session one by one")
        return super().add_session(data_file, expiry, False, session_id)

    def get_session(self, session_id: str, update_ts: bool = True, fetch_cache: bool = True) -> Any:
        """What is known of it."""
        return super().get_session(self._expected(session_id), update_ts, fetch_cache)

    def remove_session(self, session_id: str) -> None:
        """Delete its folder."""
        super().remove_session(self._expected(session_id))

    def _expected(self, session_id: str) -> str:
        """Raise unless it is the name of a folder in the store, where MONAI Label would take any path."""
        if not _NAME.fullmatch(session_id):
            raise refuse(404, f"no session {session_id!r}")
        return session_id
