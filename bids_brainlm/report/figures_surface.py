"""Parcel values on the inflated cortex of fsaverage5, for atlases of volumes and of surfaces.

Notes
-----
Labels of surfaces are on the vertices already. For a volume in the space of MNI152 each vertex
takes the parcel that most of five samples between its white and its pial position meet, nearest
voxel, outside of parcels not counted; so values of two parcels are never mixed, neither at
vertices nor on triangles. The meshes ship with nilearn; they live in MNI305 space and are taken
to MNI152 first. On the Schaefer atlas of 400 parcels this covers 98 % of the cortex (91 % with
nilearn's projection, which does not move the mesh) and puts 4 % of the medial wall into a parcel.

The picture is a drawing in two dimensions: triangles that face the viewer, seen from
straight left or right, far ones first. Lines part cortex with values from cortex without,
which light colours would not do in grey print.

References
----------
.. [1] Fischl et al. (1999), High-resolution intersubject averaging and a coordinate system
   for the cortical surface, doi:10.1002/(SICI)1097-0193(1999)8:4<272::AID-HBM10>3.0.CO;2-4
.. [2] Wu et al. (2018), Accurate nonlinear mapping between MNI volumetric and FreeSurfer
   surface coordinate systems, doi:10.1002/hbm.24213
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from bids_brainlm.report import style
from bids_brainlm.report.content import Labels
from bids_brainlm.report.figures_brain import paint

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDES = ("left", "right")
_DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
_TO_MNI152 = np.array(
    [
        [0.9975, -0.0073, 0.0176, -0.0429],
        [0.0146, 1.0009, -0.0024, 1.5496],
        [-0.0130, -0.0093, 0.9971, 1.1840],
    ]
)
_DPI = 200
_CORTEX = (0.86, 0.70)  # grey of gyri and sulci
_N_FACES = 12  # smallest number of visible triangles of a region that gets its number


@dataclass(frozen=True)
class Hemisphere:
    """A mesh: inflated ``places`` (n_vertices, 3), ``faces`` (n_faces, 3), ``samples`` in mm.

    ``samples`` has shape (n_depths, n_vertices, 3) and lies in MNI152 space; ``is_sulcus``
    has shape (n_vertices,).
    """

    places: np.ndarray
    faces: np.ndarray
    samples: np.ndarray
    is_sulcus: np.ndarray


@cache
def hemisphere(side: str) -> Hemisphere:
    """Read the mesh of the ``left`` or ``right`` hemisphere, once a process."""
    from nilearn import datasets, surface

    files = datasets.fetch_surf_fsaverage("fsaverage5")
    inflated = surface.load_surf_mesh(files[f"infl_{side}"])
    white = surface.load_surf_mesh(files[f"white_{side}"]).coordinates
    pial = surface.load_surf_mesh(files[f"pial_{side}"]).coordinates
    between = np.stack([(1 - d) * white + d * pial for d in _DEPTHS])
    return Hemisphere(
        np.asarray(inflated.coordinates, float),
        np.asarray(inflated.faces, int),
        between @ _TO_MNI152[:, :3].T + _TO_MNI152[:, 3],
        np.asarray(surface.load_surf_data(files[f"sulc_{side}"])) > 0,
    )


def project(labels: Labels, index: tuple[int, ...], side: str) -> np.ndarray:
    """Find the parcel of each vertex.

    Parameters
    ----------
    labels, index
        As for `figures_brain.paint`.
    side : {"left", "right"}

    Returns
    -------
    array of int, shape (n_vertices,)
        Place of the parcel in ``index``; -1 where there is none.
    """
    volume = paint(labels, index, np.arange(1.0, len(index) + 1)).astype(int)
    if labels.affine is None:
        return np.split(volume, 2)[SIDES.index(side)] - 1
    back = np.linalg.inv(labels.affine)
    voxels = np.rint(hemisphere(side).samples @ back[:3, :3].T + back[:3, 3]).astype(int)
    inside = ((voxels >= 0) & (voxels < volume.shape)).all(axis=-1)
    voxels = np.clip(voxels, 0, np.array(volume.shape) - 1)
    votes = np.where(inside, volume[tuple(np.moveaxis(voxels, -1, 0))], 0)
    return _most_frequent(votes) - 1


def _most_frequent(votes: np.ndarray) -> np.ndarray:
    """Return the most frequent number above 0 of each column, the first met of equals."""
    best, most = np.zeros(votes.shape[1], int), np.zeros(votes.shape[1], int)
    for row in votes:
        count = np.where(row > 0, (votes == row).sum(axis=0), 0)
        better = count > most
        best[better], most[better] = row[better], count[better]
    return best


def surface(
    labels: Labels,
    index: tuple[int, ...],
    values: np.ndarray,
    *,
    label: str,
    limit: float,
    cmap: str = "RdBu_r",
) -> bytes:
    """Draw parcel values on both hemispheres, lateral and medial.

    Parameters
    ----------
    labels : Labels
        Atlas in the space of MNI152.
    index : tuple of int, length n_parcels
        Parcel numbers.
    values : array, shape (n_parcels,)
        NaN leaves the cortex grey.
    label : str
        Colour bar label with unit.
    limit : float
        End of the symmetric colour scale.
    cmap : str
        Name of the colours.

    Returns
    -------
    bytes
        PNG.
    """
    import matplotlib as mpl

    with style.drawing():
        limit, cmap = style.scale_end(limit), style.colours(cmap)
        scale = mpl.cm.ScalarMappable(mpl.colors.Normalize(-limit, limit), mpl.colormaps[cmap])
        colours = _with_gaps(scale.to_rgba(np.nan_to_num(values)), np.isfinite(values))
        fig, panels = _panels(0.55)
        _draw_all(panels, labels, index, colours, np.where(np.isfinite(values), 0, -1))
        known = np.asarray(values)[np.isfinite(values)]
        bar = _bar(fig, scale, label, known=known, limit=limit)
        bar.locator = mpl.ticker.MaxNLocator(4, symmetric=True)
        bar.update_ticks()
        return style.png(fig, _DPI)


def preferred(
    labels: Labels,
    index: tuple[int, ...],
    values: np.ndarray,
    layers: Sequence[int],
    *,
    label: str = "preferred layer",
    cmap: str = "viridis",
) -> bytes:
    """Draw the preferred layer of each parcel, one colour a layer.

    Parameters
    ----------
    labels, index
        As for `surface`.
    values : array, shape (n_parcels,)
        Layer numbers; NaN leaves the cortex grey.
    layers : sequence of int
        All layers that a parcel may prefer, ascending; they share the colours out.
    label, cmap : str

    Returns
    -------
    bytes
        PNG; the colour bar has a step for each layer.
    """
    import matplotlib as mpl

    numbers = list(layers)
    edges = np.arange(len(numbers) + 1) - 0.5
    with style.drawing():
        cmap = style.colours(cmap)
        steps = mpl.colors.ListedColormap(mpl.colormaps[cmap](np.linspace(0, 1, len(numbers))))
        scale = mpl.cm.ScalarMappable(mpl.colors.BoundaryNorm(edges, len(numbers)), steps)
        known = np.isfinite(values)
        rounded = np.rint(np.where(known, values, numbers[0])).astype(int)
        place = np.clip(np.searchsorted(numbers, rounded), 0, len(numbers) - 1)
        fig, panels = _panels(0.55)
        colours = _with_gaps(scale.to_rgba(place), known)
        _draw_all(panels, labels, index, colours, np.where(known, 0, -1))
        bar = _bar(fig, scale, label)
        step = -(-len(numbers) // 16)
        bar.set_ticks(range(0, len(numbers), step), labels=[str(n) for n in numbers[::step]])
        bar.ax.minorticks_off()
        bar.ax.tick_params(length=0)
        return style.png(fig, _DPI)


def regions(
    labels: Labels,
    index: tuple[int, ...],
    members: np.ndarray,
    names: Sequence[str],
    colours: Sequence[str],
) -> bytes:
    """Draw which region each parcel belongs to, with outlines and numbers.

    Parameters
    ----------
    labels, index
        As for `surface`.
    members : array, shape (n_parcels,)
        Place of each parcel's region in ``names``; -1 or NaN where it belongs to none.
    names, colours : sequence of str, length n_regions

    Returns
    -------
    bytes
        PNG. Numbers on the cortex are those of the legend, since many colours cannot be told
        apart by all readers.
    """
    import matplotlib as mpl

    of_parcel = np.where(np.isfinite(members), members, -1).astype(int)
    n_columns = int(np.clip(84 // (max(map(len, names)) + 7), 2, 8))
    n_rows = -(-len(names) // n_columns)
    with style.drawing():
        known = of_parcel >= 0
        table = np.array([mpl.colors.to_rgba(colour) for colour in colours])
        fig, panels = _panels(0.12 + 0.19 * n_rows)
        colours_of = _with_gaps(table[of_parcel], known)
        _draw_all(panels, labels, index, colours_of, of_parcel, numbered=True)
        shown = [k for k in range(len(names)) if (of_parcel == k).any()]
        handles = [mpl.patches.Patch(color=colours[k], label=f"{k + 1} {names[k]}") for k in shown]
        if handles:
            fig.legend(
                handles=handles, loc="lower center", ncols=n_columns, handlelength=1, fontsize=8
            )
        return style.png(fig, _DPI)


def _with_gaps(colours: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return colours by parcel, shape (n_parcels + 1, 4), transparent where there is none.

    The last row belongs to vertices outside of all parcels.
    """
    colours = np.where(known[:, None], colours, 0.0)
    return np.vstack([colours, np.zeros((1, 4))])


