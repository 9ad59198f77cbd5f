"""Sets of images that jobs use: uploaded for it, such as the normal images of a new product."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import delete, func, select

from snl.data.source import opened
from snl.errors import DataError, ImageError, SettingsError
from snl.service.blobs import Blobs
from snl.service.ids import new_id
from snl.service.serving import TYPES
from snl.service.store import NotThereError, Store, audit
from snl.service.tables import SetImageRow

NAME = re.compile(r"[\w][\w .+-]{0,99}")
MOST_IMAGES = 20_000


@dataclass(frozen=True)
class Summary:
    """A set: its name, and how many images and bytes it has."""

    name: str
    images: int
    bytes: int


class Sets:
    """The sets of a service.

    Args:
        store: of their rows.
        blobs: of their images.
    """

    def __init__(self, store: Store, blobs: Blobs) -> None:
        self.store, self.blobs = store, blobs

    def add(
        self, name: str, images: Sequence[tuple[str, bytes]], who: str
    ) -> Sequence[SetImageRow]:
        """Add image files, all or none; one with the same content is in a set only once.

        Args:
            name: of the set, a new or a known one.
            images: their names, as they are shown, and their contents.
            who: adds them.

        Raises:
            SettingsError: the set's name is not possible, or the set is full.
            ImageError: one of them is not an image.
            OSError: they cannot be stored.
        """
        if not NAME.fullmatch(name):
            raise SettingsError(f"set '{name[:40]}': give up to 100 letters, digits, spaces, . + -")
        kinds = [self._kind(image, content) for image, content in images]
        result = []
        with self.blobs.keeping() as put, self.store.writing() as session:
            blobs = [put(content) for _, content in images]
            query = select(SetImageRow).where(SetImageRow.set == name)
            there = {row.image: row for row in session.scalars(query)}
            for (image, content), kind, blob in zip(images, kinds, blobs, strict=True):
                if blob not in there:
                    there[blob] = SetImageRow(
                        id=new_id(),
                        set=name,
                        name=image[:300],
                        image=blob,
                        image_type=kind,
                        bytes=len(content),
                        created=datetime.now(UTC),
                        who=who,
                    )
                    session.add(there[blob])
                result.append(there[blob])
            if len(there) > MOST_IMAGES:
                raise SettingsError(f"the set {name} would be too large: {MOST_IMAGES} images")
        return result

    def _kind(self, name: str, content: bytes) -> str:
        """Return the media type of an image file, after decoding it."""
        with self.blobs.incoming(content) as path:
            try:
                with opened(path) as file:
                    kind = TYPES.get(str(file.format), "application/octet-stream")
                    file.load()
            except ImageError as error:
                raise ImageError(str(error).replace(str(path), name or "the image")) from None
        return kind

    def list(self) -> list[Summary]:
        """Return the sets by name."""
        row = SetImageRow
        query = select(row.set, func.count(), func.sum(row.bytes)).group_by(row.set)
        with self.store.reading() as session:
            found = session.execute(query.order_by(row.set)).all()
        return [Summary(name, count, int(size)) for name, count, size in found]

    def images(self, name: str) -> Sequence[SetImageRow]:
        """Return the images of a set, oldest first.

        Raises:
            NotThereError: there is no such set.
        """
        query = select(SetImageRow).where(SetImageRow.set == name).order_by(SetImageRow.id)
        with self.store.reading() as session:
            rows = session.scalars(query).all()
        if not rows:
            raise NotThereError(f"there is no set {name[:100]}")
        return rows

    def image(self, name: str, id: str) -> SetImageRow:
        """Return an image of a set.

        Raises:
            NotThereError: there is none.
        """
        with self.store.reading() as session:
            row = session.get(SetImageRow, id)
        if row is None or row.set != name:
            raise NotThereError(f"there is no image {id[:40]} in this set")
        return row

    def delete(self, name: str, who: str, image: str = "") -> None:
        """Delete a set, or one image of it; files that an inspection also has stay.

        Raises:
            NotThereError: there is none.
        """
        query = delete(SetImageRow).where(SetImageRow.set == name)
        if image:
            query = query.where(SetImageRow.id == image)
        with self.store.writing() as session:
            if not session.execute(query).rowcount:  # type: ignore[attr-defined]
                raise NotThereError(f"there is no such set or image: {name[:100]} {image[:40]}")
            session.add(audit(who, "set delete", name, {"image": image}))

    def content(self, row: SetImageRow) -> bytes:
        """Return the file of an image.

        Raises:
            DataError: it is no longer there.
        """
        content = self.blobs.get(row.image)
        if content is None:
            raise DataError(f"the image {row.name or row.id} of the set {row.set} is gone")
        return content
