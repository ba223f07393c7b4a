"""What MONAI Label makes paths of, refused unless it is a plain name: ids, tags and names of files, and sessions."""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.utils.sessions import Sessions

logger = logging.getLogger("lesion_bundles")

# Ids and tags become names of files in the datastore's folders, and may lead nowhere else.
_NAME = re.compile(r"[\w-][\w.-]*")
_IMAGE = (".nii", ".nii.gz", ".nrrd", ".png", ".jpg", ".jpeg", ".dcm")
_LABEL = (".nii", ".nii.gz", ".nrrd", ".png")


def refuse(status: int, line: str) -> HTTPException:
    """What to raise for a request that nothing is done of; it is told in the log, too."""
    logger.error("%s", line)
    return HTTPException(status, line)


class PlainNames:
    """A datastore that writes files of plain names only, before MONAI Label makes paths of them."""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image that was sent."""
        self._expect(image_filename, _IMAGE, image=image_id)
        added: str = super().add_image(image_id, image_filename, image_info)  # type: ignore[misc]
        return added

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label that was sent or inferred."""
        self._expect(label_filename, _LABEL, image=image_id, tag=label_tag)
        if image_id not in self.list_images():  # type: ignore[attr-defined]
            raise refuse(404, f"no image {image_id!r} in the datastore")
        saved: str = super().save_label(image_id, label_filename, label_tag, label_info)  # type: ignore[misc]
        return saved

    def _expect(self, file: str, endings: Sequence[str], **names: str) -> None:
        """Raise unless all are plain; what was sent is removed then, as MONAI Label doesn't after an error."""
        # Which MONAI Label will add to the id: a longer one, if its list of endings has none.
        ending = self._to_id(Path(file).name)[1]  # type: ignore[attr-defined]
        wrong = [f"{what} {name!r}" for what, name in names.items() if not _NAME.fullmatch(str(name))]
        if not wrong and ending.lower() in endings:
            return
        if Path(file).resolve().is_relative_to(Path(tempfile.gettempdir()).resolve()):
            Path(file).unlink(missing_ok=True)
        if wrong:
            raise refuse(422, f"{wrong[0]} is no plain name of letters, digits, '_', '-' and '.'")
        raise refuse(422, f"a file of ending {ending!r}, not one of {' '.join(endings)}")


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