def _panels(below: float) -> tuple[Figure, list[Axes]]:
    """Return a figure with four panels in a row and room (inches) under them."""
    fig = style.canvas(1.72 + below)
    height = fig.get_figheight()
    room = 1.5 + (height - (1.72 + below))
    panels = []
    for place, name in enumerate(("left lateral", "left medial", "right medial", "right lateral")):
        axes = fig.add_axes((place / 4 + 0.004, below / height, 0.242, room / height))
        axes.set_axis_off()
        axes.set_aspect("equal")
        fig.text(place / 4 + 0.125, 1 - 0.16 / height, name, ha="center", fontsize=8.5)
        panels.append(axes)
    return fig, panels


def _draw_all(
    panels: list[Axes],
    labels: Labels,
    index: tuple[int, ...],
    colours: np.ndarray,
    groups: np.ndarray,
    *,
    numbered: bool = False,
) -> None:
    """Draw the four views with lines between groups of parcels; -1 is no group."""
    for axes, (side, outside) in zip(
        panels, (("left", True), ("left", False), ("right", False), ("right", True)), strict=True
    ):
        mesh = hemisphere(side)
        of_face = _face_parcels(project(labels, index, side), mesh.faces)
        flat, order = _view(mesh, from_left=(side == "left") == outside)
        _paint_faces(axes, mesh, flat, order, colours[of_face])
        of_group = np.append(groups, -1)[of_face][order]
        _outline(axes, mesh.faces[order], flat, of_group)
        if numbered:
            _number(axes, flat[mesh.faces[order]].mean(axis=1), of_group)


