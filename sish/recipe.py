"""How a slide becomes keys and barcodes: one frozen :class:`Recipe`, which an index stores.

A query is read by the recipe of the index that is searched. Codes of another recipe have another fingerprint
and are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from reprlib import repr as short
from typing import Any, Literal, get_args

from sish.encoders import FEATURES, OWN, PREFIXES, TIMM, TISSUE, PatchEncoder, current_name, name_of
from sish.errors import IndexFormatError, ParameterError, ParameterTypeError
from sish.index.keys import Pooling
from sish.nearest import nearest_to
from sish.slides.files import absolute
from sish.slides.tissue import MIN_SPECK_UM2

MIN_PATCH_MPP, MAX_PATCH_MPP = 0.05, 16.0
"""Range of the scale at which patches are read."""

_MOST_SPECK_UM2 = 1e9

_TASTE = ("min_speck_um2", "leave_out_ink")
"""Fields that are stored and hashed only if they differ from their defaults, as older indexes lack them."""

_RENAMED = {"densenet_weights": "network_weights"}

Keys = Literal["texture", "paper"]
"""The kind of keys by which an index orders its patches: see :class:`Recipe`."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a slide becomes keys and barcodes.

    The defaults are ours; :meth:`paper` gives the published setting (Chen et al. 2022, Methods).

    Examples
    --------
    >>> Recipe(mpp=0.5).patch_px, Recipe.paper("paper.safetensors").patch_px, Recipe.of("timm:uni").mpp
    (256, 1024, 0.5)
    """

    weights: str = TISSUE
    """Encoder: a path of weights, or a name of :mod:`sish.encoders`; ``object:NAME`` if it was an object."""
    network_weights: str = ""
    """File of the weights of a timm network, or of DenseNet121 beside a VQ-VAE. Empty: the model hub's."""
    patch_px: int = 256
    """Edge of a patch in pixels at ``mpp``."""
    mpp: float = 1.0
    """Scale at which patches are read, um per pixel; 0 for features whose patches have no known size."""
    keys: Keys = "texture"
    """The keys that order patches: ``texture``, paths in a tree learnt from the archive, or ``paper``."""
    pooling: Pooling = "integer"
    """Reading of the paper's key: ``integer`` as its authors compute it, ``exact`` as it is written."""
    n_clusters: int = 9
    """Colour clusters of the mosaic's first stage."""
    fraction: float = 0.05
    """Share of a colour cluster's tiles that the second stage keeps."""
    seed: int = 0
    """Seed of both k-means."""
    min_speck_um2: float = MIN_SPECK_UM2
    """Smaller pieces (in um2) are left out; if no piece is much larger, those down to 5,000 um2 stay."""
    leave_out_ink: bool = True
    """Whether marks of pens are left out."""

    @classmethod
    def paper(cls, weights: str, network_weights: str = "") -> Recipe:
        """Return the published setting: 1,024 px patches at 0.5 um/px, weights of the architecture paper."""
        return cls(weights=weights, network_weights=network_weights, keys="paper", patch_px=1024, mpp=0.5)

    @classmethod
    def of(cls, weights: str) -> Recipe:
        """Return the setting of an encoder: a known network of timm has its own patch size and scale."""
        from sish.vqvae.known_networks import KNOWN

        known = KNOWN.get(weights.removeprefix(TIMM).lower()) if weights.startswith(TIMM) else None
        return (
            cls(weights=weights) if known is None else cls(weights=weights, patch_px=known.px, mpp=known.mpp)
        )

    def suited(self, encoder: str | PatchEncoder) -> Recipe:
        """Return the recipe for an encoder, by name or as an object; itself if it names it already.

        Patch size and scale become the encoder's own where they have their default values.

        Parameters
        ----------
        encoder : str or PatchEncoder
            The encoder.

        Returns
        -------
        Recipe
            The recipe with the encoder's name.

        Raises
        ------
        ParameterError
            If the recipe names another encoder, or the object is none.
        """
        name, usual = name_of(encoder), Recipe()
        if self.weights == name:
            return self
        if self.weights != usual.weights:
            raise ParameterError(
                f"got encoder {name} beside a recipe with weights={self.weights!r}; give one of the two"
            )
        own = Recipe.of(encoder) if isinstance(encoder, str) else encoder
        patch_px = int(own.patch_px) if self.patch_px == usual.patch_px else self.patch_px
        mpp = float(own.mpp) if self.mpp == usual.mpp else self.mpp
        return replace(self, weights=name, patch_px=patch_px, mpp=mpp)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Recipe:
        """Return the recipe that an index holds.

        Parameters
        ----------
        stored : mapping
            The recipe as `to_json` gave it.

        Returns
        -------
        Recipe
            The recipe, not checked.

        Raises
        ------
        IndexFormatError
            If it has fields that this release does not know, or lacks some.
        """
        names = {field.name for field in fields(cls)}
        if isinstance(stored, Mapping) and "densenet_weights" in stored:  # its name while there was no other
            stored = {_RENAMED.get(name, name): value for name, value in stored.items()}
        found = known_fields(stored, "recipe", names - {"keys", *_TASTE}, names)
        return cls(**{"keys": "paper", **found})  # indexes older than this field always used the paper's

    def check(self) -> Recipe:
        """Return this recipe; ParameterError if a value is of another type or out of range."""
        for field in fields(self):
            value, wanted = getattr(self, field.name), type(field.default)
            fits = isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
            if not fits or (isinstance(value, bool) and wanted is not bool):
                raise ParameterTypeError(
                    f"got {field.name}={value!r}; want a value of type {wanted.__name__}"
                )
        if self.patch_px < 64 or (self.patch_px % 64 and not self.weights.startswith(PREFIXES)):
            raise ParameterError(
                f"got patch_px={self.patch_px}; want at least 64, and of tissue or a VQ-VAE a multiple of 64"
            )
        sizeless = self.mpp == 0 and self.weights.startswith(FEATURES)
        if not (sizeless or MIN_PATCH_MPP <= self.mpp <= MAX_PATCH_MPP):
            raise ParameterError(
                f"got a patch mpp of {self.mpp}; want {MIN_PATCH_MPP:g} to {MAX_PATCH_MPP:g} um per pixel"
            )
        if self.n_clusters < 1 or not 0 < self.fraction <= 1:
            raise ParameterError(
                f"got n_clusters={self.n_clusters}, fraction={self.fraction}; "
                "want at least 1 cluster and a share in (0, 1]"
            )
        if self.keys not in get_args(Keys):
            near = nearest_to(self.keys, get_args(Keys))
            raise ParameterError(f"got keys={self.keys!r}{near}; want 'texture' or 'paper'")
        if self.pooling not in ("integer", "exact"):
            near = nearest_to(self.pooling, ("integer", "exact"))
            raise ParameterError(f"got pooling={self.pooling!r}{near}; want 'integer' or 'exact'")
        if not 0 <= self.min_speck_um2 <= _MOST_SPECK_UM2:
            raise ParameterError(
                f"got min_speck_um2={self.min_speck_um2}; want square micrometres, 0 to {_MOST_SPECK_UM2:.0f}"
            )
        if self.seed < 0:
            raise ParameterError(f"got seed={self.seed}; want an integer of at least 0")
        return self

    def resolved(self) -> Recipe:
        """Return this recipe with absolute paths, and with floats where integers were given for them."""
        weights, network = (
            name if name in (*OWN, "") or name.startswith(PREFIXES) else str(absolute(name))
            for name in (current_name(self.weights), self.network_weights)
        )
        mpp, fraction, speck = float(self.mpp), float(self.fraction), float(self.min_speck_um2)
        return replace(  # 1 is 1.0, in the fingerprint too
            self, weights=weights, network_weights=network, mpp=mpp, fraction=fraction, min_speck_um2=speck
        )

    def to_json(self) -> dict[str, Any]:
        """Return its fields as an index stores them; newer fields at their defaults are left out."""
        plain = Recipe()
        stored = asdict(self)
        for name in _TASTE:
            if stored[name] == getattr(plain, name):
                del stored[name]
        return stored


def known_fields(stored: object, what: str, needed: set[str], known: set[str]) -> dict[str, Any]:
    """Return a part of an index's header, if it has the fields that it needs and no unknown ones."""
    if not isinstance(stored, Mapping):
        raise odd_header(f"its {what} is {short(stored)}, wanted a JSON object")
    odd = sorted((needed - set(stored)) | (set(stored) - known))
    if odd:
        more = f" and {len(odd) - 4} more" if len(odd) > 4 else ""
        raise odd_header(f"its {what} differs in its fields ({', '.join(map(short, odd[:4]))}{more})")
    return dict(stored)


def odd_header(wrong: str) -> IndexFormatError:
    """Return the error of a header that this release does not know."""
    return IndexFormatError(f"the index has a header of another release: {wrong}: open it with that release")