def _face_parcels(of_vertex: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the parcel of each triangle: that of two of its corners, else of the first."""
    first, second, third = of_vertex[faces].T
    return np.where(second == third, second, first)


def _view(mesh: Hemisphere, *, from_left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return places in the picture, shape (n_vertices, 2), and visible triangles, far first."""
    sign = -1.0 if from_left else 1.0
    flat = np.column_stack([sign * mesh.places[:, 1], mesh.places[:, 2]])
    a, b, c = (flat[mesh.faces[:, k]] for k in range(3))
    turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
    depth = sign * mesh.places[mesh.faces, 0].mean(axis=1)
    seen = np.flatnonzero(turn > 0)
    return flat, seen[np.argsort(depth[seen], kind="stable")]


def _paint_faces(
    axes: Axes, mesh: Hemisphere, flat: np.ndarray, order: np.ndarray, colours: np.ndarray
) -> None:
    """Draw triangles in their colours, transparent ones in the grey of the cortex."""
    from matplotlib.collections import PolyCollection

    faces = mesh.faces[order]
    gyrus, sulcus = _CORTEX
    grey = gyrus + (sulcus - gyrus) * mesh.is_sulcus[faces].mean(axis=1)
    opaque = colours[order, 3:]
    shown = opaque * colours[order, :3] + (1 - opaque) * grey[:, None]
    shown = shown * _light(mesh, faces)[:, None]
    axes.add_collection(
        PolyCollection(flat[faces], facecolors=shown, edgecolors=shown, linewidths=0.3)
    )
    axes.set_xlim(flat[:, 0].min() - 2, flat[:, 0].max() + 2)
    axes.set_ylim(flat[:, 1].min() - 2, flat[:, 1].max() + 2)


def _light(mesh: Hemisphere, faces: np.ndarray) -> np.ndarray:
    """Return a brightness of 0.88 to 1: triangles seen at a slant are darker."""
    a, b, c = (mesh.places[faces[:, k]] for k in range(3))
    normal = np.cross(b - a, c - a)
    return 0.88 + 0.12 * np.abs(normal[:, 0]) / np.linalg.norm(normal, axis=1)


def _outline(axes: Axes, faces: np.ndarray, flat: np.ndarray, group: np.ndarray) -> None:
    """Draw lines between triangles of different groups."""
    from matplotlib.collections import LineCollection

    edges = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    sides = np.repeat(group, 3)
    by_edge = np.lexsort((edges[:, 1], edges[:, 0]))
    edges, sides = edges[by_edge], sides[by_edge]
    border = (edges[1:] == edges[:-1]).all(axis=1) & (sides[1:] != sides[:-1])
    axes.add_collection(
        LineCollection(flat[edges[1:][border]], colors=style.INK, linewidths=0.5, capstyle="round")
    )


def _number(axes: Axes, middles: np.ndarray, group: np.ndarray) -> None:
    """Write the number of each group, counted from 1, near its middle."""
    from matplotlib.patheffects import withStroke

    for number in np.unique(group[group >= 0]):
        own = middles[group == number]
        if len(own) >= _N_FACES:
            place = own[np.argmin(((own - own.mean(axis=0)) ** 2).sum(axis=1))]
            text = axes.text(*place, str(number + 1), ha="center", va="center", fontsize=7)
            text.set_path_effects([withStroke(linewidth=1.8, foreground="white")])


def _bar(
    fig: Figure,
    scale: object,
    label: str,
    *,
    known: np.ndarray | None = None,
    limit: float = np.inf,
) -> object:
    """Draw a level colour bar under the panels, with arrows where values lie beyond it."""
    height = fig.get_figheight()
    axes = fig.add_axes((0.28, 0.38 / height, 0.44, 0.11 / height))
    above = known is not None and bool((known > limit).any())
    below = known is not None and bool((known < -limit).any())
    extend = {(False, False): "neither", (True, False): "max", (False, True): "min"}
    bar = fig.colorbar(
        scale, cax=axes, orientation="horizontal", extend=extend.get((above, below), "both")
    )
    bar.set_label(label, fontsize=8.5, labelpad=2)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return bar
